"""Which end of a volume is the head's, by what only the upper end of lungs has: the trachea, and narrow tips.

Measured on 16 real chests, 7 of them whole, as they are, exchanged, and cut to parts of them: the trachea above the
lungs is 55 to 102 mm long in whole chests. What looks like it below them (gas in stomach or colon, or the trachea
itself where hardly more was scanned) reaches 42 mm. The lower end of the lungs of whole chests lies 1.18 times and more
as far from the middle as the upper one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.lungs.air import find_trachea

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.anatomy.lungs.morphology import Mask, Spacing, Volume

TRACHEA_MM = 48.0
NARROWER = 0.95
END = 0.1  # of the lungs' volume


def head_is_last(hu: Volume, lungs: Mask, spacing: Spacing, chain: Sequence[tuple[int, Mask]]) -> bool:
    """Return whether the trachea lies at the last slices, and the lungs are narrower there; False where it is open.

    Args:
        hu: The volume, first slice first.
        lungs: Aerated lung, the same shape.
        spacing: mm between slices, rows, columns.
        chain: What `find_trachea` found at the first slices. Where that is long, nothing else is looked for.
    """
    if len(chain) * spacing[0] >= TRACHEA_MM:
        return False
    below = find_trachea(hu[::-1], lungs[::-1], spacing)
    return len(below) * spacing[0] >= TRACHEA_MM and _widening(lungs) < NARROWER


def _widening(lungs: Mask) -> float:
    """Return how far from the middle the last tenth of the lungs lies, against the first."""
    columns = lungs.sum(axis=1, dtype=np.int64)
    share = np.cumsum(columns.sum(axis=1)) / max(1, columns.sum())
    used = np.flatnonzero(columns.any(axis=0))
    off = np.abs(np.arange(lungs.shape[2]) - (used[0] + used[-1]) / 2)
    first, last = columns[: np.searchsorted(share, END) + 1], columns[np.searchsorted(share, 1 - END) :]
    return float(np.average(off, weights=last.sum(axis=0)) / np.average(off, weights=first.sum(axis=0)))
