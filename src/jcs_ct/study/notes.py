"""What was noticed when the pictures of a study were read, as warnings of the study: once each, with the slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.warning import CodedWarning, code_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.study.result import SliceResult


def note_warnings(slices: Sequence[SliceResult]) -> list[CodedWarning]:
    """Return a warning for each note of slices, in the words that the commands on slices use."""
    where: dict[str, list[int]] = {}
    notes: dict[str, str] = {}
    for one in slices:
        for note in one.notes:
            kind = f"{code_of(note)}:{note.partition('(')[0]}"  # shares of pixels differ from slice to slice
            notes.setdefault(kind, note)
            where.setdefault(kind, []).append(one.index)
    return [CodedWarning(code_of(note), f"{_places(where[kind], len(slices))}: {note}") for kind, note in notes.items()]


def _places(indices: Sequence[int], total: int) -> str:
    if len(set(indices)) == total > 1:
        return f"all {total} slices"
    return f"slice {indices[0]}" if len(set(indices)) == 1 else f"{len(set(indices))} slices, the first {indices[0]}"
