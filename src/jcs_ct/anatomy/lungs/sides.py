"""Which lung is which, also where they touch, and what belongs to a lung without being aerated."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.lungs.morphology import (
    LEFT,
    RIGHT,
    TISSUE,
    ball,
    bounding_box,
    dilate,
    dilate_in_slices,
    gaussian_filtered,
    is_in,
    label_sizes,
    opening,
    voxels,
    with_margin,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from jcs_ct.anatomy.lungs.morphology import Mask, Spacing, Volume

FARTHEST_PART_MM = 30.0  # how far from the rest a part may lie
LEAST_SMALLER_SHARE = 0.06  # the smaller lung's least share of both
MOST_CROSSING_SHARE = 0.06  # share of a lung that may lie beyond the middle between the outer edges of both
CLOSING_MM = 12.0
GAP_MM = 50.0  # the longest gap along the body that is bridged
MIDDLE_MM = 5.0  # half of the least thickness by which something is connected to the mediastinum


def split_sides(hu: Volume, lungs: Mask, spacing: Spacing, labels: NDArray[np.uint8]) -> None:
    """Write the sides of `lungs` into `labels` (zeros)."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    # One lung alone lies on one side of the body.
    levels = lungs.any(axis=(1, 2))
    body = (hu[levels] > TISSUE).sum(axis=(0, 1))
    left_share = float(
        lungs.sum(axis=(0, 1))[round(float(np.average(np.arange(len(body)), weights=body))) :].sum() / lungs.sum()
    )
    if not 0.04 < left_share < 0.96:
        labels[lungs] = LEFT if left_share > 0.5 else RIGHT
        return
    volume, whole = hu, bounding_box(lungs)
    frame = with_margin(whole, 0, spacing, hu.shape)  # a voxel beyond the lungs: what is farther has no say
    hu, lungs, labels = hu[frame], lungs[frame], labels[frame]
    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    middle = (columns[0] + columns[-1]) / 2
    seeds = next((pair for thin in _thinner(hu, lungs, spacing) if (pair := _pair(thin, middle)) is not None), None)
    if seeds is None:  # nothing parts them: the midline does
        labels[lungs] = np.where(np.nonzero(lungs)[2] < middle, RIGHT, LEFT)
        return
    box = bounding_box(lungs)  # watershed needs 40 bytes a voxel
    labels[box] = watershed(gaussian_filtered(volume, whole), seeds[box], mask=lungs[box])
    # Parts that are connected to neither belong to the nearer one.
    rest = lungs & (labels == 0)
    if rest.any():
        nearest = ndimage.distance_transform_edt(
            labels == 0, sampling=spacing, return_distances=False, return_indices=True
        )
        parts, count = ndimage.label(rest)
        places, parts = np.nonzero(rest), parts[rest]
        to = [axis[rest] for axis in nearest]
        away = np.sqrt(sum(((a - b) * mm) ** 2 for a, b, mm in zip(to, places, spacing, strict=True)))
        close = ndimage.minimum(away, parts, range(1, count + 1))
        belongs = np.isin(parts, 1 + np.flatnonzero(np.asarray(close) <= FARTHEST_PART_MM))
        labels[tuple(axis[belongs] for axis in places)] = labels[tuple(axis[belongs] for axis in to)]


def _thinner(hu: Volume, lungs: Mask, spacing: Spacing) -> Iterator[Mask]:
    """Yield less and less of the lungs, until what connects them is gone."""
    yield lungs
    for limit in (-500, -600, -700):
        yield lungs & (hu < limit)
    for shell in (3.0, 5.0, 7.5, 10.0, 15.0, 20.0):
        yield ~dilate(~lungs, ball(shell, spacing))


def _pair(lungs: Mask, middle: float) -> NDArray[np.uint8] | None:
    """Return the largest region on either side of column `middle` as labels; None where they are not two lungs."""
    from scipy import ndimage

    regions, count = ndimage.label(lungs)
    if count < 2:
        return None
    cut = math.ceil(middle)
    right, left = label_sizes(regions[:, :, :cut], count)[1:], label_sizes(regions[:, :, cut:], count)[1:]
    first, second = int(np.argmax(right)), int(np.argmax(left))
    both = right + left
    if first == second or min(both[first], both[second]) < LEAST_SMALLER_SHARE * both.sum():
        return None
    if left[first] > MOST_CROSSING_SHARE * both[first] or right[second] > MOST_CROSSING_SHARE * both[second]:
        return None
    seeds = np.zeros(lungs.shape, np.uint8)
    seeds[regions == first + 1], seeds[regions == second + 1] = RIGHT, LEFT
    return seeds


def close_outline(lung: Mask, spacing: Spacing) -> Mask:
    """Close a lung by a ball of `CLOSING_MM`; beyond the first and last slice it is taken to go on as it is there."""
    if not lung.any():
        return lung
    box = with_margin(bounding_box(lung), CLOSING_MM, spacing, lung.shape)
    margin = voxels(CLOSING_MM, spacing)
    inner = np.pad(lung[box], [(m, m) for m in margin], mode="constant")
    inner[: margin[0]], inner[-margin[0] :] = inner[margin[0]], inner[-margin[0] - 1]
    sphere = ball(CLOSING_MM, spacing)
    closing = ~dilate(~dilate(inner, sphere), sphere)
    closed = lung.copy()
    closed[box] |= closing[tuple(slice(m, -m) for m in margin)]
    return closed


def bridge(labels: NDArray[np.uint8], spacing: Spacing) -> NDArray[np.uint8]:
    """Fill what has the same lung above and below it: consolidation at the wall that is deeper than a ball closes.

    What hangs together with the mediastinum stays out: aortic arch, hilum and heart, and with it liver and spleen.
    """
    bridged = labels.copy()
    box = bounding_box(labels > 0)  # what lies between two lungs, or above and below one, is within it
    labels, filled = labels[box], bridged[box]
    middle = _mediastinum(labels > 0, spacing)
    levels = np.arange(len(labels), dtype=np.int16)[:, None, None]
    nowhere, most = np.int16(10_000), 1 + int(GAP_MM / spacing[0])
    for side in (RIGHT, LEFT):
        lung = labels == side
        above = np.maximum.accumulate(np.where(lung, levels, -nowhere), axis=0)
        below = np.minimum.accumulate(np.where(lung, levels, nowhere)[::-1], axis=0)[::-1]
        filled[(below - above <= most) & (filled == 0) & ~middle] = side
    return bridged


def _mediastinum(lungs: Mask, spacing: Spacing) -> Mask:
    """Return, slice by slice, what lies between the lungs' outer edges and is connected to the midline."""
    from scipy import ndimage

    columns = np.flatnonzero(lungs.any(axis=(0, 1)))
    middle, width = (columns[0] + columns[-1]) / 2, columns[-1] - columns[0] + 1
    between = np.maximum.accumulate(lungs, axis=2) & np.maximum.accumulate(lungs[:, :, ::-1], axis=2)[:, :, ::-1]
    disc = ball(MIDDLE_MM, (2 * MIDDLE_MM, *spacing[1:]))
    thick = opening(between & ~lungs, disc)
    within_slices = np.zeros((3, 3, 3), bool)
    within_slices[1] = ndimage.generate_binary_structure(2, 1)
    parts, _ = ndimage.label(thick, within_slices)
    centre = parts[:, :, round(middle - 0.06 * width) : round(middle + 0.06 * width) + 1]
    found = is_in(parts, np.setdiff1d(centre, 0))
    return dilate_in_slices(found, round(MIDDLE_MM / spacing[1]))
