"""The slices of the page: each is packed into a few kilobytes as it passes, and nothing else is kept of it.

A packed slice is a grey JPEG, a 1-bit PNG of the lesions and a small 8-bit PNG of the attention: what every browser
decodes, without a colour profile, to the same levels. Hounsfield units become 8 bits by three straight lines, so that
the browser can show them in another window:

| HU | levels | a level is |
| --- | --- | --- |
| −1024 … −160 (air, lung) | 0–96 | 9 HU, 1.5 of the 256 greys of a lung window 1500 HU wide |
| −160 … 240 (soft tissue) | 96–221 | 3.2 HU, 2 of the greys of a soft-tissue window 400 HU wide |
| 240 … 1260 (bone) | 221–255 | 30 HU; above is 255 |

JPEG adds an error of its own (docs/report.md). The pictures are for the eye; numbers come from the study itself.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

HU_POINTS = (-1024, -160, 240, 1260)
LEVEL_POINTS = (0, 96, 221, 255)
"""Hounsfield units and the levels they become; straight lines between them."""

BUDGET = 26_000
"""Bytes of a slice, so that 300 of them stay below 15 MB in base64 with everything else."""

_TOTAL = 300 * BUDGET
_QUALITIES = (90, 80, 70, 60, 50, 40, 30, 20)
_FIRST = 2  # where a CT of 512×512 usually ends: one try instead of three
_NEXT_COSTS = 1.15  # at least that many times the bytes: not worth a try where the budget is nearer
_LEAST_SIDE = 64  # pixels; a slice is not made smaller to meet its budget
_ATTENTION_SIDE = 128  # attention is smooth: the networks give 1/16 or 1/32 of the slice
_ATTENTION_LEVELS = 64


@dataclass(frozen=True)
class EncodedFrame:
    """A packed slice.

    Attributes:
        rows: Of the slice as it came.
        columns: Of the slice as it came.
        hounsfield: Whether the levels of `image` stand for Hounsfield units; else they are the grey as it came.
        image: JPEG, grey, not larger than rows × columns.
        mask: 1-bit PNG of the lesions, not larger than rows × columns; None without lesions.
        attention: 8-bit PNG, 255 is 1; smaller than the slice; None where it is 0 everywhere.
    """

    rows: int
    columns: int
    hounsfield: bool
    image: bytes
    mask: bytes | None
    attention: bytes | None

    @property
    def size(self) -> int:
        """Bytes of the whole slice."""
        return len(self.image) + len(self.mask or b"") + len(self.attention or b"")


def frame_budget(slices: int) -> int:
    """Return the bytes a slice may take in a study of so many, for a page of at most 15 MB."""
    return min(2 * BUDGET, _TOTAL // max(1, slices))


def hu_to_levels(hu: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return Hounsfield units as 8-bit levels of the same shape, see above."""
    levels: NDArray[np.uint8] = _LEVEL_OF[np.clip(hu, -1024, 3071).astype(np.int16) + np.int16(1024)]
    return levels


def levels_to_hu(levels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the Hounsfield units that levels stand for."""
    return np.interp(levels, LEVEL_POINTS, HU_POINTS).astype(np.float32)


_LEVEL_OF: NDArray[np.uint8] = np.rint(np.interp(np.arange(-1024, 3072), HU_POINTS, LEVEL_POINTS)).astype(np.uint8)


def encode_frame(
    *,
    hu: NDArray[np.int16] | None,
    grey: NDArray[np.uint8] | None,
    lesion: NDArray[np.bool_],
    attention: NDArray[np.float32],
    budget_bytes: int = BUDGET,
) -> EncodedFrame:
    """Pack one slice.

    Args:
        hu: int16 H×W Hounsfield units, or None for a picture.
        grey: uint8 H×W, the picture as it came; not looked at where `hu` is given.
        lesion: bool H×W.
        attention: float32 H×W in [0, 1].
        budget_bytes: What the slice may take. Quality goes down first, then the size of the picture; the lesions are
            made smaller only where they alone would take more than half of it.

    Raises:
        ShapeError: Nothing to show came, shapes differ, or the attention leaves [0, 1].
    """
    source = grey if hu is None else hu
    if source is None:
        raise ShapeError("neither Hounsfield units nor a grey picture was given; a slice needs one of them")
    shape = source.shape
    if len(shape) != 2 or 0 in shape or lesion.shape != shape or attention.shape != shape:
        raise ShapeError(
            f"slice {shape}, lesion {lesion.shape} and attention {attention.shape} were given; one H×W is expected"
        )
    if not (attention.min() >= 0 and attention.max() <= 1):
        raise ShapeError(f"attention goes from {attention.min():g} to {attention.max():g}; 0 to 1 is expected")
    levels = hu_to_levels(hu) if hu is not None else np.asarray(source, np.uint8)
    mask = _encode_mask(lesion, budget_bytes // 2) if lesion.any() else None
    seen = _encode_attention(attention, budget_bytes // 4)
    left = budget_bytes - len(mask or b"") - len(seen or b"")
    return EncodedFrame(shape[0], shape[1], hu is not None, _encode_image(levels, left), mask, seen)


def _encode_image(levels: NDArray[np.uint8], budget: int) -> bytes:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(levels)
    while True:
        data, quality = _saved(picture, "JPEG", quality=_QUALITIES[_FIRST]), _FIRST
        while len(data) > budget and quality + 1 < len(_QUALITIES):
            quality += 1
            data = _saved(picture, "JPEG", quality=_QUALITIES[quality])
        while len(data) * _NEXT_COSTS < budget and 0 < quality <= _FIRST:
            quality -= 1
            better = _saved(picture, "JPEG", quality=_QUALITIES[quality])
            if len(better) > budget:
                break
            data = better
        smaller = (max(1, picture.width * 3 // 4), max(1, picture.height * 3 // 4))
        if len(data) <= budget or min(smaller) < _LEAST_SIDE:
            return data
        picture = picture.resize(smaller, Pillow.Resampling.BOX)


def _encode_mask(lesion: NDArray[np.bool_], budget: int) -> bytes:
    from PIL import Image as Pillow

    picture = Pillow.fromarray(lesion.astype(np.uint8) * np.uint8(255))
    while True:
        data = _saved(picture.point(lambda v: 255 if v >= 128 else 0, "1"), "PNG", compress_level=9)
        if len(data) <= budget or min(picture.size) // 2 < _LEAST_SIDE:
            return data
        picture = picture.resize((picture.width // 2, picture.height // 2), Pillow.Resampling.BOX)


def _encode_attention(attention: NDArray[np.float32], budget: int) -> bytes | None:
    from PIL import Image as Pillow

    if attention.max() * 255 < 0.5:
        return None
    step = 255 / (_ATTENTION_LEVELS - 1)
    side = _ATTENTION_SIDE
    while True:
        scale = min(1.0, side / max(attention.shape))
        size = (max(1, round(attention.shape[1] * scale)), max(1, round(attention.shape[0] * scale)))
        small = np.asarray(Pillow.fromarray(attention.astype(np.float32)).resize(size, Pillow.Resampling.BOX))
        levels = np.rint(np.rint(small * (_ATTENTION_LEVELS - 1)) * step).astype(np.uint8)
        data = _saved(Pillow.fromarray(levels), "PNG", compress_level=9)
        if len(data) <= budget or side <= 16:
            return data
        side //= 2


def _saved(picture: Image, form: str, **options: Any) -> bytes:
    data = io.BytesIO()
    picture.save(data, form, **options)
    return data.getvalue()
