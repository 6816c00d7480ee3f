"""Named recipes from an 8-bit slice to a network's input, and the exact way back to the slice's own grid.

One code path for training and inference. A recipe never guesses: pictures are expected lung-windowed, RGB, 0–255.

| recipe | what |
| --- | --- |
| `release-segmentation` | 512×512, OpenCV's 8-bit bilinear filter, ImageNet mean and std |
| `release-classification` | shorter side to 256 (Pillow's antialiased bilinear), centre crop 224, same mean and std |
| `whole-slice-classification` | the same without the crop, so that the lung's edge is seen; for attention maps |
| `lung-field` | grey, cropped to the lungs (`lung_box`), 256×320, its 2nd to 98th percentile stretched to −1 … 1 |
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.imaging.lung_box import find_lung_box
from jcs_ct.imaging.resampling import resize_bilinear_8bit

if TYPE_CHECKING:
    from numpy.typing import NDArray

MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
_ALONE = 2**15  # values of a map that torch resizes without other threads, which would wait for longer than it takes


@dataclass(frozen=True)
class Recipe:
    """How a slice becomes an input.

    Attributes:
        name: Stored with the weights.
        size: Side of the square (`keep_aspect` false), or length of the shorter side (true).
        keep_aspect: Resize by Pillow with the aspect kept, instead of by OpenCV's filter to a square.
        crop: Side of the centre crop, or 0 for none.
        columns: Width of the grid where it is no square (`size` is its height), or 0.
        lung_crop: Crop to the lung field, and give one grey channel.
    """

    name: str
    size: int
    keep_aspect: bool = False
    crop: int = 0
    columns: int = 0
    lung_crop: bool = False

    def at(self, size: int) -> Recipe:
        """Return the same recipe at another side length (half-size features: 256)."""
        columns = round(self.columns * size / self.size)
        return replace(self, size=size, crop=round(self.crop * size / self.size), columns=columns)


RECIPES: dict[str, Recipe] = {
    r.name: r
    for r in (
        Recipe("release-segmentation", 512),
        Recipe("release-classification", 256, keep_aspect=True, crop=224),
        Recipe("whole-slice-classification", 256, keep_aspect=True),
        Recipe("lung-field", 256, columns=320, lung_crop=True),
    )
}


def recipe(name: str) -> Recipe:
    """Return a recipe by name; "NAME@SIZE" is the recipe at another `size`, a crop scaled with it.

    Raises UsageError for an unknown name, with the known ones, and for no such size.
    """
    base, at, size = name.partition("@")
    if base not in RECIPES:
        raise UsageError(f"no preprocessing recipe is called {name!r}", hint=f"known: {', '.join(RECIPES)}")
    found = RECIPES[base]
    if not at:
        return found
    if not (size.isascii() and size.isdigit() and 16 <= int(size) <= 8192):
        raise UsageError(f"the preprocessing recipe {name!r} has no usable size", hint=f"{base}@256, for example")
    return replace(found.at(int(size)), name=name)


@dataclass(frozen=True)
class Placement:
    """Where the network's grid lies on the slice: all that is needed to bring a map back.

    Attributes:
        slice_shape: (rows, columns) of the slice.
        resized: (rows, columns) after resizing, before cropping.
        crop: (top, left, rows, columns) of the crop in the resized picture.
    """

    slice_shape: tuple[int, int]
    resized: tuple[int, int]
    crop: tuple[int, int, int, int]

    @property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of the slice the network saw: (top, left, bottom, right) in pixels of the slice."""
        down, across = self.slice_shape[0] / self.resized[0], self.slice_shape[1] / self.resized[1]
        top, left, rows, columns = self.crop
        return top * down, left * across, (top + rows) * down, (left + columns) * across

    @property
    def whole(self) -> bool:
        """Whether the network saw the whole slice."""
        return self.crop == (0, 0, *self.resized)


