"""`jcs collect`: the results of shares in one folder, and what is missing."""

from __future__ import annotations

from pathlib import Path

import click

from jcs_ct.cli.archive import collect_archive, report_collected
from jcs_ct.cli.common import Reporter, details_option, json_option, quiet_option
from jcs_ct.core.errors import OutputError


@click.command()
@click.argument("shares", nargs=-1, required=True, metavar="OUT...")
@click.option("-o", "--out", metavar="OUT", required=True, help="Folder of all results; it may be that of one share.")
@click.option("--of", "inputs", metavar="INPUT", multiple=True,
              help="Input that was to be diagnosed; studies without a result are named. Repeatable.")  # fmt: skip
@click.option("--part-by", type=click.Choice(["study", "entry"]), default="study", show_default=True,
              help="Set it as the shares did.")  # fmt: skip
@click.option("--allow-gaps", is_flag=True, help="Set it as the shares did.")
@click.option("--drop-odd", "--drop-duplicates", "drop_odd", is_flag=True, help="Set it as the shares did.")
@quiet_option
@details_option
@json_option
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
    from jcs_ct.app import collect as work
    from jcs_ct.app.shares import entries
    from jcs_ct.archive.places import is_url

    reporter = Reporter("collect", quiet=quiet, verbose=verbose, as_json=as_json)
    if any(is_url(text) for text in (*shares, out, *inputs)):
        collect_archive(reporter, shares, out, inputs)
        click.get_current_context().exit(reporter.finish())
    if Path(out).exists() and not Path(out).is_dir():
        raise OutputError("is a file, but a folder is to be written there", path=out, hint="give another -o")
    collected = work.collect([Path(share) for share in shares], Path(out), reporter.note)
    reporter.tell((), collected.problems)
    failed = report_collected(reporter, collected.rows, out, f"{collected.added} of them new here, ")
    of = entries(inputs) if part_by == "entry" else inputs
    missing, unusable = work.missing(of, Path(out), allow_gaps=allow_gaps, drop_odd=drop_odd) if of else ([], [])
    reporter.tell((), [*unusable, *map(work.no_result, missing)])
    reporter.result |= {"missing": [case.label for case in missing], "input_failures": failed}
    click.get_current_context().exit(reporter.finish())
