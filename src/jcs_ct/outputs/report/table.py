"""slices.csv: a line a slice, for spreadsheets and scripts. Columns keep their names and order; new ones go last."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from jcs_ct.core.whole_files import write_whole
from jcs_ct.outputs.spreadsheet import cell

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

COLUMNS = ("index", "z_mm", "name", "probability", "positive", "lung_mm2", "lesion_mm2", "lesion_share", "flags")
"""As the fields of a slice in report.json. Empty where there is no value; `positive` is 1 or 0; flags are joined by
"; "."""


def slices_csv(report: Mapping[str, Any]) -> str:
    """Return the table of a report's slices: UTF-8 text, comma-separated, a header, lines ending in a line feed."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in report["slices"]:
        values = dict(row) | {"positive": int(row["positive"]), "flags": "; ".join(row["flags"])}
        writer.writerow([cell(values[column]) for column in COLUMNS])
    return text.getvalue()


def write_slices(path: Path, report: Mapping[str, Any], *, overwrite: bool = False) -> None:
    """Write slices.csv. Raises OutputError as `jcs_ct.core.whole_files.whole_file` does."""
    write_whole(path, slices_csv(report).encode(errors="surrogateescape"), overwrite=overwrite)
