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
@click.option("-o", "--out", metavar="OUT", required=True, help="Folder of all results; may be one of the shares'.")
@click.option("--of", "inputs", metavar="INPUT", multiple=True,
              help="What was to be diagnosed, as often as needed: studies without a result are named.")  # fmt: skip
@click.option("--part-by", type=click.Choice(["study", "entry"]), default="study", show_default=True,
              help="As the shares had it.")  # fmt: skip
@click.option("--allow-gaps", is_flag=True, help="As the shares had it.")
@click.option("--drop-odd", "--drop-duplicates", "drop_odd", is_flag=True, help="As the shares had it.")
@click.option("--quiet", is_flag=True, help="Problems only.")
@click.option("--verbose", is_flag=True, help="More lines, and tracebacks.")
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
    """Bring the results of `jcs diagnose --part` into one folder, write its summary.csv, and name what is missing.

    OUT is the folder of results of a share; shares that are lost are left out. Studies that failed have their line in
    summary.csv and are not missing. `jcs diagnose INPUT... -o OUT --resume` makes what is missing, and nothing else;
    of shares by entry with `--part 1/1 --part-by entry`.
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
        raise OutputError("is a file, a folder was to be written there", path=out, hint="give another -o")
    collected = work.collect([Path(share) for share in shares], Path(out))
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
