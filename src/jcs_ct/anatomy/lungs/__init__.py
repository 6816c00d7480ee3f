"""Both lungs of a CT volume, by classical means: no weights, the same result everywhere, a stated reason for nothing.

The search runs on a reduced volume of some 2.5 mm; labels are brought back to a slice's own grid one slice at a time.

1. Air (below `AIR`) that is not connected to the outside, has tissue all around it, and is not as empty as gas.
2. The trachea is followed from the top until it dissolves in the lungs, and is left out.
3. Lungs that touch are parted where they are thinnest.
4. Each lung is bridged along the body and closed by a ball, so that vessels, nodules and consolidation at the pleura
   belong to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jcs_ct.anatomy.lungs.air import AIR, aerated, find_airways, find_trachea, without_gas
from jcs_ct.anatomy.lungs.morphology import LEFT, RIGHT, dilate_in_slices, mean_filtered
from jcs_ct.anatomy.lungs.order import head_is_last
from jcs_ct.anatomy.lungs.sides import bridge, close_outline, split_sides

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.anatomy.lungs.morphology import Spacing, Volume

__all__ = ["LEFT", "RIGHT", "Lungs", "Reducer", "find_lungs", "reduce_slice", "resize_labels", "segment_lungs"]

WORK_MM = 2.5  # a voxel of the reduced volume is about this long or longer
LEAST_ML = 150.0  # both lungs; the bases at the top of an abdominal scan have some 100


@dataclass(frozen=True)
class Lungs:
    """The lungs of a volume, on a reduced grid.

    Attributes:
        labels: uint8, reduced slices × rows × columns: 0 outside, 1 right lung, 2 left lung (the patient's).
        factor: Slices, rows and columns of the volume in a reduced voxel.
        shape: (slices, rows, columns) of the volume.
        reason: Why there are none, or "".
        median_hu: Of what they hold on the reduced grid; NaN where there are none.
        head_last: Whether the head is surely at the last slice.
    """

    labels: NDArray[np.uint8]
    factor: tuple[int, int, int]
    shape: tuple[int, int, int]
    reason: str = ""
    median_hu: float = float("nan")
    head_last: bool = False

    def slice(self, index: int) -> NDArray[np.uint8]:
        """Return the labels of slice `index` on its own grid: uint8, rows × columns."""
        below, above, weight = _neighbours(index, self.factor[0], len(self.labels))
        pair = self.labels[below], self.labels[above]
        scores = [
            (1 - weight) * (pair[0] == side).astype(np.float32) + weight * (pair[1] == side) for side in (RIGHT, LEFT)
        ]
        return _resize(scores, self.factor[1:], self.shape[1:])


class Reducer:
    """Collects the slices of a volume at a reduced size, so that lungs are found without keeping the volume.

    Args:
        shape: (slices, rows, columns) of the volume.
        spacing: mm between slices, rows, columns.
    """

    def __init__(self, shape: tuple[int, int, int], spacing: Spacing) -> None:
        down, rows, columns = (max(1, min(round(WORK_MM / mm), n)) for mm, n in zip(spacing, shape, strict=True))
        self._shape, self._spacing, self._factor = shape, spacing, (down, rows, columns)
        # Sums of HU + 1024 over the slices of a reduced voxel: as large as the chest, however thin its slices.
        self.sums = np.zeros([-(-n // factor) for n, factor in zip(shape, self._factor, strict=True)], np.int32)
        self._seen = np.zeros(len(self.sums), np.int32)

    def add(self, index: int, hu: NDArray[np.int16]) -> NDArray[np.int16]:
        """Take slice `index` (int16 HU, rows × columns); return it at the reduced size.

        A slice that shows nothing is left out: it would join the air in trachea and gut to the air around the body.
        """
        small = reduce_slice(hu, self._factor[1:])
        if small.max() >= AIR:
            self.sums[index // self._factor[0]] += small.astype(np.int32) + 1024
            self._seen[index // self._factor[0]] += 1
        return small

    def find(self) -> Lungs:
        """Find the lungs in what was collected, once: the search takes memory enough without it."""
        sums, self.sums = self.sums, np.zeros((0, 0, 0), np.int32)
        volume = np.empty(sums.shape, np.int16)
        for index, count in enumerate(self._seen):
            volume[index] = np.rint(sums[index] / max(1, count)) - 1024
        del sums
        spacing = [mm * n for mm, n in zip(self._spacing, self._factor, strict=True)]
        seen = np.flatnonzero(self._seen)
        part = slice(seen[0], seen[-1] + 1) if seen.size else slice(None)
        labels = np.zeros(volume.shape, np.uint8)
        found = find_lungs(volume[part], (spacing[0], spacing[1], spacing[2]))
        labels[part] = found.labels
        median = float("nan") if found.reason else float(np.median(volume[labels > 0]))
        return Lungs(labels, self._factor, self._shape, found.reason, median, found.head_last)


def segment_lungs(hu: Volume, spacing: Spacing) -> NDArray[np.uint8]:
    """Return the lungs of a volume that is in memory.

    Args:
        hu: int16, canonical (slice, row, column).
        spacing: mm between slices, rows, columns.

    Returns:
        uint8 of the same shape: 0 outside, 1 right lung, 2 left lung (the patient's).
    """
    reducer = Reducer((hu.shape[0], hu.shape[1], hu.shape[2]), spacing)
    for index, picture in enumerate(hu):
        reducer.add(index, picture)
    lungs = reducer.find()
    return np.stack([lungs.slice(index) for index in range(len(hu))])


def reduce_slice(hu: NDArray[np.int16], factor: tuple[int, int]) -> NDArray[np.int16]:
    """Return a slice in which every block of `factor` rows × columns is its mean.

    Args:
        hu: int16, rows × columns; the last row and column are repeated where blocks do not fit.
        factor: Rows and columns of a block.

    Returns:
        int16, ceil(rows / factor) × ceil(columns / factor).
    """
    if factor == (1, 1):
        return hu
    down, across = (-n % f for n, f in zip(hu.shape, factor, strict=True))
    padded = np.pad(hu, ((0, down), (0, across)), mode="edge") if down or across else hu
    blocks = padded.reshape(padded.shape[0] // factor[0], factor[0], -1, factor[1])
    mean: NDArray[np.int16] = np.rint(blocks.mean(axis=(1, 3), dtype=np.float32)).astype(np.int16)
    return mean


def resize_labels(labels: NDArray[np.uint8], factor: tuple[int, int], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Undo `reduce_slice` for labels: uint8 of `shape`, edges where the linear interpolation passes one half."""
    return _resize([(labels == side).astype(np.float32) for side in (RIGHT, LEFT)], factor, shape)


class FoundLungs(NamedTuple):
    """What was found in a reduced volume; attributes as of `Lungs`."""

    labels: NDArray[np.uint8]
    reason: str = ""
    head_last: bool = False


def find_lungs(hu: Volume, spacing: Spacing) -> FoundLungs:
    """Find the lungs of a reduced volume.

    Args:
        hu: int16, canonical (slice, row, column), voxels of some 2.5 mm or more.
        spacing: mm between slices, rows, columns.
    """
    labels = np.zeros(hu.shape, np.uint8)
    voxel_ml = float(np.prod(spacing)) / 1000
    smooth = mean_filtered(hu, spacing)
    lungs = aerated(hu, smooth, spacing)
    if lungs.sum() * voxel_ml < LEAST_ML:
        text = f"no lungs: {lungs.sum() * voxel_ml:.0f} ml of aerated lung found, {LEAST_ML:.0f} ml are expected"
        return FoundLungs(labels, text)
    lungs = without_gas(hu, lungs, smooth, spacing)
    del smooth
    chain = find_trachea(hu, lungs, spacing)
    head_last = head_is_last(hu, lungs, spacing, chain)
    pipes = find_airways(hu, lungs, spacing, chain)
    split_sides(hu, lungs & ~dilate_in_slices(pipes, 1), spacing, labels)
    bridged = bridge(labels, spacing)
    for side in (RIGHT, LEFT):
        labels[close_outline(bridged == side, spacing) & ~pipes & (labels == 0)] = side
    return FoundLungs(labels, head_last=head_last)


def _neighbours(index: int, factor: int, count: int) -> tuple[int, int, float]:
    """Return the two reduced positions around position `index`, and the weight of the second."""
    place = min(max((index + 0.5) / factor - 0.5, 0.0), count - 1.0)
    below = int(place)
    return below, min(below + 1, count - 1), place - below


@lru_cache(maxsize=16)
def _places(length: int, factor: int, count: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the two blocks around each of `length` positions, 2 × length, and their weights, 2 × length × 1."""
    found = [_neighbours(index, factor, count) for index in range(length)]
    blocks = np.array([(below, above) for below, above, _ in found]).T
    return blocks, np.array([(1 - weight, weight) for *_, weight in found], np.float32).T[:, :, None]


def _resize(
    scores: Sequence[NDArray[np.float32]], factor: tuple[int, int], shape: tuple[int, int]
) -> NDArray[np.uint8]:
    """Return labels of `shape` from the shares of the right and the left lung in reduced pixels."""
    labels, filled = np.zeros(shape, np.uint8), (scores[0] > 0) | (scores[1] > 0)
    if not filled.any():
        return labels
    outer, places = [], []  # only where there is something, and what it reaches on the grid of the slice
    for axis in (0, 1):
        found = np.flatnonzero(filled.any(axis=1 - axis))
        blocks, weights = _places(shape[axis], factor[axis], filled.shape[axis])
        reached = slice(np.searchsorted(blocks[1], found[0]), np.searchsorted(blocks[0], found[-1], "right"))
        outer.append(reached)
        places.append((blocks[:, reached], weights[:, reached]))
    right, left = (_between(_between(score, *places[0]).T, *places[1]) for score in scores)  # columns × rows
    part = np.where(right >= left, np.uint8(RIGHT), np.uint8(LEFT))
    part[right + left < 0.5] = 0
    labels[tuple(outer)] = part.T
    return labels


def _between(
    values: NDArray[np.float32], blocks: NDArray[np.intp], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return rows between rows, float32.

    Not as a product with a matrix of weights: the threads of BLAS take a fifth of the processor time of a study for
    waiting for one another, and round differently in other numbers.
    """
    rows: NDArray[np.float32] = values[blocks[0]] * weights[0] + values[blocks[1]] * weights[1]
    return rows
