"""A sheet with pictures and text, laid out in pixels from top to bottom, and rendered to a PNG.

Pictures are pasted pixel by pixel, never resampled. Pillow sets the text, in Matplotlib's own font, so that a sheet
looks the same on every machine. No text is cut off: what is too long is wrapped, or shortened in the middle, where
file names differ least.
"""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.caches import cache_for_figures

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray
    from PIL.ImageFont import FreeTypeFont

Colour = tuple[int, int, int]

PAPER: Colour = (22, 23, 26)
INK: Colour = (236, 236, 236)
FAINT: Colour = (168, 170, 176)
_ROOM = 2  # pixels by which letters may reach beyond what their font says


class Sheet:
    """A column of text and pictures, `width` pixels between the margins; `y` is where the next one goes.

    `unit` is the scale of text and gaps: 1 for a slice of 512 × 512.
    """

    def __init__(self, width: int, unit: float) -> None:
        self.unit, self.width = unit, width
        self.margin = self.px(18)
        self.y = self.px(14)
        self._pictures: list[tuple[int, int, NDArray[np.uint8]]] = []
        self._words: list[tuple[float, float, str, float, bool, Colour, str]] = []

    def px(self, units: float) -> int:
        """Return so many units in whole pixels, at least one."""
        return max(1, round(units * self.unit))

    def gap(self, units: float) -> None:
        """Leave room."""
        self.y += self.px(units)

    def picture(self, pixels: NDArray[np.uint8], left: int) -> None:
        """Put a picture (uint8 H×W×3) `left` pixels from the left margin, and go on below it."""
        self._pictures.append((self.margin + left, self.y, pixels))
        self.y += len(pixels)

    def line(
        self, text: str, *, size: float = 13, bold: bool = False, colour: Colour = INK,
        left: int = 0, width: int | None = None, align: str = "left", advance: bool = True,
    ) -> None:  # fmt: skip
        """Write one line, shortened in the middle to `width` pixels; `align` says where in that width it stands."""
        room = self.width - left if width is None else width
        pixels = size * self.unit
        words = shortened(text, room, pixels, bold)
        if words:
            x = self.margin + left + {"left": 0.0, "center": room / 2, "right": float(room)}[align]
            self._words.append((x, self.y + 1.02 * pixels, words, pixels, bold, colour, align))
        if advance:
            self.y += round(1.4 * pixels)

    def paragraph(self, text: str, *, size: float = 13, colour: Colour = INK, left: int = 0, most: int = 3) -> None:
        """Write a text over as many lines as it needs, at most `most`."""
        for words in _wrapped(text, self.width - left, size * self.unit, most):
            self.line(words, size=size, colour=colour, left=left)

    def swatch(self, patch: NDArray[np.uint8], text: str) -> None:
        """Write a line of a legend: a patch of `swatch_shape` and what it stands for."""
        height, width = patch.shape[:2]
        top = self.y
        self.y += max(0, round((1.3 * 13 * self.unit - height) / 2))
        self.picture(patch, 0)
        self.y = top
        self.paragraph(text, left=width + self.px(8))

    @property
    def swatch_shape(self) -> tuple[int, int]:
        """Rows and columns of a legend's patch."""
        return self.px(13), self.px(24)

    def png(self) -> bytes:
        """Return the sheet as a PNG file."""
        from jcs_ct.io.pictures import encode_png

        width, height = self.width + 2 * self.margin, self.y + self.px(10)
        pixels = np.full((height, width, 3), PAPER, np.uint8)
        for x, baseline, words, size, bold, colour, align in self._words:
            text, above = _drawn(words, size, bold, colour)
            start = x - {"left": 0.0, "center": 0.5, "right": 1.0}[align] * _text_width(words, size, bold)
            left, top = round(start) - _ROOM, round(baseline) - above
            place = pixels[top : top + text.shape[0], left : left + text.shape[1]]
            np.maximum(place, text[: place.shape[0], : place.shape[1]], out=place)  # letters are lighter than paper
        for left, top, picture in self._pictures:
            pixels[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        return encode_png(pixels, compress_level=1)  # a third of the time, a fifth larger


def lettered(
    pixels: NDArray[np.uint8], text: str, place: tuple[int, int], size: float, align: str = "left"
) -> NDArray[np.uint8]:
    """Return a picture (uint8 H×W×3) with a short text on it, white with a black rim, so that it shows on any grey.

    `place`: column and row of the left or right end of the text (`align`), and of its middle. `size`: pixels.
    """
    from PIL import Image, ImageDraw

    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).text(
        place, text, font=_font(True, size), fill=(255, 255, 255), anchor="lm" if align == "left" else "rm",
        stroke_width=max(1, round(size / 9)), stroke_fill=(0, 0, 0),
    )  # fmt: skip
    return np.asarray(picture)


