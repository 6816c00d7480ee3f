"""Shapes in volumes whose voxels are no cubes: lengths are mm, boxes are slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Volume = NDArray[np.int16]
    Spacing = tuple[float, float, float]

RIGHT, LEFT = 1, 2
"""Labels: the patient's right and left lung."""
TISSUE = -300  # HU


def grown(mask: Mask, pixels: int) -> Mask:
    """Dilate within slices, by a diamond."""
    from scipy import ndimage

    cross = ndimage.generate_binary_structure(2, 1)
    grown: Mask = ndimage.binary_dilation(mask, cross if mask.ndim == 2 else cross[None], iterations=pixels)
    return grown


def ball(radius: float, spacing: Spacing) -> Mask:
    """Return a ball of some mm."""
    down, rows, columns = np.ogrid[tuple(slice(-int(radius // mm), int(radius // mm) + 1) for mm in spacing)]
    distance = (down * spacing[0]) ** 2 + (rows * spacing[1]) ** 2 + (columns * spacing[2]) ** 2
    return np.asarray(distance <= radius**2)


def odd(mm: float, spacing: float) -> int:
    """Return the odd number of voxels nearest to some mm."""
    return 2 * round(mm / spacing / 2) + 1


def voxels(mm: float, spacing: Spacing) -> tuple[int, int, int]:
    """Return a little more than some mm along each axis."""
    down, rows, columns = (int(np.ceil(mm / s)) + 1 for s in spacing)
    return down, rows, columns


def around(box: tuple[slice, ...], mm: float, spacing: Spacing, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return a box with a margin of some mm, within the volume."""
    margins = voxels(mm, spacing)
    return tuple(slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margins, shape, strict=True))
