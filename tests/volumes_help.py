"""Writers of MetaImage and NRRD that share no line with the readers, and the writer of NIfTI for whole volumes."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.io.nifti.write import write_nifti_slices

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import CTSeries

MET = {
    "i1": "CHAR",
    "u1": "UCHAR",
    "i2": "SHORT",
    "u2": "USHORT",
    "i4": "INT",
    "u4": "UINT",
    "f4": "FLOAT",
    "f8": "DOUBLE",
}
TEEM = {
    "i1": "int8",
    "u1": "uchar",
    "i2": "short",
    "u2": "ushort",
    "i4": "int",
    "u4": "uint32",
    "f4": "float",
    "f8": "double",
}


def text(numbers: Any) -> str:
    return " ".join(repr(float(number)) for number in np.ravel(numbers))


def write_metaimage(
    path: Path,
    values: NDArray[Any],
    lps: NDArray[np.float64],
    *,
    packed: bool = False,
    big: bool = False,
    change: dict[str, str | None] | None = None,
    before: bytes = b"",
) -> Path:
    """Write (x, y, z) with its affine; `.mhd` gets a file of values beside it.

    Args:
        change: Lines to replace, add, or (None) leave out.
        before: Bytes before the values.
    """
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    lines: dict[str, str | None] = {
        "ObjectType": "Image",
        "NDims": "3",
        "BinaryData": "True",
        "BinaryDataByteOrderMSB": str(big),
        "CompressedData": str(packed),
        "TransformMatrix": text((lps[:3, :3] / spacing).T),
        "Offset": text(lps[:3, 3]),
        "CenterOfRotation": "0 0 0",
        "ElementSpacing": text(spacing),
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": f"MET_{MET[values.dtype.str[1:]]}",
    }
    beside = path.suffix == ".mhd"
    data = path.with_suffix(".zraw" if packed else ".raw")
    lines |= {"ElementDataFile": data.name if beside else "LOCAL"} | (change or {})
    last = lines.pop("ElementDataFile")
    head = "".join(f"{key} = {value}\n" for key, value in lines.items() if value is not None)
    head += f"ElementDataFile = {last}\n"
    raw = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes(order="F")
    raw = before + (zlib.compress(raw, 1) if packed else raw)
    if beside:
        path.write_text(head)
        data.write_bytes(raw)
    else:
        path.write_bytes(head.encode() + raw)
    return path


def write_nrrd(
    path: Path,
    values: NDArray[Any],
    lps: NDArray[np.float64],
    *,
    space: str = "left-posterior-superior",
    encoding: str = "gzip",
    big: bool = False,
    change: dict[str, str | None] | None = None,
    before: bytes = b"",
) -> Path:
    """Write (x, y, z) with its affine; `.nhdr` gets a file of values beside it. Arguments as in `write_metaimage`."""
    signs = {"left-posterior-superior": (1, 1, 1), "right-anterior-superior": (-1, -1, 1), "LAS": (1, -1, 1)}[space]
    turned = np.diag([*signs, 1]) @ lps
    vectors = " ".join(f"({','.join(repr(float(v)) for v in column)})" for column in turned[:3, :3].T)
    beside = path.suffix == ".nhdr"
    data = path.with_suffix(".raw.gz" if encoding == "gzip" else ".raw")
    lines: dict[str, str | None] = {
        "type": TEEM[values.dtype.str[1:]],
        "dimension": "3",
        "space": space,
        "sizes": " ".join(map(str, values.shape)),
        "space directions": vectors,
        "kinds": "domain domain domain",
        "endian": "big" if big else "little",
        "encoding": encoding,
        "space origin": f"({','.join(repr(float(v)) for v in turned[:3, 3])})",
    }
    lines |= ({"data file": data.name} if beside else {}) | (change or {})
    head = "NRRD0005\n# Planted^Comment\n" + "".join(f"{k}: {v}\n" for k, v in lines.items() if v is not None)
    head += "patient:=Planted^Name\n\n"
    raw = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes(order="F")
    raw = before + (gzip.compress(raw, 1, mtime=0) if encoding == "gzip" else raw)
    if beside:
        path.write_text(head)
        data.write_bytes(raw)
    else:
        path.write_bytes(head.encode() + raw)
    return path


def write_nifti(path: Path, canonical: NDArray[Any], series: CTSeries, **options: Any) -> None:
    """Write a volume that is in memory: (slice, row, column)."""
    write_nifti_slices(path, canonical.__getitem__, canonical.dtype, series, **options)
