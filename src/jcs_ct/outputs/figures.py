"""The pictures that people look at: a slice with its lesions, with attention, with both, and maps side by side.

Colours. Lesions are Okabe and Ito's sky blue, which stays apart from grey and from the attention colours for
all common kinds of colour blindness. Attention is matplotlib's "plasma": lightness rises evenly with the value,
as jet's does not (its yellow and cyan bands draw edges that are not in the data), and unlike inferno or magma it
never comes near the black and white of the slice itself. It fades out towards 0, so that the anatomy stays visible.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import UsageError
from jcs_ct.outputs.images import (
    LESION,
    STRONGEST,
    Box,
    blend,
    border,
    checked_map,
    colour_table,
    dashed,
    grey_levels,
    mean_side,
    resized,
    whole_factor,
)
from jcs_ct.outputs.report.language import ENGLISH, Language, mark
from jcs_ct.outputs.sheet import FAINT, INK, Sheet, lettered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
    Map = NDArray[np.floating]
    Mask = NDArray[np.bool_]

FOOTER = mark("jcs-ct · research tool, not a medical device")
SCALE = mark("attention, min–max scaled, 0–1")
ZERO = mark("attention map is zero everywhere")
_UNSEEN = "not seen by the network"
_KNOWN, _KNOWN_NONE = "lesion, as annotated", "no lesion annotated"
FILL = 0.28  # share of colour inside a lesion's outline
_DIMMED = 0.5  # share of black where the network did not look
_LUNG_GREY = 64  # what the colour bar is drawn on: roughly aerated lung in a lung window


def lesion_overlay(
    slice_rgb: Pixels,
    probability: Map,
    threshold: float = 0.5,
    *,
    title: str,
    caption: str | Sequence[str] = (),
) -> bytes:
    """Draw the lesions of one slice: an outline and a translucent fill on the untouched grey slice.

    Args:
        slice_rgb: uint8 H×W×3, lung-windowed.
        probability: Float H×W in [0, 1], on the slice's grid.
        threshold: A pixel is lesion where its probability is at least this, in (0, 1].
        title: Name of the slice.
        caption: One or more lines below: model, recipe, whatever the reader needs.

    Returns:
        A PNG file. The slice is in it at its own resolution, or enlarged by a whole number if it is small.

    Raises:
        UsageError: The slice or the threshold is not as described.
        OutputError: The map is not as described.
    """
    grey = grey_levels(slice_rgb)
    if not 0 < threshold <= 1:
        raise UsageError(f"lesion threshold is {threshold}, expected more than 0 and at most 1")
    mask = checked_map(probability, "lesion map", grey.shape) >= threshold
    limit = f"{threshold:.2f}" if math.isclose(threshold, round(threshold, 2)) else f"{threshold:g}"
    return _lesion_sheet(grey, mask, f"lesion, p ≥ {limit}", f"no lesion at p ≥ {limit}", title, caption)


def truth_overlay(
    slice_rgb: Pixels, truth_mask: NDArray[np.generic], *, title: str, caption: str | Sequence[str] = ()
) -> bytes:
    """Draw where a slice is known to be lesion, as `lesion_overlay` does; `truth_mask` is H×W, not zero in a lesion.

    Raises:
        UsageError: The slice or the mask is not as described.
    """
    grey = grey_levels(slice_rgb)
    return _lesion_sheet(grey, _checked_truth(truth_mask, grey), _KNOWN, _KNOWN_NONE, title, caption)


def attention_overlay(
    slice_rgb: Pixels, attention: Map, *, title: str, caption: str | Sequence[str] = (), seen: Box | None = None,
    degenerate: str | None = None, colormap: str = "plasma",
) -> bytes:  # fmt: skip
    """Draw an attention map over one slice.

    Args:
        slice_rgb: uint8 H×W×3, lung-windowed.
        attention: Float H×W in [0, 1], on the slice's grid.
        title: Name of the slice.
        caption: One or more lines below.
        seen: The part of the slice that the network saw (top, left, bottom, right; the last two excluded). The rest
            is dimmed, carries no colour, and the legend says so. None: all of it.
        degenerate: Why the map means nothing, if so: the slice is then drawn without colours, with these words. A
            map that is zero everywhere is found without help.
        colormap: A matplotlib name; "jet" looks as in the published release.

    Returns:
        A PNG file. The slice is in it at its own resolution, or enlarged by a whole number if it is small.

    Raises:
        UsageError: The slice, the box or the colour map is not as described.
        OutputError: The map is not as described.
    """
    grey = grey_levels(slice_rgb)
    checked_map(attention, "attention map", grey.shape)
    table = colour_table(colormap)
    box = _checked_box(seen, grey.shape)
    reason = degenerate or (ZERO if not attention.any() else None)
    factor = whole_factor(grey.shape, 512)
    picture, heat = resized(grey, factor), resized(attention, factor)
    sheet = _single_sheet(picture)
    hidden = np.zeros(heat.shape, bool)
    if box is not None:
        hidden[:] = True
        hidden[box[0] * factor : box[2] * factor, box[1] * factor : box[3] * factor] = False
    if reason is None:
        picture = _with_attention(picture, np.where(hidden, 0, heat), table)
    if hidden.any():
        picture = blend(picture, (0, 0, 0), np.where(hidden, _DIMMED, 0))
        picture = blend(picture, INK, 1.0 * dashed(border(np.pad(~hidden, 1), sheet.px(1))[1:-1, 1:-1], sheet.px(5)))
    _head(sheet, title)
    sheet.picture(picture, (sheet.width - picture.shape[1]) // 2)
    sheet.gap(8)
    if reason is None:
        _colour_bar(sheet, table)
    else:
        sheet.paragraph(reason)
    if hidden.any():
        patch = np.full((*sheet.swatch_shape, 3), round(_LUNG_GREY * (1 - _DIMMED)), np.uint8)
        edge = border(np.ones(sheet.swatch_shape, bool), sheet.px(1))
        sheet.gap(2)
        sheet.swatch(blend(patch, INK, 1.0 * dashed(edge, sheet.px(3))), f"outside the dashed line: {_UNSEEN}")
    return _finish(sheet, caption)


def compare_attention(
    slice_rgb: Pixels, maps: Sequence[tuple[str, Map, float | None]], truth_mask: NDArray[np.generic] | None = None,
    *, title: str = "", caption: str | Sequence[str] = (), colormap: str = "plasma",
) -> bytes:  # fmt: skip
    """Draw a slice and the attention maps of several checkpoints side by side, on one scale.

    Args:
        slice_rgb: uint8 H×W×3, lung-windowed.
        maps: Two to four of (label, attention, probability): the checkpoint's name, its map as in
            `attention_overlay`, and its probability of COVID-19 in [0, 1] or None.
        truth_mask: H×W, not zero where the slice is known to be lesion; its outline is drawn on every panel.
        title: Name of the slice.
        caption: One or more lines below.
        colormap: A matplotlib name.

    Returns:
        A PNG file. Slices of more than 1024 pixels are reduced by a whole number.

    Raises:
        UsageError: The slice, the number of maps, the mask or the colour map is not as described.
        OutputError: A map is not as described.
    """
    grey = grey_levels(slice_rgb)
    if not 2 <= len(maps) <= 4:
        raise UsageError(f"{len(maps)} attention maps to compare, expected 2 to 4")
    table = colour_table(colormap)
    factor = whole_factor(grey.shape, 384, most=1024)
    plain = resized(grey, factor)
    truth = None if truth_mask is None else resized(_checked_truth(truth_mask, grey), factor)

    panels: list[tuple[str, list[str], Pixels]] = [("CT slice", [], plain)]
    for label, attention, probability in maps:
        heat = resized(checked_map(attention, f"attention map of {label}", grey.shape), factor)
        notes = [] if probability is None else [f"p(COVID-19) = {probability:.2f}"]
        if not attention.any():
            notes.append(ZERO)
        panels.append((label, notes, _with_attention(plain, heat, table)))

    height, width = plain.shape[:2]
    columns = len(panels) if width <= 2 * height else 2  # a row of wide slices would be a thin strip
    unit = max(1.0, mean_side(plain) / 512) * (0.85 + 0.1 * columns)
    cell, gap = max(width, round(215 * unit)), round(10 * unit)
    sheet = Sheet(columns * (cell + gap) - gap, unit)
    if title:
        _head(sheet, title)
    if truth is not None:
        panels = [(label, notes, _with_lesions(p, truth, sheet.px(1.5), fill=0)) for label, notes, p in panels]
    _side_by_side(sheet, panels, columns, cell, gap)
    _colour_bar(sheet, table)
    if truth is not None:
        sheet.gap(2)
        _lesion_swatch(sheet, _KNOWN if truth.any() else _KNOWN_NONE, sheet.px(1.5), fill=0)
    return _finish(sheet, caption)


def diagnosed_slice(
    slice_rgb: Pixels,
    lesion: Mask,
    attention: Map,
    *,
    share: float | None,
    anatomy: bool,
    title: str,
    caption: Sequence[str] = (),
    language: Language = ENGLISH,
) -> bytes:
    """Draw one diagnosed slice: as it came, with its lesions, and with the network's attention, side by side.

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
    _head(sheet, title)
    seen = language.say("attention for COVID-19") if heat.any() else language.say(ZERO)
    panels: list[tuple[str, list[str], Pixels]] = [
        (language.say("CT slice"), [], plain),
        (language.say("lesions"), [], _with_lesions(plain, resized(lesion, factor), sheet.px(1.2), fill=FILL)),
        (seen, [], _with_attention(plain, heat, table)),
    ]
    if anatomy:
        panels = [(label, notes, _with_sides(pixels, sheet)) for label, notes, pixels in panels]
    _side_by_side(sheet, panels, len(panels), width, gap)
    of = mark("lesion: %(share)s of the lung") if anatomy else mark("lesion: %(share)s of the picture")
    _lesion_swatch(
        sheet,
        language.say(of, share=language.percent(share)) if lesion.any() else language.say("no lesion found"),
        sheet.px(1.2),
        fill=FILL,
    )
    sheet.gap(2)
    if heat.any():
        _colour_bar(sheet, table, language.say(SCALE))
    return _finish(sheet, caption, language.say(FOOTER))


