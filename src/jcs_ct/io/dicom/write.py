"""DICOM files that are made here: a synthetic CT series, and data sets that a program holds. Import it late."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydicom import dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.core.geometry import CANONICAL, HIGHEST, LOWEST
from jcs_ct.core.whole_files import write_whole
from jcs_ct.io.dicom.read import quiet
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from numpy.typing import NDArray

Vector = tuple[float, float, float]

_INTERCEPT = -1024
"""Stored values are unsigned: HU + 1024 fits the 12 bits that scanners use."""


def write_ct_series(
    folder: str | PathLike[str],
    hu: NDArray[np.int16],
    spacing: Vector,
    origin: Vector,
    *,
    direction: tuple[Vector, Vector, Vector] = CANONICAL,
    key: str = "",
    stem: str = "ct",
    comment: str = "PHANTOM: a computed image of no patient",
    overwrite: bool = False,
) -> list[Path]:
    r"""Write a computed volume as a series of CT images (explicit VR little endian, not compressed); return the paths.

    The series is marked ORIGINAL\PRIMARY\AXIAL, so that a reader chooses it as it would a scanner's, and says
    PHANTOM wherever a name is asked for. Nothing in it depends on the clock: the same arguments give the same
    bytes. Its UIDs follow from `key` and from the volume itself, so that two volumes never share one.

    Args:
        folder: Where the files go: `<stem>_000.dcm`, `<stem>_001.dcm` … in the order of `hu`.
        hu: int16 Hounsfield units in [−1024, 3071], slice × row × column. The slices must already carry the word
            PHANTOM in their pixels, for the header says that something is burnt in.
        spacing: mm between slices, rows, columns.
        origin: Centre of the first voxel as (x, y, z), mm to the patient's left, back and head.
        direction: Unit vectors (x, y, z) along which slices, rows and columns count up; at first slices run
            from head to feet and the patient lies on the back, right side at the image's left.
        key: Enters the UIDs, for instance the seed.
        stem: First part of the file names.
        comment: Goes into the header of every image.
        overwrite: Replace files that exist.

    Raises:
        UsageError: `hu` has another shape, type or range, or a length in `spacing` is not positive.
        OutputError: A file exists and `overwrite` is false, or the folder cannot be written.
    """
    if hu.ndim != 3 or hu.dtype != np.int16 or hu.size == 0:
        raise UsageError(f"CT series: got {hu.dtype} {hu.shape}, expected int16 slice × row × column")
    if hu.min() < LOWEST or hu.max() > HIGHEST:
        raise UsageError(f"CT series: Hounsfield units are {hu.min()} to {hu.max()}, expected {LOWEST} to {HIGHEST}")
    if not all(mm > 0 for mm in spacing):
        raise UsageError(f"CT series: spacing is {spacing}, expected three lengths in mm (slice, row, column)")

    content = np.ascontiguousarray(hu, "<i2").tobytes()
    digest = hashlib.sha256(content + repr((key, hu.shape, spacing, origin, direction)).encode()).hexdigest()
    common = _series_header(digest, hu.shape, spacing, direction, comment)
    paths = []
    for index, pixels in enumerate(hu):
        image = Dataset()
        image.update(common)
        position = [start + index * spacing[0] * step for start, step in zip(origin, direction[0], strict=True)]
        image.SOPInstanceUID = _uid(digest, f"image {index}")
        image.InstanceNumber = index + 1
        image.ImagePositionPatient = [_decimal(mm) for mm in position]
        image.SliceLocation = _decimal(position[2])
        image.PixelData = (pixels.astype(np.int32) - _INTERCEPT).astype("<u2").tobytes()
        path = Path(folder) / f"{stem}_{index:03d}.dcm"
        write_whole(path, _file_bytes(image), overwrite=overwrite)
        paths.append(path)
    return paths


def _series_header(
    digest: str,
    shape: tuple[int, ...],
    spacing: Vector,
    direction: tuple[Vector, Vector, Vector],
    comment: str,
) -> Dataset:
    """Return what all images of the series share; empty values are those the standard wants, known or not."""
    header = Dataset()
    for keyword, value in {
        "SpecificCharacterSet": "ISO_IR 192",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SOPClassUID": CTImageStorage,
        # A day before any patient of this disease: the phantom has no date of its own.
        **dict.fromkeys(("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"), "20000101"),
        **dict.fromkeys(("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"), "120000"),
        "AccessionNumber": "",
        "Modality": "CT",
        "Manufacturer": "jcs-ct phantom",
        "ManufacturerModelName": "jcs-ct phantom",
        "ReferringPhysicianName": "",
        "StudyDescription": "PHANTOM chest CT, no patient",
        "SeriesDescription": "PHANTOM lung",
        "PatientName": "PHANTOM^NO PATIENT",
        "PatientID": "PHANTOM",
        "PatientBirthDate": "",
        "PatientSex": "",
        "PatientIdentityRemoved": "YES",
        "DeidentificationMethod": "Computed image, there is no patient",
        "BodyPartExamined": "CHEST",
        "PatientPosition": "HFS",
        "SliceThickness": _decimal(spacing[0]),
        "SpacingBetweenSlices": _decimal(spacing[0]),
        "KVP": "120",
        "ConvolutionKernel": "PHANTOM",
        "StudyInstanceUID": _uid(digest, "study"),
        "SeriesInstanceUID": _uid(digest, "series"),
        "FrameOfReferenceUID": _uid(digest, "frame of reference"),
        "StudyID": "PHANTOM",
        "SeriesNumber": 1,
        "AcquisitionNumber": 1,
        "ImageOrientationPatient": [_decimal(part) for part in (*direction[2], *direction[1])],
        "PositionReferenceIndicator": "",
        "ImageComments": comment,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": shape[1],
        "Columns": shape[2],
        "PixelSpacing": [_decimal(spacing[1]), _decimal(spacing[2])],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "QualityControlImage": "YES",
        "BurnedInAnnotation": "YES",
        "LossyImageCompression": "00",
        "WindowCenter": "-600",
        "WindowWidth": "1500",
        "WindowCenterWidthExplanation": "LUNG",
        "RescaleIntercept": str(_INTERCEPT),
        "RescaleSlope": "1",
        "RescaleType": "HU",
    }.items():
        setattr(header, keyword, value)
    return header


def _file_bytes(image: Dataset) -> bytes:
    """Return a whole DICOM file, whose bytes do not depend on the version of pydicom."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = image.SOPClassUID
    meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = generate_uid(entropy_srcs=["jcs-ct"])
    meta.ImplementationVersionName = "JCS_CT"
    image.file_meta = meta
    data = io.BytesIO()
    dcmwrite(data, image, enforce_file_format=True)
    return data.getvalue()


