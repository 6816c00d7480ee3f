"""How the slices of a study lie, taken together: turned and mirrored volumes have headers that say they are not."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from jcs_ct.core.warning import CodedWarning
from jcs_ct.imaging.orientation import ORIENTATIONS, mean_orientation, orientation_probabilities
from jcs_ct.imaging.slice_check import MISORIENTED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SEVERAL = 0.25
"""Share of the slices that lie in one wrong way; of upright slices of unknown scanners up to 0.07 seem to."""
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

    def add(self, index: int, grey: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Look at slice `index` (lung-windowed, uint8 rows × columns); return the probabilities of `ORIENTATIONS`."""
        self._answers[index] = answer = orientation_probabilities(grey)
        return answer

    def warnings(self) -> list[CodedWarning]:
        """Return what is wrong with the study, of volumes and of pictures in the same words."""
        how, some = mean_orientation(list(self._answers.values())), "most of them look"
        if how not in MISORIENTED:
            how, number = self._several()
            some = f"{number} of {len(self._answers)} look"
        if how not in MISORIENTED:
            return []
        text = f"the slices lie wrong: {MISORIENTED[how].replace('the picture looks', some)}"
        return [CodedWarning("inverted" if how == "inverted" else "turned", text)]

    def _several(self) -> tuple[str, int]:
        """Return how several slices lie, and how many; pictures may have been gathered from several places."""
        best = [ORIENTATIONS[int(one.argmax())] for one in self._answers.values()]
        wrong = Counter(one for one in best if one in MISORIENTED)
        how, number = max(wrong.items(), key=lambda item: item[1], default=("", 0))
        return (how, number) if number >= max(2, SEVERAL * len(best)) else ("", 0)
