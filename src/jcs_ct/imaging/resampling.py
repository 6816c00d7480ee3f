"""Resizing 8-bit pictures bit for bit as the release does, on any machine.

The release resizes segmentation inputs with OpenCV's bilinear filter for 8-bit pictures, which computes in fixed
point: 11-bit weights, four bits dropped between the two passes. Floating-point resizing followed by rounding differs
in an eighth of the pixels, by one grey level. The few lines here give OpenCV's numbers without its 60 MB; the tests
hold them against OpenCV itself. Everything else (Pillow's filter, maps back to the slice) is done by libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ONE = 2048  # 1.0 in 11-bit fixed point


def _weights(n_in: int, n_out: int) -> tuple[NDArray[np.intp], NDArray[np.int32], NDArray[np.int32]]:
    """Return, for every output position, the index of the first neighbour and the two fixed-point weights."""
    position = ((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5).astype(np.float32)
    index = np.floor(position).astype(np.intp)
    fraction = (position - index).astype(np.float32)
    second = np.rint(fraction * _ONE).astype(np.int32)
    first = np.rint((np.float32(1) - fraction) * _ONE).astype(np.int32)
    return index, first, second


def resize_bilinear_8bit(pixels: NDArray[np.uint8], rows: int, columns: int) -> NDArray[np.uint8]:
    """Resize like OpenCV's `INTER_LINEAR` on 8-bit pictures: bilinear, pixel centres aligned, not antialiased.

    From uint8, H × W × C, to uint8, rows × columns × C.
    """
    height, width = pixels.shape[:2]
    if (height, width) == (rows, columns):
        return pixels
    left, a, b = _weights(width, columns)
    # Beyond the outermost pixel centres OpenCV takes the outermost column alone, but mixes the outermost row with
    # itself, which rounds differently.
    inside = (left >= 0) & (left < width - 1)
    a, b = np.where(inside, a, _ONE).astype(np.int32), np.where(inside, b, 0).astype(np.int32)
    left = np.clip(left, 0, width - 1)
    right = np.minimum(left + 1, width - 1)
    wide = pixels.astype(np.int32)
    horizontal = wide[:, left] * a[:, None] + wide[:, right] * b[:, None]
    horizontal >>= 4
    top, a, b = _weights(height, rows)
    upper, lower = np.clip(top, 0, height - 1), np.clip(top + 1, 0, height - 1)
    result = (horizontal[upper] * a[:, None, None]) >> 16
    result += (horizontal[lower] * b[:, None, None]) >> 16
    return ((result + 2) >> 2).astype(np.uint8)
