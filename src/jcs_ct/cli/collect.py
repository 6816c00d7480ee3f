"""`jcs collect`: the results of shares in one folder, and what is missing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from jcs_ct.cli.common import Reporter
from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Sequence


@click.command()
@click.argument("shares", nargs=-1, required=True, metavar="OUT...")
@click.option("-o", "--out", metavar="OUT", required=True, help="Folder of all results; it may be that of one share.")
@click.option("--of", "inputs", metavar="INPUT", multiple=True,
              help="Input that was to be diagnosed; studies without a result are named. Repeatable.")  # fmt: skip
@click.option("--part-by", type=click.Choice(["study", "entry"]), default="study", show_default=True,
              help="Set it as the shares did.")  # fmt: skip
@click.option("--allow-gaps", is_flag=True, help="Set it as the shares did.")
@click.option("--drop-odd", "--drop-duplicates", "drop_odd", is_flag=True, help="Set it as the shares did.")
@click.option("--quiet", is_flag=True, help="Print problems only.")
@click.option("--verbose", is_flag=True, help="Print more details, and tracebacks of errors.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on standard output.")
def collect(
    shares: tuple[str, ...],
    out: str,
    inputs: tuple[str, ...],
    part_by: str,
    allow_gaps: bool,
    drop_odd: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Merge the results of `jcs diagnose --part` into one folder, write summary.csv, and name what is missing.

    OUT is the folder of results of a share; leave out shares that are lost. A study that failed is not missing: it has
    its line in summary.csv. `jcs diagnose INPUT... -o OUT --resume` then computes what is missing and nothing else.
    With shares by entry, also give it `--part 1/1 --part-by entry`.
    """
    from jcs_ct.archive.places import is_url

    reporter = Reporter("collect", quiet=quiet, verbose=verbose, as_json=as_json)
    if any(is_url(text) for text in (*shares, out, *inputs)):
        from jcs_ct.cli.archive import collect_archive

        collect_archive(reporter, shares, out, inputs)
    else:
        _collect_here(reporter, shares, out, inputs, part_by, allow_gaps=allow_gaps, drop_odd=drop_odd)
    click.get_current_context().exit(reporter.finish())


def _collect_here(
    reporter: Reporter,
    shares: Sequence[str],
    out: str,
    inputs: Sequence[str],
    part_by: str,
    *,
    allow_gaps: bool,
    drop_odd: bool,
) -> None:
    from jcs_ct.app import collect as work
    from jcs_ct.app.shares import entries

    if Path(out).exists() and not Path(out).is_dir():
        raise OutputError("is a file, but a folder is to be written there", path=out, hint="give another -o")
    collected = work.collect([Path(share) for share in shares], Path(out), reporter.note)
    for problem in collected.problems:
        reporter.problem(problem)
    finished = [row for row in collected.rows if row["status"] != "failed"]
    reporter.say(f"jcs: {len(finished)} results, {collected.added} of them new here, {out}/summary.csv")
    for row in finished:
        reporter.case(f"{row['case']}: {out}/{row['case']}", case=row["case"], path=row["path"])
    failed = len(collected.rows) - len(finished)
    if failed:
        reporter.note(f"{failed} inputs failed, see summary.csv")
    if part_by == "entry":
        inputs = entries(inputs)
    missing, unusable = (
        work.missing(inputs, Path(out), allow_gaps=allow_gaps, drop_odd=drop_odd) if inputs else ([], [])
    )
    for problem in unusable:
        reporter.problem(problem)
    for case in missing:
        reporter.problem(work.no_result(case))
    reporter.result |= {"missing": [case.label for case in missing], "input_failures": failed}
