"""The check of the input: is this a lung-windowed axial chest slice at all?

It refuses nothing: what it says stands beside the result. Rules are few and their numbers are measured (see
docs/methods.md); they look at a slice reduced to 160 pixels, so that a check takes a few milliseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jcs_ct.core.warning import CodedWarning
from jcs_ct.imaging.lung_box import lung_regions, reduced
from jcs_ct.imaging.orientation import orientation_probabilities, sure_orientation
from jcs_ct.imaging.recipes import luminance

if TYPE_CHECKING:
    from numpy.typing import NDArray

COLOURED = 12.0  # mean difference of the channels, grey values; JPEG makes grey pictures differ by up to about 5
STRONG_COLOUR, MOST_PAINTED = 60.0, 0.01  # difference of the channels; share of the chest's box: overlays, outlines
LEAST_LUNG, MOST_LUNG = 0.03, 0.72  # share of the slice that is dark and inside the body
LEAST_INSIDE = 14.0  # mean grey value of the lungs: soft-tissue windows make them black
LEAST_CONTRAST = 40.0  # grey values between the lungs and what surrounds them
ROUGHEST = 0.32  # see `Measured.roughness`
MOST_PARTS = 8  # dark regions: lungs, airways, lobes that consolidation divides
LEAST_SIDE = 0.02  # share of the lungs in the smaller half of the picture
LEAST_LEVELS = 24  # distinct grey values of a slice


MISORIENTED = {
    "inverted": "the picture looks inverted: black and white are exchanged",
    "turned": "the picture looks turned by 90°; the patient's front is expected at the top",
    "upside down": "the picture looks upside down; the patient's front is expected at the top",
}


FLAG_TEXTS = {
    "black-lungs": "the lungs are black; a lung window shows them grey",
    "no-lungs-in-slice": "no lungs were found: no chest, a slice above or below them, or another window",
    "coloured": "the picture is coloured; a CT slice is grey",
    "few-greys": "the picture has {levels} grey values; a CT slice has many",
    "rough": "the picture is as rough as noise or text; a CT slice is smoother",
    "dark": "nearly everything is dark; an axial slice shows the body around the lungs",
    "low-contrast": "lungs and body differ little; another window, or no CT slice",
    "scattered": "dark regions are scattered; an axial chest slice shows two lungs",
    "one-sided": "dark regions lie on one side only; an axial chest slice shows two lungs",
}
"""Code → what it says of a slice; besides those of `MISORIENTED`."""
ORIENTATION_CODES = {"inverted": "inverted", "turned": "turned", "upside down": "turned"}


@dataclass(frozen=True)
class PictureMeasurements:
    """What the rules look at.

    Attributes:
        colour: Mean difference between the channels, 0 to 255.
        painted: Share of the box around the dark regions that is of a strong colour, in [0, 1]; text beside the body
            lies outside.
        levels: Distinct grey values.
        lung: Share of the picture that is dark and inside the body, in [0, 1].
        contrast: Grey values from the lungs' mean up to the 90th percentile of the box around them: soft tissue.
        roughness: Mean difference of neighbouring pixels over the standard deviation; 1.1 for noise.
        inside: Mean grey value of the dark regions, 0 to 255.
        parts: Number of separate dark regions.
        sides: Share of the lungs in the smaller half of the picture, left or right, in [0, 0.5].
    """

    colour: float
    painted: float
    levels: int
    lung: float
    contrast: float
    roughness: float
    inside: float
    parts: int
    sides: float


def measure_picture(pixels: NDArray[np.uint8]) -> PictureMeasurements:
    """Measure a picture, uint8 rows × columns × 3 (RGB)."""
    from scipy import ndimage

    picture = Image.fromarray(pixels)
    small = reduced(picture)
    red, green, blue = np.asarray(small, dtype=np.float32).transpose(2, 0, 1)
    colour = np.maximum(np.maximum(red, green), blue) - np.minimum(np.minimum(red, green), blue)
    grey = np.asarray(small.convert("L"), dtype=np.uint8)
    lungs = lung_regions(grey)
    values = grey.astype(np.float32)
    steps = (np.abs(np.diff(values, axis=0)).mean() + np.abs(np.diff(values, axis=1)).mean()) / 2
    columns = lungs.sum(axis=0)
    total = max(1, int(lungs.sum()))
    left = float(columns[: len(columns) // 2].sum() / total)
    inside = float(values[lungs].mean()) if lungs.any() else 0.0
    down, across = np.flatnonzero(lungs.any(axis=1)), np.flatnonzero(columns)
    box = np.s_[down[0] : down[-1] + 1, across[0] : across[-1] + 1] if lungs.any() else np.s_[:, :]
    chest = values[box]
    return PictureMeasurements(
        colour=float(colour.mean()),
        painted=float((colour[box] > STRONG_COLOUR).mean()),
        levels=int(np.count_nonzero(np.reshape(picture.histogram(), (3, 256)).any(axis=0))),
        lung=float(lungs.mean()),
        contrast=float(np.percentile(chest, 90)) - inside,
        roughness=float(steps / max(float(values.std()), 1e-6)),
        inside=inside,
        parts=int(ndimage.label(lungs)[1]),
        sides=min(left, 1 - left) if lungs.any() else 0.0,
    )


def check_slice(pixels: NDArray[np.uint8], orientation: NDArray[np.float32] | None = None) -> tuple[CodedWarning, ...]:
    """Return what speaks against a lung-windowed axial chest slice, a line and a code each; nothing where nothing does.

    Args:
        pixels: uint8, rows × columns × 3 (RGB).
        orientation: What `orientation_probabilities` says of it in grey, where that is known already.
    """
    found = measure_picture(pixels)
    codes: list[str] = []
    if found.colour > COLOURED or found.painted > MOST_PAINTED:
        codes.append("coloured")
    if found.levels < LEAST_LEVELS:
        codes.append("few-greys")
    if found.roughness > ROUGHEST:
        codes.append("rough")
    looks_like_ct = not codes
    if found.lung < LEAST_LUNG:
        codes.append("no-lungs-in-slice")
    elif found.lung > MOST_LUNG:
        codes.append("dark")
    elif found.inside < LEAST_INSIDE:
        codes.append("black-lungs")
    elif found.contrast < LEAST_CONTRAST:
        codes.append("low-contrast")
    elif found.parts > MOST_PARTS:
        codes.append("scattered")
    elif found.sides < LEAST_SIDE:
        codes.append("one-sided")
    flags = [CodedWarning(code, FLAG_TEXTS[code].format(levels=found.levels)) for code in codes]
    if looks_like_ct:
        how = sure_orientation(orientation_probabilities(luminance(pixels)) if orientation is None else orientation)
        flags += [CodedWarning(ORIENTATION_CODES[how], MISORIENTED[how])] if how in MISORIENTED else []
    return tuple(flags)
