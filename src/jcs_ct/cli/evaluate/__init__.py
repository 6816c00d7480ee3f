"""`jcs evaluate`: scores of a model, or of precomputed maps or probabilities."""

from __future__ import annotations

import click

from jcs_ct.cli.evaluate.classify import classify
from jcs_ct.cli.evaluate.compare import compare
from jcs_ct.cli.evaluate.explain import explain
from jcs_ct.cli.evaluate.segment import segment
from jcs_ct.cli.evaluate.study import study
from jcs_ct.cli.groups import Group


@click.group(cls=Group)
def evaluate() -> None:
    """Score a model (--model), or maps or probabilities that exist already (--predictions, --maps); compare scores.

    Each command except compare writes scores.json, scores.md and plots. Predictions belong to the slice with the same
    stem.
    """


for command in (segment, classify, explain, study, compare):
    evaluate.add_command(command)
