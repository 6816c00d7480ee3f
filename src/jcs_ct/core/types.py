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
"""Ways to make an attention map (`jcs_ct.inference.pipeline.explain`)."""


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
        name: As in `SliceImage`.
        source: As in `SliceImage`.
        vgg: uint8, 64 × rows × columns, or None where the file holds none.
        res2net: uint8, 64 × ceil(rows/2) × ceil(columns/2), or None where the file holds none.
        notes: As in `SliceImage`.
    """

    name: str
    source: str
    vgg: NDArray[np.uint8] | None
    res2net: NDArray[np.uint8] | None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SliceDiagnosis:
    """What one pass of `jcs-lite` says of a slice. Maps are on the slice's own grid.

    Attributes:
        image: The slice.
        probability: Of COVID-19, calibrated, in [0, 1].
        positive: Whether the probability reaches the threshold stored with the weights.
        lesion: float32, rows × columns: probability of lesion; 0 outside of the lung field.
        attention: float32, rows × columns in [0, 1]: where the evidence for COVID-19 is; 0 outside of the lung field.
        field: (top, left, rows, columns) of the lung field the network looked at.
        flags: Why the picture may be no lung-windowed axial chest slice, a line each; empty where nothing is wrong.
    """

    image: SliceImage
    probability: float
    positive: bool
    lesion: NDArray[np.float32]
    attention: NDArray[np.float32]
    field: tuple[int, int, int, int]
    flags: tuple[str, ...] = ()
