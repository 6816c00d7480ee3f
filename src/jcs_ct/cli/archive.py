"""`jcs diagnose` and `jcs collect` where inputs or OUT are URLs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.cli.common import report_warnings, verdict_line
from jcs_ct.core.errors import InputError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.app.shares import Share
    from jcs_ct.archive.places import Place
    from jcs_ct.archive.run import UnitEnded
    from jcs_ct.cli.common import Reporter, Run
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
    """Diagnose the units of inputs, of which some or the results are URLs.

    Args:
        run: What the common options say.
        inputs: URLs and paths.
        out: Where results go.
        share: Of the units; None for all.
        networks: What runs.
        settings: How.
        resume: Keep the units that an earlier run has finished.
        ways: Options of `jcs_ct.app.gather.gather`.

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
    own = [place for place in found.places if _is_own(place, target)]
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
    for problem in found.problems:
        reporter.problem(problem)
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
    finished = [row for row in rows if row["status"] != "failed"]
    reporter.say(f"jcs: {len(finished)} results, {target.url}/summary.csv")
    for row in finished:
        reporter.case(f"{row['case']}: {target.url}/{row['case']}", case=row["case"], path=row["path"])
    if len(rows) > len(finished):
        reporter.note(f"{len(rows) - len(finished)} inputs failed, see summary.csv")
    found = find_places(inputs)
    for problem in found.problems:
        reporter.problem(problem)
    recorded = {record["unit"] for record in records.values()}
    missing = [place for place in found.places if place.url not in recorded and not is_result(place)]
    for place in missing:
        reporter.problem(InputError("has no result", path=place.url, hint="diagnose the inputs with --resume into OUT"))
    reporter.result |= {"missing": [place.url for place in missing], "input_failures": len(rows) - len(finished)}


def _is_own(place: Place, target: Place) -> bool:
    """Return whether a unit is, or lies in, the folder of results."""
    return place.url == target.url or place.url.startswith(f"{target.url}/")


def _say(ended: UnitEnded, number: int, total: int, target: Place, reporter: Reporter) -> None:
    where = f"jcs: {number} of {total}: {ended.unit.place.url}"
    for note in ended.notes:
        reporter.note(note)
    for problem in ended.problems:
        reporter.problem(problem)
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
