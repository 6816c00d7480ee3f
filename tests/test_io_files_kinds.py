"""What a file is, told from its bytes: real files of each kind, made by other libraries where one is at hand."""

from __future__ import annotations

import gzip
import io
import struct

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from jcs_ct.io.files.kinds import HEAD, RASTERS, SLICES, Kind, decode_text, sniff


def picture(fmt: str, mode: str = "L") -> bytes:
    file = io.BytesIO()
    Image.new(mode, (40, 40)).save(file, fmt)
    return file.getvalue()


def tiff(**options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((40, 40), np.uint8), photometric="minisblack", **options)  # type: ignore[arg-type]
    return file.getvalue()


def mat() -> bytes:
    file = io.BytesIO()
    savemat(file, {"vgg_feats": np.zeros((1, 64, 4, 4), np.uint8)})
    return file.getvalue()


NIFTI = struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(4)
NIFTI2 = struct.pack("<i", 540) + b"n+2\0\r\n\x1a\n" + bytes(528)
MAT_73 = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM" + bytes(384) + b"\x89HDF\r\n\x1a\n"

TABLE = [
    (b"", Kind.EMPTY),
    (picture("PNG"), Kind.PNG),
    (picture("JPEG"), Kind.JPEG),
    (picture("BMP"), Kind.BMP),
    (picture("BMP", "RGB"), Kind.BMP),
    (picture("TIFF"), Kind.TIFF),
    (tiff(byteorder=">"), Kind.TIFF),
    (tiff(bigtiff=True), Kind.TIFF),
    (tiff(bigtiff=True, byteorder=">"), Kind.TIFF),
    (picture("GIF"), Kind.GIF),
    (picture("WEBP"), Kind.WEBP),
    (picture("JPEG2000"), Kind.JPEG2000),
    (picture("PDF"), Kind.PDF),
    (mat(), Kind.MAT),
    (b"any title at all".ljust(124) + b"\x01\x00MI", Kind.MAT),
    (MAT_73, Kind.HDF5),
    (b"\x89HDF\r\n\x1a\n" + bytes(100), Kind.HDF5),
    (bytes(128) + b"DICM" + bytes(100), Kind.DICOM),
    (tiff()[:128].ljust(128, b"\0") + b"DICM", Kind.DICOM),  # a TIFF header in the preamble, as the standard suggests
    (NIFTI, Kind.NIFTI),
    (NIFTI2, Kind.NIFTI),
    (gzip.compress(NIFTI), Kind.NIFTI),
    (gzip.compress(NIFTI, mtime=0)[:20], Kind.GZIP),  # cut before the magic bytes
    (gzip.compress(gzip.compress(NIFTI)), Kind.GZIP),
    (b"\x1f\x8b\x08" + b"\xff" * 30, Kind.GZIP),
    (b"NRRD0004\n", Kind.NRRD),
    (b"\x93NUMPY\x01\0", Kind.NUMPY),
    (b"PK\x03\x04" + bytes(30), Kind.ZIP),
    (b"PK\x05\x06" + bytes(18), Kind.ZIP),
    (b"7z\xbc\xaf\x27\x1c", Kind.ARCHIVE),
    (bytes(257) + b"ustar\0", Kind.TAR),
    (b"a.png\nb.png\r\n", Kind.TEXT),
    ("Müller/ü.png".encode(), Kind.TEXT),
    ("\ufeffa.png".encode(), Kind.TEXT),
    ("a.png\r\n".encode("utf-16"), Kind.TEXT),
    ("é".encode() * HEAD, Kind.TEXT),  # a character may be cut in two where the head ends
    (b"x" + "é".encode() * HEAD, Kind.TEXT),
    ("é".encode("latin-1") * 20, Kind.UNKNOWN),
    ("é".encode()[:1], Kind.UNKNOWN),
    (b"BM is how this text begins, and it is no bitmap", Kind.TEXT),
    (b"BM\0\0", Kind.UNKNOWN),
    (b"\x89PNG\n\x1a\n" + bytes(30), Kind.UNKNOWN),  # what a transfer in text mode leaves of a PNG
    (bytes(HEAD), Kind.UNKNOWN),
]


@pytest.mark.parametrize(("data", "kind"), TABLE, ids=[f"{i}-{kind.name}" for i, (_, kind) in enumerate(TABLE)])
def test_kind_is_told_from_the_head(data: bytes, kind: Kind) -> None:
    assert sniff(data[:HEAD]) is kind


def test_every_kind_completes_a_sentence() -> None:
    assert all(kind.value.startswith(("a ", "an ")) for kind in Kind)
    assert RASTERS < SLICES


def test_any_head_has_a_kind() -> None:
    random = np.random.default_rng(0)
    for data, _ in TABLE:
        for _ in range(20):
            head = bytearray(data[:HEAD])
            for at in random.integers(0, len(head), 3) if head else ():
                head[at] = random.integers(256)
            assert isinstance(sniff(bytes(head[: random.integers(len(head) + 1)])), Kind)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_text_is_decoded_without_its_mark(encoding: str) -> None:
    assert decode_text("größe.png\n".encode(encoding)) == "größe.png\n"


def test_other_text_is_no_text() -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text("größe".encode("latin-1"))
