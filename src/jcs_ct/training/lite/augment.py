"""Augmentation for `jcs-lite`: moves that anatomy allows, and what destroys the traces of a source.

Geometry, contrast, blur and noise are MONAI's. What scanners and publishers leave in a picture (JPEG blocks, text,
arrows, borders, sharpness) is imitated at random, so that it tells nothing about the label.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from numpy.typing import NDArray

Box = tuple[float, float, float, float]
Grey = "NDArray[np.uint8]"


def jitter(box: tuple[int, int, int, int], shape: tuple[int, int], rng: np.random.Generator) -> Box:
    """Return a box (top, left, rows, columns) near the lung field, inside a slice of `shape`.

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
    y0, y1 = max(0.0, y - height / 2), min(float(shape[0]), y + height / 2)
    x0, x1 = max(0.0, x - width / 2), min(float(shape[1]), x + width / 2)
    return y0, x0, y1 - y0, x1 - x0


def disguise(picture: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return a grey picture with other compression, sharpness, marks and borders."""
    if rng.random() < 0.4:  # the resolution of another scanner or of a figure in a paper
        factor = rng.uniform(0.4, 0.9)
        rows, columns = picture.shape
        small = Image.fromarray(picture).resize((int(columns * factor), int(rows * factor)), Image.Resampling.BILINEAR)
        picture = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC), dtype=np.uint8)
    if rng.random() < 0.4:
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


def moves() -> Any:
    """Return MONAI's spatial transforms of "image" (C×H×W) and, where there is one, "mask" (1×H×W in 0 … 1)."""
    from monai.transforms import Compose, RandAffined, RandFlipd

    return Compose(
        [
            RandFlipd(["image", "mask"], prob=0.5, spatial_axis=1, allow_missing_keys=True),
            RandAffined(
                ["image", "mask"],
                prob=0.7,
                rotate_range=0.3,
                shear_range=0.06,
                mode="bilinear",
                padding_mode=["border", "zeros"],
                allow_missing_keys=True,
            ),
        ]
    )


def looks() -> Any:
    """Return MONAI's transforms of contrast, sharpness and noise of an image, 1×H×W in −1 … 1."""
    from monai.transforms import (
        Compose,
        RandAdjustContrast,
        RandGaussianNoise,
        RandGaussianSmooth,
        RandScaleIntensity,
        RandShiftIntensity,
    )

    return Compose(
        [
            RandAdjustContrast(prob=0.5, gamma=(0.6, 1.6)),
            RandScaleIntensity(factors=0.2, prob=0.5),
            RandShiftIntensity(offsets=0.2, prob=0.5),
            RandGaussianSmooth(prob=0.2, sigma_x=(0.3, 1.2), sigma_y=(0.3, 1.2)),
            RandGaussianNoise(prob=0.3, std=0.1),
        ]
    )
