"""What SEG and SR take over from the headers of the source images, cleaned so that the results conform to the standard.

A derived object belongs to the patient and the study of its source, so the attributes of these two levels are copied:
this is the one place where an identity leaves the package, on purpose. Source headers are often faulty. A faulty
value is never carried on: what the standard lets be empty is left empty, what it does not is made, or refused.
"""

from __future__ import annotations

import io
import math
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydicom import config, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.uid import UID, CTImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds, validate_value

from jcs_ct.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jcs_ct.series import CTSeries

# Type 2 of PS3.3 C.7.1.1 (patient) and C.7.2.1 (study): present, empty where unknown.
_EMPTY_ALLOWED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
# Copied where they are there and valid.
_OPTIONAL = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientSize",
    "PatientWeight",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDescription",
    "PositionReferenceIndicator",
)
_UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
_PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
_TAGS = (*_EMPTY_ALLOWED, *_OPTIONAL, *_UIDS, *_PLACE, "SliceThickness", "Rows", "Columns", "SpecificCharacterSet")
_ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
_UNREADABLE = (InvalidDicomError, OSError, EOFError, ValueError, LookupError, TypeError, AttributeError)
_HINT = "repair the headers, or use the NIfTI masks"


@dataclass(frozen=True)
class SourceHeaders:
    """Headers of the source images without pixels.

    Attributes:
        images: In the order of canonical slices; the first also holds the attributes of patient and study. Text is
            Unicode, to be written as UTF-8 (ISO_IR 192).
        shape: Stored (rows, columns) of every image.
        notes: What was missing or faulty and what became of it, a line each. They name attributes, never values.
    """

    images: tuple[Dataset, ...]
    shape: tuple[int, int]
    notes: tuple[str, ...]


def read_headers(series: CTSeries) -> SourceHeaders:
    """Read what SEG and SR need of the source images of `series`; one file is in memory at a time.

    Raises:
        InputError: The series is not made of DICOM CT images; or one lacks what identifies or places it, which must
            not be invented.
    """
    if series.kind != "dicom" or not series.sources:
        raise InputError(
            f"is {series.kind}; DICOM SEG and SR refer to DICOM images", path=series.label, hint="use the NIfTI masks"
        )
    notes: list[str] = []
    images: list[Dataset] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's of faulty values: they become notes or errors below
        for source in series.sources:
            try:
                raw = dcmread(io.BytesIO(source.read()), stop_before_pixels=True, specific_tags=list(_TAGS), force=True)
            except _UNREADABLE as error:
                raise InputError(f"is no DICOM image that can be read: {error}", path=source.label) from error
            image = _image(raw, source.label)
            if not images:
                image.update(_identity(raw, notes))
            images.append(image)
    _check_one_series(images, series.label)
    _fill(images, series.geometry.spacing[0], notes)
    return SourceHeaders(tuple(images), (int(images[0].Rows), int(images[0].Columns)), tuple(notes))


