"""Structure-aware scores of a map that is not thresholded: S-measure, E-measure and weighted F-measure.

Written from the papers; where a paper leaves a detail open, the authors' evaluation code decides, since every
published figure comes from it. Departure: maps are taken as they are, while the authors' tools first stretch every map
to [0, 1] by its minimum and maximum, which hides a network that is never sure.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import correlate, distance_transform_edt

from jcs_ct.metrics.counts import Empty, check_policy
from jcs_ct.metrics.segmentation import checked_pair

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Float = NDArray[np.float64]
    Bool = NDArray[np.bool_]

_EPS = float(np.finfo(np.float64).eps)
_LINE = np.exp(-(np.arange(-3, 4) ** 2) / 50.0)
_GAUSSIAN = np.outer(_LINE, _LINE) / np.outer(_LINE, _LINE).sum()
"""A normalised Gaussian kernel with σ = 5, cut off to 7 × 7; SciPy's own filter is wider."""


def s_measure(probability: NDArray[Any], mask: NDArray[np.generic]) -> float:
    """Return the structure measure, in [0, 1]: α · object-aware + (1 − α) · region-aware similarity, with α = 0.5.

    Fan et al., "Structure-measure: a new way to evaluate foreground maps", ICCV 2017. An empty mask scores
    1 − mean(p), a full one mean(p), as the paper's section 3.3 has it. Args and errors: as `checked_pair`.
    """
    p, truth = checked_pair(probability, mask)
    share = float(truth.mean())
    if share == 0:
        return 1 - float(p.mean())
    if share == 1:
        return float(p.mean())
    similar_object = share * _object_score(p[truth]) + (1 - share) * _object_score(1 - p[~truth])
    return max(0.0, 0.5 * similar_object + 0.5 * _region_score(p, truth))


def _object_score(values: Float) -> float:
    """Equation 4 with λ = 0.5: high where the values are high and even."""
    mean = float(values.mean())
    spread = float(values.std(ddof=1)) if values.size > 1 else 0.0
    return 2 * mean / (mean**2 + 1 + spread + _EPS)


def _region_score(p: Float, truth: Bool) -> float:
    """Equations 5–7: the quadrants around the mask's centre of gravity, weighted by their area."""
    row, column = (int(np.rint(indices.mean())) + 1 for indices in np.nonzero(truth))
    score = 0.0
    for rows in (slice(None, row), slice(row, None)):
        for columns in (slice(None, column), slice(column, None)):
            part = p[rows, columns]
            if part.size:  # the centre may lie in the last row or column
                score += part.size / p.size * _ssim(part, truth[rows, columns].astype(np.float64))
    return score


def _ssim(x: Float, y: Float) -> float:
    """Structural similarity of one whole block."""
    mean_x, mean_y = float(x.mean()), float(y.mean())
    n = x.size - 1 + _EPS
    var_x, var_y = float(((x - mean_x) ** 2).sum()) / n, float(((y - mean_y) ** 2).sum()) / n
    covariance = float(((x - mean_x) * (y - mean_y)).sum()) / n
    above = 4 * mean_x * mean_y * covariance
    below = (mean_x**2 + mean_y**2) * (var_x + var_y)
    if above != 0:
        return above / (below + _EPS)
    return 1.0 if below == 0 else 0.0


def e_measure_curve(probability: NDArray[Any], mask: NDArray[np.generic]) -> NDArray[np.float64]:
    """Return the enhanced-alignment measure at the 256 thresholds 255/255, 254/255 … 0: floor(255·p) ≥ t.

    Fan et al., "Enhanced-alignment measure for binary foreground map evaluation", IJCAI 2018. For a set of images,
    average the curves first, then take "max E" and "mean E" over the thresholds, as the authors' tables do. The
    authors divide by N − 1 pixels, not N, so that a perfect map of N pixels scores N / (N − 1); kept, to agree with
    published figures. float64, 256; index i belongs to threshold (255 − i) / 255. Args and errors: as `checked_pair`.
    """
    p, truth = checked_pair(probability, mask)
    levels = np.floor(255 * p).astype(np.intp)
    hits = np.cumsum(np.bincount(levels[truth], minlength=256)[::-1])
    alarms = np.cumsum(np.bincount(levels[~truth], minlength=256)[::-1])
    return _alignment(hits.astype(np.float64), alarms.astype(np.float64), truth)


def e_measure_adaptive(probability: NDArray[Any], mask: NDArray[np.generic]) -> float:
    """Return the enhanced-alignment measure at the adaptive threshold, p ≥ min(1, 2·mean(p)).

    Paper, args and errors: as `e_measure_curve`.
    """
    p, truth = checked_pair(probability, mask)
    found = p >= min(1.0, 2 * float(p.mean()))
    hits = np.array([np.count_nonzero(found & truth)], dtype=np.float64)
    alarms = np.array([np.count_nonzero(found & ~truth)], dtype=np.float64)
    return float(_alignment(hits, alarms, truth)[0])


def _alignment(hits: Float, alarms: Float, truth: Bool) -> Float:
    """Return the measure from true and false positives; the alignment matrix has only four different values."""
    n, positives = truth.size, int(np.count_nonzero(truth))
    found = hits + alarms
    if positives == 0:
        total = n - found
    elif positives == n:
        total = found
    else:
        total = np.zeros_like(hits)
        mean_found, mean_truth = found / n, positives / n
        for number, is_found, is_true in (
            (hits, 1, 1),
            (alarms, 1, 0),
            (positives - hits, 0, 1),
            (n - positives - alarms, 0, 0),
        ):
            a, b = is_found - mean_found, is_true - mean_truth
            total += number * (2 * a * b / (a**2 + b**2 + _EPS) + 1) ** 2 / 4
    result: Float = total / max(n - 1, 1)
    return result


def weighted_f(probability: NDArray[Any], mask: NDArray[np.generic], empty: Empty = "exclude") -> float:
    """Return the weighted F-measure with β² = 1, in [0, 1], or NaN.

    Margolin et al., "How to evaluate foreground maps?", CVPR 2014: errors within the mask count less where their
    surroundings (7×7, Gaussian, σ = 5) are right, errors outside more the farther they are from the mask (half-way
    after 5 pixels, up to twice). An empty mask scores 0 if any probability is above 0, otherwise by the policy `empty`
    undefined (NaN) or 1. Args and errors: as `checked_pair`; UsageError for an unknown policy.
    """
    check_policy(empty)
    p, truth = checked_pair(probability, mask)
    if not truth.any():
        if p.any():
            return 0.0
        return 1.0 if empty == "one" else math.nan
    outside = ~truth
    distance, nearest = distance_transform_edt(outside, return_indices=True)
    error = np.abs(p - truth)
    # Outside, the error of the nearest pixel of the mask stands in, so that the mean at the mask's edge is fair.
    spread = error[nearest[0], nearest[1]]
    smooth = correlate(spread, _GAUSSIAN, mode="constant", cval=0.0)
    error = np.where(truth, np.minimum(error, smooth), error * (2 - np.exp(math.log(0.5) / 5 * distance)))
    positives = int(np.count_nonzero(truth))
    missed, false = float(error[truth].sum()), float(error[outside].sum())
    recall = 1 - missed / positives
    precision = (positives - missed) / (positives - missed + false + _EPS)
    return 2 * recall * precision / (recall + precision + _EPS)
