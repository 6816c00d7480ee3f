"""Values of DICOM headers that are let through to SEG and SR: only valid ones.

A derived object belongs to the patient and the study of its source, so the attributes of these two levels are copied:
this is the one place where an identity leaves the package, on purpose. Source headers are often faulty. A faulty
value is never carried on: what the standard lets be empty is left empty, what places or identifies an image is refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
import uuid
from typing import Any

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.uid import UID
from pydicom.valuerep import format_number_as_ds, validate_value

from jcs_ct.core.errors import InputError
from jcs_ct.io.dicom.header import without_escapes

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
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
PLACE = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
TAGS = (*_EMPTY_ALLOWED, *_OPTIONAL, *UIDS, *PLACE, "SliceThickness", "Rows", "Columns", "SpecificCharacterSet")
_ENUMERATED = {"PatientSex": {"M", "F", "O"}, "PatientIdentityRemoved": {"YES", "NO"}}
_CHARACTER_SET = re.compile(  # PS3.3 C.12.1.1.2, and ways to write it that pydicom corrects
    r"ISO.?(2022)?.?(IR)?.?(6|13|58|87|100|101|109|110|126|127|138|144|148|149|159|166|192|203)|GB18030|(ISO 2022 )?GBK"
)
_LATIN_9 = str.maketrans("¤¦¨´¸¼½¾", "€ŠšŽžŒœŸ")
_UNREADABLE = (ValueError, ArithmeticError, LookupError, TypeError, AttributeError, NotImplementedError)
HINT = "repair the headers, or use the NIfTI masks"


def derived_uid(text: str) -> str:
    """Return a valid UID for one that breaks the rules of PS3.5 9.1: always the same for the same text."""
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"


def clean_image(raw: Dataset, label: str, derived: set[str]) -> Dataset:
    """Return what identifies and places one image: UIDs, place, rows and columns.

    Args:
        raw: The header.
        label: What a message calls it.
        derived: Gets the keywords of UIDs that are not valid, for which `derived_uid` stands.

    Raises:
        InputError: Something is missing or faulty that must not be invented.
    """
    image = Dataset()
    for keyword in UIDS:
        uid = _text(raw, keyword)
        if uid and UID(uid).is_valid:
            setattr(image, keyword, uid)
        elif uid and keyword != "SOPClassUID":
            setattr(image, keyword, derived_uid(uid))
            derived.add(keyword)
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID"):
        if keyword not in image:
            raise InputError(
                f"{keyword} is missing or invalid; SEG and SR refer to the image by it", path=label, hint=HINT
            )
    for keyword, count in PLACE.items():
        numbers = _numbers(raw, keyword)
        if len(numbers) != count:
            raise InputError(f"{keyword} is missing or invalid; SEG is placed by it", path=label, hint=HINT)
        setattr(image, keyword, [format_number_as_ds(number) for number in numbers])
    thickness = _numbers(raw, "SliceThickness")
    if len(thickness) == 1 and thickness[0] > 0:
        image.SliceThickness = format_number_as_ds(thickness[0])
    for keyword in ("Rows", "Columns"):
        numbers = _numbers(raw, keyword)
        if len(numbers) != 1 or numbers[0] < 1:
            raise InputError(f"{keyword} is missing or invalid", path=label, hint=HINT)
        setattr(image, keyword, int(numbers[0]))
    return image


def clean_identity(raw: Dataset, notes: list[str]) -> Dataset:
    """Return the attributes of patient and study, only valid ones; add to `notes` which were not."""
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


def _text(raw: Dataset, keyword: str) -> str | None:
    """Return a single value as Unicode text, "" where there is none, None where it cannot be read as one value."""
    try:
        value: Any = raw.get(keyword)
    except _UNREADABLE:
        return None
    if isinstance(value, MultiValue):
        return None
    text = "" if value is None else without_escapes(str(value)).strip(" \0")
    return text if text.isascii() else _as_said(text, raw)


def _as_said(text: str, raw: Dataset) -> str | None:
    """Return text in the character set that the header says, None where nobody knows it.

    pydicom reads those that it does not know as Latin-1, which Latin-9 (IR 203) is but for eight characters.
    """
    said: Any = raw.get("SpecificCharacterSet") or ""
    terms = [said] if isinstance(said, str) else list(said)
    if any(term and not _CHARACTER_SET.fullmatch(term) for term in terms):
        return None
    return text.translate(_LATIN_9) if any(term.endswith("203") for term in terms) else text


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
    # Besides what Python calls printable: spaces and joiners of other scripts, as in Japanese and Persian names.
    legible = all(c.isprintable() or unicodedata.category(c) in {"Zs", "Cf"} for c in text)
    return legible and not set("\\\ufffd") & set(text) and text in _ENUMERATED.get(keyword, {text})
