"""What was noticed when the pictures of a study were read, as warnings of the study: once each, with the slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.warning import CodedWarning, code_of

if TYPE_CHECKING:
    from collections.abc import Iterable


class Noticed:
    """Collects the notes of slices.

    Args:
        total: Number of slices of the study.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._slices: dict[str, set[int]] = {}
        self._notes: dict[str, str] = {}

    def add(self, index: int, notes: Iterable[str]) -> None:
        """Take the notes of slice `index`, from 0; the same ones as often as it is read."""
        for note in notes:
            kind = f"{code_of(note)}:{note.partition('(')[0]}"  # shares of pixels differ from slice to slice
            self._notes.setdefault(kind, note)
            self._slices.setdefault(kind, set()).add(index)

    def warnings(self) -> list[CodedWarning]:
        """Return a warning for each note, in the words that the commands on slices use."""
        found = []
        for kind, slices in self._slices.items():
            first = min(slices) + 1
            where = f"slice {first}" if len(slices) == 1 else f"{len(slices)} slices, the first {first}"
            where = f"all {self._total} slices" if len(slices) == self._total > 1 else where
            found.append(CodedWarning(code_of(self._notes[kind]), f"{where}: {self._notes[kind]}"))
        return found
