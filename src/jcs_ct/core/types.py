"""Frozen value types that the stages hand to one another. No torch here.

Axes are (row, column) for a slice and (slice, row, column) for a study; channel axes are stated where they occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

METHODS = ("grad-cam", "layer-cam", "grad-cam-release")
"""Ways to make an attention map (`jcs_ct.inference.apply.explain`)."""


@dataclass(frozen=True)
class SliceImage:
    """One axial CT slice as a picture that is already lung-windowed.

    Attributes:
        name: Stem of everything written for it: "/"-separated, relative, without extension.
        source: What a message calls it: the path, or "archive.zip!member".
        pixels: uint8, rows × columns × 3 (RGB; a grey slice has three equal channels).
        notes: What a user should know about the way it was read (colour, 16 bits, transparency …), a line each.
    """

    name: str
    source: str
    pixels: NDArray[np.uint8]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class StageOneFeatures:
    """Quantised stage-1 features of one slice in the COVID-CS format (value · 20, uint8).

    Attributes:
        name, source, notes: As in `SliceImage`.
        vgg: uint8, 64 × rows × columns, or None where the file holds none.
        res2net: uint8, 64 × ceil(rows/2) × ceil(columns/2), or None where the file holds none.
    """

    name: str
    source: str
    vgg: NDArray[np.uint8] | None
    res2net: NDArray[np.uint8] | None
    notes: tuple[str, ...] = ()
