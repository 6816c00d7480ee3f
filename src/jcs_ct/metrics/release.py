"""The evaluator of the JCS release, under its own name: to compare with published figures, and for nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.metrics.counts import check_pair

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def _array(values: ArrayLike) -> NDArray[Any]:
    """Return an array; a tensor of PyTorch may lie on a GPU and carry gradients (PyTorch need not be installed)."""
    return np.asarray(values.detach().cpu() if hasattr(values, "detach") else values)


def _pair(probabilities: ArrayLike, masks: ArrayLike) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    p, m = _array(probabilities), _array(masks)
    check_pair("probabilities and masks", p, m, "slice, row, column")
    return p, np.asarray(m != 0, dtype=np.bool_)


def release_iou(probabilities: ArrayLike, masks: ArrayLike) -> float:
    """Return the release's "mIoU": mean over slices of the foreground IoU of (p > 2·mean(p)) against the mask.

    Kept to compare with published figures only. The rule is unsound: it gives 0 to a perfect mask that covers half of
    the slice, and NaN as soon as one empty mask meets an empty prediction.

    Args:
        probabilities: (slice, row, column), in [0, 1]; an array or a tensor on any device.
        masks: The same shape, lesion where not 0.

    Raises:
        ShapeError: The shapes differ or hold no slice.
    """
    p, truth = _pair(probabilities, masks)
    threshold = 2 * p.mean(axis=(1, 2), keepdims=True, dtype=np.float64)
    found = p > threshold
    union = (found | truth).sum(axis=(1, 2))
    hits = (found & truth).sum(axis=(1, 2))
    with np.errstate(invalid="ignore"):
        return float(np.mean(hits / union))


def release_mae(probabilities: ArrayLike, masks: ArrayLike) -> float:
    """Return the release's mean absolute error between probability and mask, averaged over slices.

    Args and errors: as `release_iou`.
    """
    p, truth = _pair(probabilities, masks)
    return float(np.mean(np.abs(p.astype(np.float64) - truth).mean(axis=(1, 2))))
