"""Scores of segmentations, in NumPy. So far: the evaluator of the release, under its own name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _check(probabilities: NDArray[np.floating], masks: NDArray[np.generic]) -> NDArray[np.bool_]:
    if probabilities.ndim != 3 or probabilities.shape != masks.shape or not len(masks):
        raise ShapeError(
            f"probabilities {probabilities.shape} and masks {masks.shape} came, "
            "two arrays of the same shape (slice, row, column) are needed"
        )
    return np.asarray(masks != 0, dtype=np.bool_)


def release_iou(probabilities: NDArray[np.floating], masks: NDArray[np.generic]) -> float:
    """Return the release's "mIoU": mean over slices of the foreground IoU of (p > 2·mean(p)) against the mask.

    Kept to compare with published figures only. The rule is unsound: it gives 0 to a perfect mask that covers half of
    the slice, and NaN as soon as one empty mask meets an empty prediction.

    Args:
        probabilities: (slice, row, column), in [0, 1].
        masks: The same shape, lesion where not 0.

    Raises:
        ShapeError: The shapes differ or hold no slice.
    """
    truth = _check(probabilities, masks)
    threshold = 2 * probabilities.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    found = probabilities > threshold
    union = (found | truth).sum(axis=(1, 2))
    hits = (found & truth).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return float(np.mean(hits / union))


def release_mae(probabilities: NDArray[np.floating], masks: NDArray[np.generic]) -> float:
    """Return the release's mean absolute error between probability and mask, averaged over slices.

    Args and errors: as `release_iou`.
    """
    truth = _check(probabilities, masks)
    return float(np.mean(np.abs(probabilities.astype(np.float64) - truth).mean(axis=(1, 2))))
