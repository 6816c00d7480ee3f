"""`jcs evaluate classify`: probabilities against labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import ENSEMBLE, PATH, Probability, Run, common_options, model_option, strict_option
from jcs_ct.cli.evaluate.common import (
    exactly_one_of,
    open_reader,
    out_option,
    refuse_itself,
    refuse_scores,
    report_unmatched,
    score_each,
    selection_options,
    threshold_of,
    write_scores,
)

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.evaluate.inputs import Case


@click.command()
@click.option("--labels", type=PATH, required=True, help="A manifest, file,label[,group,source,split], or its folder.")
@click.option("--predictions", type=PATH, help="Table file,probability, as `jcs classify` writes.")
@click.option("--against", type=PATH, help="Another model's table, to compare with on the same slices.")
@model_option(ENSEMBLE)
@out_option
@click.option("--threshold", type=Probability(), help="Probability from which a slice is COVID-19 (default: 0.5).")
@selection_options
@strict_option
@common_options("evaluate classify")
def classify(
    run: Run,
    labels: Path,
    predictions: Path | None,
    against: Path | None,
    model: tuple[str, ...],
    out: Path,
    threshold: float | None,
    resamples: int,
    seed: int,
    strict: bool,
    **chosen: Any,
) -> None:
    """Score probabilities against labels, per slice and patient, overall and per source: AUC, ECE and others.

    This also writes roc.png, precision_recall.png and calibration.png.
    """
    from jcs_ct.evaluate import inputs
    from jcs_ct.evaluate.classify import Options, figures, report, slices_of, to_markdown
    from jcs_ct.evaluate.record import record_of

    names = ["scores.json", "scores.md", "roc.png", "precision_recall.png", "calibration.png"]
    refuse_scores(run, out, names)
    exactly_one_of(predictions=predictions, model=model or None)
    refuse_itself(predictions, against)
    cases = inputs.from_dataset(labels, "classify", **chosen)
    reader = open_reader(run, cases, model, "probability", strict=strict)
    network = None if reader is None else reader.network
    cut = threshold_of(threshold, network, covid=True)
    tables = [table for table in (predictions, against) if table is not None]
    found = [report_unmatched(run.reporter, inputs.match_table(cases, table)) for table in tables]
    computed: dict[str, float] = {}

    def work(case: Case) -> None:
        if reader is not None:
            from jcs_ct.inference import apply

            computed[case.key] = apply.classify(reader.read(case), reader.network)

    usable = [case for case in cases.cases if all(case.key in values for values in found)]
    done = score_each(usable, work, run.reporter)
    if not done:
        return
    columns = [computed, *found] if network is not None else found
    sets = [slices_of(done, values) for values in columns]
    options = Options(cut, resamples, seed)
    title = network.card.name if network is not None else str(predictions)
    content = report(sets[0], options, title, (str(against), sets[1]) if against is not None else None)
    if reader is not None:
        content |= reader.report(done)
    titles = [title] if against is None else [title, str(against)]
    drawn = figures(dict(zip(titles, sets, strict=True)), cut)
    made_by = network.card.weights_sha256 if network is not None else {c.name: found[0][c.key] for c in done}
    record = record_of("classify", title, made_by, {"threshold": cut, "resamples": resamples, "seed": seed}, done)
    write_scores(run, out, content, {"scores.md": to_markdown(content), **drawn}, record)
