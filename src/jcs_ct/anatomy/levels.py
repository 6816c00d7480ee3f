"""Where air and tissue lie in the histogram of a volume, against where Hounsfield units have them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BIN = 8  # HU
LOWEST, BINS = -1024, 252  # of a histogram: up to 992 HU
MIDDLES: NDArray[np.float64] = LOWEST + BIN * (np.arange(BINS, dtype=np.float64) + 0.5)
HIGHEST_AIR = -850  # HU of air around the body
FEW_PIXELS = 200  # too few to tell a level by
AIR, MUSCLE, FAT = -1000.0, 45.0, -105.0  # HU, where their peaks are


def counted(values: NDArray[np.int16]) -> NDArray[np.int64]:
    """Return the histogram of int16 HU in `BINS` bins; the first holds what is thinner, denser values are left out."""
    counts: NDArray[np.int64] = np.bincount((np.maximum(values.ravel(), LOWEST) - LOWEST) // BIN, minlength=BINS)[:BINS]
    return counts


def smoothed(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean of each five neighbouring counts."""
    return np.convolve(counts, [0.2, 0.2, 0.2, 0.2, 0.2], "same")


def peak(counts: NDArray[np.int64]) -> float:
    """Return the HU that are most frequent."""
    return float(MIDDLES[smoothed(counts).argmax()])


def near_tissue(shift: float) -> NDArray[np.bool_]:
    """Return which bins muscle and fat fill, were all values `shift` HU too high."""
    found: NDArray[np.bool_] = (np.abs(MIDDLES - shift - MUSCLE) < 30) | (np.abs(MIDDLES - shift - FAT) < 30)
    return found


def fitting(counts: NDArray[np.int64], shift: float) -> float:
    """Return how much tissue lies where muscle and fat do, were all values `shift` HU too high."""
    return float(counts[near_tissue(shift)].sum())


def tissue_shift(counts: NDArray[np.int64]) -> float:
    """Return the shift at which most tissue lies where muscle and fat do; of equal ones the smallest."""
    shifts = np.arange(-300, 601, 10)
    inside = [fitting(counts, float(s)) for s in shifts]
    best = shifts[np.array(inside) >= 0.97 * max(inside)]
    return float(best[np.abs(best).argmin()])


def soft_tissue_shift(before: NDArray[Any], after: NDArray[Any]) -> float:
    """Return by how many HU soft tissue differs: the median of what is some in both slices; 0 where that is too little.

    Args:
        before: HU, rows × columns.
        after: Of the next slice, the same shape.
    """
    both = (after > -150) & (after < 180) & (before > -150) & (before < 180)
    return float(np.median(after[both] - before[both])) if np.count_nonzero(both) > FEW_PIXELS else 0.0
