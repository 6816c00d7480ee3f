"""NRRD volumes (`.nrrd`; `.nhdr` with a file of values), as 3D Slicer and others use them.

The format: https://teem.sourceforge.net/nrrd/format.html. pynrrd reads the header. Key/value pairs and free text
(content, labels) may name a patient and never leave.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.io.nifti.volume import volume_shape
from jcs_ct.io.volumes.stored import MAX_HEADER, Place, named, read_stored, start_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.io.files.sources import Source
    from jcs_ct.io.nifti.volume import NiftiSeries

FORM = "NRRD"
_TYPES = {
    "i1": "signed char,int8,int8_t", "u1": "uchar,unsigned char,uint8,uint8_t",
    "i2": "short,short int,signed short,signed short int,int16,int16_t",
    "u2": "ushort,unsigned short,unsigned short int,uint16,uint16_t",
    "i4": "int,signed int,int32,int32_t", "u4": "uint,unsigned int,uint32,uint32_t",
    "i8": "longlong,long long,long long int,signed long long,signed long long int,int64,int64_t",
    "u8": "ulonglong,unsigned long long,unsigned long long int,uint64,uint64_t",
    "f4": "float", "f8": "double",
}  # fmt: skip
_BY_NAME = {name: kind for kind, names in _TYPES.items() for name in names.split(",")}
# To the left, back and head, mm: what an index counts towards in each space.
_SPACES = {
    "right-anterior-superior": (-1, -1, 1), "ras": (-1, -1, 1),
    "left-anterior-superior": (1, -1, 1), "las": (1, -1, 1),
    "left-posterior-superior": (1, 1, 1), "lps": (1, 1, 1),
}  # fmt: skip
_UNITS = {"mm": 1.0, "millimeter": 1.0, "millimeters": 1.0, "cm": 10.0, "m": 1000.0, "um": 0.001, "": 1.0}
_FIELDS = {
    "type", "dimension", "sizes", "encoding", "endian", "space", "space directions", "space origin", "space units",
    "data file", "datafile", "byte skip", "byteskip", "line skip", "lineskip",
}  # fmt: skip


def read_nrrd(source: Source) -> NiftiSeries:
    """Return the chest CT in an NRRD file or member of an archive; values in another file lie beside it.

    Raises:
        InputError: It is damaged, truncated, too large or of a variant that is not read; its orientation is unknown,
            impossible or too oblique; it holds several volumes, or values that are no Hounsfield units.
    """
    with named(FORM, source):
        header, length = _header(start_of(source))
        sizes = [int(size) for size in header["sizes"]]
        if len(sizes) != header["dimension"]:
            raise InputError("does not say dimension and sizes alike", hint="correct the header")
        shape = volume_shape(sizes)
        affine = _affine(header, len(sizes))
        kind = _BY_NAME.get(str(header["type"]).lower())
        if kind is None:
            raise InputError("has values whose type is neither a whole nor a real number")
        if kind[1] != "1" and str(header.get("endian", "")).lower() not in {"little", "big"}:
            raise InputError("does not say in which order its bytes are (endian)", hint="correct the header")
        dtype = np.dtype((">" if str(header.get("endian")).lower() == "big" else "<") + kind)
        return read_stored(source, FORM, affine, shape, dtype, _place(header, length))


def _header(data: bytes) -> tuple[dict[str, Any], int]:
    """Return the fields that are needed, and the length of the header in bytes."""
    import nrrd

    ends = [(place, len(mark)) for mark in (b"\n\n", b"\n\r\n") if (place := data.find(mark)) >= 0]
    if not ends and len(data) == MAX_HEADER:
        message = f"has no end of its header within {MAX_HEADER >> 20} MiB"
        raise InputError(message, hint="copy it again")
    place, width = min(ends) if ends else (len(data), 0)
    lines = data[:place].decode("latin-1").splitlines()
    # Only what is needed: pynrrd stops at odd values of fields that nobody asks for.
    chosen = [line for line in lines[1:] if line.partition(":")[0].strip().lower() in _FIELDS and ":=" not in line]
    try:
        chosen = [f"{name.strip().lower()}: {value.strip()}" for name, _, value in (c.partition(":") for c in chosen)]
        found: dict[str, Any] = dict(nrrd.read_header([lines[0], *chosen]))
        _ = [found[name] for name in ("type", "dimension", "sizes", "encoding")]
    except Exception as error:  # pynrrd raises many kinds on damaged headers
        message = "is damaged: its header cannot be understood"
        raise InputError(message, hint="copy or convert it again") from error
    for old, new in (("datafile", "data file"), ("byteskip", "byte skip"), ("lineskip", "line skip")):
        if old in found:
            found.setdefault(new, found[old])
    return found, place + width


def _affine(header: dict[str, Any], dimension: int) -> NDArray[np.float64]:
    """Return stored index → LPS mm."""
    space = str(header.get("space", "")).strip().lower()
    signs = _SPACES.get(space)
    directions = np.atleast_2d(np.asarray(header.get("space directions", np.zeros((0, 3))), dtype=np.float64))
    if signs is None or directions.shape != (dimension, 3) or not np.isfinite(directions[:3]).all():
        raise InputError(
            "does not say how it lies in the patient (space, and space directions), so left and right, head and feet "
            "are unknown",
            hint="convert it again from DICOM",
        )
    units = [str(unit).strip('"').lower() for unit in header.get("space units", ["mm"] * 3)]
    if len(set(units)) != 1 or units[0] not in _UNITS:
        raise InputError("has another unit of length than mm", hint="save it in mm")
    affine = np.eye(4)
    affine[:3, :3] = directions[:3].T
    if "space origin" in header:
        origin = np.asarray(header["space origin"], dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise InputError("has a space origin that is not three numbers", hint="correct the header")
        affine[:3, 3] = origin
    return np.asarray(np.diag([*signs, 1.0]) @ np.diag([_UNITS[units[0]]] * 3 + [1.0]) @ affine, dtype=np.float64)


def _place(header: dict[str, Any], length: int) -> Place:
    """Return where the values are."""
    encoding = str(header["encoding"]).lower()
    if encoding not in {"raw", "gzip", "gz"}:
        what = encoding if encoding in {"txt", "text", "ascii", "hex", "bz2", "bzip2"} else "of another kind"
        raise InputError(f"has its values in the encoding {what}", hint="save it raw or packed with gzip")
    name = None if header.get("data file") is None else str(header["data file"])
    if name is not None and (name.split()[:1] == ["LIST"] or "%" in name):
        raise InputError("lists a file for each slice", hint="save it in one file")
    if int(header.get("line skip", 0)):
        raise InputError("skips lines before its values (line skip)", hint="save it again")
    skip, packed = int(header.get("byte skip", 0)), encoding != "raw"
    if skip < -1 or (packed and skip):  # bytes to skip are those of the unpacked values
        raise InputError("skips bytes of packed values (byte skip)", hint="save it again")
    before = 0 if name is not None else length
    return Place(name, -1 if skip < 0 else before + skip, "gzip" if packed else "none")
