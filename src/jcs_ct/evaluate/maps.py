"""Precomputed maps from files: 8-bit pictures (as the authors publish theirs and `jcs segment` writes), or `.npy`."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.kinds import HEAD, RASTERS, sniff
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.pictures import MAX_SIDE

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_NPY = b"\x93NUMPY"
_HINT = "write maps as 8-bit grey PNG, floor(255·p), as `jcs segment` does"


def read_map(path: Path) -> NDArray[np.float64]:
    """Read a map of probabilities or of attention, from a picture or a NumPy file; the content decides which.

    A stored level v stands for v / 255, so that p ≥ 0.5 is v ≥ 128.

    Returns:
        float64, rows × columns, in [0, 1].

    Raises:
        InputError: It cannot be read; is no 8-bit grey picture or float map; or has values outside of [0, 1].
    """
    data = read_file(path)
    values = _array(data, path) if data.startswith(_NPY) else _picture(data, path)
    if values.ndim != 2 or not values.size:
        raise InputError(f"holds an array {values.shape}; a map, rows × columns, is expected", path=path)
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= 1):  # NaN anywhere makes both NaN
        raise InputError(f"holds values from {low:g} to {high:g}; 0 to 1 and no NaN is expected", path=path, hint=_HINT)
    return values


def _array(data: bytes, path: Path) -> NDArray[np.float64]:
    try:
        values = np.load(BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:  # a header may claim any size
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"is a damaged NumPy file: {reason}", path=path, hint="copy it again") from error
    if not isinstance(values, np.ndarray) or not np.issubdtype(values.dtype, np.floating):
        raise InputError("is no floating-point array", path=path, hint="save maps with numpy.save as float32")
    return values.astype(np.float64)


def _picture(data: bytes, path: Path) -> NDArray[np.float64]:
    kind = sniff(data[:HEAD])
    if kind not in RASTERS:
        raise InputError(f"is {kind.value}; a picture or a .npy file is expected", path=path, hint=_HINT)
    try:
        with Image.open(BytesIO(data), formats=[kind.name]) as picture:
            if max(picture.size) > MAX_SIDE:
                raise InputError(
                    f"is {picture.size[1]} × {picture.size[0]} pixels, {MAX_SIDE} a side are read", path=path
                )
            mode = picture.mode
            levels: NDArray[Any] = np.asarray(picture.convert("RGB") if mode == "P" else picture)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"cannot be decoded as {kind.value}: {reason}", path=path, hint="export it again") from error
    if mode == "1":
        return levels.astype(np.float64)
    if levels.ndim == 3 and levels.shape[2] == 3 and (levels == levels[..., :1]).all():
        levels = levels[..., 0]
    if levels.dtype != np.uint8 or levels.ndim != 2:
        what = "coloured" if levels.ndim == 3 and levels.dtype == np.uint8 else f"in mode {mode}"
        raise InputError(f"is {what}; an 8-bit grey map is expected", path=path, hint=_HINT)
    return levels / 255.0
