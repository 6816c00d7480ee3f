"""`jcs inspect`: which studies and series are there, which of them would be read, and why not the others."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import (
    Reporter,
    aligned,
    allow_gaps_option,
    drop_odd_option,
    inputs_argument,
    json_option,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.io.studies import SeriesRow

_HEAD = ("study", "case", "kind", "modality", "series", "orientation", "slices", "spacing (mm)", "size", "read")


@click.command()
@inputs_argument
@click.option("--series", metavar="UID|NUMBER|TEXT", help="Take this series: its UID, number, description or case.")
@allow_gaps_option
@drop_odd_option
@click.option("--quiet", is_flag=True, help="Print the table and problems only.")
@click.option("--verbose", is_flag=True, help="Print tracebacks of errors.")
@json_option
def inspect(
    inputs: tuple[str, ...],
    series: str | None,
    allow_gaps: bool,
    drop_odd: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """List the CT studies and series in INPUT, and which series of each study would be read.

    INPUT is a file (DICOM, NIfTI, MetaImage, NRRD), a folder with its sub-folders, a list of paths (.txt), a .zip or a
    .tar.gz. One series of each study is read. It must be axial CT on one grid. Among several, one that shows lung wins,
    then original over derived, more slices, thinner slices, and the lower number. Nothing that names the patient is
    printed.
    """
    from jcs_ct.io.studies import find_series

    reporter = Reporter("inspect", quiet=quiet, verbose=verbose, as_json=as_json)
    found = find_series(inputs, series=series, allow_gaps=allow_gaps, drop_odd=drop_odd)
    reporter.tell(found.notes, found.problems)
    facts = iter([dict(one.facts) for one in found.series])
    for row in found.rows:
        record = asdict(row) | ({"facts": next(facts)} if row.chosen else {})
        if row.chosen:
            reporter.case(f"{row.name}: {row.slices} slices", **record)
        else:
            reporter.result.setdefault("others", []).append(record)
    if found.pictures:
        reporter.result["pictures"] = len(found.pictures)
        reporter.note(f"{len(found.pictures)} pictures or feature files too: slices, not volumes")
    if not as_json and found.rows:
        click.echo("\n".join(_table(found.rows)))
    click.get_current_context().exit(reporter.finish())


def _table(rows: Sequence[SeriesRow]) -> list[str]:
    """Return the lines of a table; what is to be said of a series stands below its line."""
    head, *table = aligned([_HEAD, *map(_cells, rows)])
    lines = [head]
    for line, row in zip(table, rows, strict=True):
        reason = [f"not read: {row.reason}"] if row.reason else []
        remarks = [f"file: {row.label}", *reason, *(f"note: {warning}" for warning in row.warnings)]
        lines += [line, *(f"    {remark}" for remark in remarks)]
    return lines


def _cells(row: SeriesRow) -> tuple[str, ...]:
    spacing = "?" if row.spacing is None else " × ".join(f"{mm:.4g}" for mm in row.spacing)
    size = "?" if row.size is None else f"{row.size[0]} × {row.size[1]}"
    number = "–" if row.number is None else str(row.number)
    state = "yes" if row.chosen else "no"
    return (
        *(str(row.study), row.name, row.kind, row.modality or "–", number, row.orientation, str(row.slices)),
        *(spacing, size, state),
    )
