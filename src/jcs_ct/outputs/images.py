"""Maps to files, and the pixels of the pictures that people look at. Text and layout are in `figures`.

Every picture leaves the slice's grey levels as they are wherever nothing is drawn: a reader must be able to
trust what lies under and beside an overlay.
"""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.caches import cache_for_figures
from jcs_ct.core.errors import OutputError, UsageError
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

LESION = (86, 180, 233)
"""Okabe and Ito's sky blue: apart from grey and from the attention for the colour-blind."""
STRONGEST = 0.72
"""Share of colour where the attention is 1: the anatomy still shows."""
Box = tuple[int, int, int, int]
"""Part of a slice in pixels: top, left, bottom, right; the last two are excluded, as in a Python slice."""


def save_map(path: Path, probability: NDArray[np.floating], *, overwrite: bool = False) -> None:
    """Write a probability map, float H×W in [0, 1], as an 8-bit grey PNG, floor(255 · p).

    Raises OutputError where it is no such map, or the file cannot be written, or exists and `overwrite` is false.
    """
    from jcs_ct.io.pictures import encode_png

    checked = checked_map(probability, "probability map", path=path)
    # In double precision, where 255 · p is exact for every single-precision p.
    levels = np.floor(255 * checked.astype(np.float64)).astype(np.uint8)
    write_whole(path, encode_png(levels), overwrite=overwrite)


def save_array(path: Path, values: NDArray[np.floating], *, overwrite: bool = False) -> None:
    """Write a map, float H×W in [0, 1], as a NumPy file of this name: float32. Raises as `save_map` does."""
    data = io.BytesIO()
    checked = checked_map(values, "map", path=path)
    np.save(data, np.ascontiguousarray(checked, np.float32), allow_pickle=False)
    write_whole(path, data.getvalue(), overwrite=overwrite)


def checked_map(
    values: NDArray[np.floating], what: str, shape: tuple[int, ...] | None = None, path: Path | None = None
) -> NDArray[np.floating]:
    """Return `values` if it is a float map H×W of finite numbers in [0, 1], with the rows and columns of `shape`.

    Raises OutputError, which calls it `what` and names `path`, where it is something else.
    """
    if values.ndim != 2 or values.size == 0 or not np.issubdtype(values.dtype, np.floating):
        raise OutputError(f"{what} is {values.dtype} {values.shape}, expected a float map, rows × columns", path=path)
    if shape is not None and values.shape != shape[:2]:
        raise OutputError(f"{what} is {values.shape}, its slice is {shape[:2]}: they must be on one grid", path=path)
    low, high = float(values.min()), float(values.max())  # NaN anywhere makes both NaN
    if not (low >= 0 and high <= 1):
        raise OutputError(f"{what} holds values from {low:g} to {high:g}, expected 0 to 1 and no NaN", path=path)
    return values


def grey_levels(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the slice as H×W×3 in grey, so that colour means an overlay and nothing else.

    Args:
        pixels: uint8 H×W×3. Grey pixels stay exactly as they are, colours become their luminance.

    Raises:
        UsageError: It is something else.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.size == 0:
        raise UsageError(f"slice is {pixels.dtype} {pixels.shape}, expected uint8, rows × columns × 3")
    wide = pixels.astype(np.int32)
    # Rec. 601 weights in thousandths, which add up to 1000: equal channels come out unchanged.
    luminance = (299 * wide[..., 0] + 587 * wide[..., 1] + 114 * wide[..., 2] + 500) // 1000
    return np.repeat(luminance.astype(np.uint8)[..., None], 3, axis=2)


def resized(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """Return the array with rows and columns repeated `factor` times; below −1, every −factor pixels become one.

    A smaller picture is the mean of its pixels (masks: any). Rows and columns that do not fill a block go.
    """
    if factor >= 1:
        return array.repeat(factor, axis=0).repeat(factor, axis=1)
    step = -factor
    rows, columns = array.shape[0] // step, array.shape[1] // step
    blocks = array[: rows * step, : columns * step].reshape(rows, step, columns, step, *array.shape[2:])
    if array.dtype == bool:
        return np.asarray(blocks.any(axis=(1, 3)))
    mean = blocks.mean(axis=(1, 3))
    reduced: NDArray[Any] = np.rint(mean) if array.dtype == np.uint8 else mean
    return reduced.astype(array.dtype)


def mean_side(picture: NDArray[np.uint8]) -> float:
    """Return the side of a square of the picture's area."""
    return math.sqrt(picture.shape[0] * picture.shape[1])


def whole_factor(shape: tuple[int, ...], least: int, most: int | None = None) -> int:
    """Return the whole number that brings the longer side near `least` if it is smaller, below `most` if larger."""
    longer = max(shape[:2])
    if most is not None and longer > most:
        return -math.ceil(longer / most)
    return max(1, round(least / longer))


def border(mask: NDArray[np.bool_], width: int) -> NDArray[np.bool_]:
    """Return the pixels of the mask within `width` pixels of its outside: an outline that covers nothing else."""
    from scipy.ndimage import binary_erosion

    outline: NDArray[np.bool_] = mask & ~binary_erosion(mask, iterations=width)
    return outline


def blend(
    pixels: NDArray[np.uint8],
    colour: NDArray[np.generic] | tuple[int, int, int],
    share: NDArray[np.floating] | float,
) -> NDArray[np.uint8]:
    """Return uint8 H×W×3 with `share` (0–1, H×W or one number) of every pixel replaced by `colour` (0–255)."""
    weight = np.broadcast_to(np.asarray(share, np.float32), pixels.shape[:2])
    here, mixed = weight != 0, pixels.copy()  # most of a slice is left as it is
    under, over = pixels[here], np.asarray(colour, np.float32)
    over = np.broadcast_to(over, pixels.shape)[here] if over.ndim > 1 else over
    mixed[here] = np.rint(under + (over - under) * weight[here][:, None]).astype(np.uint8)
    return mixed


def dashed(line: NDArray[np.bool_], dash: int) -> NDArray[np.bool_]:
    """Return the outline with gaps as long as its dashes, `dash` pixels."""
    rows, columns = np.arange(line.shape[0])[:, None], np.arange(line.shape[1])
    return np.asarray(line & ((rows + columns) // dash % 2 == 0))


def colour_table(name: str) -> NDArray[np.float32]:
    """Return the 256 colours (0–255) of a matplotlib colour map."""
    cache_for_figures()
    from matplotlib import colormaps

    if name not in colormaps:
        raise UsageError(f"colour map {name!r} is not known", hint="plasma, inferno, magma, viridis, cividis, jet …")
    rgba = colormaps[name](np.linspace(0, 1, 256))
    return np.asarray(255 * np.asarray(rgba)[:, :3], np.float32)
