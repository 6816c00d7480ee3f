"""`summary.csv`: a line for every input that was seen, written as studies end, kept over runs.

Two runs may share one folder of results: every line is appended under a lock, and a line of the same input replaces an
older one when the file is put in order. What is the same input, `last_states` says.
"""

from __future__ import annotations

import csv
import io
import os
from collections import defaultdict
from itertools import count
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from jcs_ct.app.identity import full_path, hashed_uid, place_of, started_in
from jcs_ct.app.resume_index import FinishedCase
from jcs_ct.core.whole_files import write_whole
from jcs_ct.outputs.report.words import call_of
from jcs_ct.outputs.spreadsheet import cell, value_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from pathlib import Path

    from jcs_ct.app.batch import CaseOutcome
    from jcs_ct.core.errors import InputError

COLUMNS = (
    "case", "status", "verdict", "positive", "score", "limit", "rule", "reliable", "slices", "lesion_ml",
    "lesion_share", "severity", "seconds", "problem", "path", "kind", "study", "series", "reasons", "started_in",
)  # fmt: skip
LOCK_SECONDS = 60.0
Row = dict[str, str]


class Summary:
    """The table of the folder of results `out`; `say` takes a line that a user should know."""

    def __init__(self, out: Path, say: Callable[[str], object] = lambda _: None) -> None:
        self.path = out / "summary.csv"
        self._say = say
        self._lock = FileLock(str(out / ".summary.lock"), timeout=LOCK_SECONDS)
        out.mkdir(parents=True, exist_ok=True)

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append lines; what is written survives the end of this process."""
        with self._lock:
            self._set_aside()
            with self.path.open("a+b") as file:
                file.seek(0)
                whole = _whole_lines(file.read())
                file.truncate(whole)
                file.write(table(rows, header=not whole))
                file.flush()
                os.fsync(file.fileno())

    def put_in_order(
        self, read_now: Callable[[], Collection[str]] = tuple, *, before: Iterable[Mapping[str, Any]] = ()
    ) -> list[Row]:
        """Keep the last line of each input, and return all lines.

        `read_now` returns the files, in full, that cases were made of: an older line that one of them could not be read
        goes. `before` are older lines, for inputs of which the table says nothing.
        """
        with self._lock:
            for part in self.path.parent.glob(f".{self.path.name}.*.part"):
                part.unlink(missing_ok=True)  # of a run that was killed: we hold the lock
            self._set_aside()
            rows = last_states([*map(as_read_back, before), *self.read()])
            if not all(row["case"] for row in rows):
                read = read_now()
                rows = [row for row in rows if row["case"] or place_of_row(row) not in read]
            write_whole(self.path, table(rows), overwrite=True)
        return rows

    def read(self) -> list[Row]:
        """Return the lines as they stand; none of a table of other columns."""
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        return rows_of(content) or []

    def _set_aside(self) -> None:
        """Rename a table of other columns, so that nothing is mixed or lost. The lock is held."""
        try:
            with self.path.open("rb") as file:
                first = file.readline()
        except FileNotFoundError:
            return
        header = table(())
        if header.startswith(first):  # whole, or of a run that was killed within it
            return
        aside = next(p for p in (self.path.with_name(f"{name}.csv") for name in old_names()) if not p.exists())
        self.path.rename(aside)
        self._say(
            f"{self.path}: has other columns than this version writes; it is {aside.name} now, and a new one begun"
        )


def old_names() -> Iterator[str]:
    """Yield the names, without ending, that a table of other columns may get: the first that is free."""
    yield "summary.old"
    for number in count(2):
        yield f"summary.old-{number}"


def rows_of(content: bytes) -> list[Row] | None:
    """Return the lines of a table; None where it is one of other columns."""
    text = content[: _whole_lines(content)].decode("utf-8", "surrogateescape")
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        return None
    whole = (row for row in reader if None not in row and None not in row.values())
    return [{name: value_of(text) for name, text in row.items()} for row in whole]


def last_states(rows: Iterable[Row]) -> list[Row]:
    """Return the last line of each input.

    Two lines are of one input where
    - their places are the same, and so are the studies (of two cases, the series too: each may have been asked for);
    - their places are the same, and one of them says of the whole place that nothing in it can be used;
    - they are of one case, whose input was moved, or whose folder holds another result now.
    """
    kept: dict[int, Row] = {}
    near: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, row in enumerate(rows):
        marks = [("place", place_of_row(row)), ("case", row["case"])]
        if marks == [("place", ""), ("case", "")]:
            marks = [("problem", row["problem"])]
        around = {i for mark in marks if mark[1] for i in near[mark]}
        older = sorted(i for i in around if i in kept and same_input(kept[i], row))
        at = next((i for i in older if kept[i]["case"] == row["case"]), number)  # a case keeps its place in the table
        for other in older:
            if other != at:
                del kept[other]
        kept[at] = row
        for mark in marks:
            near[mark].add(at)
    return list(kept.values())


def same_input(old: Mapping[str, str], new: Mapping[str, str]) -> bool:
    """Return whether a line says of the same input what an older one said, see `last_states`."""
    place, cases = place_of_row(new), bool(old["case"] and new["case"])
    study = old["study"], new["study"]
    if not (place or place_of_row(old) or old["case"] or new["case"]):
        return old["problem"] == new["problem"]
    if cases and old["case"] == new["case"]:
        moved = study[0] == study[1] != "" or "failed" not in {old["status"], new["status"]}
        if moved or place == place_of_row(old):
            return True
    if not place or place != place_of_row(old):
        return False
    if cases:
        return bool(new["kind"]) and all(old[name] == new[name] for name in ("kind", "study", "series"))
    whole = any(not row["case"] and not row["study"] for row in (old, new))
    return whole or study[0] == study[1]


def place_of_row(row: Mapping[str, str]) -> str:
    """Return the path of a line in full, "" without one; "a.zip!member" stays as it is behind the archive."""
    path = row.get("path", "")
    if not path or "://" in path:
        return path
    return os.path.abspath(full_path(path, row.get("started_in", "")))  # noqa: PTH100  # links are not followed


def as_read_back(row: Mapping[str, Any]) -> Row:
    """Return a line as it is read from the table."""
    return {name: "" if row.get(name) is None else str(row[name]) for name in COLUMNS}


def _whole_lines(content: bytes) -> int:
    """Return how many bytes of a table are whole lines: a run may have been killed within the last one."""
    end = content.rfind(b"\n") + 1
    while content.count(b'"', 0, end) % 2:  # this line break stands within quotes that were never closed
        end = content.rfind(b"\n", 0, end - 1) + 1
    return end


def table(rows: Iterable[Mapping[str, Any]], *, header: bool = True) -> bytes:
    """Return a whole table of these lines, or the lines alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({name: cell(row.get(name, "")) for name in COLUMNS} for row in rows)
    return text.getvalue().encode(errors="surrogateescape")  # names that are no text stay the bytes they are


