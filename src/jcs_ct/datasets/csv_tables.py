"""CSV tables of spreadsheets: divided by commas, by tabs, or by semicolons where a comma is the decimal sign.

The header tells which: the sign under which it has the most of the columns that are looked for. What else is a comma or
a semicolon belongs to its cell. A first line `sep=;` (Excel) says it outright.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.opening import read_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

MAX_BYTES = 256 * 2**20
SIGNS = {",": "a comma", ";": "a semicolon", "\t": "a tab"}
"""What divides columns → what messages call it. The first one counts where nothing tells."""


class Rows:
    """The rows of a table behind its header (in lower case, stripped), but for those without a filled cell."""

    def __init__(self, path: Path, text: str, delimiter: str) -> None:
        self._path, self.delimiter = path, delimiter
        self._reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        self.header = [cell.strip().casefold() for cell in next(self._cells(), [])]

    @property
    def line(self) -> int:
        """The number of the line that the last row ends on, from 1."""
        return self._reader.line_num

    def by_column(self, cells: list[str]) -> dict[str, str]:
        """Return the cells of the last row by column, stripped. Raises InputError where they are not as many."""
        if len(cells) != len(self.header):
            message = f"has {len(cells)} cells, the header has {len(self.header)}"
            hint = f"put a cell with {SIGNS[self.delimiter]} in quotes"
            raise InputError(message, path=f"{self._path}:{self.line}", hint=hint)
        return {column: cell.strip() for column, cell in zip(self.header, cells, strict=True)}

    def __iter__(self) -> Iterator[list[str]]:
        return (cells for cells in self._cells() if any(cell.strip() for cell in cells))

    def _cells(self) -> Iterator[list[str]]:
        try:
            yield from self._reader
        except csv.Error as error:
            raise InputError(f"is not a CSV table: {error}", path=f"{self._path}:{self.line}") from error


def open_table(path: Path, wanted: Collection[str]) -> Rows:
    """Open a table of which the `wanted` columns, in lower case, are looked for; the first one must be there.

    Raises InputError where it cannot be read, is no text, or can be read in two ways.
    """
    text = read_text(path, MAX_BYTES, "save it as CSV, UTF-8")
    first, end, rest = text.partition("\n")
    said = first.strip().strip('"')
    if said.casefold().startswith("sep=") and said[4:] in SIGNS and end:
        return Rows(path, rest, said[4:])
    tables = [Rows(path, text, sign) for sign in SIGNS]
    need = next(iter(wanted))
    counts = [(need in t.header) * len(set(t.header) & set(wanted)) for t in tables]
    best = [table for table, count in zip(tables, counts, strict=True) if count == max(counts)]
    if max(counts) and len(best) > 1 and len(best[0].header) > 1:
        signs = " or ".join(SIGNS[table.delimiter] for table in best)
        raise InputError(
            f"can be read in two ways: {signs} divides its columns", path=f"{path}:1", hint="put cells in quotes"
        )
    if not max(counts):  # to say what it has instead, as most tables would be meant
        return next((table for table in tables if len(table.header) > 1), tables[0])
    return best[0]


def number_of(text: str, delimiter: str) -> float:
    """Return a number of a cell, with a decimal comma where commas do not divide the columns. Raises ValueError."""
    if delimiter != "," and text.count(",") == 1 and "." not in text:
        text = text.replace(",", ".")
    return float(text)