def prepare(pixels: NDArray[np.uint8], how: Recipe) -> tuple[NDArray[np.float32], Placement]:
    """Turn a slice (uint8, rows × columns × 3, RGB) into a network's input, and return with it the way back.

    The input is float32, 3 × rows × columns, normalised with ImageNet's mean and std (`lung_crop`: 1 × rows × columns,
    see `stretch`). Raises ShapeError where `pixels` are of another kind.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ShapeError(
            f"pixels {pixels.dtype} {'×'.join(map(str, pixels.shape))} were given; uint8 rows×columns×3 is expected"
        )
    height, width = pixels.shape[:2]
    if how.lung_crop:
        slice_grey = luminance(pixels)
        top, left, rows, columns = box = find_lung_box(slice_grey)
        seen = Image.fromarray(slice_grey).resize(
            (how.columns, how.size), Image.Resampling.BILINEAR, box=(left, top, left + columns, top + rows)
        )
        return stretch(np.asarray(seen, dtype=np.uint8))[None], Placement((height, width), (height, width), box)
    if how.keep_aspect:
        shorter = min(height, width)
        resized = (how.size * height // shorter, how.size * width // shorter)
        picture = np.asarray(
            Image.fromarray(pixels).resize((resized[1], resized[0]), Image.Resampling.BILINEAR),
            dtype=np.uint8,
        )
    else:
        resized = (how.size, how.size)
        picture = resize_bilinear_8bit(pixels, *resized)
    side = (how.crop, how.crop) if how.crop else resized
    top, left = round((resized[0] - side[0]) / 2), round((resized[1] - side[1]) / 2)
    picture = picture[top : top + side[0], left : left + side[1]]
    values = (picture.astype(np.float32) / np.float32(255) - MEAN) / STD
    placement = Placement((height, width), resized, (top, left, *side))
    return np.ascontiguousarray(values.transpose(2, 0, 1)), placement


def grey_as_rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a grey picture as rows × columns × 3, one channel in memory seen three times: not to be written to."""
    return np.broadcast_to(grey[:, :, None], (*grey.shape, 3))


def luminance(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the luminance (ITU-R 601) of rows × columns × 3, uint8 rows × columns."""
    if pixels.ndim == 3 and pixels.strides[2] == 0:  # `grey_as_rgb`
        return np.ascontiguousarray(pixels[:, :, 0])
    return np.asarray(Image.fromarray(pixels).convert("L"), dtype=np.uint8)


def stretch(picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return grey values with the 2nd percentile at −1 and the 98th at 1, clipped: lung dark, soft tissue bright.

    Pictures come with windows of unknown width; inside the lung field these two are aerated lung and soft tissue.
    """
    low, high = np.percentile(picture, (2, 98))
    values = (picture.astype(np.float32) - np.float32(low)) * np.float32(2 / max(high - low, 1.0)) - np.float32(1)
    return values.clip(-1, 1)


def restore(values: NDArray[np.float32], placement: Placement) -> NDArray[np.float32]:
    """Bring a map from the network's grid (or a coarser one over the same field) to the grid of the slice.

    Bilinear with pixel centres aligned, antialiased where it shrinks; 0 where the network did not look. From float32,
    rows × columns, to float32, rows × columns of the slice, within the range of `values` (and 0).
    """
    top, left, rows, columns = placement.crop
    if placement.whole:
        return resize_map(values, placement.slice_shape)
    canvas = np.zeros(placement.resized, dtype=np.float32)
    canvas[top : top + rows, left : left + columns] = resize_map(values, (rows, columns))
    seen_top, seen_left, seen_bottom, seen_right = placement.seen
    result = resize_map(canvas, placement.slice_shape)
    # Interpolation smears the crop's edge by up to a pixel; what the network did not see is exactly 0.
    mask = np.zeros(placement.slice_shape, dtype=bool)
    mask[round(seen_top) : round(seen_bottom), round(seen_left) : round(seen_right)] = True
    return np.where(mask, result, np.float32(0))


def resize_map(values: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Resize a float32 map to (rows, columns): bilinear, pixel centres aligned, antialiased where it shrinks."""
    if values.shape == shape:
        return values
    import torch
    from torch.nn import functional as F

    found = values
    for axis in (1, 0):  # as torch does
        result = np.empty((shape[0] if axis == 0 else len(values), shape[1]), np.float32)
        lines = result.shape[1 - axis]
        most = max(1, _ALONE // max(found.shape[axis], shape[axis]))
        parts = min(-(-lines // most), max(1, lines // 2))
        edges = [lines * i // parts for i in range(parts + 1)]  # never one line: of one column torch 2.13 is wrong
        for first, last in pairwise(edges):
            part = (slice(first, last), slice(None)) if axis == 1 else (slice(None), slice(first, last))
            given = torch.from_numpy(np.ascontiguousarray(found[part]))[None, None]
            size = result[part].shape
            resized = F.interpolate(given, size=size, mode="bilinear", align_corners=False, antialias=True)
            result[part] = resized[0, 0].numpy()
        found = result
    return found.clip(values.min(), values.max())
