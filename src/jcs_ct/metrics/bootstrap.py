"""Confidence intervals by resampling groups (patients), and paired comparisons of two models.

Slices of one patient are alike, so whole groups are drawn, with replacement, as many as there are. A resample is a
vector of weights: how often each element counts. A statistic is any function of it that returns named numbers, such
as `lambda w: {"auc": scored.rank(w).auc()}`; None stands for the sample itself.

Intervals are percentiles of the resampled values (Efron & Tibshirani, 1993, chapter 13). A resample in which a
statistic is undefined (NaN: one class only …) is left out and counted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

Statistic = Callable[["NDArray[np.float64] | None"], Mapping[str, float]]

RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A statistic of the sample with its confidence interval.

    Attributes:
        value: Of the sample; NaN if undefined.
        low: Lower end; NaN with fewer than two groups, or if no resample defines the statistic.
        high: Upper end.
        undefined: How many resamples were left out.
    """

    value: float
    low: float
    high: float
    undefined: int


@dataclass(frozen=True)
class Difference(Interval):
    """The difference of two models on the same resamples, first minus second.

    Attributes:
        above: Share of resamples in which the difference is above 0 (ties count half); NaN if none defines it.
    """

    above: float


def resample_weights(groups: Sequence[Hashable], resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """Yield the weights (N) of one resample after the other: the same for the same groups of N elements and seed."""
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    index = np.array([names[name] for name in groups], dtype=np.intp)
    random = np.random.default_rng(seed)
    for _ in range(resamples):
        drawn = np.bincount(random.integers(0, len(names), len(names)), minlength=len(names))
        yield drawn[index].astype(np.float64)


def bootstrap(
    statistic: Statistic,
    groups: Sequence[Hashable],
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> dict[str, Interval]:
    """Return each named number of `statistic` with its interval.

    Args:
        statistic: See the head of this module.
        groups: The group (patient) of each element that the weights are for.
        resamples: How many; 0 for no intervals.
        confidence: Of the intervals, in (0, 1).
        seed: The same seed gives the same intervals.

    Raises:
        UsageError: No element, or a number out of range.
    """
    value = statistic(None)
    drawn = _draw(statistic, list(value), groups, resamples, confidence, seed)
    return {k: Interval(v, *_ends(drawn[:, i], confidence)) for i, (k, v) in enumerate(value.items())}


def compare(
    first: Statistic,
    second: Statistic,
    groups: Sequence[Hashable],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Difference]:
    """Return the paired difference `first` − `second` of each number both name, on the same resamples.

    Args and errors: as `bootstrap`.
    """

    def difference(weights: NDArray[np.float64] | None) -> dict[str, float]:
        a, b = first(weights), second(weights)
        return {name: a[name] - b[name] for name in a if name in b}

    value = difference(None)
    drawn = _draw(difference, list(value), groups, resamples, CONFIDENCE, seed)

    def above(values: NDArray[np.float64]) -> float:
        known = values[~np.isnan(values)]
        return float((np.sign(known) + 1).mean() / 2) if known.size else math.nan

    columns = zip(value.items(), drawn.T, strict=True)
    return {name: Difference(v, *_ends(column, CONFIDENCE), above(column)) for (name, v), column in columns}


def average(values: NDArray[np.float64], weights: NDArray[np.float64] | None = None) -> float:
    """Return the (weighted) mean of what is defined; NaN if nothing is."""
    known = ~np.isnan(values)
    w = known.astype(np.float64) if weights is None else weights * known
    total = float(w.sum())
    return float(np.sum(w[known] * values[known])) / total if total else math.nan


def _draw(
    statistic: Statistic, names: Sequence[str], groups: Sequence[Hashable], resamples: int, confidence: float, seed: int
) -> NDArray[np.float64]:
    """Return the resampled values, resamples × names."""
    if not groups:
        raise UsageError("there is nothing to resample: the list is empty")
    if resamples < 0 or not 0 < confidence < 1:
        raise UsageError(
            f"{resamples} resamples at confidence {confidence} were asked for; "
            "0 or more, at a confidence between 0 and 1, are expected"
        )
    if len(set(groups)) < 2:  # every resample would be the sample: an interval of no width, which says nothing
        return np.full((resamples, len(names)), math.nan)
    drawn = np.empty((resamples, len(names)))
    for row, weights in zip(drawn, resample_weights(groups, resamples, seed), strict=True):
        values = statistic(weights)
        row[:] = [values[name] for name in names]
    return drawn


def _ends(values: NDArray[np.float64], confidence: float) -> tuple[float, float, int]:
    """Return both ends of the percentile interval, and how many values are undefined."""
    known = values[~np.isnan(values)]
    undefined = len(values) - len(known)
    if not known.size:
        return math.nan, math.nan, undefined
    low, high = np.percentile(known, [50 * (1 - confidence), 50 * (1 + confidence)])
    return float(low), float(high), undefined
