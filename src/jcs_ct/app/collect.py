"""The results of several shares in one folder, and what is missing of the whole."""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jcs_ct.app.batch import CaseOutcome, read_report
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import full_path, longer_name, owner_of, place_of
from jcs_ct.app.locks import case_lock, remove_debris
from jcs_ct.app.resume_index import FOLDER as NOTES
from jcs_ct.app.resume_index import FinishedCase, untouched_cases
from jcs_ct.app.summary import (
    Row,
    Summary,
    as_read_back,
    last_states,
    place_of_row,
    problem_row,
    same_input,
    summary_row,
)
from jcs_ct.core.errors import InputError, JcsError, OutputError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.outputs.case_folder import whole_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.study.case import Case


@dataclass(frozen=True)
class Collected:
    """What shares came to.

    Attributes:
        rows: Of the summary that was written: a line for each result, and for each input that failed.
        added: How many results were brought into the folder; the others were there.
        problems: What could not be brought there, one line each.
    """

    rows: tuple[dict[str, Any], ...]
    added: int
    problems: tuple[JcsError, ...]


def collect(shares: Sequence[Path], out: Path, say: Callable[[str], object] = lambda _: None) -> Collected:
    """Bring the results of shares into one folder, and write its `summary.csv`. Shares are left as they are.

    Doing it again changes nothing. A result of the same input that a share has made later replaces the one there. `out`
    may be one of the shares. `say` takes a line that a user should know.

    Raises:
        InputError: One of the folders is not there.
        OutputError: The disk refuses something.
    """
    for share in shares:
        if not share.is_dir():
            raise InputError("is not a folder of results", path=share, hint="leave out the share that was lost")
    out.mkdir(parents=True, exist_ok=True)
    remove_debris(out)
    added = 0
    problems: list[JcsError] = []
    failed: list[dict[str, str]] = []
    for share in shares:
        rows = last_states(Summary(share).read())
        failed += [row for row in rows if row["status"] == "failed"]
        lost = [share / row["case"] for row in rows if row["status"] != "failed" and not _result(share / row["case"])]
        text = "was finished, says summary.csv, and its report is not there"
        problems += [OutputError(text, path=folder, hint="copy it again") for folder in lost]
        for folder in _results(share) if share.resolve() != out.resolve() else ():
            try:
                added += _bring(folder, out)
            except JcsError as problem:
                problems.append(problem)
    summary = Summary(out, say)
    summary.add(*failed, *(result_row(folder) for folder in _results(out)))  # what has a result did not fail
    return Collected(tuple(summary.put_in_order()), added, tuple(problems))


def missing(
    inputs: Sequence[str], out: Path, *, allow_gaps: bool = False, drop_odd: bool = False
) -> tuple[list[Case], list[InputError]]:
    """Return the studies of inputs that have no result in a folder, nor a line in its summary that says why not.

    And the inputs that cannot be used and of which the summary says nothing. Arguments as the shares had them.
    """
    known = list(untouched_cases(out, read_report))
    found = gather(inputs, allow_gaps=allow_gaps, drop_odd=drop_odd, known=known)
    failed: dict[str, list[Row]] = defaultdict(list)
    for row in last_states(Summary(out).read()):
        if row["status"] == "failed":
            failed[place_of_row(row)].append(row)

    def told(row: Mapping[str, Any]) -> bool:
        ours = as_read_back(row)
        return any(same_input(theirs, ours) for theirs in failed[place_of_row(ours)])

    def has_result(case: Case) -> bool:  # of whatever bytes it had then: `--resume` compares those
        return _result(out / longer_name(case)) or owner_of(out / case.name) == full_path(place_of(case))

    without = [case for case in found.cases if not has_result(case)]
    cases = [case for case in without if not told(summary_row(CaseOutcome(case, "failed", None)))]
    return cases, [problem for problem in found.problems if not told(problem_row(problem))]


def no_result(case: Case) -> InputError:
    """Return the line that names a study without a result."""
    return InputError(
        f"has no result ({longer_name(case)})", path=place_of(case), hint="diagnose the inputs with --resume into OUT"
    )


def result_row(folder: Path) -> dict[str, Any]:
    """Return the line of the summary of a finished case. Raises OutputError where the folder holds no report."""
    report = read_report(folder)
    source = report.get("source") or {"path": "", "kind": ""}
    told = source["path"], report, frozenset[Any](), "", source.get("started_in", "")
    known = FinishedCase(folder.name, folder.name, source["kind"], *told)
    return summary_row(CaseOutcome(known, "done", report))


def _result(folder: Path) -> bool:
    return (folder / "report.json").is_file()


def _results(out: Path) -> list[Path]:
    return sorted(path for path in out.iterdir() if not path.name.startswith(".") and _result(path))


def _bring(folder: Path, out: Path) -> bool:
    """Bring the result of a case into a folder; return whether it was not there.

    Raises:
        OutputError: Another input's result has its name; or the disk refuses it.
    """
    target = out / folder.name
    with case_lock(out, folder.name):
        if _result(target):
            if (target / "report.json").samefile(folder / "report.json") or not _newer(folder, target):
                return False
            if owner_of(target) != owner_of(folder):
                raise OutputError(
                    f"is a result of {owner_of(target) or 'an unknown input'} already, {folder} is one of "
                    f"{owner_of(folder) or 'an unknown input'}",
                    path=target,
                    hint="diagnose with --part, which gives each input a name of its own",
                )
        with whole_folder(target) as staging:
            shutil.copytree(folder, staging, copy_function=_link, dirs_exist_ok=True)
        note = folder.parent / NOTES / f"{folder.name}.json"
        if note.is_file():
            write_whole(out / NOTES / note.name, note.read_bytes(), overwrite=True)
    return True


def _newer(folder: Path, target: Path) -> bool:
    ours, theirs = (path / "report.json" for path in (target, folder))
    return ours.read_bytes() != theirs.read_bytes() and (
        owner_of(target) != owner_of(folder) or theirs.stat().st_mtime_ns > ours.stat().st_mtime_ns
    )


def _link(source: str, target: str) -> None:
    """Have a file of a result at another place too, without a copy where both lie on one disk."""
    try:
        os.link(source, target)  # results are replaced, never changed
    except OSError:
        shutil.copy2(source, target)
