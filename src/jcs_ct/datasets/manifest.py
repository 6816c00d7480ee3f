"""A CSV manifest: a header, then a slice per row.

    file,label,group,source,split
    a_001.png,1,patient-a,hospital-1,train

`file` is looked for beside the CSV, then in `images/` and `features/` there; `mask` beside it, then in `masks/`.
Besides `file` every column may be absent: `label`, `group`, `source`, `split`, `fold` (from 1), `mask`, `slice` (of a
volume: `file` is a NIfTI file or the folder of a DICOM series, 0 the slice nearest the head) and `empty` (1: known to
show no lesion). Others are ignored, with a note. Commas, semicolons or tabs divide the columns (see `csv_tables`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.csv_tables import open_table
from jcs_ct.datasets.samples import Reading, Sample, is_features

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLUMNS = ("file", "label", "group", "source", "split", "fold", "mask", "slice", "empty")

LABELS: dict[str, int] = dict.fromkeys(("1", "covid", "covid-19", "covid19", "positive"), 1) | dict.fromkeys(
    ("0", "non-covid", "noncovid", "non-covid-19", "normal", "healthy", "negative"), 0
)
"""What a label may be called, in any case. Other names need a mapping of their own."""


def read_manifest(path: Path, labels: Mapping[str, int] | None = None) -> Reading:
    """Read a manifest; `labels` are further names of labels, to 0 or 1, whose case does not count.

    A bad row becomes a problem. Raises InputError where it cannot be read, or has no column `file`, or one twice.
    """
    rows = open_table(path, COLUMNS)
    header = rows.header
    if "file" not in header:
        raise InputError(
            f"has the columns {', '.join(header) or 'none'}; 'file' is expected among them",
            path=f"{path}:1",
            hint="the first line names the columns: file,label[,group,source,split]",
        )
    twice = sorted({column for column in header if column in COLUMNS and header.count(column) > 1})
    if twice:
        raise InputError(f"has the column {twice[0]!r} twice", path=f"{path}:1", hint="keep one")
    table = _Table(path, {**LABELS, **{name.casefold(): value for name, value in (labels or {}).items()}})
    for cells in rows:
        try:
            table.add(rows.by_column(cells), rows.line)
        except InputError as problem:
            table.problems.append(InputError(problem.message, path=f"{path}:{rows.line}", hint=problem.hint))
    return Reading(tuple(table.samples), tuple(table.notes(header)), tuple(table.problems))


def read_rows(path: Path, columns: Sequence[str]) -> list[tuple[str, dict[str, str]]]:
    """Return the filled rows of another table with a header: where each stands, and its cells by column.

    The first of the `columns` that are looked for must be there and filled. Raises InputError where the table cannot be
    read, lacks that column, or a row has other cells than the header.
    """
    rows, needed = open_table(path, columns), columns[0]
    header = rows.header
    if header.count(needed) != 1:
        raise InputError(
            f"has the columns {', '.join(header)}; {needed!r} is expected once among them", path=f"{path}:1"
        )
    found = []
    for cells in rows:
        place = f"{path}:{rows.line}"
        row = {column: cell.strip() for column, cell in zip(header, cells, strict=False)}
        if len(cells) != len(header) or not row[needed]:
            raise InputError(
                f"has {len(cells)} cells of {len(header)}, and {row.get(needed, '')!r} as {needed}",
                path=place,
                hint="fill the row, or remove it",
            )
        found.append((place, row))
    return found


@dataclass
class _Table:
    path: Path
    labels: Mapping[str, int]
    samples: list[Sample] = field(default_factory=list)
    problems: list[InputError] = field(default_factory=list)
    named: dict[str, int] = field(default_factory=dict)

    def add(self, row: dict[str, str], line: int) -> None:
        if not row["file"]:
            raise InputError("names no file", hint="fill the column 'file', or remove the row")
        folder = self.path.parent
        path = _find(row["file"], folder, ("images", "features"))
        held = is_features(path)
        self.samples.append(
            Sample(
                image=None if held else path,
                mask=_find(row["mask"], folder, ("masks",)) if row.get("mask") else None,
                features=path if held else None,
                label=self._label(row["label"]) if row.get("label") else None,
                group=row.get("group") or None,
                source=row.get("source") or None,
                split=row.get("split", "").casefold() or None,
                fold=_number(row, "fold", 1, "none") if row.get("fold") else None,
                index=_number(row, "slice", 0, "a picture") if row.get("slice") else None,
                empty=row.get("empty", "") == "1",
                origin=f"{self.path.name}:{line}",
            )
        )

    def notes(self, header: list[str]) -> list[str]:
        """Return what a user should know of the whole table."""
        notes = []
        unknown = [column or "(without a name)" for column in header if column not in COLUMNS]
        if unknown:
            notes.append(f"{self.path.name}: columns not used: {', '.join(unknown)}")
        if self.named:
            mapping = ", ".join(f"{name} → {value}" for name, value in sorted(self.named.items()))
            notes.append(f"{self.path.name}: labels taken as {mapping} (1 = COVID-19)")
        for column in ("label", "group", "source", "split", "fold"):
            empty = sum(getattr(sample, column) is None for sample in self.samples)
            if column in header and empty:
                notes.append(f"{self.path.name}: {empty:,} of {len(self.samples):,} rows have no {column}")
        return notes

    def _label(self, text: str) -> int:
        value = self.labels.get(text.casefold())
        if value is None:
            raise InputError(
                f"has the label {text!r}; 1 (COVID-19) or 0 is expected, or one of {', '.join(sorted(self.labels))}",
                hint=f"give its meaning with --label {text}=0 or --label {text}=1",
            )
        if text not in {"0", "1"}:
            self.named[text] = value
        return value


def _find(name: str, folder: Path, below: tuple[str, ...]) -> Path:
    """Return where a file lies; beside the table where it is nowhere, so that the check can say it is missing."""
    wanted = name.replace("\\", "/")
    places = [folder / wanted, *(folder / sub / wanted for sub in below)]
    return next((place for place in places if place.exists()), places[0])


def _number(row: Mapping[str, str], what: str, least: int, empty: str) -> int:
    text = row[what]
    if not text.isascii() or not text.isdigit() or int(text) < least:
        message = f"has the {what} {text!r}; a number from {least} is expected"
        raise InputError(message, hint=f"leave it empty for {empty}")
    return int(text)
