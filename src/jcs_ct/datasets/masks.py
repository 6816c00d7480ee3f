"""Lesion masks: pictures with two values, 0 and 255 or 0 and 1, in one channel or in three that are equal."""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.kinds import HEAD, RASTERS, sniff
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.pictures import MAX_SIDE, pillow_kept_quiet

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

_ALLOWED = ({0, 1}, {0, 255})
_HINT = "a mask holds 0 (no lesion) and 255 or 1 (lesion); save it as PNG, never as JPEG"


@dataclass(frozen=True)
class Mask:
    """A mask as it is stored: bool, rows × columns, where it is not 0; and what is wrong with its values, or None."""

    lesion: NDArray[np.bool_]
    fault: str | None


def read_mask(path: Path) -> NDArray[np.bool_]:
    """Read a lesion mask: bool, rows × columns. Raises InputError for no picture, or other values than a mask has."""
    mask = decode_mask(read_file(path), str(path))
    if mask.fault:
        raise InputError(mask.fault, path=path, hint=_HINT)
    return mask.lesion


def decode_mask(data: bytes, label: str) -> Mask:
    """Decode a mask that messages call `label`, and say what is wrong with its values.

    Raises InputError where it is no picture, or damaged.
    """
    kind = sniff(data[:HEAD])
    if kind not in RASTERS:
        raise InputError(f"is {kind.value}; a mask is a PNG, TIFF or BMP picture", path=label, hint=_HINT)
    try:
        # What is wrong shows in the values.
        with pillow_kept_quiet([]), Image.open(BytesIO(data), formats=[kind.name]) as picture:
            if max(picture.size) > MAX_SIDE:
                raise InputError(f"is {picture.size[1]} × {picture.size[0]} pixels", path=label, hint=_HINT)
            if kind.name == "PNG":
                with Image.open(BytesIO(data), formats=["PNG"]) as copy:
                    copy.verify()  # decoding alone does not look at the checksums of the pixel data
            values = _values(picture)
    except InputError:
        raise
    except Exception as error:  # Pillow's decoders raise whatever damaged bytes lead them to
        reason = (str(error).splitlines() or [""])[0] or type(error).__name__
        raise InputError(f"cannot be decoded as {kind.value}: {reason}", path=label, hint="export it again") from error
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            return Mask((values != 0).any(axis=2), "is coloured: its channels differ")
        values = values[..., 0]
    return Mask(values != 0, _fault(values))


def _values(picture: Image.Image) -> NDArray[Any]:
    if picture.mode in {"P", "PA"}:
        # Palettes hold either the colours to show (COVID-19-CT100) or only numbers of classes, shown in colours that
        # mean nothing. The colours count when they are grey.
        shown = np.asarray(picture.convert("RGB"))
        return shown if (shown == shown[..., :1]).all() else np.asarray(picture)
    if picture.mode == "1":
        return np.asarray(picture).astype(np.uint8)
    if picture.mode in {"LA", "RGBA"}:
        return np.asarray(picture.convert(picture.mode[:-1]))
    return np.asarray(picture)


def _fault(values: NDArray[Any]) -> str | None:
    levels = np.unique(values)
    if any(set(levels.tolist()) <= allowed for allowed in _ALLOWED):
        return None
    shown = ", ".join(f"{level:g}" for level in levels[:5]) + (", …" if len(levels) > 5 else "")
    return f"holds {len(levels)} different values ({shown}); 0 and 255, or 0 and 1, are expected"
