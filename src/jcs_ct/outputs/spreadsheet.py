"""Tables that people open in a spreadsheet: their cells, and slices.csv, a line a slice."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""What a spreadsheet takes for the beginning of a formula."""
COLUMNS = ("index", "z_mm", "name", "probability", "positive", "lung_mm2", "lesion_mm2", "lesion_share", "flags")
"""Of slices.csv: the fields of a slice in report.json. They keep names and order; new ones go last. Empty where there
is no value; `positive` is 1 or 0; flags are joined by "; "."""


def cell(value: Any) -> Any:
    """Return a cell that no spreadsheet computes: text that looks like a formula gets an apostrophe before it."""
    if value is None:
        return ""
    if isinstance(value, str) and value.startswith(FORMULA) and not _is_number(value):
        return "'" + value
    return value


def value_of(text: str) -> str:
    """Return what `cell` made a text of: without the apostrophe, where one hides a formula."""
    hidden = text[1:]
    return hidden if text[:1] == "'" and hidden.startswith(FORMULA) and not _is_number(hidden) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def slices_csv(report: Mapping[str, Any]) -> str:
    """Return the table of a report's slices: UTF-8 text, comma-separated, a header, lines ending in a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in report["slices"]:
        values = dict(row) | {"positive": int(row["positive"]), "flags": "; ".join(row["flags"])}
        writer.writerow([cell(values[column]) for column in COLUMNS])
    return text.getvalue()


def write_slices(path: Path, report: Mapping[str, Any]) -> None:
    """Write slices.csv. Raises OutputError as `jcs_ct.core.whole_files.whole_file` does."""
    write_whole(path, slices_csv(report).encode(errors="surrogateescape"))
