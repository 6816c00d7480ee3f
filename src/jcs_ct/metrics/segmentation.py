"""Scores of one lesion map against its mask. NumPy and SciPy; nothing here keeps more than one slice.

| score | range | what |
| --- | --- | --- |
| overlap | 0–1 | Dice, IoU, mIoU with background, sensitivity, specificity, precision: see `Counts.scores` |
| `mean_absolute_error` | 0–1 | of the probability, not of the thresholded map |
| `hausdorff95` | ≥ 0, px or mm | of the thresholded map's outline; MONAI's definition |
| structure measures | 0–1 | S-measure, E-measure, weighted F of the probability: see `jcs_ct.metrics.structure` |

Policy for empty masks: `EMPTY_POLICIES`. MAE, S-measure and E-measure are defined for empty masks, too.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import binary_erosion, distance_transform_edt

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics.counts import Counts, Empty, check_pair, check_policy, count

if TYPE_CHECKING:
    from numpy.typing import NDArray


def checked_pair(probability: NDArray[Any], mask: NDArray[np.generic]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the probability, (row, column) in [0, 1], as float64, and the mask, of the same shape, as bool: not 0.

    Raises ShapeError where they are no two arrays (row, column) of one shape, or the probability is not in [0, 1].
    """
    check_pair("probability and mask", probability, mask, "row, column")
    p = probability.astype(np.float64)
    low, high = float(p.min()), float(p.max())  # NaN anywhere makes both NaN
    if not (low >= 0 and high <= 1):
        raise ShapeError(f"the probability goes from {low:g} to {high:g}; 0 to 1 without NaN is expected")
    return p, np.asarray(mask != 0, dtype=np.bool_)


def pixel_counts(probability: NDArray[Any], mask: NDArray[np.generic], threshold: float = 0.5) -> Counts:
    """Return the counts of (p ≥ threshold), with a threshold in (0, 1], against the mask. Args: as `checked_pair`.

    Raises:
        ShapeError: See `checked_pair`.
        UsageError: The threshold is not in (0, 1].
    """
    p, truth = checked_pair(probability, mask)
    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold is {threshold}; more than 0 and at most 1 is expected")
    return count(truth, p >= threshold)


def mean_absolute_error(probability: NDArray[Any], mask: NDArray[np.generic]) -> float:
    """Return the mean of |p − mask| over the pixels, in [0, 1]. Args and errors: as `pixel_counts`."""
    p, truth = checked_pair(probability, mask)
    return float(np.abs(p - truth).mean())


def hausdorff95(
    found: NDArray[np.generic],
    mask: NDArray[np.generic],
    spacing: tuple[float, float] = (1.0, 1.0),
    empty: Empty = "exclude",
) -> float:
    """Return the 95th percentile of the distances between two outlines, the larger of both directions.

    As MONAI's `compute_hausdorff_distance(percentile=95)`: the outline of a region is those of its pixels that have one
    of their four neighbours outside of it or outside of the slice; percentiles are interpolated linearly.

    Args:
        found: (row, column), lesion where not 0.
        mask: The same shape, lesion where not 0.
        spacing: Size of a pixel (row, column): in mm for a distance in mm, (1, 1) for pixels.
        empty: The policy if both are empty. If one is empty, there is no distance: NaN.

    Raises:
        ShapeError: The shapes differ.
        UsageError: Unknown policy, or a spacing that is not positive.
    """
    check_policy(empty)
    if found.ndim != 2 or found.shape != mask.shape:
        raise ShapeError(
            f"the prediction is {found.shape} and the mask {mask.shape}; two arrays of the same shape are expected"
        )
    if len(spacing) != 2 or not all(math.isfinite(s) and s > 0 for s in spacing):
        raise UsageError(f"the spacing is {spacing}; two positive numbers (row, column) are expected")
    a, b = np.asarray(found != 0), np.asarray(mask != 0)
    if not a.any() or not b.any():
        return 0.0 if empty == "one" and not a.any() and not b.any() else math.nan
    # Outlines and the lines between them lie in the box around both regions; outside nothing needs computing.
    rows, columns = (np.flatnonzero((a | b).any(axis=axis)) for axis in (1, 0))
    box = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
    edges = [region[box] & ~binary_erosion(region[box]) for region in (a, b)]
    apart = (distance_transform_edt(~other, sampling=spacing)[one] for one, other in (edges, edges[::-1]))
    return max(float(np.percentile(distances, 95)) for distances in apart)