@contextmanager
def names_as_they_are() -> Iterator[None]:
    """Keep highdicom from warning of a patient's name in one part, which is common and legal."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")
        yield


def _image(raw: Dataset, label: str) -> Dataset:
    """Return what identifies and places one image."""
    image = Dataset()
    for keyword in _UIDS:
        uid = _text(raw, keyword)
        if uid and UID(uid).is_valid:
            setattr(image, keyword, uid)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        if keyword not in image:
            raise InputError(
                f"{keyword} is missing or invalid; SEG and SR refer to the image by it", path=label, hint=_HINT
            )
    if image.SOPClassUID != CTImageStorage:
        raise InputError(f"is {image.SOPClassUID.name}; a CT image is expected", path=label, hint=_HINT)
    for keyword, count in _PLACE.items():
        numbers = _numbers(raw, keyword)
        if len(numbers) != count:
            raise InputError(f"{keyword} is missing or invalid; SEG is placed by it", path=label, hint=_HINT)
        setattr(image, keyword, [format_number_as_ds(number) for number in numbers])
    thickness = _numbers(raw, "SliceThickness")
    if len(thickness) == 1 and thickness[0] > 0:
        image.SliceThickness = format_number_as_ds(thickness[0])
    for keyword in ("Rows", "Columns"):
        numbers = _numbers(raw, keyword)
        if len(numbers) != 1 or numbers[0] < 1:
            raise InputError(f"{keyword} is missing or invalid", path=label, hint=_HINT)
        setattr(image, keyword, int(numbers[0]))
    return image


def _identity(raw: Dataset, notes: list[str]) -> Dataset:
    """Return the attributes of patient and study, only valid ones."""
    found = Dataset()
    found.SpecificCharacterSet = "ISO_IR 192"
    found.Modality = "CT"
    faulty = []
    for keyword in (*_EMPTY_ALLOWED, *_OPTIONAL):
        text = _text(raw, keyword)
        if text and _valid(keyword, text):
            setattr(found, keyword, text)
            continue
        if text is None or text:
            faulty.append(keyword)
        if keyword in _EMPTY_ALLOWED:
            setattr(found, keyword, "")
    if found.get("PatientIdentityRemoved") == "YES":
        if "DeidentificationMethod" not in found:  # type 1C then
            found.DeidentificationMethod = "Not stated in the source images"
    elif "DeidentificationMethod" in found:  # says nothing without the other
        del found.DeidentificationMethod
    if faulty:
        notes.append(f"not valid in the images and left out of SEG and SR: {', '.join(faulty)}")
    return found


def _check_one_series(images: list[Dataset], label: str) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        if len({image.get(keyword) for image in images}) > 1:
            raise InputError(f"{keyword} differs between images of the series", path=label, hint=_HINT)
    if len({image.SOPInstanceUID for image in images}) < len(images):
        raise InputError("two images share one SOPInstanceUID", path=label, hint=_HINT)


def _fill(images: list[Dataset], spacing: float, notes: list[str]) -> None:
    """Make what the standard asks for and may be made. UIDs follow from the series', so that SEG and SR share them."""
    for keyword, what in (("StudyInstanceUID", "study"), ("FrameOfReferenceUID", "frame of reference")):
        if keyword not in images[0]:
            uid = generate_uid(entropy_srcs=["jcs-ct", keyword, images[0].SeriesInstanceUID])
            notes.append(f"{keyword} is missing or invalid in the images: SEG and SR are in a {what} of their own")
            for image in images:
                setattr(image, keyword, uid)
    if any("SliceThickness" not in image for image in images):
        notes.append("SliceThickness is missing or invalid in the images: SEG states the distance between slices")
        for image in images:
            image.SliceThickness = format_number_as_ds(spacing)


def _text(raw: Dataset, keyword: str) -> str | None:
    """Return a single value as Unicode text, "" where there is none, None where it cannot be read as one value."""
    try:
        value: Any = raw.get(keyword)
    except _UNREADABLE:
        return None
    if isinstance(value, MultiValue):
        return None
    return "" if value is None else str(value).strip(" \0")


def _numbers(raw: Dataset, keyword: str) -> list[float]:
    """Return the values of a numeric attribute; empty where it is missing or not numbers."""
    try:
        value: Any = raw.get(keyword)
        numbers = [float(v) for v in (value if isinstance(value, MultiValue) else [value])]
    except _UNREADABLE:
        return []
    return numbers if all(math.isfinite(number) for number in numbers) else []


def _valid(keyword: str, text: str) -> bool:
    """Whether `text` is a legal value of the attribute (PS3.5 6.2, and the enumerated values of PS3.3)."""
    try:
        validate_value(dictionary_VR(keyword), text, config.RAISE)
    except ValueError:
        return False
    return text.isprintable() and "\\" not in text and text in _ENUMERATED.get(keyword, {text})
