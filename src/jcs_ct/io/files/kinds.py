"""What a file is, told from its first bytes. Names and extensions are never looked at here."""

from __future__ import annotations

import codecs
import re
import struct
import zlib
from dataclasses import dataclass
from enum import Enum

from jcs_ct.io.files.names import EXTENSIONS, VOLUME_ENDINGS

HEAD = 1024
"""Bytes of a file that `sniff` needs; fewer do, where the file is shorter."""


class Kind(Enum):
    """What a file is; the value completes the sentence "this file is …"."""

    PNG = "a PNG picture"
    JPEG = "a JPEG picture"
    TIFF = "a TIFF picture"
    BMP = "a BMP picture"
    MAT = "a MATLAB v5 file"
    HDF5 = "an HDF5 file (MATLAB v7.3 files are such)"
    ZIP = "a zip archive"
    DICOM = "a DICOM file"
    NIFTI = "a NIfTI volume"
    NRRD = "an NRRD volume"
    METAIMAGE = "a MetaImage volume"
    ANALYZE = "an Analyze 7.5 volume, which does not say how it lies in the patient"
    NUMPY = "a NumPy array file"
    GIF = "a GIF picture"
    WEBP = "a WebP picture"
    JPEG2000 = "a JPEG 2000 picture"
    JPEG_XL = "a JPEG XL picture"
    HEIF = "a HEIF or AVIF picture"
    PSD = "a Photoshop picture"
    PDF = "a PDF document"
    DICOM_GZIP = "a DICOM file packed with gzip"
    TAR = "a tar archive"
    TAR_GZIP = "a tar archive packed with gzip"
    GZIP = "a gzip file"
    ARCHIVE = "an archive other than zip, tar and tar.gz"
    TEXT = "a text file"
    EMPTY = "an empty file (0 bytes)"
    UNKNOWN = "a file of an unknown kind"


RASTERS = frozenset({Kind.PNG, Kind.JPEG, Kind.TIFF, Kind.BMP})
"""Pictures that `jcs_ct.io.pictures` reads."""
SLICES = RASTERS | {Kind.MAT}
"""All that can hold one slice: a picture, or stage-1 features."""

GRIDS = frozenset({Kind.NIFTI, Kind.METAIMAGE, Kind.NRRD})
"""Files that hold a whole volume, read piece by piece; the values may lie in a file beside the header."""
VOLUMES = GRIDS | {Kind.DICOM}
"""Files that hold a CT study or a part of one (`jcs_ct.io.studies`)."""
ARCHIVES = frozenset({Kind.ZIP, Kind.TAR, Kind.TAR_GZIP})
"""Files that hold other files, which are read as those of a folder are."""

EXPECTED = "slices as PNG, JPEG, TIFF or BMP are expected by this command"


@dataclass(frozen=True)
class Wanted:
    """What a command reads, and what it says of files that are something else.

    Attributes:
        kinds: What it reads.
        what: One of them, for "holds no …".
        expected: Completes "…; slices as PNG are expected by this command".
        extensions: Lower case, with the dot. A file of another kind that has one of them is a problem wherever it lies,
            for it promises what it does not hold.
        hint: What to do with a file of another kind.
    """

    kinds: frozenset[Kind]
    what: str
    expected: str
    extensions: frozenset[str]
    hint: str

    def promised(self, path: str) -> bool:
        """Return whether a file's name promises what is wanted."""
        return path.lower().endswith(tuple(self.extensions)) and not path.startswith(".")


FOR_SLICES = Wanted(SLICES, "slice", EXPECTED, EXTENSIONS, "convert it to PNG")
FOR_STUDIES = Wanted(
    VOLUMES | SLICES,
    "CT study",
    "DICOM, NIfTI, MetaImage, NRRD or slices as PNG, JPEG, TIFF or BMP are expected",
    EXTENSIONS | {".dcm", ".dicom", ".ima", ".dcm.gz", *VOLUME_ENDINGS},
    "convert it to NIfTI",
)

