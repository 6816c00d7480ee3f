"""The picture of one diagnosed slice: as it came, with its lesions, and with the network's attention, side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.outputs.figures import (
    FILL,
    FOOTER,
    SCALE,
    ZERO,
    colour_bar,
    finish,
    head,
    lesion_swatch,
    with_attention,
    with_lesions,
)
from jcs_ct.outputs.images import checked_map, colour_table, grey_levels, mean_side, resized, whole_factor
from jcs_ct.outputs.report.language import ENGLISH, mark
from jcs_ct.outputs.sheet import Sheet, lettered

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.outputs.report.language import Language


def diagnosed_slice(
    slice_rgb: NDArray[np.uint8],
    lesion: NDArray[np.bool_],
    attention: NDArray[np.float32],
    *,
    share: float | None,
    anatomy: bool,
    title: str,
    caption: Sequence[str] = (),
    language: Language = ENGLISH,
) -> bytes:
    """Draw a slice, its lesions and its attention.

    Args:
        slice_rgb: uint8 H×W×3, lung-windowed.
        lesion: bool H×W.
        attention: Float H×W in [0, 1].
        share: Lesion in the slice's lung (pictures: in the picture), in [0, 1], as the report has it.
        anatomy: Whether it is known that the image's left is the patient's right; pictures do not say.
        title: Name of the slice.
        caption: Lines below: the probability, the model, what speaks against the slice.
        language: Of the words in the picture; its letters must be those of the font (`Sheet`).

    Returns:
        A PNG file. Slices of more than 1024 pixels are reduced by a whole number.

    Raises:
        UsageError: The slice is not as described.
        OutputError: The attention is not as described.
    """
    grey = grey_levels(slice_rgb)
    factor = whole_factor(grey.shape, 384, most=1024)
    plain = resized(grey, factor)
    heat = resized(checked_map(attention, "attention map", grey.shape), factor)
    table = colour_table("plasma")
    unit = max(1.0, mean_side(plain) / 512)
    width, gap = plain.shape[1], round(10 * unit)
    sheet = Sheet(3 * (width + gap) - gap, unit)
    head(sheet, title)
    panels = (
        (language.say("CT slice"), plain),
        (language.say("lesions"), with_lesions(plain, resized(lesion, factor), sheet.px(1.2), fill=FILL)),
        (
            language.say("attention for COVID-19") if heat.any() else language.say(ZERO),
            with_attention(plain, heat, table),
        ),
    )
    for number, (label, pixels) in enumerate(panels):
        top, left = sheet.y, number * (width + gap)
        sheet.line(label, bold=True, left=left, width=width, align="center")
        sheet.gap(3)
        sheet.picture(with_sides(pixels, sheet) if anatomy else pixels, left)
        sheet.gap(8)
        if number < len(panels) - 1:
            sheet.y = top
    of = mark("lesion: %(share)s of the lung") if anatomy else mark("lesion: %(share)s of the picture")
    lesion_swatch(
        sheet,
        language.say(of, share=language.percent(share)) if lesion.any() else language.say("no lesion found"),
        sheet.px(1.2),
        fill=FILL,
    )
    sheet.gap(2)
    if heat.any():
        colour_bar(sheet, table, language.say(SCALE))
    return finish(sheet, caption, language.say(FOOTER))


def with_sides(pixels: NDArray[np.uint8], sheet: Sheet) -> NDArray[np.uint8]:
    """Return a slice with R at its left edge and L at its right one: the patient's sides."""
    size, edge = 18 * sheet.unit, sheet.px(8)
    marked = lettered(pixels, "R", (edge, pixels.shape[0] // 2), size)
    return lettered(marked, "L", (pixels.shape[1] - edge, pixels.shape[0] // 2), size, align="right")
