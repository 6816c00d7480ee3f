"""Do attention maps point at the lesions, and does the network's answer depend on what they mark?

The first three compare a map with a lesion mask; undefined (NaN) where the mask is empty. A map that is zero everywhere
explains nothing and scores 0. Deletion and insertion need no mask, but the network.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics.counts import area, check_pair, count, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    Float = NDArray[np.float64]

Model = Callable[["NDArray[np.uint8]"], "NDArray[np.floating[Any]]"]
"""Pixels uint8 N×H×W×3 → probabilities, N."""

DICE_THRESHOLDS = (0.25, 0.5, 0.75)
STEPS = 20
_BLUR = 5 / 224  # RISE blurs pictures of 224 pixels with σ = 5


def _checked(attention: NDArray[Any], mask: NDArray[np.generic]) -> tuple[Float, NDArray[np.bool_]]:
    check_pair("attention map and mask", attention, mask, "row, column")
    values = attention.astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise ShapeError("the attention map holds negative, NaN or infinite values; 0 to 1 is expected")
    return values, np.asarray(mask != 0, dtype=np.bool_)


def pointing_game(attention: NDArray[Any], mask: NDArray[np.generic], tolerance: float = 0.0) -> float:
    """Return whether the map's highest pixel lies in the mask: 1 or 0.

    Zhang et al., "Top-down neural attention by excitation backprop", ECCV 2016. Several highest pixels: the share of
    them that hit, so that a flat map gains nothing by its ties.

    Args:
        attention: (row, column), at least 0.
        mask: The same shape, lesion where not 0.
        tolerance: Hits within this many pixels of the mask count, too (the paper: 15).

    Returns:
        In [0, 1]; 0 for a map that is zero everywhere; NaN for an empty mask.

    Raises:
        ShapeError: The shapes differ, or the map is not finite and at least 0.
    """
    values, truth = _checked(attention, mask)
    if not truth.any():
        return math.nan
    if not values.any():
        return 0.0
    near = truth if tolerance <= 0 else distance_transform_edt(~truth) <= tolerance
    return float(np.mean(near[values == values.max()]))


def energy_inside(attention: NDArray[Any], mask: NDArray[np.generic]) -> float:
    """Return the share of the map's sum that lies in the mask.

    Wang et al., "Score-CAM", CVPR workshops 2020 (energy-based pointing game); also called relevance mass accuracy.

    Args, returns and errors: as `pointing_game`.
    """
    values, truth = _checked(attention, mask)
    return ratio(float(values[truth].sum()), float(values.sum()), 0.0) if truth.any() else math.nan


def map_dice(
    attention: NDArray[Any], mask: NDArray[np.generic], thresholds: Sequence[float] = DICE_THRESHOLDS
) -> dict[float, float]:
    """Return the Dice score of (map ≥ t) for each threshold t in (0, 1]; NaN for an empty mask.

    Args and errors: as `pointing_game`; UsageError for a threshold out of range.
    """
    values, truth = _checked(attention, mask)
    if not all(0 < t <= 1 for t in thresholds):
        raise UsageError(f"thresholds are {list(thresholds)}; more than 0 and at most 1 is expected")
    return {t: count(truth, values >= t).scores()["dice"] if truth.any() else math.nan for t in thresholds}


@dataclass(frozen=True)
class Perturbation:
    """What a network answers while pixels go or come in the order of an attention map.

    Attributes:
        share: float64, steps + 1: share of pixels changed, from 0 to 1.
        deletion: float64, steps + 1: probability with that share of the most important pixels blackened.
        insertion: float64, steps + 1: probability with that share of them put back into the blurred slice.
    """

    share: Float
    deletion: Float
    insertion: Float

    @property
    def deletion_area(self) -> float:
        """Area under the deletion curve, in [0, 1]: the lower, the better the map."""
        return area(self.share, self.deletion)

    @property
    def insertion_area(self) -> float:
        """Area under the insertion curve, in [0, 1]: the higher, the better the map."""
        return area(self.share, self.insertion)


def perturb(
    pixels: NDArray[np.uint8],
    attention: NDArray[Any],
    model: Model,
    *,
    steps: int = STEPS,
    batch: int = 4,
    fill: int = 0,
) -> Perturbation:
    """Return the deletion and insertion curves of one map.

    Petsiuk et al., "RISE", BMVC 2018. Deletion replaces pixels by `fill` (0 is air in a lung window); insertion starts
    from the slice blurred as there (σ = 5 pixels of 224). Pixels of equal importance go in reading order, so the
    curves of a map that is zero everywhere say nothing about it.

    Args:
        pixels: uint8 H×W×3.
        attention: H×W, at least 0.
        model: Pixels uint8 N×H×W×3 → probabilities, N.
        steps: In how many equal steps.
        batch: How many pictures the model gets at once; memory grows with it.
        fill: Grey level that stands for "nothing", 0–255.

    Raises:
        ShapeError: Pixels and map do not belong together.
        UsageError: A number out of range.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ShapeError(f"pixels are {pixels.dtype} {pixels.shape}; uint8 rows×columns×3 is expected")
    values, _ = _checked(attention, np.ones(pixels.shape[:2], dtype=np.bool_))
    if steps < 1 or batch < 1 or not 0 <= fill <= 255:
        raise UsageError(
            f"{steps} steps, batch {batch}, fill {fill} were given; at least 1, at least 1 and 0 to 255 are expected"
        )
    order = np.argsort(-values, axis=None, kind="stable")
    ends = np.rint(np.linspace(0, order.size, steps + 1)).astype(np.intp)
    sigma = _BLUR * min(pixels.shape[:2])
    blurred = np.rint(gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0))).clip(0, 255).astype(np.uint8)
    empty = np.full_like(pixels, fill)
    curves = [
        np.concatenate([np.asarray(model(group), np.float64).reshape(-1) for group in _grouped(pictures, batch)])
        for pictures in (_mixed(pixels, empty, order, ends), _mixed(blurred, pixels, order, ends))
    ]
    return Perturbation(ends / order.size, *curves)


def _mixed(
    start: NDArray[np.uint8], end: NDArray[np.uint8], order: NDArray[np.intp], ends: NDArray[np.intp]
) -> Iterator[NDArray[np.uint8]]:
    """Yield `start` with the first pixels of `order`, as many as each of `ends` says, taken from `end`."""
    picture, source = start.reshape(-1, 3).copy(), end.reshape(-1, 3)
    for before, now in zip([0, *ends[:-1]], ends, strict=True):
        changed = order[before:now]
        picture[changed] = source[changed]
        yield picture.reshape(start.shape).copy()


def _grouped(pictures: Iterator[NDArray[np.uint8]], batch: int) -> Iterator[NDArray[np.uint8]]:
    while group := list(islice(pictures, batch)):
        yield np.stack(group)