# Offset, bytes there, kind; the first that matches counts. DICOM comes first, since its 128-byte preamble is free:
# the standard suggests a TIFF header there.
_MAGIC: tuple[tuple[int, bytes, Kind], ...] = (
    (128, b"DICM", Kind.DICOM),
    (0, b"\x89PNG\r\n\x1a\n", Kind.PNG),
    (0, b"\xff\xd8\xff", Kind.JPEG),
    (0, b"II*\0", Kind.TIFF),
    (0, b"MM\0*", Kind.TIFF),
    (0, b"II+\0", Kind.TIFF),
    (0, b"MM\0+", Kind.TIFF),
    (0, b"PK\x03\x04", Kind.ZIP),
    (0, b"PK\x05\x06", Kind.ZIP),
    (0, b"PK\x07\x08", Kind.ZIP),
    (124, b"\x00\x01IM", Kind.MAT),
    (124, b"\x01\x00MI", Kind.MAT),
    (124, b"\x00\x02IM", Kind.HDF5),
    (124, b"\x02\x00MI", Kind.HDF5),
    (0, b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (512, b"\x89HDF\r\n\x1a\n", Kind.HDF5),
    (344, b"n+1\0", Kind.NIFTI),
    (344, b"ni1\0", Kind.NIFTI),
    (4, b"n+2\0\r\n\x1a\n", Kind.NIFTI),
    (4, b"ni2\0\r\n\x1a\n", Kind.NIFTI),
    (0, b"NRRD000", Kind.NRRD),
    (0, b"\x93NUMPY", Kind.NUMPY),
    (0, b"GIF87a", Kind.GIF),
    (0, b"GIF89a", Kind.GIF),
    (8, b"WEBPVP8", Kind.WEBP),
    (0, b"\0\0\0\x0cjP  \r\n\x87\n", Kind.JPEG2000),
    (0, b"\xff\x4f\xff\x51", Kind.JPEG2000),
    (0, b"\0\0\0\x0cJXL \r\n\x87\n", Kind.JPEG_XL),
    (0, b"\xff\x0a", Kind.JPEG_XL),
    (4, b"ftypheic", Kind.HEIF),
    (4, b"ftypheix", Kind.HEIF),
    (4, b"ftypmif1", Kind.HEIF),
    (4, b"ftypavif", Kind.HEIF),
    (0, b"8BPS\0", Kind.PSD),
    (0, b"%PDF-", Kind.PDF),
    (0, b"\x1f\x8b\x08", Kind.GZIP),
    (0, b"7z\xbc\xaf\x27\x1c", Kind.ARCHIVE),
    (0, b"Rar!\x1a\x07", Kind.ARCHIVE),
    (0, b"BZh", Kind.ARCHIVE),
    (0, b"\xfd7zXZ\0", Kind.ARCHIVE),
    (257, b"ustar", Kind.TAR),
)
# The sizes that the second header of a bitmap can have. "BM" alone also begins many a text.
_BMP_HEADERS = frozenset({12, 16, 40, 52, 56, 64, 108, 124})
# A MetaImage begins with lines of text, "key = value", in an order that is free but for the last.
_METAIMAGE = re.compile(rb"\s*(ObjectType|ObjectSubType|NDims|Comment|Name|ID)\s*=[^\n]*\n")
_METAIMAGE_SIZE = re.compile(rb"(^|\n)[ \t]*NDims[ \t]*=[ \t]*[0-9]")
_TEXT_CONTROLS = frozenset("\t\n\r\f\x1b")


def sniff(head: bytes) -> Kind:
    """Return what a file is, by its first `HEAD` bytes, or all of it where it is shorter."""
    if not head:
        return Kind.EMPTY
    kind = _by_magic(head)
    if kind is Kind.GZIP:
        return _inside_gzip(head)
    if kind is not None:
        return kind
    if _is_bare_dicom(head):
        return Kind.DICOM
    if _METAIMAGE.match(head) and _METAIMAGE_SIZE.search(head):
        return Kind.METAIMAGE
    for order in "<>":  # the header's own size, and the number of dimensions
        if len(head) >= 348 and struct.unpack_from(f"{order}i36xh", head)[:2] in {(348, n) for n in range(1, 8)}:
            return Kind.ANALYZE
    if head.startswith(b"BM") and len(head) >= 18 and struct.unpack_from("<I", head, 14)[0] in _BMP_HEADERS:
        return Kind.BMP
    return Kind.TEXT if _is_text(head) else Kind.UNKNOWN


def decode_text(data: bytes) -> str:
    """Return `data` as text: UTF-8, or UTF-16 with a byte order mark (what PowerShell's `>` writes).

    Raises UnicodeDecodeError where it is neither.
    """
    return data.decode(_encoding(data))


def _by_magic(head: bytes) -> Kind | None:
    return next((kind for offset, magic, kind in _MAGIC if head.startswith(magic, offset)), None)


def _is_bare_dicom(head: bytes) -> bool:
    """Tell DICOM without the preamble (PS3.10 section 7.1 demands one; old exports and some archives leave it out).

    It begins with an element of group 0002 or 0008, little endian, whose value is short. There is either a
    representation of two letters that such elements have, or none and a length of 32 bits.
    """
    if len(head) < 16 or head[:2] not in {b"\x02\0", b"\x08\0"}:
        return False
    element = int.from_bytes(head[2:4], "little")
    if element not in ({0, 1, 2} if head[0] == 2 else {0, 1, 5, 8, 0x12, 0x16}):
        return False
    if head[4:6] in {b"UL", b"UI", b"CS", b"DA", b"OB"}:
        return head[4:6] == b"OB" or 0 < int.from_bytes(head[6:8], "little") <= 128
    return 0 < int.from_bytes(head[4:8], "little") <= 128


def _inside_gzip(head: bytes) -> Kind:
    """Tell a compressed NIfTI volume (`.nii.gz`), DICOM file or tar archive from any other gzip file.

    One level only: there are gzip files that unpack to themselves.
    """
    try:
        inner = zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return Kind.GZIP
    kind = _by_magic(inner) or (Kind.DICOM if _is_bare_dicom(inner) else None)
    return {Kind.NIFTI: Kind.NIFTI, Kind.DICOM: Kind.DICOM_GZIP, Kind.TAR: Kind.TAR_GZIP}.get(
        kind or Kind.GZIP, Kind.GZIP
    )


def _encoding(data: bytes) -> str:
    return "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"


def _is_text(head: bytes) -> bool:
    decoder = codecs.getincrementaldecoder(_encoding(head))()
    try:
        # A head of full length may end in the middle of a character; a shorter one is the whole file.
        text = decoder.decode(head, final=len(head) < HEAD)
    except UnicodeDecodeError:
        return False
    return not any(ord(c) < 32 and c not in _TEXT_CONTROLS for c in text)
