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

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLUMNS = (
    "case", "status", "positive", "score", "limit", "rule", "reliable", "slices", "lesion_ml", "lesion_share",
    "severity", "seconds", "problem", "path", "kind", "study", "series", "reasons",
)  # fmt: skip
FORMULA = ("=", "+", "-", "@", "\t", "\r")
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

    def add(self, row: Mapping[str, Any]) -> None:
        """Append a line; what is written survives the end of this process."""
        with self._lock:
            new = not self.path.exists() or not self.path.stat().st_size
            with self.path.open("ab") as file:
                file.write(_lines([row], header=new))
                file.flush()
                os.fsync(file.fileno())

    def put_in_order(self) -> list[dict[str, str]]:
        """Keep the last line of each input, and return all lines."""
        with self._lock:
            rows = list({_key(row): row for row in self.read()}.values())
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


def _key(row: Mapping[str, str]) -> tuple[str, str]:
    """Return what a line is of: a case, or an input that made none."""
    return (row["case"], "") if row["case"] else ("", row["path"])


def _lines(rows: Sequence[Mapping[str, Any]], *, header: bool) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows({name: cell(row.get(name, "")) for name in COLUMNS} for row in rows)
    return text.getvalue().encode(errors="surrogateescape")  # names that are no text stay the bytes they are


def cell(value: Any) -> Any:
    """Return a cell that no spreadsheet computes: text that looks like a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return "'" + value
    return value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
