"""Augmentation for `jcs-lite`: moves that anatomy allows, and what destroys the traces of a source.

What scanners and publishers leave in a picture (window, kernel, pixel size, JPEG blocks, text, arrows, borders) is
imitated at random, so that it tells nothing about the label. Everything is 8-bit grey until the last step.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jcs_ct.imaging.window import LUNG, to_grey

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]

WIDER = 1.25  # what is cut out before it is turned, so that no corner stays empty


def windowed(hu: NDArray[np.int16], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return Hounsfield units through a lung window that is somewhat another one."""
    low, high = LUNG.low + rng.normal(0, 100), LUNG.high + rng.normal(0, 120)
    return to_grey(hu, (round(low, -1), round(high, -1)))


def recurved(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a picture whose grey values went through a random rising curve, as another window would have them."""
    if rng.random() < 0.4:
        return picture
    x = np.linspace(0, 1, 256)
    low, high = rng.uniform(-0.1, 0.1), rng.uniform(0.85, 1.15)
    curve = ((x - low) / (high - low)).clip(0, 1) ** np.exp(rng.uniform(-0.4, 0.4))
    table: NDArray[np.uint8] = (curve * 255).round().astype(np.uint8)
    return table[picture]


def jitter(box: tuple[int, int, int, int], shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """Return a box (top, left, rows, columns) near the lung field of a slice of `shape`.

    Now and then the whole slice: the field may not have been found where the network is used.
    """
    if rng.random() < 0.05:
        return 0.0, 0.0, float(shape[0]), float(shape[1])
    top, left, rows, columns = box
    scale = np.exp(rng.uniform(np.log(0.8), np.log(1.2)))
    aspect = np.exp(rng.uniform(-0.1, 0.1))
    height, width = rows * scale * aspect, columns * scale / aspect
    y = top + rows / 2 + rng.uniform(-0.07, 0.07) * rows
    x = left + columns / 2 + rng.uniform(-0.07, 0.07) * columns
    return y - height / 2, x - width / 2, height, width


def random_view(
    picture: NDArray[np.uint8],
    mask: NDArray[np.uint8] | None,
    box: Box,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
    """Return what a box shows at `shape`, turned, sheared and mirrored at random; the mask alike.

    What lies outside of the slice takes the grey of its darkest edge.
    """
    turn, shear = (rng.uniform(-0.3, 0.3), rng.uniform(-0.06, 0.06)) if rng.random() < 0.7 else (0.0, 0.0)
    mirror = rng.random() < 0.5
    top, left, rows, columns = box
    extra_y, extra_x = rows * (WIDER - 1) / 2, columns * (WIDER - 1) / 2
    wide = round(shape[0] * WIDER), round(shape[1] * WIDER)
    # Output → input of the turned picture, about both centres (Pillow's order: x, y).
    cos, sin = math.cos(turn), math.sin(turn)
    a, b, d, e = cos, sin + shear, -sin, cos
    cx, cy, wx, wy = shape[1] / 2, shape[0] / 2, wide[1] / 2, wide[0] / 2
    affine = (a, b, wx - a * cx - b * cy, d, e, wy - d * cx - e * cy)
    results: list[NDArray[np.uint8] | None] = []
    for values, around in ((picture, "edge"), (mask, "constant")):
        if values is None:
            results.append(None)
            continue
        cut = _cut(values, (top - extra_y, left - extra_x, rows * WIDER, columns * WIDER), wide, around)
        image = cut.transform((shape[1], shape[0]), Image.Transform.AFFINE, affine, Image.Resampling.BILINEAR)
        array = np.asarray(image, dtype=np.uint8)
        results.append(array[:, ::-1] if mirror else array)
    seen, lesion = results
    assert seen is not None  # noqa: S101  # a picture was given
    return seen, lesion


def _cut(values: NDArray[np.uint8], box: Box, shape: tuple[int, int], around: Any) -> Image.Image:
    top, left, rows, columns = box
    pads = [max(0, math.ceil(v)) for v in (-top, top + rows - values.shape[0], -left, left + columns - values.shape[1])]
    if any(pads):
        values = np.pad(values, ((pads[0], pads[1]), (pads[2], pads[3])), mode=around)
    top, left = top + pads[0], left + pads[2]
    place = (left, top, min(left + columns, values.shape[1]), min(top + rows, values.shape[0]))
    return Image.fromarray(values).resize((shape[1], shape[0]), Image.Resampling.BILINEAR, box=place)


def vary_appearance(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a grey picture with other compression, sharpness, marks and borders."""
    if rng.random() < 0.4:  # the resolution of another scanner or of a figure in a paper
        factor = rng.uniform(0.35, 0.9)
        rows, columns = picture.shape
        small = Image.fromarray(picture).resize((int(columns * factor), int(rows * factor)), Image.Resampling.BILINEAR)
        picture = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC), dtype=np.uint8)
    if rng.random() < 0.25:  # a sharper or a softer kernel
        from PIL import ImageFilter

        amount = int(rng.integers(40, 250))
        kernel = (
            ImageFilter.UnsharpMask(radius=1.5, percent=amount, threshold=0)
            if rng.random() < 0.5
            else ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.3)))
        )
        picture = np.asarray(Image.fromarray(picture).filter(kernel), dtype=np.uint8)
    if rng.random() < 0.3:
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=int(rng.integers(25, 95)))
        picture = np.asarray(Image.open(file), dtype=np.uint8)
    picture = picture.copy()
    for _ in range(int(rng.integers(0, 4)) if rng.random() < 0.3 else 0):  # text, arrows, markers
        rows, columns = rng.integers(3, 24), rng.integers(3, 40)
        top = rng.integers(0, picture.shape[0] - rows)
        left = rng.integers(0, picture.shape[1] - columns)
        picture[top : top + rows, left : left + columns] = rng.integers(0, 256)
    if rng.random() < 0.15:  # a border
        width, value = int(rng.integers(1, 12)), rng.integers(0, 256)
        side = int(rng.integers(0, 4))
        np.rot90(picture, side)[:width] = value
    return picture


def vary_contrast(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return an image in −1 … 1 with other contrast and noise."""
    if rng.random() < 0.5:
        gamma = np.float32(np.exp(rng.uniform(math.log(0.65), math.log(1.5))))
        values = (((values.clip(-1, 1) + 1) / 2) ** gamma * 2 - 1).astype(np.float32)
    if rng.random() < 0.5:
        values = values * np.float32(rng.uniform(0.8, 1.2)) + np.float32(rng.uniform(-0.15, 0.15))
    if rng.random() < 0.3:
        noise = rng.standard_normal(values.shape, dtype=np.float32)
        values = values + noise * np.float32(rng.uniform(0, 0.15))
    return values
