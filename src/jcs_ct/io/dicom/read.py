"""Headers and pixels of DICOM images: the home of pydicom. Import it late.

Headers are read up to the pixels, and only what `dicom_header.KEYWORDS` names. Pixels are read one image at a time.
"""

from __future__ import annotations

import io
import logging
import math
import threading
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.filereader import read_partial
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from jcs_ct.core.errors import InputError, printable
from jcs_ct.core.geometry import HIGHEST, LOWEST
from jcs_ct.io.dicom.header import (
    DIRECTORY,
    ENHANCED,
    FUNCTIONAL_GROUPS,
    KEYWORDS,
    RESCALE,
    image_header,
    without_escapes,
)
from jcs_ct.io.dicom.padding import filled, padding_hu
from jcs_ct.io.dicom.stored_bits import WHOLE, Bits, check_sign, overlay_bits, values_of
from jcs_ct.io.files.opening import open_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray
    from pydicom import Dataset, FileDataset
    from pydicom.tag import BaseTag

    from jcs_ct.io.dicom.header import ImageHeader
    from jcs_ct.io.files.sources import Source

IDENTITY = {
    "PatientName": "patient name",
    "PatientID": "patient ID",
    "PatientBirthDate": "birth date",
    "PatientSex": "sex",
    "AccessionNumber": "accession number",
    "StudyDate": "study date",
}
"""Keyword → name of what says whose study it is, read only where a user asks for it (`--keep-identity`)."""

_START = 64 * 2**10  # bytes within which most headers end
_TAGS = [tag for word in (*KEYWORDS, *FUNCTIONAL_GROUPS) if (tag := tag_for_keyword(word)) is not None]
_PIXELS = 0x7FE00008  # the first of the elements that hold pixels
_UNDEFINED = 0xFFFFFFFF  # length of compressed pixels; a delimiter ends them, and little may follow
_DELIMITER, _TAIL = b"\xfe\xff\xdd\xe0", 4096
PLAIN = frozenset({ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian})
"""Those whose pixels are words as they are."""
_PRIVATE = {UID("1.2.840.113619.5.2"): "GE's private transfer syntax (pixels in big endian, the header in little)"}
_NEWER = {  # than the dictionary of pydicom 3.0
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
    "1.2.840.10008.1.2.8.1": "Deflated Image Frame Compression",
}
_HTJ2K = {f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)}
_lock = threading.Lock()


def read_headers(source: Source) -> list[ImageHeader]:
    """Return the headers of the images in a file: one, or one a frame for enhanced CT; none for a DICOMDIR.

    Raises InputError where the file cannot be read, or is no DICOM file after all.
    """
    dataset, end = _parse(source, _START)
    cut = _is_cut(source, end)
    get = partial(_value, dataset)
    with quiet():
        if str(_value(dataset.file_meta, "MediaStorageSOPClassUID") or "") == DIRECTORY:
            return []
        if str(get("SOPClassUID") or "") not in ENHANCED:
            return [image_header(source, None, get, cut=cut, faulty=_faulty(dataset, get))]
        try:
            groups = list(_frames(get))
        except Exception as error:
            message = "is damaged: what it says of its frames cannot be read"
            raise InputError(message, path=source.label, hint="copy or export it again") from error
        image = {keyword: get(keyword) for keyword in KEYWORDS}  # what a frame does not say of itself
        return [
            image_header(source, index, {**image, **fields}.get, cut=cut, faulty=_faulty(fields, fields.get))
            for index, fields in enumerate(groups)
        ]


def directory_files(source: Source) -> list[tuple[str, ...]]:
    """Return the files that a DICOMDIR names, each as folders and name, relative to its own folder (PS3.10 8.6).

    Raises InputError where it is damaged.
    """
    try:
        with quiet():
            directory = dcmread(io.BytesIO(source.read()), force=True, specific_tags=["DirectoryRecordSequence"])
            found = [record.get("ReferencedFileID") for record in directory.get("DirectoryRecordSequence") or []]
            return [(name,) if isinstance(name, str) else tuple(map(str, name)) for name in found if name]
    except InputError:
        raise
    except Exception as error:
        message = "is damaged: this DICOMDIR cannot be read"
        raise InputError(message, path=source.label, hint="give the folder that it lies in") from error


def identity_of(source: Source) -> dict[str, str]:
    """Return what the header of a DICOM file says of its patient, by the names of `IDENTITY`; no empty values.

    Raises InputError where it cannot be read.
    """
    data = io.BytesIO(source.read())
    with quiet():
        header = dcmread(data, stop_before_pixels=True, specific_tags=list(IDENTITY), force=True)
        values = {name: str(header.get(keyword, "") or "") for keyword, name in IDENTITY.items()}
    found = {name: printable(without_escapes(text)).strip() for name, text in values.items()}
    return {name: text for name, text in found.items() if text}


