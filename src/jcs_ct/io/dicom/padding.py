"""Stored values that stand for nothing (PS3.3 C.7.5.1.1.2): air around the body, and never made air within it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

HIGHEST_PADDING = -950
"""HU up to which padding is air wherever it lies; what is denser may be tissue with the same value."""


def padded(stored: NDArray[Any], padding: tuple[int, int], slope: float, intercept: float) -> NDArray[np.bool_]:
    """Return where an image (rows × columns, stored values) holds padding, which lies from … to …."""
    first, last = padding
    filled: NDArray[np.bool_] = (stored >= first) & (stored <= last)
    if max(first * slope, last * slope) + intercept > HIGHEST_PADDING:
        # tissue may have these values: only what reaches the edge is air
        filled = touching_edge(filled)
    return filled


def touching_edge(filled: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the parts of a mask that reach the edge of the picture."""
    from scipy import ndimage

    if not filled.any():
        return filled
    labels, _ = ndimage.label(filled)
    edge = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    found: NDArray[np.bool_] = np.isin(labels, edge[edge > 0])
    return found
