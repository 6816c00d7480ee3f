"""`jcs classify`: COVID-19 probability of slices."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import (
    ENSEMBLE,
    Probability,
    Run,
    common_options,
    find_inputs,
    refuse_existing,
    report_slice,
    slice_options,
    worked,
)
from jcs_ct.core.errors import InputError
from jcs_ct.core.whole_files import whole_file

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.io.files.sources import Source


@click.command()
@slice_options("The table, FILE.csv.", ENSEMBLE)
@click.option(
    "--threshold", type=Probability(), help="Probability from which the label is 1 (default: from the weights)."
)
@common_options("classify")
def classify(
    run: Run,
    inputs: tuple[str, ...],
    out: Path,
    model: tuple[str, ...],
    threshold: float | None,
    strict: bool,
) -> None:
    """Write a table with the columns file, probability (of COVID-19), label (1 where it reaches the threshold), flags.

    INPUT is the same as for `jcs segment`. A slice that fails is named and left out of the table. Flags say why a
    picture does not look like an axial chest slice in a lung window; "; " separates them.
    """
    from jcs_ct.app.each_slice import flags_of, read_input
    from jcs_ct.inference import apply

    reporter = run.reporter
    sources = find_inputs(inputs, out, reporter)
    refuse_existing([out], sources, overwrite=run.overwrite, named=[*inputs, *model])

    network = run.mean_network(model, ["probability"], len(sources))
    cut = network.covid_threshold if threshold is None else threshold
    reporter.result |= {"model": network.card.name, "threshold": cut, "table": str(out)}

    def work(source: Source) -> tuple[tuple[str, ...], tuple[str, ...], float]:
        item = read_input(source, network)
        flags = flags_of(item, strict=strict)
        return item.notes, flags, apply.classify(item, network)

    with whole_file(out, overwrite=run.overwrite) as temporary:
        with temporary.open("w", newline="", encoding="utf-8") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["file", "probability", "label", "flags"])
            for source, (notes, flags, probability) in worked(sources, work, reporter):
                label = int(probability >= cut)
                table.writerow([source.label, f"{probability:.6f}", label, "; ".join(flags)])
                facts: dict[str, Any] = {"file": source.label, "probability": probability, "label": label}
                report_slice(reporter, source, f"p = {probability:.4f}", notes, flags, **facts)
        if not reporter.done:  # an empty table would look like a result
            raise InputError("none of the slices could be classified, so there is no table", path=out)
