"""Values that ran over the end of their range and came out at its other end: bone that turned into air.

Where stored values have too few bits, 1,024 HU becomes −1,024 HU, 1,100 HU becomes −948 HU. No tissue makes a voxel of
air between two of bone. In 20 real volumes, some with metal and some reformatted, up to 0.05 % of the dense voxels had
such a neighbour; with values above 1,023 HU wrapped round, 3 % and more in whole chests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DENSE, THIN = 500, -500  # HU, of bone and of what it turned into
DENSER = 800  # HU: voxels of bone or metal that the others are counted against
LEAST_SHARE, FEWEST = 0.0015, 20  # of the voxels above `DENSER`, and how many


class Holes(NamedTuple):
    """What was counted in a slice or a volume.

    Attributes:
        holes: Voxels of air between two of bone, in a row or a column.
        dense: Voxels above `DENSER`.
    """

    holes: int = 0
    dense: int = 0

    @property
    def wrapped(self) -> bool:
        """Whether so many holes are more than chance and metal make."""
        return self.holes >= max(FEWEST, LEAST_SHARE * self.dense)


def holes_in_bone(hu: NDArray[np.int16]) -> Holes:
    """Count voxels of air between two of bone in a slice at its full size (int16 HU, rows × columns)."""
    values, columns = hu.ravel(), hu.shape[1]
    dense = np.flatnonzero(values > DENSE)
    holes = 0
    for step, last in ((1, columns - 3), (columns, columns - 1)):  # a row does not go on in the next one
        first = dense[(dense < values.size - 2 * step) & (dense % columns <= last)]
        first = first[values[first + step] < THIN]
        holes += int(np.count_nonzero(values[first + 2 * step] > DENSE))
    return Holes(holes, int(np.count_nonzero(values[dense] > DENSER)))


def summed(slices: Sequence[Holes]) -> Holes:
    """Return what was counted in a volume."""
    return Holes(sum(one.holes for one in slices), sum(one.dense for one in slices))


def said_of_holes(found: Holes, places: str) -> str:
    """Return what is said of a volume whose values wrapped round; `places`: of the slices with holes, in words."""
    return f"bone has {found.holes} voxels of air within it in {places}: did large values wrap round to low ones?"
