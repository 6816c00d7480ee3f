"""Stage-1 features in the COVID-CS format: what that release holds instead of images.

Source: the COVID-CS release (Wu et al., IEEE TIP 2021). A MATLAB v5 file with uint8 arrays, value · 20:
`vgg_feats` 1×64×H×W and `res2net_feats` 1×64×ceil(H/2)×ceil(W/2) for segmentation (H = W = 512, or 256 in the
half-size set); one array of 64×112×112 for classification. Files are read one at a time, and only the arrays needed.
"""

from __future__ import annotations

import warnings
import zlib
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import InputError, about
from jcs_ct.core.types import StageOneFeatures
from jcs_ct.core.whole_files import whole_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

SCALE = 20
CHANNELS = 64
LARGEST = 2048  # rows or columns; 64 × 2048² bytes are 256 MiB
ARRAYS = {"vgg": "vgg_feats", "res2net": "res2net_feats"}
_EXPECTED = f"expected uint8 arrays of {CHANNELS} channels, 1×{CHANNELS}×H×W or {CHANNELS}×H×W"
# What SciPy's reader raises on damaged files, as found by feeding it truncated and altered ones.
_DAMAGE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    OverflowError,
    MemoryError,
    zlib.error,
)


def quantise(features: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return float32 values of at least 0, times 20, as uint8, cut off (not rounded) as the release does.

    A plain cast, as in the release, wraps around above 12.75; here larger values stay at 255.
    """
    return (features * np.float32(SCALE)).clip(0, 255).astype(np.uint8)


def dequantise(features: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the float32 values that `features` stand for (divided by 20)."""
    return features.astype(np.float32) / np.float32(SCALE)


def write_features(path: Path, arrays: Mapping[str, NDArray[np.uint8]], *, overwrite: bool = False) -> None:
    """Write a COVID-CS `.mat` file, whole or not at all.

    `arrays` are "vgg" and/or "res2net" to uint8 64×H×W. Both or VGG alone are stored as 1×64×H×W, as for segmentation;
    Res2Net alone as 64×H×W, as for classification. Raises OutputError where the file exists, or cannot be written.
    """
    from scipy.io import savemat

    alone = tuple(arrays) == ("res2net",)
    content = {ARRAYS[name]: array if alone else array[None] for name, array in arrays.items()}
    with whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        savemat(file, content, do_compression=True)


def read_features(data: bytes, name: str, label: str, wanted: Sequence[str] = ("vgg", "res2net")) -> StageOneFeatures:
    """Read a COVID-CS `.mat` file, whatever its arrays are called.

    An array whose name contains "vgg" or "res2net" is that one. Otherwise a single array is the one wanted, and of two
    the larger is VGG's. Of the result, messages say `label`, and what is written is called `name`.

    Raises:
        InputError: No such file: damaged, another version of the format, no array of 64 channels, another type,
            sizes that do not belong together, nothing but zeros, or an array that is wanted is not there.
    """
    with about(label):
        shapes = _listing(data)
        found = _assign(shapes, wanted)
        missing = [which for which in wanted if which not in found]
        if missing:
            held = ", ".join(f"{key} {'×'.join(map(str, shape))}" for key, shape in shapes.items())
            raise InputError(
                f"holds {held}, but no stage-1 features of {' and '.join(missing)}",
                hint="this network needs " + " and ".join(ARRAYS[w] for w in wanted),
            )
        arrays = {which: _array(data, found[which]) for which in wanted}
        if len(arrays) == 2:
            rows, columns = arrays["vgg"].shape[1:]
            needed = ((rows + 1) // 2, (columns + 1) // 2)
            if arrays["res2net"].shape[1:] != needed:
                raise InputError(
                    f"VGG features of {rows}×{columns} and Res2Net features of "
                    f"{'×'.join(map(str, arrays['res2net'].shape[1:]))} do not belong together",
                    hint=f"{needed[0]}×{needed[1]} was expected for Res2Net",
                )
    return StageOneFeatures(name, label, arrays.get("vgg"), arrays.get("res2net"))


def _listing(data: bytes) -> dict[str, tuple[int, ...]]:
    """Return name → shape of every array of 64 channels, from the headers alone."""
    from scipy.io import whosmat

    if data[:8] == b"\x89HDF\r\n\x1a\n" or data[:19] == b"MATLAB 7.3 MAT-file":
        raise InputError("is a MATLAB v7.3 (HDF5) file, v5 was expected", hint="save it with -v7")
    with _problem_of("is damaged or no MATLAB v5 file", _EXPECTED):
        listed = whosmat(BytesIO(data))
    shapes: dict[str, tuple[int, ...]] = {}
    for key, shape, kind in listed:
        channels_at = {3: 0, 4: 1}.get(len(shape))
        if channels_at is None or shape[channels_at] != CHANNELS or (len(shape) == 4 and shape[0] != 1):
            continue
        if kind != "uint8":
            raise InputError(f"array {key!r} is {kind}", hint=_EXPECTED + f", value·{SCALE}")
        if not 1 <= min(shape[-2:]) <= max(shape[-2:]) <= LARGEST:
            raise InputError(f"array {key!r} is {'×'.join(map(str, shape))}", hint=f"sides up to {LARGEST}")
        shapes[key] = tuple(shape)
    if not shapes:
        held = ", ".join(f"{key} {kind} {'×'.join(map(str, shape))}" for key, shape, kind in listed[:4]) or "no array"
        raise InputError(f"holds {held}", hint=_EXPECTED)
    return shapes


def _assign(shapes: Mapping[str, tuple[int, ...]], wanted: Sequence[str]) -> dict[str, str]:
    """Return "vgg"/"res2net" → the name of the array in the file."""
    found: dict[str, str] = {}
    unnamed = []
    for key in shapes:
        which = next((w for w in ARRAYS if w in key.lower()), None)
        if which is None:
            unnamed.append(key)
        elif which in found:
            raise InputError(f"holds two arrays for {which}: {found[which]} and {key}", hint="keep one")
        else:
            found[which] = key
    open_places = [w for w in ARRAYS if w not in found]
    if len(unnamed) == 1 and not found and len(wanted) == 1:
        found[wanted[0]] = unnamed[0]
    elif len(unnamed) == len(open_places):
        by_size = sorted(unnamed, key=lambda key: -np.prod(shapes[key]))
        found.update(zip(open_places, by_size, strict=True))
    elif len(unnamed) > len(open_places):
        raise InputError(
            f"holds {len(shapes)} arrays of {CHANNELS} channels: {', '.join(shapes)}",
            hint="call them vgg_feats and res2net_feats",
        )
    return found


def _array(data: bytes, key: str) -> NDArray[np.uint8]:
    from scipy.io import loadmat

    with _problem_of(f"array {key!r} is damaged", "fetch the file again"):
        array = loadmat(BytesIO(data), variable_names=[key])[key]
    array = array[0] if array.ndim == 4 else array
    if array.dtype != np.uint8 or array.ndim != 3:
        raise InputError(f"array {key!r} is {array.dtype} {array.shape}", hint=_EXPECTED)
    if not array.any():
        raise InputError(f"array {key!r} is zero everywhere", hint="write the features again")
    return np.ascontiguousarray(array)


@contextmanager
def _problem_of(what: str, hint: str) -> Iterator[None]:
    """Turn what SciPy's reader raises on damaged files into a problem, and keep its warnings to itself."""
    from scipy.io.matlab import MatReadError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (*_DAMAGE, MatReadError, NotImplementedError) as error:
        short = (str(error).splitlines() or [""])[0][:80] or type(error).__name__
        raise InputError(f"{what}: {short}", hint=hint) from error