def read_hu(header: ImageHeader) -> NDArray[np.int16]:
    """Return an image in Hounsfield units, as it is stored: int16, rows × columns, clipped to [LOWEST, HIGHEST].

    Values are `slope · stored + intercept` (PS3.3 C.11.1), rounded; padding becomes LOWEST (`jcs_ct.io.dicom.padding`).
    Raises InputError where the file cannot be read, is cut short, or its pixels cannot be decoded.
    """
    stored = _stored(header)
    slope, intercept = header.rescale
    if slope == 1 and intercept == int(intercept):
        hu = (stored.astype(np.int32) + int(intercept)).clip(LOWEST, HIGHEST).astype(np.int16)
    else:
        hu = np.rint(stored * slope + intercept).clip(LOWEST, HIGHEST).astype(np.int16)
    if (span := padding_hu(header)) is not None and span[1] > LOWEST and header.padding is not None:
        covered = (stored >= header.padding[0]) & (stored <= header.padding[1])
        if covered.any():
            hu[filled(hu, covered)] = LOWEST
    return hu


def _parse(source: Source, size: int | None) -> tuple[FileDataset, int | None]:
    """Read the header in the first `size` bytes of a file, or in all of it where it is longer than that.

    With it comes where the pixels behind it end: in bytes from the start, -1 where a delimiter tells, else None.
    """
    data = source.read(size)
    stream = io.BytesIO(data)
    reached, end = False, None

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        nonlocal reached, end
        reached = bool(tag >= _PIXELS)
        if reached:
            end = -1 if length == _UNDEFINED else stream.tell() + length
        return reached

    dataset = None
    try:
        with quiet():
            dataset = read_partial(stream, at_pixels, force=True, specific_tags=list(_TAGS))
            if _value(dataset.file_meta, "TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
                end = None  # of the unpacked data, while the file is packed
    except Exception as error:
        if size is None or len(data) < size:
            message = "is damaged: its DICOM header cannot be read"
            raise InputError(message, path=source.label, hint="copy or export it again") from error
    if dataset is None or not (reached or size is None or len(data) < size):  # what was read may end within a value
        return _parse(source, None)
    return dataset, end


def _is_cut(source: Source, end: int | None) -> bool:
    """Return whether a file ends before its pixels do. What is packed has a checksum instead."""
    if not source.plain or end is None:
        return False
    with open_regular(source.path) as file:
        size = file.seek(0, io.SEEK_END)
        if end >= 0:
            return size < end
        file.seek(-min(size, _TAIL), io.SEEK_END)
        return _DELIMITER not in file.read()


def _value(dataset: Dataset, keyword: str) -> Any:
    """Return a value; None where it is missing, empty, or cannot be converted (what is said then may quote it)."""
    try:
        value = dataset.get(keyword)
    except Exception:  # noqa: BLE001  # each representation has errors of its own
        return None
    return None if value == "" else value


def _faulty(holder: Any, get: Callable[[str], Any]) -> tuple[str, ...]:
    """Return which of slope and intercept are there, and are not one number."""
    return tuple(word for word in RESCALE if word in holder and not _is_number(get(word), holder, word))


def _is_number(value: Any, holder: Any, keyword: str) -> bool:
    """Return whether a value is a number, or empty, which counts as missing."""
    if value is None:  # or cannot be converted
        raw = holder.get_item(keyword).value if hasattr(holder, "get_item") else None
        return not (raw.strip(b" \0") if isinstance(raw, bytes) else raw)
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False


def _frames(get: Any) -> Iterator[dict[str, Any]]:
    """Yield what the functional groups say of each frame (PS3.3 C.7.6.16), the shared ones first."""
    shared = _fields((get("SharedFunctionalGroupsSequence") or [None])[0])
    for group in get("PerFrameFunctionalGroupsSequence") or []:
        yield {**shared, **_fields(group)}


def _fields(group: Any) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for sequence in group or ():
        if sequence.VR != "SQ" or not sequence.value:
            continue
        for element in sequence.value[0]:
            word = "ImageType" if element.keyword == "FrameType" else element.keyword
            if word in KEYWORDS:
                fields[word] = element.value
    return fields


class _Latest(threading.local):
    """The file of many frames that this thread read last, so that it is not read again for every frame."""

    key: tuple[object, ...] = ()
    dataset: FileDataset | None = None


_latest = _Latest()


def _stored(header: ImageHeader) -> NDArray[Any]:
    """Return the stored values of an image."""
    source = header.source
    with quiet():
        key = () if header.frame is None else _as_it_is(source)
        if key and _latest.key == key and _latest.dataset is not None:
            dataset = _latest.dataset
        else:
            dataset = _whole(source)
            _latest.key, _latest.dataset = (key, dataset) if key else ((), None)
        syntax = UID(str(dataset.file_meta.TransferSyntaxUID))
        _require_decoder(source, syntax)
        word = "NumberOfFrames"
        if word in dataset and not _is_number(_value(dataset, word), dataset, word):
            hint = "correct it in the header, or export it again"
            raise InputError(f"has a {word} that is not one number", path=source.label, hint=hint)
        _check_length(header, dataset, syntax)
        bits = _bits(header, dataset, syntax)
        try:
            stored = np.asarray(pixel_array(dataset, index=header.frame))
        except Exception as error:
            if not dataset.get("PixelData"):
                message = "lacks its pixels, or is cut short"
                raise InputError(message, path=source.label, hint="copy it again") from error
            what = "pixels cannot be decoded" if syntax not in PLAIN else "pixels cannot be read"
            reason = " ".join(str(error).split())[:160]
            hint = "copy it again, or export it" + " uncompressed" * (syntax not in PLAIN)
            raise InputError(f"{what} ({_syntax_name(syntax)}): {reason}", path=source.label, hint=hint) from error
    if stored.shape != (header.rows, header.columns):
        raise InputError("holds other pixels than its header says", path=source.label, hint="copy it again")
    values = stored if bits is None else values_of(stored, bits, source.label)
    if "PixelData" in dataset:
        check_sign(values, header.bits, header.signed, header.padding, source.label)
    return values


def _bits(header: ImageHeader, dataset: FileDataset, syntax: UID) -> Bits | None:
    """Return what the header says of the bits of uncompressed words, and have them decoded whole; else None.

    Raises where HighBit makes no sense, or the pixels are compressed, where nobody agrees on what it means.
    """
    stored = header.bits
    high = stored - 1 if header.high_bit is None else header.high_bit
    known = all(word in dataset for word in ("PixelData", "BitsAllocated", "BitsStored", "PixelRepresentation"))
    allocated = dataset.get("BitsAllocated")
    if stored and high != stored - 1 and (high < stored - 1 or high >= int(allocated or 0) or syntax not in PLAIN):
        message = f"says that its {stored} bits end at bit {high} (HighBit)"
        raise InputError(message, path=header.source.label, hint="export it again with HighBit one below BitsStored")
    if not known or syntax not in PLAIN or allocated not in WHOLE or not 0 < stored <= allocated:
        return None
    if dataset.PixelRepresentation not in {0, 1}:  # pydicom says so
        return None
    bits = Bits(allocated, stored, high, header.signed, overlay_bits(dataset))
    dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = allocated, allocated - 1, 0
    return bits


def _check_length(header: ImageHeader, dataset: FileDataset, syntax: UID) -> None:
    """Raise where uncompressed pixels are more than the header says, by a row or more. Fewer are named by pydicom."""
    allocated = dataset.get("BitsAllocated")
    if syntax not in PLAIN or "PixelData" not in dataset or allocated not in WHOLE:
        return
    row = header.columns * header.samples * allocated // 8
    frames = _value(dataset, "NumberOfFrames")
    said = row * header.rows * (int(frames) if isinstance(frames, int) and frames else 1)
    found = len(dataset.PixelData or b"")
    if found >= said + row:
        raise InputError(
            f"holds {found:,} bytes of pixels, its header says {said:,} (Rows, Columns, NumberOfFrames, BitsAllocated)",
            path=header.source.label,
            hint="copy or export it again",
        )


def _as_it_is(source: Source) -> tuple[object, ...]:
    """Return what a file of many frames is known by: another may have taken its place since."""
    if source.data is not None:
        return (source,)
    try:
        status = source.path.stat()
    except OSError:  # reading it says why
        return ()
    return source, status.st_ino, status.st_size, status.st_mtime_ns


def _require_decoder(source: Source, syntax: UID) -> None:
    """Raise InputError where a file's pixels cannot be decoded: by its syntax's name, and what to do."""
    if syntax in _PRIVATE:
        message = f"is stored in {_PRIVATE[syntax]}, which is not read here"
        raise InputError(message, path=source.label, hint="export it as Explicit VR Little Endian")
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        message = f"is compressed in a way that is not read here ({_syntax_name(syntax)})"
        raise InputError(message, path=source.label, hint="export it uncompressed") from error
    if not decoder.is_available:
        message = f"is compressed ({_syntax_name(syntax)}), and no plug-in that decodes it is installed"
        install = "pip install pylibjpeg pylibjpeg-openjpeg" if syntax in _HTJ2K else "pip install python-gdcm"
        raise InputError(message, path=source.label, hint=f"{install}, or export it uncompressed")


def _syntax_name(syntax: UID) -> str:
    """Return what a message calls a transfer syntax. UIDs that nobody knows are not repeated."""
    if syntax in _NEWER:
        return _NEWER[syntax]
    return syntax.name if syntax.is_transfer_syntax else "unknown transfer syntax"


def _whole(source: Source) -> FileDataset:
    data = source.read()
    try:
        dataset = dcmread(io.BytesIO(data), force=True)
    except Exception as error:
        raise InputError("is damaged: it cannot be read", path=source.label, hint="copy it again") from error
    if "TransferSyntaxUID" not in dataset.file_meta:  # without a preamble there is no word of the encoding
        implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
    return dataset


@contextmanager
def quiet() -> Iterator[None]:
    """Keep pydicom's remarks on odd values from the user and from logs: they may quote a name, and change nothing.

    One thread at a time, for filters of warnings belong to the whole process.
    """
    logger, mine = logging.getLogger("pydicom"), threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != mine

    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.addFilter(of_others)
        try:
            yield
        finally:
            logger.removeFilter(of_others)
