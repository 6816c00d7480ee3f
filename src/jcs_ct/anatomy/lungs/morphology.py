"""Shapes in volumes whose voxels are no cubes: lengths are mm, boxes are slices."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Volume = NDArray[np.int16]
    Spacing = tuple[float, float, float]

RIGHT, LEFT = 1, 2
"""Labels: the patient's right and left lung."""
TISSUE = -300  # HU


def dilate_in_slices(mask: Mask, pixels: int) -> Mask:
    """Dilate within slices, by a diamond; a volume or one slice."""
    rows, columns = np.ogrid[-pixels : pixels + 1, -pixels : pixels + 1]
    found = dilate(mask if mask.ndim == 3 else mask[None], (abs(rows) + abs(columns) <= pixels)[None])
    return found if mask.ndim == 3 else found[0]


def dilate(mask: Mask, shape: Mask, *, outside: bool = False) -> Mask:
    """Return the dilation of a volume by a symmetric shape whose rows have no gaps, as SciPy's, many times faster.

    With a margin around it a volume is one long row, and a step in any direction a step along this row.

    Args:
        mask: The volume.
        shape: `ball`.
        outside: What lies beyond the volume.
    """
    margin = [n // 2 for n in shape.shape]
    padded = np.pad(mask, [(m, m) for m in margin], constant_values=outside)
    row, plane, width = padded.reshape(-1), padded[0].size, padded.shape[2]
    wide = [row]  # dilated along the rows, by the reach to either side
    for reach in range(1, margin[2] + 1):
        wide.append(wider := wide[-1].copy())
        wider[reach:] |= row[:-reach]
        wider[:-reach] |= row[reach:]
    found, edge = np.zeros_like(row), margin[0] * plane + margin[1] * width
    for (down, across), run in np.ndenumerate(shape.sum(axis=2)):
        if run:
            start = down * plane + across * width
            found[edge : len(row) - edge] |= wide[run // 2][start : len(row) - 2 * edge + start]
    inner: Mask = found.reshape(padded.shape)[tuple(slice(m, m + n) for m, n in zip(margin, mask.shape, strict=True))]
    return inner


def opening(mask: Mask, shape: Mask) -> Mask:
    """Return the opening of a volume by a shape, see `dilate`: as SciPy's."""
    return dilate(~dilate(~mask, shape, outside=True), shape)


def ball(radius: float, spacing: Spacing) -> Mask:
    """Return a ball of some mm."""
    down, rows, columns = np.ogrid[tuple(slice(-int(radius // mm), int(radius // mm) + 1) for mm in spacing)]
    distance = (down * spacing[0]) ** 2 + (rows * spacing[1]) ** 2 + (columns * spacing[2]) ** 2
    return np.asarray(distance <= radius**2)


def mean_filtered(hu: Volume, spacing: Spacing) -> NDArray[np.float32]:
    """Return the mean HU within some 7.5 mm of every voxel in its slice."""
    from scipy import ndimage

    window = (1, odd_voxels(7.5, spacing[1]), odd_voxels(7.5, spacing[2]))
    mean: NDArray[np.float32] = ndimage.uniform_filter(hu, window, output=np.float32)
    return mean


def odd_voxels(mm: float, spacing: float) -> int:
    """Return the odd number of voxels nearest to some mm."""
    return 2 * round(mm / spacing / 2) + 1


def voxels(mm: float, spacing: Spacing) -> tuple[int, int, int]:
    """Return a little more than some mm along each axis."""
    down, rows, columns = (int(np.ceil(mm / s)) + 1 for s in spacing)
    return down, rows, columns


def label_sizes(labels: NDArray[np.int32], count: int) -> NDArray[np.int64]:
    """Return how many voxels the labels 0 … `count` have; NumPy would make 8-byte copies of a whole volume for it."""
    total = np.zeros(count + 1, np.int64)
    for plane in labels:
        total += np.bincount(plane.ravel(), minlength=count + 1)
    return total


def is_in(labels: NDArray[np.int32], numbers: NDArray[np.integer[Any]]) -> Mask:
    """Return where a label is one of `numbers`; as `np.isin`, in a byte a voxel."""
    found = np.empty(labels.shape, bool)
    for plane, here in zip(labels, found, strict=True):
        here[:] = np.isin(plane, numbers)
    return found


def bounding_box(mask: Mask) -> tuple[slice, ...]:
    """Return the smallest box that holds a mask with content."""
    from scipy import ndimage

    box: tuple[slice, ...] = ndimage.find_objects(mask.view(np.uint8))[0]
    return box


def gaussian_filtered(hu: Volume, box: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return a box of a volume after a Gaussian filter of 0.7 voxels, which sees 3 voxels far."""
    from scipy import ndimage

    wide = tuple(slice(max(0, s.start - 3), s.stop + 3) for s in box)
    inner = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in zip(box, wide, strict=True))
    smooth: NDArray[np.float32] = ndimage.gaussian_filter(hu[wide], 0.7, output=np.float32)[inner].copy()
    return smooth


def with_margin(box: tuple[slice, ...], mm: float, spacing: Spacing, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Return a box with a margin of some mm, within the volume."""
    margins = voxels(mm, spacing)
    return tuple(slice(max(0, s.start - m), min(n, s.stop + m)) for s, m, n in zip(box, margins, shape, strict=True))
