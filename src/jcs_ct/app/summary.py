"""`summary.csv`: a line for every input that was seen, written as studies end, kept over runs.

Two runs may share one folder of results: every line is appended under a lock, and a line of the same input replaces an
older one when the file is put in order.
"""

from __future__ import annotations

import csv
import io
import os
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from jcs_ct.core.whole_files import write_whole
from jcs_ct.outputs.spreadsheet import cell

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLUMNS = (
    "case", "status", "verdict", "positive", "score", "limit", "rule", "reliable", "slices", "lesion_ml",
    "lesion_share", "severity", "seconds", "problem", "path", "kind", "study", "series", "reasons",
)  # fmt: skip
LOCK_SECONDS = 60.0


class Summary:
    """The table of a folder of results.

    Args:
        out: The folder.
    """

    def __init__(self, out: Path) -> None:
        self.path = out / "summary.csv"
        self._lock = FileLock(str(out / ".summary.lock"), timeout=LOCK_SECONDS)
        out.mkdir(parents=True, exist_ok=True)

    def add(self, *rows: Mapping[str, Any]) -> None:
        """Append lines; what is written survives the end of this process."""
        with self._lock, self.path.open("a+b") as file:
            size = file.seek(0, os.SEEK_END)
            if size and (file.seek(size - 1), file.read())[1] != b"\n":
                file.write(b"\n")  # of a run that was killed within a line
            file.write(_lines(rows, header=not size))
            file.flush()
            os.fsync(file.fileno())

    def put_in_order(self) -> list[dict[str, str]]:
        """Keep the last line of each input, and return all lines."""
        with self._lock:
            for part in self.path.parent.glob(
                f".{self.path.name}.*.part"
            ):  # of a run that was killed: we hold the lock
                part.unlink(missing_ok=True)
            rows = last_states(self.read())
            write_whole(self.path, _lines(rows, header=True), overwrite=True)
        return rows

    def read(self) -> list[dict[str, str]]:
        """Return the lines as they stand; a table of other columns is moved aside."""
        if not self.path.exists():
            return []
        with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) == COLUMNS:
                return [row for row in reader if None not in row and None not in row.values()]
        self.path.replace(self.path.with_name("summary.old.csv"))
        return []


def table(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a whole table of these lines."""
    return _lines(rows, header=True)


def last_states(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """Return the last line of each case, and of each input that made none.

    An input that could not be read and is a case now, or the other way round, has its newest line only.
    """
    kept: dict[tuple[str, str], dict[str, str]] = {}
    at: dict[str, set[tuple[str, str]]] = {}  # what was said of each place
    for row in rows:
        place, key = _place(row), _key(row)
        for other in [old for old in at.get(place, ()) if old != key and not (old[0] and row["case"])]:
            at[place].discard(other)
            if _place(kept.get(other, {})) == place:  # the case may have moved since
                del kept[other]
        kept[key] = row
        if place:
            at.setdefault(place, set()).add(key)
    return list(kept.values())


def _place(row: Mapping[str, str]) -> str:
    """Return the path of a line in full, "" without one; "a.zip!member" stays as it is behind the archive."""
    return os.path.abspath(row["path"]) if row.get("path") else ""  # noqa: PTH100  # links are not followed


def _key(row: Mapping[str, str]) -> tuple[str, str]:
    """Return what a line is of: a case, or an input that made none."""
    return (row["case"], "") if row["case"] else ("", _place(row))


def _lines(rows: Sequence[Mapping[str, Any]], *, header: bool) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({name: cell(row.get(name, "")) for name in COLUMNS} for row in rows)
    return text.getvalue().encode(errors="surrogateescape")  # names that are no text stay the bytes they are
