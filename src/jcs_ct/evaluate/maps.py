"""Precomputed maps: volumes, `.npy`, or 8-bit pictures as the authors publish theirs and `jcs segment` writes.

Masks, labels or probabilities: what cannot be told apart is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.slices import between_whole_numbers, wanted_labels
from jcs_ct.imaging.recipes import RECIPES, resize_map
from jcs_ct.io.files.kinds import HEAD, RASTERS, sniff
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.nifti.volume import read_labels
from jcs_ct.io.pictures import MAX_SIDE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Values = Literal["auto", "probabilities", "masks"]
"""What the levels of stored pictures stand for."""

LARGEST_LABEL = 8
"""Folders whose maps hold no level above this hold labels of regions, not probabilities: 8/255 is 0.03."""

MOST_LEVELS = 9
"""Folders whose maps hold no more levels than these, but several besides 0, may hold labels under any number."""

_SIDE = RECIPES["release-segmentation"].size
GRIDS_OF_FEATURES = ((_SIDE, _SIDE), (_SIDE // 2, _SIDE // 2))
"""The grids of maps from stage-1 features, which do not know the grid of their slice: whole size, half size."""

_NPY = b"\x93NUMPY"
_HINT = "write maps as 8-bit grey PNG, floor(255·p), as `jcs segment` does"


@dataclass(frozen=True)
class Stored:
    """How the maps of a folder are stored.

    Attributes:
        masks: A picture's level 0 is no lesion, every other one is; else a level v stands for v / 255.
        note: What a user should know, or "".
    """

    masks: bool = False
    note: str = ""


def how_stored(paths: Iterable[Path], folder: Path, values: Values = "auto") -> Stored:
    """Tell how all maps of a folder are stored, of which the user says `values` ("auto": that is looked for).

    Reading ends at the first map that holds more than `MOST_LEVELS` levels. Raises InputError where they hold a few
    small numbers, as labels of regions do.
    """
    if values != "auto":
        return Stored(values == "masks")
    found: set[int] = set()
    for path in paths:
        try:
            data = read_file(path)
            levels = None if data.startswith(_NPY) else _levels(data, path)
        except InputError:
            continue  # named when it is to be scored
        if levels is None or levels.dtype == np.bool_:  # their values are what they stand for
            return Stored()
        found |= set(np.unique(levels).tolist())
        if len(found) > MOST_LEVELS:
            return Stored()
    marked = found - {0}
    if not marked or (max(found) > LARGEST_LABEL and len(marked) == 1):
        return Stored()
    if max(found) > LARGEST_LABEL:  # perhaps labels, or masks of 1 among masks of 255
        return Stored(
            note=f"{folder}: its maps hold only the values {_listed(found)} and are read as probabilities, v/255; "
            "if they are labels, write lesions as 255 and everything else as 0; "
            "if every value but 0 is lesion, give --map-values masks"
        )
    if found <= {0, 1}:
        how = "if they are probabilities, floor(255·p), say so with --map-values probabilities"
        return Stored(True, f"{folder}: its maps hold only 0 and 1 and are read as masks, 1 is lesion; {how}")
    raise InputError(
        f"its maps hold only the values {_listed(found)}, as labels do; probabilities from 0 to 255 or masks are "
        "expected",
        path=folder,
        hint="write lesions as 255 and everything else as 0; or give --map-values masks if every value but 0 is "
        "lesion, --map-values probabilities if a value v means p = v/255",
    )


def _listed(levels: set[int]) -> str:
    return ", ".join(str(level) for level in sorted(levels)[:-1]) + f" and {max(levels)}"


def on_grid(values: NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """Return a map from stage-1 features (rows × columns, in [0, 1]) at the shape of the mask; any other as it is."""
    if values.shape == shape or values.shape not in GRIDS_OF_FEATURES:
        return values
    rows, columns = shape
    return resize_map(values.astype(np.float32), (rows, columns)).astype(np.float64)


def read_map(path: Path, stored: Stored = Stored()) -> NDArray[np.float64]:
    """Read a map of probabilities or of attention, from a picture or a NumPy file: float64, rows × columns, in [0, 1].

    The content decides which. A stored level v stands for v / 255, so that p ≥ 0.5 is v ≥ 128; of masks, every level
    but 0 stands for 1. Raises InputError where it cannot be read, is no 8-bit grey picture or float map, or has other
    values.
    """
    data = read_file(path)
    if data.startswith(_NPY):
        values = _array(data, path)
    else:
        levels = _levels(data, path)
        lesion = stored.masks or levels.dtype == np.bool_
        values = (levels != 0).astype(np.float64) if lesion else levels.astype(np.float64) / 255
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
        raise InputError("is not a floating-point array", path=path, hint="save maps with numpy.save as float32")
    return values.astype(np.float64)


def _levels(data: bytes, path: Path) -> NDArray[Any]:
    """Return the stored levels of a map: uint8, or bool of a picture with one bit a pixel."""
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
        return levels.astype(np.bool_)
    if levels.ndim == 3 and levels.shape[2] == 3 and (levels == levels[..., :1]).all():
        levels = levels[..., 0]
    if levels.dtype != np.uint8 or levels.ndim != 2:
        what = "coloured" if levels.ndim == 3 and levels.dtype == np.uint8 else f"in mode {mode}"
        raise InputError(f"is {what}; an 8-bit grey map is expected", path=path, hint=_HINT)
    return levels


@lru_cache(maxsize=2)  # the slices of a volume ask for the same one; a comparison has two
def open_map(path: Path, values: Values, lesions: tuple[int, ...]) -> NDArray[Any]:
    """Return the map in a NIfTI file: slices × rows × columns; bool of a mask, or real numbers in [0, 1].

    `values` are what its levels stand for ("auto": whole numbers are labels, others probabilities), `lesions` the
    labels that are lesion (empty: all above 0). Raises InputError where it cannot be read, or can be neither.
    """
    stored = read_labels(path)
    low, high = float(stored.min()), float(stored.max())  # NaN anywhere makes both NaN
    expected = "labels, or probabilities from 0 to 1, are expected"
    if not low >= 0:
        raise InputError(f"holds values from {low:g} to {high:g}; {expected}", path=path, hint="see --map-values")
    if between_whole_numbers(stored) is not None or values == "probabilities":
        shares = stored / 255 if values == "probabilities" and stored.dtype.kind in "iu" and high > 1 else stored
        if values == "masks":
            return np.asarray(stored > 0)
        if shares.max() > 1:
            message = f"holds values from {low:g} to {high:g}, some no whole numbers; {expected}"
            raise InputError(message, path=path, hint="write probabilities from 0 to 1")
        return np.asarray(shares, dtype=np.float64)
    if high > LARGEST_LABEL and values == "auto" and not lesions and len(levels := np.unique(stored)) > 2:
        raise InputError(
            f"holds {len(levels)} whole numbers up to {high:g}: labels, or probabilities as floor(255·p)",
            path=path,
            hint="say --map-values masks or probabilities; or --labels",
        )
    return wanted_labels(stored, lesions)


def refuse_other_labels(files: Sequence[Path], folder: Path, lesions: tuple[int, ...]) -> None:
    """Refuse volumes of maps of which none holds one of the labels that are lesion (empty: any), but others.

    Raises InputError, which names `folder`: a Dice of 0 would say nothing of them.
    """
    if not lesions:
        return
    found: set[int] = set()
    for path in dict.fromkeys(files):
        try:
            stored = read_labels(path)
        except InputError:
            continue  # named when it is to be scored
        if between_whole_numbers(stored) is not None:
            return  # probabilities have no labels
        found |= {int(level) for level in np.unique(stored)} - {0}
        if found & set(lesions):
            return
    if found:
        shown, wanted = (", ".join(map(str, sorted(labels)[:5])) for labels in (found, lesions))
        raise InputError(
            f"its maps hold the labels {shown}, and --labels {wanted} says that others are lesion",
            path=folder,
            hint="maps and masks need the same labels; write the lesions of both with one",
        )
