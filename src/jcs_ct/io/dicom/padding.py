"""Pixel padding (PS3.3 C.7.5.1.1.2): values that stand for nothing, around a scan and never within a body. No pydicom.

A scanner fills what lies outside of its circle with one value. Some headers name a range instead, or a value that
tissue has too. So each connected region is judged by where it lies and by what it holds: it becomes air where it
reaches the edge of the picture or lies outside of the body, and all of it has nearly one value. What is left as it was
within the body is told, for a header that calls tissue padding may be right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.plausibility import SOLID, enclosed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.io.dicom.header import ImageHeader

ONE_VALUE = 20.0
"""HU between the lowest and the highest of a region, up to which it has one value; noise alone is more in tissue."""
LEAST_REGION = 0.002
"""Share of the picture, from which a region at its edge is no speck of what is cut there."""
HIGHEST_AIR = -950
"""HU; what is denser and lies within the body is lung or tissue, what is thinner may be gas."""
LEAST_COVERED = 0.005
"""Share of the body, from which a range that covers it is told as a fault."""


def padding_hu(header: ImageHeader) -> tuple[float, float] | None:
    """Return the range of padding of an image in HU, from low to high; None where its header names none."""
    if header.padding is None:
        return None
    slope, intercept = header.rescale
    ends = [value * slope + intercept for value in header.padding]
    return min(ends), max(ends)


def filled(hu: NDArray[np.int16], covered: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which of the pixels that padding covers are padding: not those of lung and tissue.

    Args:
        hu: int16, rows × columns, at least `LOWEST`.
        covered: bool, the same shape: where the stored values are those that the header calls padding.
    """
    from scipy import ndimage

    labels, count = ndimage.label(covered)
    solid, dense = (hu > SOLID) & ~covered, (hu > HIGHEST_AIR) & ~covered
    beside = np.zeros(count + 1, bool)
    beside[np.unique(labels[ndimage.binary_dilation(dense)])] = True
    within = beside.copy()
    within[np.unique(labels[solid | enclosed(solid)])] = True
    edge = np.zeros(count + 1, bool)
    edge[_on_edge(labels)] = True
    large = np.bincount(labels.ravel(), minlength=count + 1) >= LEAST_REGION * hu.size
    around = np.where(edge, large | ~beside, ~within)  # specks at the edge belong to what is beside them
    around[0] = False
    candidates = np.flatnonzero(around)
    low, high = (np.asarray(of(hu, labels, candidates)) for of in (ndimage.minimum, ndimage.maximum))
    found: NDArray[np.bool_] = np.isin(labels, candidates[high - low <= ONE_VALUE])
    return found


def touching_edge(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the regions of a mask, rows × columns, that reach the edge of the picture."""
    from scipy import ndimage

    labels, _ = ndimage.label(mask)
    found: NDArray[np.bool_] = np.isin(labels, _on_edge(labels)) & mask
    return found


def _on_edge(labels: NDArray[np.int32]) -> NDArray[np.int32]:
    return np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))


def covered_share(hu: NDArray[np.int16], low: float, high: float) -> float:
    """Return which share of the body is lung or tissue that padding from `low` to `high` HU covers, in [0, 1].

    `hu` is int16, rows × columns, after `filled` became air.
    """
    solid = hu > SOLID
    sides = np.zeros(hu.shape, np.uint8)  # on which there is body; a lung that the picture cuts has three
    for axis in (0, 1):
        sides += np.logical_or.accumulate(solid, axis=axis)
        sides += np.flip(np.logical_or.accumulate(np.flip(solid, axis), axis=axis), axis)
    body = solid | (sides >= 3) & (hu > HIGHEST_AIR)
    covered = body & (hu >= max(low, HIGHEST_AIR + 1)) & (hu <= high)
    return int(np.count_nonzero(covered)) / max(1, int(np.count_nonzero(body)))