def summary_row(ended: CaseOutcome, *, keep_identity: bool = False) -> dict[str, Any]:
    """Return a study's line of the summary; `keep_identity`: the UIDs of one that failed stand there as they are."""
    case = ended.case
    row: dict[str, Any] = {"case": ended.name, "status": ended.status, "kind": case.kind, "slices": len(case)}
    if isinstance(case, FinishedCase):
        row |= {"path": case.path, "started_in": case.started_in}
    else:
        row |= _placed(place_of(case))
        if case.series is not None:
            uids = {"study": case.series.study_uid, "series": case.series.series_uid}
            row |= uids if keep_identity else {name: hashed_uid(uid) for name, uid in uids.items()}
    if ended.report is not None:
        verdict, burden = ended.report["verdict"], ended.report["burden"] or {}
        row |= {name: verdict[name] for name in ("positive", "score", "limit", "rule", "reliable")}
        row["verdict"] = call_of(verdict)
        row |= {"slices": ended.report["input"]["slices"], "seconds": ended.report["seconds"]}
        row |= {"lesion_ml": burden.get("lesion_ml", ""), "lesion_share": burden.get("share", "")}
        source = ended.report.get("source") or {}
        row |= {name: source.get(name, "") for name in ("study", "series")}
        row["reasons"] = "; ".join(verdict["reasons"])
        row["severity"] = (burden.get("severity") or {}).get("name", "")
    if ended.error is not None:
        row["problem"] = ended.error.line()
    return row


def problem_row(problem: InputError, *, keep_identity: bool = False) -> dict[str, Any]:
    """Return the line of the summary for an input, or a study in it, that made no case; `keep_identity` as above."""
    row: dict[str, Any] = {"status": "failed", "problem": problem.line()}
    row |= _placed(str(problem.path)) if problem.path else {"path": "", "started_in": ""}
    if problem.study:
        row |= {"kind": "dicom", "study": problem.study if keep_identity else hashed_uid(problem.study)}
    return row


def _placed(path: str) -> dict[str, str]:
    return {"path": path, "started_in": started_in(path)}
