"""Areas of one value within the body: what was painted over, masked or written into the pixels of a volume.

Tissue is never quite even. In 20 real volumes, some of them made of 8-bit pictures, the largest area of one value
within the body was 0.9 cm². Gas and metal fill more than that where values are cut off, but are no rectangles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LEAST_CM2 = 4.0
GAS, METAL = -950, 3000  # HU; thinner and denser values are often cut off
LEAST_FILLED = 0.95  # of the smallest upright box around the area: a rectangle
FEWEST_PIXELS = 12  # below which an even area may be chance


class FlatArea(NamedTuple):
    """An area of one value within the body.

    Attributes:
        place: Index of its slice.
        cm2: How large it is.
        hu: Its value.
        rectangle: Whether it fills an upright box.
    """

    place: int
    cm2: float
    hu: int
    rectangle: bool


def flat_areas(small: NDArray[np.int16], body: NDArray[np.bool_], pixel_mm2: float, index: int) -> list[FlatArea]:
    """Return the areas of one value within the body that are at least `LEAST_CM2` large.

    Args:
        small: HU, rows × columns.
        body: The same shape; holes within the body belong to it.
        pixel_mm2: Of a pixel.
        index: Of the slice.
    """
    least = max(FEWEST_PIXELS, LEAST_CM2 * 100 / pixel_mm2)
    corner = small[:-1, :-1]
    even = (corner == small[1:, :-1]) & (corner == small[:-1, 1:]) & (corner == small[1:, 1:])
    even &= body[:-1, :-1] & body[1:, 1:]
    if np.count_nonzero(even) < least:
        return []
    from scipy import ndimage

    labels, _ = ndimage.label(even)
    sizes, boxes = np.bincount(labels.ravel())[1:], ndimage.find_objects(labels)
    found = []
    for label in np.flatnonzero(sizes >= least):
        rows, columns = boxes[label]
        around = (rows.stop - rows.start) * (columns.stop - columns.start)
        value = int(corner[rows, columns][labels[rows, columns] == label + 1][0])
        cm2 = float(sizes[label] * pixel_mm2 / 100)
        found.append(FlatArea(index, cm2, value, bool(sizes[label] >= LEAST_FILLED * around)))
    return found


def painted(areas: Sequence[FlatArea], lowest: int, highest: int) -> list[FlatArea]:
    """Return the areas that are neither gas nor metal nor bone whose values were cut off.

    Args:
        areas: Of a volume.
        lowest: Of its values.
        highest: Of its values.
    """
    thin, dense = max(GAS, lowest + 1), min(METAL, highest - 1)
    return [one for one in areas if one.rectangle or thin <= one.hu <= dense]


def described(areas: Sequence[FlatArea], places: str) -> str:
    """Return what is said of such areas; `places`: of their slices, in words."""
    largest = max(areas, key=lambda one: one.cm2)
    return (
        f"areas of one value lie within the body in {places} (up to {largest.cm2:.0f} cm² of {largest.hu} HU): "
        "were they masked or painted over?"
    )
