"""The few shapes and textures that the phantom is built from.

Distances are signed and in mm of the phantom's reference frame (negative inside). Only + − × ÷ and square roots
touch an array here: IEEE 754 fixes their results to the last bit, while exp, sin or a power may differ from one
processor to the next, and the same seed must make the same study everywhere.
"""

from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.floating]  # single precision throughout


def squircle(x: Array, y: Array, centre: tuple[float, float], radii: tuple[float, float], square: float = 0.0) -> Array:
    """Return the distance to an ellipse (`square` 0) that goes over into a rounded box (`square` 1)."""
    u, v = (x - centre[0]) / radii[0], (y - centre[1]) / radii[1]
    uu, vv = u * u, v * v
    level = (1 - square) * (uu + vv) + square * (uu * uu + vv * vv) - 1
    slope_x, slope_y = (1 - square + 2 * square * uu) / radii[0], (1 - square + 2 * square * vv) / radii[1]
    steepness = uu * slope_x * slope_x + vv * slope_y * slope_y
    slope = 2 * np.sqrt(steepness)
    distance: Array = level / np.maximum(slope, 0.7 / min(radii))  # the slope vanishes in the centre
    return distance


def capsule(x: Array, y: Array, start: tuple[float, float], end: tuple[float, float], radius: float) -> Array:
    """Return the distance to a line from `start` to `end` with round ends, `radius` thick on either side."""
    dx, dy = end[0] - start[0], end[1] - start[1]
    along = np.clip(((x - start[0]) * dx + (y - start[1]) * dy) / (dx * dx + dy * dy), 0.0, 1.0)
    across_x, across_y = x - start[0] - along * dx, y - start[1] - along * dy
    distance: Array = np.sqrt(across_x * across_x + across_y * across_y) - radius
    return distance


def union(first: Array, second: Array, blend: float = 0.0) -> Array:
    """Return the distance to what lies in either shape; `blend` (mm) rounds the notch between them."""
    joined: Array = np.minimum(first, second)
    if blend > 0:
        overlap = np.maximum(blend - np.abs(first - second), 0.0)
        joined = joined - overlap * overlap / (4 * blend)
    return joined


def without(first: Array, second: Array, blend: float = 0.0) -> Array:
    """Return the distance to what lies in the first shape but not in the second; `blend` rounds the corner."""
    return -union(-first, second, blend)


def cover(distance: Array, pixel: float) -> Array:
    """Return how much of each pixel a shape covers, 0–1, as a scanner's partial volume would show it."""
    share: Array = np.clip(0.5 - distance / pixel, 0.0, 1.0)
    return share


def mix(hu: Array, value: float | Array, share: Array) -> None:
    """Replace the `share` (0–1) of every pixel of `hu` by `value`, in place."""
    hu += (value - hu) * share


def smoothstep(value: Array) -> Array:
    """Return the S-shaped cubic from 0 to 1 of a value that is first clipped to [0, 1]."""
    clipped = np.clip(value, 0.0, 1.0)
    step: Array = clipped * clipped * (3 - 2 * clipped)
    return step


def along(position: float, knots: Sequence[tuple[float, float]]) -> float:
    """Return the value at `position` of the broken line through `knots`, (position, value) in rising order."""
    if position <= knots[0][0]:
        return knots[0][1]
    for (left, low), (right, high) in pairwise(knots):
        if position <= right:
            return low + (high - low) * (position - left) / (right - left)
    return knots[-1][1]


class SmoothNoise:
    """Smooth random field in 3-D: random numbers on a lattice, S-shaped interpolation between them.

    Lattice points lie `cell` mm apart: the size of the blobs. `extent` is the width of the picture, centred on 0, and
    the length of the stack, from 0, in mm.
    """

    def __init__(self, rng: np.random.Generator, cell: float, extent: tuple[float, float]) -> None:
        self.cell, self.half = cell, extent[0] / 2
        across, levels = int(extent[0] / cell) + 3, int(extent[1] / cell) + 3
        self.lattice = rng.random((levels, across, across), dtype=np.float32)

    def at(self, x: Array, y: Array, z: float) -> Array:
        """Return the field, 0–1, at the columns `x` (1×W), the rows `y` (H×1) and the level `z`, as H×W."""
        level = z / self.cell
        below = int(level)
        part = level - below
        part = part * part * (3 - 2 * part)
        plane = self.lattice[below] * (1 - part) + self.lattice[below + 1] * part
        row, row_part = self._place(y[:, 0])
        column, column_part = self._place(x[0])
        rows = plane[row] * (1 - row_part)[:, None] + plane[row + 1] * row_part[:, None]
        field: Array = rows[:, column] * (1 - column_part) + rows[:, column + 1] * column_part
        return field

    def _place(self, positions: Array) -> tuple[NDArray[np.int64], Array]:
        scaled = (positions + self.half) / self.cell
        lower = np.floor(scaled)
        return lower.astype(np.int64), smoothstep(scaled - lower)


def scanner_noise(rng: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return noise of mean 0 and standard deviation 1 with the fine grain of a sharp lung kernel, H×W.

    White noise is smoothed over 3×3 pixels and loses part of its 5×5 mean: neighbours are correlated, coarse
    clouds are damped. Sums of uniform numbers stand in for normal ones (see the top of this file).
    """
    height, width = shape
    white = rng.random((height + 4, width + 4), dtype=np.float32)
    for _ in range(2):
        white += rng.random((height + 4, width + 4), dtype=np.float32)
    white = (white - 1.5) * 2  # three uniform numbers: variance 3/12
    fine, coarse = (0.25, 0.5, 0.25), (0.2, 0.2, 0.2, 0.2, 0.2)
    grain: Array = _separable(white, fine)[1:-1, 1:-1] - 0.7 * _separable(white, coarse)
    # The variance of the kernel: (fine ⊗ fine − 0.7 · coarse ⊗ coarse), whose taps are summed here once.
    taps = np.zeros((5, 5))
    taps[1:4, 1:4] = np.outer(fine, fine)
    taps -= 0.7 * np.outer(coarse, coarse)
    grain /= round(float(np.sqrt((taps * taps).sum())), 6)
    return grain


def _separable(image: Array, taps: Sequence[float]) -> Array:
    """Filter rows and columns with `taps`; the result is smaller by len(taps) − 1 in both directions."""
    for _ in range(2):
        length = len(image) - len(taps) + 1
        image = reduce(np.add, (tap * image[shift : shift + length] for shift, tap in enumerate(taps))).T
    return image
