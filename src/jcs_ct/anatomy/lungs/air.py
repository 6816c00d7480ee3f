"""Where aerated lung is, and what is air but no lung: around the patient, in the couch, in gut and trachea."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.lungs.morphology import (
    TISSUE,
    ball,
    bounding_box,
    dilate,
    dilate_in_slices,
    gaussian_filtered,
    is_in,
    label_sizes,
    opening,
    with_margin,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.anatomy.lungs.morphology import Mask, Spacing, Volume

AIR = -400  # HU, halfway between lung and soft tissue
OUTSIDE = -940  # HU, smoothed, of outside air; what reaches the side of the picture and is denser may be cut-off lung
GAS = -968  # HU, below which the largest region is no lung
GAS_BELOW_LUNG, SMALL_ML = (50, 20), 60  # HU below the largest region's, for other regions and for small ones
WALL_MM, WALLED = 12.0, 0.7  # share of tissue within that distance: 1.0 around lungs, below 0.5 around air in a couch
PART_ML = 1.0  # parts of a lung that consolidation has cut off
BRONCHI_MM = 70.0  # how far below the trachea's free part bronchi are followed


def aerated(hu: Volume, smooth: NDArray[np.float32], spacing: Spacing) -> Mask:
    """Return air inside the chest: lungs and their airways, without outside air, couch, stomach and bowel.

    Args:
        hu: The volume.
        smooth: `shapes.blurred` of it.
        spacing: mm between slices, rows, columns.
    """
    from scipy import ndimage

    air = hu < AIR
    labels, _ = ndimage.label(air)
    sides = np.unique(np.concatenate([labels[:, (0, -1)].ravel(), labels[:, :, (0, -1)].ravel()]))
    border = is_in(labels, sides[sides > 0])
    del labels
    # Lung that the field of view cuts off reaches the side of the picture as outside air does, but it is denser.
    outside = border & (smooth < OUTSIDE)
    cut = opening(border & ~dilate_in_slices(outside, 2), ball(6.0, spacing))
    labels, count = ndimage.label((air & ~border) | cut)
    ml = label_sizes(labels, count) * float(np.prod(spacing)) / 1000
    boxes, tissue = ndimage.find_objects(labels), hu > TISSUE
    kept = np.zeros(hu.shape, bool)
    usual: float | None = None  # HU of the largest lung
    for index in 1 + np.argsort(-ml[1:]):
        if ml[index] < PART_ML:
            break
        box = with_margin(boxes[index - 1], WALL_MM, spacing, hu.shape)
        part = labels[box] == index
        core = part & ~dilate_in_slices(~part, 1)
        level = float(np.median(hu[box][core if core.any() else part]))
        gas = level < (GAS if usual is None else usual - GAS_BELOW_LUNG[int(ml[index] < SMALL_ML)])
        if not gas and _walled(part, tissue[box], spacing):
            kept[box] |= part
            usual = level if usual is None else usual
    return kept


def without_gas(hu: Volume, air: Mask, smooth: NDArray[np.float32], spacing: Spacing) -> Mask:
    """Take away stomach and bowel that meet the lungs where the diaphragm is thinner than a voxel."""
    from scipy import ndimage
    from skimage.segmentation import watershed

    limit = _emptiness(hu, air)
    frame = with_margin(bounding_box(air), WALL_MM, spacing, hu.shape)  # what is farther away has no say
    near, smooth, inside = hu[frame], smooth[frame], air[frame]
    empty = inside & (smooth < limit)
    if not empty.any():
        return air
    labels, _ = ndimage.label(opening(empty, ball(6.0, spacing)))
    levels = np.flatnonzero(inside.any(axis=(1, 2)))
    seeds = np.zeros(near.shape, np.uint8)
    for number, found in enumerate(ndimage.find_objects(labels), 1):
        box = with_margin(found, WALL_MM, spacing, near.shape)
        core = labels[box] == number
        low = (found[0].start + found[0].stop) / 2 > levels.mean()  # higher up it is the trachea, or emphysema
        if low and core.sum() * float(np.prod(spacing)) / 1000 >= 2 and _walled(core, near[box] > TISSUE, spacing, 0.5):
            seeds[box][core] = 1
    if not seeds.any():
        return air
    seeds[opening(inside & (smooth > limit) & (smooth < -600), ball(6.0, spacing))] = 2
    box, whole = bounding_box(inside), bounding_box(air)  # watershed needs 40 bytes a voxel
    kept = air.copy()
    kept[whole] &= watershed(gaussian_filtered(hu, whole), seeds[box], mask=air[whole]) != 1
    return kept


def find_airways(hu: Volume, lungs: Mask, spacing: Spacing, chain: Sequence[tuple[int, Mask]]) -> Mask:
    """Return trachea and main bronchi, followed from the top slice by slice; empty where no trachea is found.

    Args:
        hu: The volume.
        lungs: Aerated lung.
        spacing: mm between slices, rows, columns.
        chain: What `find_trachea` found.
    """
    from scipy import ndimage

    found = np.zeros(hu.shape, bool)
    if not chain:
        return found
    pixel = spacing[1] * spacing[2]
    usual = float(np.median([mask.sum() for _, mask in chain]))
    limit = _emptiness(hu, lungs)
    for index, mask in chain:
        found[index] = mask
    previous, reach = chain[-1][1], max(1, round(0.8 * spacing[0] / spacing[1]))
    for index in range(chain[-1][0] + 1, min(len(hu), chain[-1][0] + 1 + round(BRONCHI_MM / spacing[0]))):
        near = dilate_in_slices(previous, reach)
        for darker in (0, 15, 30):
            labels, _ = ndimage.label(hu[index] < limit - darker)
            here = np.isin(labels, np.setdiff1d(labels[near], 0))
            if here.sum() <= 1.6 * max(previous.sum(), 0.7 * usual):
                break
        else:  # it leaks into the lung
            here &= near
            if here.sum() > 2.5 * usual:
                break
        if here.sum() * pixel < 20:
            break
        found[index] = previous = here
    return found


def find_trachea(hu: Volume, lungs: Mask, spacing: Spacing) -> list[tuple[int, Mask]]:
    """Return the longest run of slices with a round, empty spot between the lungs, as (slice, mask); may be empty."""
    from scipy import ndimage

    pixel = spacing[1] * spacing[2]
    areas, columns = lungs.sum(axis=(1, 2)), np.flatnonzero(lungs.any(axis=(0, 1)))
    middle, width = (columns[0] + columns[-1]) / 2, columns[-1] - columns[0] + 1
    top = int(np.argmax(areas > 0.35 * areas.max()))  # the trachea ends some 5 cm below
    runs: list[list[tuple[int, float, float, Mask]]] = []
    for index in range(min(len(hu), top + 1 + round(60 / spacing[0]))):
        labels, _ = ndimage.label(hu[index] < -500)
        for number, box in enumerate(ndimage.find_objects(labels), 1):
            spot = labels[box] == number
            area, high, wide = spot.sum() * pixel, spot.shape[0] * spacing[1], spot.shape[1] * spacing[2]
            y, x = ((s.start + s.stop - 1) / 2 for s in box)
            if not (60 <= area <= 700 and max(high, wide) < 2.4 * min(high, wide) and area > 0.5 * high * wide):
                continue
            if abs(x - middle) > 0.2 * width or hu[index][box][spot].min() > -850:
                continue
            near = max(6.0, 2 * spacing[0])
            fits = (
                r for r in runs
                if r[-1][0] == index - 1 and np.hypot((r[-1][1] - y) * spacing[1], (r[-1][2] - x) * spacing[2]) < near
            )  # fmt: skip
            run = next(fits, None)
            if run is None:
                runs.append(run := [])
            run.append((index, y, x, labels == number))
    longest = max(runs, key=len, default=[])
    return [(index, mask) for index, _, _, mask in longest] if len(longest) * spacing[0] >= 15 else []


def _emptiness(hu: Volume, lungs: Mask) -> float:
    """Return HU halfway from the lungs' own density to empty air."""
    return min(-900.0, (float(np.median(hu[lungs])) - 1000) / 2)


def _walled(part: Mask, tissue: Mask, spacing: Spacing, least: float = WALLED) -> bool:
    """Return whether a region has tissue all around it."""
    wall = tissue[dilate(part, ball(WALL_MM, spacing)) & ~dilate(part, ball(1.5 * max(spacing[1:]), spacing))]
    return bool(wall.size) and float(wall.mean()) >= least
