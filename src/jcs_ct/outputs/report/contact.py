"""The contact sheet: the most affected slices as finished pictures, for paper and for readers without scripts."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.outputs.images import LESION, STRONGEST, blend, border
from jcs_ct.outputs.report.frames import EncodedFrame, levels_to_hu
from jcs_ct.outputs.report.language import mark

if TYPE_CHECKING:
    from numpy.typing import NDArray

ATTENTION = (
    (13, 8, 135), (65, 4, 157), (106, 0, 168), (143, 13, 164), (177, 42, 144), (204, 71, 120),
    (225, 100, 98), (242, 132, 75), (252, 166, 54), (252, 206, 37), (240, 249, 33),
)  # fmt: skip
"""matplotlib's "plasma" in steps of 0.1: its lightness rises evenly, also for the colour-blind."""

FILL = 0.22
"""Share of colour inside the contour of a lesion."""

WINDOWS = {"lung": (mark("Lung"), -600, 1500), "soft": (mark("Soft tissue"), 40, 400)}
"""Name, centre and width in HU of the presets."""

_WIDTH = 384  # pixels of a picture


@dataclass(frozen=True)
class ContactPictures:
    """Two finished pictures of a slice, each a data URL: with the contour of the lesions, with the attention."""

    lesions: str
    attention: str
    width: int
    height: int


def contact_pictures(frame: EncodedFrame, aspect: float = 1.0) -> ContactPictures:
    """Draw a packed slice. `aspect`: height of a pixel over its width."""
    grey = _opened(frame.image)
    if frame.hounsfield:
        _, centre, width = WINDOWS["lung"]
        shown = (levels_to_hu(grey) - (centre - width / 2)) * (255 / width)
        grey = np.clip(np.rint(shown), 0, 255).astype(np.uint8)
    size = (_WIDTH, max(1, round(_WIDTH * aspect * frame.rows / frame.columns)))
    base = np.repeat(_resized(grey, size)[:, :, None], 3, axis=2)
    marked, seen = base, base
    if frame.mask is not None:
        mask = _resized(_opened(frame.mask), size) >= 128
        marked = blend(blend(base, LESION, FILL * mask), LESION, border(mask, 2).astype(np.float32))
    if frame.attention is not None:
        levels = _resized(_opened(frame.attention), size)
        values, steps = np.linspace(0, 1, 256, dtype=np.float32), np.linspace(0, 1, len(ATTENTION))
        colours = np.stack([np.interp(values, steps, channel) for channel in np.array(ATTENTION).T], axis=1)
        seen = blend(base, colours[levels], STRONGEST * values[levels])
    return ContactPictures(_data_url(marked), _data_url(seen), *size)


def _opened(data: bytes) -> NDArray[np.uint8]:
    from PIL import Image

    with Image.open(io.BytesIO(data)) as picture:
        return np.asarray(picture.convert("L"))


def _resized(levels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    return np.asarray(Image.fromarray(levels).resize(size, Image.Resampling.BILINEAR))


def _data_url(pixels: NDArray[np.uint8]) -> str:
    from PIL import Image

    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(data.getvalue()).decode()