def _lesion_sheet(grey: Pixels, mask: Mask, what: str, nothing: str, title: str, caption: str | Sequence[str]) -> bytes:
    """Return the sheet of one slice with its lesions, and which share of the slice they are."""
    factor = whole_factor(grey.shape, 512)
    picture = resized(grey, factor)
    sheet = _single_sheet(picture)
    _head(sheet, title)
    picture = _with_lesions(picture, resized(mask, factor), sheet.px(1), fill=FILL)
    sheet.picture(picture, (sheet.width - picture.shape[1]) // 2)
    sheet.gap(8)
    if mask.any():
        _lesion_swatch(sheet, f"{what}: {_percent(float(mask.mean()))} of the slice", sheet.px(1), fill=FILL)
    else:
        sheet.paragraph(nothing)
    return _finish(sheet, caption)


def _side_by_side(
    sheet: Sheet, panels: Sequence[tuple[str, list[str], Pixels]], columns: int, width: int, gap: int
) -> None:
    """Draw pictures in rows of so many, each under its label and its notes, in the middle of `width` pixels."""
    lines = max(len(notes) for _, notes, _ in panels)
    for number, (label, notes, pixels) in enumerate(panels):
        top, left = sheet.y, number % columns * (width + gap)
        sheet.line(label, bold=True, left=left, width=width, align="center")
        for note in [*notes, *[""] * (lines - len(notes))]:
            sheet.line(note, size=12, left=left, width=width, align="center")
        sheet.gap(3)
        sheet.picture(pixels, left + (width - pixels.shape[1]) // 2)
        sheet.gap(8)
        if number % columns < columns - 1 and number < len(panels) - 1:
            sheet.y = top  # the next one stands beside it


def _lesion_swatch(sheet: Sheet, words: str, width: int, *, fill: float) -> None:
    """Write the line of the legend that says what lesions look like."""
    patch = np.full((*sheet.swatch_shape, 3), _LUNG_GREY, np.uint8)
    sheet.swatch(_with_lesions(patch, np.ones(sheet.swatch_shape, bool), width, fill=fill), words)


def _single_sheet(picture: Pixels) -> Sheet:
    """Return a sheet for one picture, wide enough for the text below a narrow one."""
    unit = max(1.0, mean_side(picture) / 640)
    return Sheet(max(picture.shape[1], round(460 * unit)), unit)


def _with_lesions(pixels: Pixels, mask: Mask, width: int, *, fill: float) -> Pixels:
    """Return the picture with the mask filled and outlined; the outline lies inside the mask."""
    return blend(pixels, LESION, np.maximum(fill * mask, 1.0 * border(mask, width)))


def _with_attention(pixels: Pixels, attention: Map, table: NDArray[np.float32]) -> Pixels:
    """Return the picture with the colours of an attention map, the fainter the lower its value."""
    share = STRONGEST * attention * (1.6 - 0.6 * attention)  # rises from 0 to the strongest, faster at first
    return blend(pixels, table[np.rint(255 * attention).astype(np.uint8)], share)


def _with_sides(pixels: Pixels, sheet: Sheet) -> Pixels:
    """Return a slice with R at its left edge and L at its right one: the patient's sides."""
    size, edge = 18 * sheet.unit, sheet.px(8)
    marked = lettered(pixels, "R", (edge, pixels.shape[0] // 2), size)
    return lettered(marked, "L", (pixels.shape[1] - edge, pixels.shape[0] // 2), size, align="right")


def _colour_bar(sheet: Sheet, table: NDArray[np.float32], title: str = SCALE) -> None:
    """Draw the scale of attention as it looks over lung, with its ends and middle named."""
    length, height = min(sheet.width, sheet.px(300)), sheet.px(12)
    scale = np.broadcast_to(np.linspace(0, 1, length), (height, length))
    sheet.picture(_with_attention(np.full((height, length, 3), _LUNG_GREY, np.uint8), scale, table), 0)
    sheet.gap(2)
    for words, align in (("0", "left"), ("0.5", "center"), ("1", "right")):
        sheet.line(words, size=11, colour=FAINT, width=length, align=align, advance=align == "right")
    sheet.paragraph(title)


def _head(sheet: Sheet, title: str) -> None:
    """Write the title."""
    sheet.line(title, size=15, bold=True)
    sheet.gap(5)


def _finish(sheet: Sheet, caption: str | Sequence[str], footer: str = FOOTER) -> bytes:
    """Write the caption and the footer, and return the sheet."""
    sheet.gap(3)
    for text in (caption,) if isinstance(caption, str) else caption:
        sheet.paragraph(text, size=12, colour=FAINT)
    sheet.paragraph(footer, size=11, colour=FAINT)
    return sheet.png()


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 0.0005 else f"{100 * share:.1f} %"


def _checked_truth(mask: NDArray[np.generic], grey: Pixels) -> Mask:
    if mask.shape != grey.shape[:2]:
        raise UsageError(f"truth mask is {mask.shape}, its slice is {grey.shape[:2]}: they must be on one grid")
    return np.asarray(mask != 0)


def _checked_box(seen: Box | None, shape: tuple[int, ...]) -> Box | None:
    if seen is not None:
        top, left, bottom, right = seen
        if not (0 <= top < bottom <= shape[0] and 0 <= left < right <= shape[1]):
            raise UsageError(f"the part seen is {seen}, expected top, left, bottom, right within {shape[:2]}")
    return seen
