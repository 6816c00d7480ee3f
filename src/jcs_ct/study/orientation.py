"""How the slices of a study lie, taken together: turned and mirrored volumes have headers that say they are not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.warning import CodedWarning
from jcs_ct.imaging.orientation import answer, together
from jcs_ct.imaging.slice_check import MISORIENTED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST = 9
"""Slices of a volume that are asked: more do not make it surer."""


class OrientationCheck:
    """Asks how slices lie.

    Args:
        total: Number of slices of the study.
        volume: Whether only some from its middle half are asked; of pictures all are, for few may lie wrong.
    """

    def __init__(self, total: int, *, volume: bool) -> None:
        step = max(1, total // 2 // MOST)
        self._asked = set(range(total // 4, total - total // 4, step)) if volume else set(range(total))
        self._answers: dict[int, NDArray[np.float32]] = {}

    def asks(self, index: int) -> bool:
        """Return whether slice `index` is to be added, and was not."""
        return index in self._asked and index not in self._answers

    def add(self, index: int, grey: NDArray[np.uint8]) -> None:
        """Look at slice `index`: lung-windowed, uint8 rows × columns."""
        self._answers[index] = answer(grey)

    def warnings(self) -> list[CodedWarning]:
        """Return what is wrong with the study, of volumes and of pictures in the same words."""
        how = together(list(self._answers.values()))
        if how not in MISORIENTED:
            return []
        text = f"the slices lie wrong: {MISORIENTED[how].replace('the picture looks', 'most of them look')}"
        return [CodedWarning("inverted" if how == "inverted" else "turned", text)]
