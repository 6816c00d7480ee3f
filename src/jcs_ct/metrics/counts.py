"""Counts of right and wrong decisions, the scores made of them, and what happens where a score is 0/0.

Counts add up, so that pooled scores of any number of slices need no more memory than those of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from jcs_ct.core.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Empty = Literal["exclude", "one"]

EMPTY_POLICIES: dict[Empty, str] = {
    "exclude": (
        "A score that is 0/0 is undefined: left out of the mean over images, and counted. Mask and prediction both "
        "empty: Dice, IoU, mIoU, sensitivity, precision, weighted F and HD95 are undefined. Only the mask empty: Dice, "
        "IoU, precision and weighted F are 0; sensitivity and HD95 are undefined. Only the prediction empty: Dice, IoU "
        "and sensitivity are 0; precision and HD95 are undefined."
    ),
    "one": (
        "Mask and prediction both empty agree perfectly: Dice, IoU, mIoU, sensitivity, precision and weighted F are 1 "
        "and HD95 is 0. Only the mask empty: Dice, IoU, precision and weighted F are 0; sensitivity and HD95 are "
        "undefined. Only the prediction empty: Dice, IoU and sensitivity are 0; precision and HD95 are undefined. What "
        "is undefined is left out of the mean over images, and counted."
    ),
}
"""Policies for empty masks by name, in words for reports. "exclude" is what MONAI and nnU-Net do with NaN."""


def check_policy(empty: str) -> None:
    """Raise UsageError if `empty` is not the name of a policy."""
    if empty not in EMPTY_POLICIES:
        raise UsageError(f"no policy for empty masks is called {empty!r}", hint=f"known: {', '.join(EMPTY_POLICIES)}")


def check_pair(names: str, a: NDArray[Any], b: NDArray[Any], axes: str) -> None:
    """Raise ShapeError unless two arrays have an element and one shape.

    `names` are what an error calls them, "mask and map", and `axes` those that they need, "row, column".
    """
    if a.ndim != len(axes.split(",")) or a.shape != b.shape or not a.size:
        one, _, other = names.partition(" and ")
        found = f"the shape of the {one} is {a.shape}, that of the {other} is {b.shape}"
        raise ShapeError(f"{found}; two arrays of the same shape ({axes}) are expected")


def area(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    """Return the area under a curve of straight lines."""
    return float(np.sum(np.diff(x) * (y[1:] + y[:-1]) / 2))


def ratio(numerator: float, denominator: float, undefined: float = math.nan) -> float:
    """Return the quotient, or `undefined` for 0/0."""
    return numerator / denominator if denominator else undefined


@dataclass(frozen=True)
class Counts:
    """How many pixels (or slices, or patients) were decided rightly and wrongly. They can be weighted counts.

    Attributes:
        tp: Positive, found positive.
        fp: Negative, found positive.
        fn: Positive, found negative.
        tn: Negative, found negative.
    """

    tp: float = 0
    fp: float = 0
    fn: float = 0
    tn: float = 0

    def __add__(self, other: Counts) -> Counts:
        """Return the pooled counts."""
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn, self.tn + other.tn)

    @property
    def total(self) -> float:
        """How many there are."""
        return self.tp + self.fp + self.fn + self.tn

    @property
    def both_empty(self) -> bool:
        """Whether there is no positive in the truth, and none was found."""
        return not self.tp + self.fp + self.fn

    @property
    def marks_the_empty(self) -> bool:
        """Whether more than 0.1 % of what holds no positive was found positive."""
        return self.fp > 0.001 * (self.fp + self.tn)

    def sensitivity(self) -> float:
        """Return TP / (TP + FN), in [0, 1]; NaN without a positive."""
        return ratio(self.tp, self.tp + self.fn)

    def specificity(self) -> float:
        """Return TN / (TN + FP), in [0, 1]; NaN without a negative."""
        return ratio(self.tn, self.tn + self.fp)

    def precision(self) -> float:
        """Return TP / (TP + FP), in [0, 1]; NaN if nothing was found positive."""
        return ratio(self.tp, self.tp + self.fp)

    def accuracy(self) -> float:
        """Return the share of right decisions, in [0, 1]; NaN of nothing."""
        return ratio(self.tp + self.tn, self.total)

    def scores(self, empty: Empty = "exclude") -> dict[str, float]:
        """Return the overlap scores of a segmentation, each in [0, 1] or NaN where undefined.

        Args:
            empty: The policy, see `EMPTY_POLICIES`.

        Returns:
            "dice" (2TP / (2TP + FP + FN)), "iou" (TP / (TP + FP + FN)), "miou" (mean of that and of the background's
            TN / (TN + FP + FN); undefined, or 1 in place of the undefined one, where one class is in neither),
            "sensitivity", "specificity" and "precision".

        Raises:
            UsageError: Unknown policy.
        """
        check_policy(empty)
        nothing = 1.0 if empty == "one" else math.nan
        wrong = self.fp + self.fn
        iou = ratio(self.tp, self.tp + wrong, nothing)
        return {
            "dice": ratio(2 * self.tp, 2 * self.tp + wrong, nothing),
            "iou": iou,
            "miou": (iou + ratio(self.tn, self.tn + wrong, nothing)) / 2,
            "sensitivity": nothing if self.both_empty else self.sensitivity(),
            "specificity": self.specificity(),
            "precision": nothing if self.both_empty else self.precision(),
        }


def count(truth: NDArray[np.bool_], found: NDArray[np.bool_], weights: NDArray[np.generic] | None = None) -> Counts:
    """Return the counts of two boolean arrays of one shape; `weights`: how often each element counts, None: once."""
    if weights is not None:
        w = np.asarray(weights, dtype=np.float64)
        tp, positives, finds = float(w[truth & found].sum()), float(w[truth].sum()), float(w[found].sum())
        return Counts(tp, finds - tp, positives - tp, float(w.sum()) - positives - finds + tp)
    tp, positives, finds = (int(np.count_nonzero(a)) for a in (truth & found, truth, found))
    return Counts(tp, finds - tp, positives - tp, truth.size - positives - finds + tp)