def drawable(text: str, *, bold: bool = False) -> str:
    """Return the text with "?" for what the font cannot show (it has no CJK) and for control characters."""
    known = _glyphs(bold)
    flat = " ".join(text.split())
    return "".join(c if c.isprintable() and ord(c) in known else "?" for c in flat)


def shortened(text: str, room: float, size: float, bold: bool = False) -> str:
    """Return the drawable text, its middle replaced by "…" where it is wider than `room` pixels."""
    words = drawable(text, bold=bold)
    if _text_width(words, size, bold) <= room:
        return words
    fits, fails = 0, len(words)  # how many characters may stay
    while fails - fits > 1:
        kept = (fits + fails) // 2
        if _text_width(_middle_cut(words, kept), size, bold) <= room:
            fits = kept
        else:
            fails = kept
    return _middle_cut(words, fits)


def _middle_cut(words: str, kept: int) -> str:
    return f"{words[: (kept + 1) // 2]}…{words[len(words) - kept // 2 :]}"


def _wrapped(text: str, room: float, size: float, most: int) -> Iterable[str]:
    """Return the lines of a text; what does not fit on `most` lines is shortened on the last."""
    lines = [""]
    for word in drawable(text).split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        if len(lines) == most or not lines[-1] or _text_width(longer, size, bold=False) <= room:
            lines[-1] = longer
        else:
            lines.append(word)
    return [line for line in lines if line]


@lru_cache(maxsize=64)
def _font(bold: bool, size: float) -> FreeTypeFont:
    from PIL import ImageFont

    return ImageFont.truetype(font_file(bold), size, layout_engine=ImageFont.Layout.BASIC)


def font_file(bold: bool) -> str:
    """Return where Matplotlib's own font lies, which has no CJK."""
    cache_for_figures()
    import matplotlib as mpl

    return str(Path(mpl.get_data_path()) / "fonts" / "ttf" / ("DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"))


@lru_cache(maxsize=2)
def _glyphs(bold: bool) -> frozenset[int]:
    """Return the characters that the font has."""
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(font_file(bold)).get_charmap())


@lru_cache(maxsize=64)
def _drawn(words: str, size: float, bold: bool, colour: Colour) -> tuple[NDArray[np.uint8], int]:
    """Return a line of text (uint8 H×W×3) with `_ROOM` pixels around it, and how many rows lie above its baseline."""
    from PIL import Image, ImageDraw

    font = _font(bold, size)
    above, below = (part + _ROOM for part in font.getmetrics())
    width = math.ceil(font.getlength(words)) + 2 * _ROOM
    drawn = Image.new("RGB", (width, above + below), PAPER)
    ImageDraw.Draw(drawn).text((_ROOM, above), words, font=font, fill=colour, anchor="ls")
    return np.asarray(drawn, dtype=np.uint8), above


@lru_cache(maxsize=1024)  # sheets of a study say much the same
def _text_width(words: str, size: float, bold: bool) -> float:
    """Return the width of a line in pixels."""
    return float(_font(bold, size).getlength(words))
