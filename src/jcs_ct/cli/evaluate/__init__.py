"""`jcs evaluate`: scores of a model, or of precomputed maps or probabilities."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import PATH, Group, json_option, verbose_option
from jcs_ct.cli.evaluate.classify import classify
from jcs_ct.cli.evaluate.explain import explain
from jcs_ct.cli.evaluate.segment import segment
from jcs_ct.cli.evaluate.study import study

if TYPE_CHECKING:
    from pathlib import Path


@click.group(cls=Group)
def evaluate() -> None:
    """Score a model (--model), or maps or probabilities that exist already (--predictions, --maps); compare scores.

    Each command except compare writes scores.json, scores.md and plots. Predictions belong to the slice with the same
    stem.
    """


for command in (segment, classify, explain, study):
    evaluate.add_command(command)


@evaluate.command()
@click.argument("first", type=PATH)
@click.argument("others", type=PATH, nargs=-1, required=True)
@json_option
@verbose_option
def compare(first: Path, others: tuple[Path, ...], as_json: bool) -> None:
    """Print the scores of several models side by side.

    FIRST and OTHERS are folders that `jcs evaluate` wrote. They are refused when slices, masks, labels, patients or
    settings differ. For differences with intervals, give `evaluate segment` or `evaluate classify` the other model's
    maps or table with --against.
    """
    from jcs_ct.evaluate.side_by_side import side_by_side, to_markdown

    found = side_by_side([first, *others])
    click.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else to_markdown(found))
