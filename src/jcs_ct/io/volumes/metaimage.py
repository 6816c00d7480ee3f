"""MetaImage volumes (`.mha`; `.mhd` with `.raw` or `.zraw`), as ITK's programs and many challenges use them.

The format: https://itk.org/Wiki/ITK/MetaIO/Documentation. Of the header only what places and types the values is
looked at; free text (Comment, Name, ID and fields of other programs) may name a patient and never leaves.
Positions are in mm to the left, back and head, as in DICOM and here.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.io.nifti.volume import volume_shape
from jcs_ct.io.volumes.stored import MAX_HEADER, Place, named, read_stored, start_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.io.files.sources import Source
    from jcs_ct.io.nifti.volume import NiftiSeries

FORM = "MetaImage"
_TYPES = {
    "MET_CHAR": "i1", "MET_UCHAR": "u1", "MET_SHORT": "i2", "MET_USHORT": "u2", "MET_INT": "i4", "MET_UINT": "u4",
    "MET_LONG": "i4", "MET_ULONG": "u4", "MET_LONG_LONG": "i8", "MET_ULONG_LONG": "u8", "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}  # fmt: skip
_LINE = re.compile(rb"([A-Za-z]\w*)[ \t]*=[ \t]*(.*)", re.DOTALL)
_LAST = "ElementDataFile"
_NAMES = {  # older names of the same, which count where the newer one is missing
    "Origin": "Offset",
    "Position": "Offset",
    "Rotation": "TransformMatrix",
    "Orientation": "TransformMatrix",
    "BinaryDataByteOrderMSB": "ElementByteOrderMSB",
    "ElementSize": "ElementSpacing",
}
_LETTERS = "RLAPIS"  # from right, from left, from the front, from the back, from the feet, from the head


def read_metaimage(source: Source) -> NiftiSeries:
    """Return the chest CT in a MetaImage file or member of an archive; values in another file lie beside it.

    Raises:
        InputError: It is damaged, truncated, too large or of a variant that is not read; its orientation is impossible
            or too oblique; it holds several volumes, channels, or values that are no Hounsfield units.
    """
    with named(FORM, source):
        fields, length = _fields(start_of(source))
        _refuse(fields)
        words = fields.get("DimSize", "").split()
        if not words or str(len(words)) != fields.get("NDims", "").strip():
            raise InputError("does not say NDims and DimSize alike", hint="correct the header")
        shape = volume_shape([_whole(word, "DimSize") for word in words])
        affine, warnings = _affine(fields)
        kind = _TYPES.get(fields.get("ElementType", ""))
        if kind is None:
            found = fields.get("ElementType", "nothing")
            message = f"has values of the type {found if re.fullmatch('MET_[A-Z_]+', found) else 'of another format'}"
            raise InputError(message + ", whole or real numbers are expected")
        order = ">" if _yes(fields, "ElementByteOrderMSB") else "<"
        place = _place(fields, length)
        return read_stored(source, FORM, affine, shape, np.dtype(order + kind), place, warnings)


def _fields(data: bytes) -> tuple[dict[str, str], int]:
    """Return what the header says, and its length in bytes."""
    fields: dict[str, str] = {}
    at = 0
    while (end := data.find(b"\n", at)) >= 0:
        line, at = data[at:end].strip(), end + 1
        if not line:
            continue
        if (found := _LINE.fullmatch(line)) is None:
            break
        key, value = found[1].decode("ascii"), found[2].decode("latin-1")
        if key in _NAMES:
            fields.setdefault(f"{_NAMES[key]}, older", value)
        elif key in fields:
            raise InputError(f"says {key} twice", hint="correct the header")
        else:
            fields[key] = value
        if key == _LAST:
            for name in [name for name in fields if name.endswith(", older")]:
                fields.setdefault(name.removesuffix(", older"), fields[name])
            return fields, at
    much = f" within {MAX_HEADER >> 20} MiB" if len(data) == MAX_HEADER else ""
    raise InputError(f"is damaged: its header does not end in {_LAST}{much}", hint="copy it again")


def _refuse(fields: dict[str, str]) -> None:
    """Raise for a variant that is not read."""
    if fields.get("ObjectType", "Image").casefold() != "image":
        raise InputError("holds no image but another object", hint="give the CT")
    if not _yes(fields, "BinaryData", usual=True):
        raise InputError("holds its values as text", hint="save it with binary values")
    channels = fields.get("ElementNumberOfChannels", "1")
    if channels != "1":
        raise InputError("holds several values a voxel, one is expected", hint="give the CT itself")
    scale = [
        fields.get(f"ElementToIntensityFunction{name}", usual) for name, usual in (("Slope", "1"), ("Offset", "0"))
    ]
    if [_real(word) for word in scale] != [1.0, 0.0]:
        message = "scales its values (ElementToIntensityFunction), which programs apply or not"
        raise InputError(message, hint="save it as Hounsfield units")


def _affine(fields: dict[str, str]) -> tuple[NDArray[np.float64], list[str]]:
    """Return stored index → LPS mm, and warnings."""
    dimensions = len(fields.get("DimSize", "").split())
    warnings, affine = [], np.eye(4)
    if "ElementSpacing" not in fields:
        raise InputError("does not say how large its voxels are (ElementSpacing)", hint="convert it again from DICOM")
    spacing = _numbers(fields, "ElementSpacing", dimensions)
    if not all(mm > 0 for mm in spacing[:3]):
        raise InputError("has voxels without an extent (ElementSpacing)", hint="correct the header")
    turn = np.eye(dimensions)
    if "TransformMatrix" in fields:  # the direction of each axis, one after the other
        turn = np.array(_numbers(fields, "TransformMatrix", dimensions**2)).reshape(dimensions, dimensions)
    else:
        warnings.append(
            "has no TransformMatrix: columns are taken to run to the left, rows to the back, slices to the head"
        )
    lengths = np.linalg.norm(turn[:3, :3], axis=1)
    if np.abs(lengths - 1).max() > 1e-2:
        message = "has an impossible orientation: the directions of TransformMatrix are not unit vectors"
        raise InputError(message, hint="correct the header")
    affine[:3, :3] = turn[:3, :3].T * np.array(spacing[:3])
    if "Offset" in fields:
        affine[:3, 3] = _numbers(fields, "Offset", dimensions)[:3]
    said = fields.get("AnatomicalOrientation", "").upper()
    if len(said) == 3 and set(said) <= set(_LETTERS) and said not in _codes(affine):
        warnings.append(f"AnatomicalOrientation says {said}, which TransformMatrix contradicts; the matrix is used")
    return affine, warnings


def _codes(affine: NDArray[np.float64]) -> set[str]:
    """Return where the axes come from and where they go to, three letters each: programs write the one or the other."""
    pairs = []
    for direction in affine[:3, :3].T:
        axis = int(np.abs(direction).argmax())
        pairs.append(_LETTERS[2 * axis : 2 * axis + 2][:: 1 if direction[axis] > 0 else -1])
    return {"".join(pair[end] for pair in pairs) for end in (0, 1)}


def _place(fields: dict[str, str], length: int) -> Place:
    """Return where the values are."""
    name = fields[_LAST]
    if name.split()[:1] == ["LIST"] or "%" in name:
        raise InputError("lists a file for each slice", hint="save it in one file")
    if not name:
        raise InputError(f"does not say where its values are ({_LAST})", hint="correct the header")
    local = name.upper() == "LOCAL"
    skip = _whole(fields.get("HeaderSize", "0"), "HeaderSize", least=-1)
    packed = _yes(fields, "CompressedData")
    if packed and skip < 0:
        raise InputError("says HeaderSize = -1 of packed values", hint="correct the header")
    return Place(None if local else name, length if local and skip >= 0 else skip, "zlib" if packed else "none")


def _yes(fields: dict[str, str], key: str, *, usual: bool = False) -> bool:
    return fields[key][:1].upper() in {"T", "Y", "1"} if key in fields else usual


def _whole(word: str, key: str, least: int = 0) -> int:
    if re.fullmatch(r"-?[0-9]{1,10}", word) is None or int(word) < least:
        raise InputError(f"has a {key} that is not a whole number", hint="correct the header")
    return int(word)


def _real(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _numbers(fields: dict[str, str], key: str, count: int) -> list[float]:
    numbers = [_real(word) for word in fields[key].split()]
    if len(numbers) != count or not all(map(math.isfinite, numbers)):
        raise InputError(f"has a {key} that is not {count} numbers", hint="correct the header")
    return numbers
