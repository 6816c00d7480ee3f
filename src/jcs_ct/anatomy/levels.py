"""Where air and tissue lie in the histogram of a volume, against where Hounsfield units have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

AIR, MUSCLE, FAT = -1000.0, 45.0, -105.0  # HU, where their peaks are


def smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of each five neighbouring counts."""
    return np.convolve(counts, [0.2, 0.2, 0.2, 0.2, 0.2], "same")


def fitting(counts: NDArray[np.int64], middle: NDArray[np.float64], shift: float) -> float:
    """Return how much tissue lies where muscle and fat do, were all values `shift` HU too high."""
    return float(counts[(np.abs(middle - shift - MUSCLE) < 30) | (np.abs(middle - shift - FAT) < 30)].sum())


def tissue_shift(counts: NDArray[np.int64], middle: NDArray[np.float64]) -> float:
    """Return the shift at which most tissue lies where muscle and fat do; of equal ones the smallest."""
    shifts = np.arange(-300, 601, 10)
    inside = [fitting(counts, middle, float(s)) for s in shifts]
    best = shifts[np.array(inside) >= 0.97 * max(inside)]
    return float(best[np.abs(best).argmin()])
