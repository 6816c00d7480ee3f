"""Scores of probabilities against labels 0/1, exact and in NumPy: no extra is needed to evaluate.

Every function takes `weights`, how often an element counts, so that a bootstrap resample is a vector of weights and
nothing is copied. A score that the labels leave undefined (one class only) is NaN.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics.counts import Counts, area, count

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

    Float = NDArray[np.float64]

BINS = 15


@dataclass(frozen=True)
class Ranking:
    """Positives at every threshold (K distinct scores), from the highest down: what ROC and precision–recall share.

    Attributes:
        tp: float64, K: weighted true positives; a score that reaches the threshold is positive.
        fp: float64, K: weighted false positives.
        positives: Weight of all positives.
        negatives: Weight of all negatives.
    """

    tp: Float
    fp: Float
    positives: float
    negatives: float

    def roc(self) -> tuple[Float, Float]:
        """Return (1 − specificity, sensitivity), K + 1 points from (0, 0) to (1, 1). NaN where a class is missing."""
        with np.errstate(invalid="ignore"):
            return np.r_[0.0, self.fp] / self.negatives, np.r_[0.0, self.tp] / self.positives

    def precision_recall(self) -> tuple[Float, Float]:
        """Return (recall, precision), K points with rising recall. NaN without positives."""
        found = self.tp + self.fp
        with np.errstate(invalid="ignore"):
            return self.tp / self.positives, self.tp / np.where(found > 0, found, np.nan)

    def auc(self) -> float:
        """Return the area under the ROC curve, in [0, 1]: ties count half. NaN if a class is missing."""
        if not (self.positives and self.negatives):
            return math.nan
        return area(*self.roc())

    def average_precision(self) -> float:
        """Return the sum of precision × step in recall (not interpolated), in [0, 1]. NaN without positives."""
        if not self.positives:
            return math.nan
        recall, precision = self.precision_recall()
        steps = np.diff(recall, prepend=0.0)
        return float(np.sum(np.where(steps > 0, np.nan_to_num(precision), 0.0) * steps))


class Scored:
    """Labels and scores, checked and sorted once; then ranked as often as there are resamples.

    Args:
        labels: N numbers, 0 or 1 (1 is COVID-19).
        scores: N finite numbers, the higher the more likely 1.

    Raises:
        ShapeError: Nothing came, lengths differ, or values are not as described.
    """

    def __init__(self, labels: ArrayLike, scores: ArrayLike) -> None:
        raw, values = np.asarray(labels), np.asarray(scores, dtype=np.float64)
        if raw.ndim != 1 or raw.shape != values.shape or not raw.size:
            raise ShapeError(
                f"labels are {raw.shape} and scores {values.shape}; two lists of the same length are expected"
            )
        if not np.isin(raw, (0, 1)).all():
            raise ShapeError(f"labels are {np.unique(raw)[:5].tolist()}; 0 and 1 are expected")
        if not np.isfinite(values).all():
            raise ShapeError("scores hold NaN or infinite values; finite ones are expected")
        self.truth: NDArray[np.bool_] = raw.astype(bool)
        self.scores: Float = values
        self._order = np.argsort(-values, kind="stable")
        ranked = values[self._order]
        self._last = np.r_[np.flatnonzero(np.diff(ranked)), len(ranked) - 1]  # of each run of equal scores

    def rank(self, weights: NDArray[Any] | None = None) -> Ranking:
        """Return the ranking, with each element counted `weights` times (once if None)."""
        w = np.ones(len(self.scores)) if weights is None else np.asarray(weights, dtype=np.float64)
        truth, w = self.truth[self._order], w[self._order]
        tp, fp = (np.cumsum(np.where(side, w, 0.0))[self._last] for side in (truth, ~truth))
        return Ranking(tp, fp, float(tp[-1]), float(fp[-1]))

    def counts(self, threshold: float, weights: NDArray[Any] | None = None) -> Counts:
        """Return the confusion counts of (score ≥ threshold)."""
        return count(self.truth, self.scores >= threshold, weights)


def roc_auc(labels: ArrayLike, scores: ArrayLike, weights: NDArray[Any] | None = None) -> float:
    """Return the area under the ROC curve; see `Scored` for the arguments and `Ranking.auc`."""
    return Scored(labels, scores).rank(weights).auc()


@dataclass(frozen=True)
class Reliability:
    """How often the positives come, bin by bin of their stated probability.

    Attributes:
        edges: float64, bins + 1: equal widths from 0 to 1; a bin holds its lower edge, the last one both.
        weight: float64, bins: (weighted) number of elements.
        stated: float64, bins: mean probability; NaN in an empty bin.
        observed: float64, bins: share of positives; NaN in an empty bin.
    """

    edges: Float
    weight: Float
    stated: Float
    observed: Float

    def error(self) -> float:
        """Return the expected calibration error: |stated − observed| averaged over elements, in [0, 1]."""
        filled = self.weight > 0
        gap = np.abs(self.stated - self.observed)[filled]
        return float(np.sum(gap * self.weight[filled]) / self.weight.sum())


def reliability(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS, weights: NDArray[Any] | None = None
) -> Reliability:
    """Return the calibration of the probability of class 1 (not of the predicted class) in bins of equal width.

    Naeini et al., "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015. The arguments are those
    of `Scored`, the probabilities in [0, 1]; `weights`, how often each counts, are not all 0.

    Raises:
        ShapeError: See `Scored`; or probabilities outside of [0, 1].
        UsageError: No bins.
    """
    scored = Scored(labels, probabilities)
    p = scored.scores
    if p.min() < 0 or p.max() > 1:
        raise ShapeError(f"probabilities go from {p.min():g} to {p.max():g}; 0 to 1 is expected")
    if bins < 1:
        raise UsageError(f"{bins} bins were asked for; at least 1 is expected")
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
    w = np.ones(len(p)) if weights is None else np.asarray(weights, dtype=np.float64)
    weight, stated, observed = (
        np.bincount(index, weights=values, minlength=bins).astype(np.float64) for values in (w, w * p, w * scored.truth)
    )
    divisor = np.where(weight > 0, weight, np.nan)
    return Reliability(edges, weight, stated / divisor, observed / divisor)


def calibration_error(
    labels: ArrayLike, probabilities: ArrayLike, bins: int = BINS, weights: NDArray[Any] | None = None
) -> float:
    """Return the expected calibration error (ECE); see `reliability` for the arguments and the definition."""
    return reliability(labels, probabilities, bins, weights).error()