def _uid(digest: str, part: str) -> str:
    return generate_uid(entropy_srcs=["jcs-ct", digest, part])


def _decimal(value: float) -> str:
    """Return a number as a decimal string, of which the standard allows 16 characters."""
    return f"{round(value, 6) + 0.0:.10g}"


def sources_of(datasets: Sequence[Any]) -> list[Source]:
    """Return pydicom's data sets as sources: what they hold now, as pydicom would write it.

    Raises InputError where one cannot be written. Nothing of it is repeated.
    """
    sources = []
    for number, dataset in enumerate(datasets, 1):
        label = f"data set {number}" if len(datasets) > 1 else "the data set"
        try:
            with quiet():
                data = _encoded(dataset)
        except Exception:  # noqa: BLE001  # pydicom raises many kinds, and quotes values
            message = "cannot be written as a DICOM file"
            raise InputError(message, path=label, hint="does pydicom save it? Read it again") from None
        sources.append(Source(f"data-set-{number}", label, Path("data sets"), label, Kind.DICOM, data=data))
    return sources


def _encoded(dataset: Any) -> bytes:
    """Return the file, without changing the data set."""
    known = getattr(dataset, "file_meta", None) or FileMetaDataset()
    made, meta = Dataset(), FileMetaDataset()
    for element in known:
        meta.add(element)
    syntax = UID(str(meta.get("TransferSyntaxUID", "") or ""))
    implicit, little = dataset.original_encoding
    if not syntax:
        big = implicit is not None and not little  # None: it was never in a file
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRBigEndian if big else ExplicitVRLittleEndian
        meta.TransferSyntaxUID = syntax
    for tag in dataset.keys():  # noqa: SIM118  # a data set is iterated by element, which would convert each
        if tag.group > 2:
            made[tag] = dataset.get_item(tag)
    made.file_meta, made.preamble = meta, b"\0" * 128
    made.set_original_encoding(implicit, little, dataset.original_character_set)
    file = io.BytesIO()
    private = (
        {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian} if syntax.is_private else {}
    )
    dcmwrite(file, made, enforce_file_format=False, **private)
    return file.getvalue()
