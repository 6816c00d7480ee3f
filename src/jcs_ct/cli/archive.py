"""`jcs diagnose` and `jcs collect` where inputs or OUT are URLs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.cli.common import Reporter, Run, report_warnings, verdict_line
from jcs_ct.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jcs_ct.app.shares import Share
    from jcs_ct.archive.places import Place
    from jcs_ct.archive.run import UnitEnded
    from jcs_ct.study.settings import Networks, Settings

GUESS = 100  # slices of a study that nobody has seen yet: what runtimes are chosen for


def diagnose_archive(
    run: Run,
    inputs: Sequence[str],
    out: str,
    share: Share | None,
    networks: Networks,
    settings: Settings,
    *,
    resume: bool,
    **ways: Any,
) -> None:
    """Diagnose the units of inputs, of which some or the results are URLs; `ways` as of `jcs_ct.app.gather.gather`.

    Raises:
        InputError: An input is not there; or there is no unit at all.
        OutputError: There are results already; or a store refuses them.
        UsageError: See `jcs_ct.archive.places.open_place`.
    """
    from jcs_ct.app.summary import problem_row
    from jcs_ct.archive.run import Archive, read_records, write_summary
    from jcs_ct.archive.units import find_places, list_units
    from jcs_ct.io.files.walk import results_note

    reporter, target = run.reporter, place_of_results(out)
    found = find_places(inputs)
    own = [place for place in found.places if f"{place.url}/".startswith(f"{target.url}/")]  # or lies in it
    places = [place for place in found.places if place not in own]
    units, results = list_units(places, share)
    if found.others:
        reporter.note(
            f"{found.others} files beside the studies are not read: neither archives, volumes nor slices by name"
        )
    if own or results:
        reporter.note(results_note(target.url, [*(place.url for place in own), *results]))
    keep: Any = {"keep_identity": bool(ways.get("keep_identity"))}
    now = {"": [problem_row(problem, **keep) for problem in found.problems]}
    if len(results) == len(places):
        if share is None and found.problems:
            write_summary(target, read_records(target), now, reporter.note)
        only = "only results of this program, which are never read as input: "
        message = f"{only if own or results else ''}no study to work on"
        hint = "give folders of studies, archives or volumes"
        raise found.problems[0] if found.problems else InputError(message, hint=hint)
    reporter.tell((), found.problems)
    if not units:
        reporter.note(f"none of the {len(places)} inputs is in share {share}")
        return
    archive = Archive(networks, settings, target, ways, overwrite=run.overwrite, resume=resume)
    for number, ended in enumerate(archive.run(units), 1):
        now[ended.unit.name] = list(ended.rows)
        _say(ended, number, len(units), target, reporter)
    if share is None:
        write_summary(target, read_records(target), now, reporter.note)
    else:
        reporter.say(f"jcs: `jcs collect {target.url} -o {target.url}` writes summary.csv when all shares are done")


def place_of_results(out: str) -> Place:
    """Return the place of a folder of results. Raises UsageError."""
    from jcs_ct.archive.places import is_url, open_place

    place = open_place(out if is_url(out) else str(Path(out).absolute()))
    if place.local:
        Path(place.path).mkdir(parents=True, exist_ok=True)
    return place


def collect_archive(reporter: Reporter, shares: Sequence[str], out: str, inputs: Sequence[str]) -> None:
    """Write the summary of a place that all shares have written to, and name the units without a record.

    Raises:
        UsageError: The shares are not in that place; or see `jcs_ct.archive.places.open_place`.
    """
    from jcs_ct.archive.run import read_records, write_summary
    from jcs_ct.archive.units import find_places, is_result

    if {share.rstrip("/") for share in shares} != {out.rstrip("/")}:
        raise UsageError("shares of an archive have one OUT", hint=f"jcs collect {out} -o {out}")
    target = place_of_results(out)
    records = read_records(target)
    rows = write_summary(target, records, {}, reporter.note)
    failed = report_collected(reporter, rows, target.url)
    found = find_places(inputs)
    reporter.tell((), found.problems)
    recorded = {record["unit"] for record in records.values()}
    missing = [place.url for place in found.places if place.url not in recorded and not is_result(place)]
    hint = "diagnose the inputs with --resume into OUT"
    reporter.tell((), (InputError("has no result", path=url, hint=hint) for url in missing))
    reporter.result |= {"missing": missing, "input_failures": failed}


def report_collected(reporter: Reporter, rows: Sequence[Mapping[str, Any]], out: str, new: str = "") -> int:
    """Report the results that a summary names, and return how many inputs failed; `new`: how many came just now."""
    finished = [row for row in rows if row["status"] != "failed"]
    reporter.say(f"jcs: {len(finished)} results, {new}{out}/summary.csv")
    for row in finished:
        reporter.case(f"{row['case']}: {out}/{row['case']}", case=row["case"], path=row["path"])
    failed = len(rows) - len(finished)
    if failed:
        reporter.note(f"{failed} inputs failed, see summary.csv")
    return failed


def _say(ended: UnitEnded, number: int, total: int, target: Place, reporter: Reporter) -> None:
    where = f"jcs: {number} of {total}: {ended.unit.place.url}"
    reporter.tell(ended.notes, ended.problems)
    if ended.kept:
        reporter.say(f"{where}: finished before")
        for row in ended.rows:
            reporter.case(f"{row['case']}: kept", case=row["case"], status="kept", folder=f"{target.url}/{row['case']}")
    for one in ended.ended:
        if one.error is not None:
            reporter.problem(one.error, one.details)
            continue
        assert one.report is not None  # noqa: S101  # it did not fail
        verdict = one.report["verdict"]
        report_warnings(one.name, one.report, reporter)
        reporter.say(f"{where}: {verdict_line(verdict)}")
        reporter.case(
            f"{one.name}: {target.url}/{one.name}",
            case=one.name,
            status="done",
            folder=f"{target.url}/{one.name}",
            source=one.report["source"],
            verdict=verdict,
        )
