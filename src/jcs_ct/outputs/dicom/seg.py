"""DICOM Segmentation (PS3.3 A.51) of lesions and lungs: binary, one frame for every slice of a segment with content.

highdicom makes the object. It takes the masks as one array and copies it: 905 MB at the peak for three full segments of
248 slices of 512×512. So it is handed one pixel for each slice, true where the slice has content, which settles what
frames there are and what they refer to. The real frames, 8 pixels a byte, follow the header in the order it chose, and
are packed until then: of the pixels, which end a DICOM file, no more than a frame is in memory.

**Compressed as a whole** (Deflated Explicit VR Little Endian, PS3.5 A.5): a bit a pixel, as binary segments have it, is
what neither RLE Lossless nor JPEG-LS can hold, and masks shrink to a fiftieth. pydicom, highdicom, DCMTK (and what is
made of it: dcmqi, Slicer, Orthanc), GDCM and dcmjs read it.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

import highdicom as hd
import numpy as np
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from jcs_ct.core.errors import ShapeError
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import whole_file
from jcs_ct.outputs.dicom import codes
from jcs_ct.outputs.dicom.headers import (
    SourceHeaders,
    made_here,
    name_patient,
    read_headers,
    refer_to_frames,
    refused_by_highdicom,
    single_images,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import CTSeries

SEGMENTS = {1: "COVID-19 lesions", 2: "Right lung", 3: "Left lung"}
"""Segment numbers and labels. In masks of lungs 1 is the right lung and 2 the left, one less than their segments."""

SERIES_NUMBER = 9001
_COLOURS = {1: (230, 60, 50), 2: (70, 130, 200), 3: (80, 170, 110)}  # RGB


@dataclass
class _Masks:
    """Frames with content, packed: about 1 KB for 512×512.

    Attributes:
        frames: (segment, slice) → little-endian packed bits of the stored rows × columns, compressed.
        overlap: Whether some pixel is in two segments.
    """

    frames: dict[tuple[int, int], bytes] = field(default_factory=dict)
    overlap: bool = False

    def put(self, number: int, index: int, mask: NDArray[np.bool_]) -> None:
        """Keep a frame."""
        self.frames[number, index] = zlib.compress(np.packbits(mask, bitorder="little").tobytes(), 1)

    def bits(self, number: int, index: int, pixels: int) -> bytes:
        """Return a frame of so many pixels as packed bits; zeros where nothing was kept."""
        kept = self.frames.get((number, index))
        return bytes((pixels + 7) // 8) if kept is None else zlib.decompress(kept)


def write_seg(
    path: Path,
    series: CTSeries,
    lesion: Callable[[int], NDArray[np.bool_]],
    lungs: Callable[[int], NDArray[np.uint8]] | None,
    *,
    model_name: str,
    model_version: str,
    source: SourceHeaders | None = None,
    overwrite: bool = False,
) -> tuple[str, ...]:
    """Write the masks of a DICOM series as a binary segmentation in the rows and columns of its source images.

    Segment 1 is the lesions, 2 and 3 the right and the left lung. Frames are written only for slices with content. A
    segment without any has one empty frame, at the middle slice, and says in its description that nothing was found:
    a segmentation must have a frame, and many readers expect one of every segment.

    Args:
        path: The file, usually `seg.dcm`. It holds the identity of the patient as the standard requires.
        series: The source images.
        lesion: Canonical slice → bool, rows × columns.
        lungs: Canonical slice → uint8, rows × columns: 0 none, 1 right, 2 left. None: no segments of lungs.
        model_name: Name of the algorithm that found the lesions; cut to 64 characters.
        model_version: Its version, for instance the digest of the weights; cut to 64 characters.
        source: What `jcs_ct.outputs.dicom.headers.read_headers` gives for the series, where it was read already.
        overwrite: Replace an existing file.

    Returns:
        What a user should know (faults of the source headers, empty segments), a line each, free of identity.

    Raises:
        InputError: The series cannot be referred to, see `jcs_ct.outputs.dicom.headers.read_headers`.
        ShapeError: A mask has another shape than its slice.
        OutputError: As `jcs_ct.core.whole_files.whole_file` does.
    """
    with whole_file(path, overwrite=overwrite) as temporary:
        source = source or read_headers(series)
        masks = _collect(series, source.shape, lesion, lungs)
        numbers = [1, 2, 3] if lungs is not None else [1]
        empty = [number for number in numbers if all((number, i) not in masks.frames for i in range(len(series)))]
        with refused_by_highdicom(series.label):
            seg = _structure(source, masks, numbers, empty, (model_name, model_version))
        order = _order(seg, source)
        seg.Rows, seg.Columns = source.shape  # of the real frames, whose pixels follow
        seg.SegmentsOverlap = "YES" if masks.overlap else "NO"
        del seg.PixelData
        name_patient(seg, source)
        pixels = source.shape[0] * source.shape[1]
        with temporary.open("wb") as file:
            _write_deflated(file, seg, _pixel_data((masks.bits(*key, pixels) for key in order), len(order), pixels))
    return source.notes + tuple(f"DICOM SEG: nothing found, one empty frame: {SEGMENTS[number]}" for number in empty)


def _collect(
    series: CTSeries,
    shape: tuple[int, int],
    lesion: Callable[[int], NDArray[np.bool_]],
    lungs: Callable[[int], NDArray[np.uint8]] | None,
) -> _Masks:
    """Ask for every slice once, turn it back to the stored rows and columns, and keep what is not empty."""
    masks = _Masks()
    for index in range(len(series)):
        found = {1: _stored(series, lesion(index), shape, index) != 0}
        if lungs is not None:
            sides = _stored(series, lungs(index), shape, index)
            found |= {2: sides == 1, 3: sides == 2}
            masks.overlap |= bool((found[1] & (sides > 0)).any())
        for number, mask in found.items():
            if mask.any():
                masks.put(number, index, mask)
    return masks


def _stored(series: CTSeries, mask: NDArray[Any], shape: tuple[int, int], index: int) -> NDArray[Any]:
    """Return a canonical mask as the source image stores it."""
    if mask.shape != series.geometry.shape[1:]:
        raise ShapeError(f"mask of slice {index} is {mask.shape}, expected {series.geometry.shape[1:]}")
    stored: NDArray[Any] = series.axes.to_stored(mask[np.newaxis])[0]
    if stored.shape != shape:
        raise ShapeError(f"mask of slice {index} is {stored.shape} in the axes of its image, which is {shape}")
    return stored


def _structure(
    source: SourceHeaders, masks: _Masks, numbers: list[int], empty: list[int], model: tuple[str, str]
) -> hd.seg.Segmentation:
    """Return the object with one pixel a frame."""
    several = source.frames[0] is not None and len(source.objects) > 1
    images = single_images(source) if several else source.objects
    planes = [index if frame is None or several else frame - 1 for index, frame in enumerate(source.frames)]
    content = np.zeros((len(planes), 1, 1, len(numbers)), np.uint8)
    for number, index in masks.frames:
        content[planes[index], 0, 0, number - 1] = 1
    for number in empty:
        content[planes[len(planes) // 2], 0, 0, number - 1] = 1
    try:
        for item in images:
            item.Rows = item.Columns = 1
        seg = hd.seg.Segmentation(
            source_images=images,
            pixel_array=content,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_describe(number, number in empty, model) for number in numbers],
            series_number=SERIES_NUMBER,
            series_description="COVID-19 segmentation, research use only",
            **made_here(),
            content_label="JCS_CT",
            content_description=f"Lesions and lungs. {codes.RESEARCH}",
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    finally:  # the headers may serve for the SR as well
        for item in images:
            item.Rows, item.Columns = source.shape
    if several:
        refer_to_frames(seg, source)
    return seg


def _describe(number: int, empty: bool, model: tuple[str, str]) -> hd.seg.SegmentDescription:
    lesion = number == 1
    name, version = map(codes.short, model if lesion else ("jcs-ct lungs", __version__))
    algorithm = hd.AlgorithmIdentificationSequence(
        name=name, family=codes.NETWORK, version=version, source=codes.PRODUCT
    )
    description = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=SEGMENTS[number],
        segmented_property_category=codes.ABNORMAL if lesion else codes.ANATOMY,
        segmented_property_type=codes.LESION if lesion else codes.LUNG,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_id=f"{codes.PRODUCT}: {SEGMENTS[number]}",
        tracking_uid=hd.UID(),
        anatomic_regions=[codes.LUNG] if lesion else None,
        display_color=hd.color.CIELabColor.from_rgb(*_COLOURS[number]),
    )
    if not lesion:
        side = hd.sr.CodedConcept.from_code(codes.RIGHT if number == 2 else codes.LEFT)
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [side]
    what = "Opacities related to COVID-19 according to a network" if lesion else "Lung including its lesions"
    nothing = " Nothing was found; the one frame of this segment is empty." if empty else ""
    description.SegmentDescription = f"{what}. {codes.RESEARCH}.{nothing}"
    return description


def _order(seg: hd.seg.Segmentation, source: SourceHeaders) -> list[tuple[int, int]]:
    """Return (segment, slice) of every frame, in the order of the functional groups."""
    places = zip(source.images, source.frames, strict=True)
    slices = {(image.SOPInstanceUID, frame): index for index, (image, frame) in enumerate(places)}
    order = []
    shared = seg.SharedFunctionalGroupsSequence[0]
    for group in seg.PerFrameFunctionalGroupsSequence:
        holder = group if "SegmentIdentificationSequence" in group else shared
        number = holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        image = group.DerivationImageSequence[0].SourceImageSequence[0]
        order.append((int(number), slices[image.ReferencedSOPInstanceUID, image.get("ReferencedFrameNumber")]))
    return order


def _write_deflated(file: BinaryIO, seg: hd.seg.Segmentation, pixel_data: Iterable[bytes]) -> None:
    """Write a file whose data set and pixels are deflated together, which pydicom would do in memory."""
    seg.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    meta, data = DicomBytesIO(), DicomBytesIO()
    write_file_meta_info(meta, seg.file_meta)
    data.is_implicit_VR, data.is_little_endian = False, True
    write_dataset(data, seg)
    file.write(bytes(128) + b"DICM" + meta.getvalue())
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)  # bare, without the header of zlib
    length = file.write(packer.compress(data.getvalue()))
    for part in pixel_data:  # of which no two are in memory
        length += file.write(packer.compress(part))
    length += file.write(packer.flush())
    file.write(bytes(length % 2))


def _pixel_data(frames: Iterable[bytes], count: int, pixels: int) -> Iterator[bytes]:
    """Yield Pixel Data (7FE0,0010) as explicit little endian: OB, two reserved bytes, and an even length in bytes."""
    length = (count * pixels + 7) // 8
    yield struct.pack("<HH2s2xI", 0x7FE0, 0x0010, b"OB", length + length % 2)
    yield from _joined(frames, pixels)
    yield bytes(length % 2)


def _joined(frames: Iterable[bytes], pixels: int) -> Iterator[bytes]:
    """Yield frames of `pixels` bits each as PS3.5 8.1.1 wants them: one runs on in the byte where the last ended."""
    if pixels % 8 == 0:
        yield from frames
        return
    carry = np.zeros(0, np.uint8)
    for frame in frames:
        found = np.unpackbits(np.frombuffer(frame, np.uint8), count=pixels, bitorder="little")
        bits = np.concatenate([carry, found])
        whole = len(bits) // 8 * 8
        yield np.packbits(bits[:whole], bitorder="little").tobytes()
        carry = bits[whole:]
    yield np.packbits(carry, bitorder="little").tobytes()
