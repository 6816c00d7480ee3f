"""What is taken from the header of one DICOM image, or of one frame of an enhanced one. No pydicom here.

Nothing in it names the patient: of the dataset only `KEYWORDS` are read. The patient's ID, name and date of birth
become digests with a key that no other run has, so that two patients in a series are told apart; of dates only the year
of the study is kept.
UIDs and the series' description serve to group and to choose; they never leave.
"""

from __future__ import annotations

import hashlib
import math
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jcs_ct.io.files.sources import Source

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
ENHANCED = frozenset({"1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2"})
"""Enhanced CT, and Legacy Converted Enhanced CT: many frames in a file."""
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
DIRECTORY = "1.2.840.10008.1.3.10"

FACTS = {
    "Manufacturer": "manufacturer",
    "ManufacturerModelName": "model",
    "ConvolutionKernel": "kernel",
    "KVP": "kVp",
    "SliceThickness": "slice thickness (mm)",
    "PatientPosition": "patient position",
    "BodyPartExamined": "body part",
}
"""Keyword → what a report calls it; the contrast agent and the year of the study are told besides."""

RESCALE = ("RescaleSlope", "RescaleIntercept")
FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesNumber", "SeriesDescription"),
    *("Modality", "ImageType", "StudyDate", "ContrastBolusAgent", "BurnedInAnnotation", "LossyImageCompression"),
    *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SpacingBetweenSlices", "GantryDetectorTilt"),
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "BitsStored"),
    *("PixelRepresentation", "HighBit", "PixelPaddingValue", "PixelPaddingRangeLimit", "PatientID", "PatientAge"),
    *("PatientName", "PatientBirthDate", "FrameOfReferenceUID"),
    *(*RESCALE, "RescaleType"),
    *("ConcatenationUID", "InConcatenationNumber", "InConcatenationTotalNumber"),
    *FACTS,
)
"""All that is read of a dataset. Frames of enhanced images are described in `FUNCTIONAL_GROUPS`."""

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class ImageHeader:
    """One image. What is missing or makes no sense in the file is None or "".

    Attributes:
        source: The file it is in.
        frame: Its number in the file, from 0; None where the file holds one image.
        sop_class, sop, study, series: UIDs.
        number: Of the series.
        description: Of the series.
        modality: "CT" …
        image_type: ("ORIGINAL", "PRIMARY", "AXIAL", …).
        position: (x, y, z) in mm of the centre of the first voxel.
        orientation: Directions (x, y, z) along which columns, then rows count up; unit vectors.
        spacing: mm between rows, between columns.
        thickness, distance: SliceThickness and SpacingBetweenSlices in mm.
        tilt: Of the gantry, in degrees.
        rows, columns, samples, bits, signed: Of the pixels.
        photometric: MONOCHROME2 …
        frames: Of an image that is not described frame by frame; 1 unless the header says more.
        slope, intercept, rescale_type: Stored values → HU. None: missing, or not a number.
        faulty: Keywords of slope and intercept that are there, but are not one number.
        padding: The stored values from … to … that stand for nothing.
        high_bit: Of the stored values; None where it is not said.
        part: Of an object that was written in parts (a concatenation, PS3.3 C.7.6.16.2.2.4): its UID, the number of
            this part, and of how many, 0 where that is not said; None where it is whole.
        patient, patient_name, birth_date: Digests that tell patients apart in this run; "" where nothing is said.
        reference: UID of the frame of reference.
        age: Of the patient, in years.
        annotated: Text may be burnt into the pixels.
        lossy: Was compressed with loss.
        cut: The file ends before its pixels do.
        facts: As in `CTSeries.facts`.
    """

    source: Source
    frame: int | None
    sop_class: str
    sop: str
    study: str
    series: str
    number: int | None
    description: str
    modality: str
    image_type: tuple[str, ...]
    position: Numbers | None
    orientation: Numbers | None
    spacing: Numbers | None
    thickness: float | None
    distance: float | None
    tilt: float | None
    rows: int
    columns: int
    samples: int
    bits: int
    signed: bool
    photometric: str
    slope: float | None
    intercept: float | None
    rescale_type: str
    padding: tuple[int, int] | None
    annotated: bool
    lossy: bool
    cut: bool = False
    frames: int = 1
    faulty: tuple[str, ...] = ()
    high_bit: int | None = None
    part: tuple[str, int, int] | None = None
    patient: str = ""
    patient_name: str = ""
    birth_date: str = ""
    reference: str = ""
    age: float | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_image(self) -> bool:
        """Whether it is an image of a CT or may be one; segmentations, reports, plans and the like are not."""
        return self.rows > 0 and self.columns > 0 and self.modality not in _DERIVED_OBJECTS

    @property
    def rescale(self) -> tuple[float, float]:
        """Slope and intercept from stored values to HU; 1 and 0 where the header names none."""
        return 1.0 if self.slope is None else self.slope, self.intercept or 0.0


_DERIVED_OBJECTS = frozenset({"SEG", "SR", "PR", "KO", "RTSTRUCT", "RTDOSE", "RTPLAN", "REG", "DOC", "FID", "PLAN"})


def image_header(
    source: Source, frame: int | None, get: Callable[[str], Any], *, cut: bool = False, faulty: Sequence[str] = ()
) -> ImageHeader:
    """Return the header of an image. Arguments as in `ImageHeader`.

    `get` returns the value of a keyword, or None where it is missing, empty or not readable.
    """
    orientation = _numbers(get("ImageOrientationPatient"), 6)
    spacing = _numbers(get("PixelSpacing"), 2)
    return ImageHeader(
        source=source,
        frame=frame,
        sop_class=_text(get("SOPClassUID")),
        sop=_text(get("SOPInstanceUID")),
        study=_text(get("StudyInstanceUID")),
        series=_text(get("SeriesInstanceUID")),
        number=_integer(get("SeriesNumber")),
        description=_text(get("SeriesDescription")),
        modality=_text(get("Modality")).upper(),
        image_type=tuple(_text(word).upper() for word in _list(get("ImageType"))),
        position=_numbers(get("ImagePositionPatient"), 3),
        orientation=None if orientation is None else _unit(orientation),
        spacing=spacing if spacing and min(spacing) > 0 else None,
        thickness=_number(get("SliceThickness")),
        distance=_number(get("SpacingBetweenSlices")),
        tilt=_number(get("GantryDetectorTilt")),
        rows=_integer(get("Rows")) or 0,
        columns=_integer(get("Columns")) or 0,
        samples=_integer(get("SamplesPerPixel")) or 1,
        bits=_integer(get("BitsStored")) or 0,
        signed=_integer(get("PixelRepresentation")) == 1,
        photometric=_text(get("PhotometricInterpretation")).upper(),
        slope=_number(get("RescaleSlope")),
        intercept=_number(get("RescaleIntercept")),
        rescale_type=_text(get("RescaleType")),
        padding=_padding(get),
        annotated=_text(get("BurnedInAnnotation")).upper() == "YES",
        lossy=_text(get("LossyImageCompression")) == "01",
        cut=cut,
        frames=1 if frame is not None else _integer(get("NumberOfFrames")) or 1,
        faulty=tuple(faulty),
        high_bit=_integer(get("HighBit")),
        part=_part(get),
        patient=_digest(_text(get("PatientID"))),
        patient_name=_digest(_name(get("PatientName"))),
        birth_date=_digest(_text(get("PatientBirthDate"))),
        reference=_text(get("FrameOfReferenceUID")),
        age=_age(_text(get("PatientAge"))),
        facts=_facts(get),
    )


_ESCAPES = re.compile(r"\x1b(\$?[()\-./]|\$)[\x20-\x2f]?[\x40-\x7e]")
_KEY = secrets.token_bytes(16)
_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def without_escapes(text: str) -> str:
    """Return decoded text without escape sequences of ISO 2022, which pydicom leaves in that of some character sets."""
    return _ESCAPES.sub("", text) if "\x1b" in text else text


def _name(value: Any) -> str:
    """Return a name in one spelling: programs differ in capitals and in what parts its components."""
    return " ".join(_text(value).split("=")[0].replace("^", " ").replace(",", " ").casefold().split())


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), key=_KEY, digest_size=8).hexdigest() if text else ""


def _age(text: str) -> float | None:
    """Return an age (PS3.5 6.2, AS: "018M") in years, or None."""
    found = re.fullmatch(r"(\d{1,3})([DWMY])", text.upper())
    return int(found[1]) * _YEARS[found[2]] if found and int(found[1]) else None  # 000Y stands for "not known"


def _facts(get: Callable[[str], Any]) -> dict[str, str]:
    facts = {}
    for keyword, name in FACTS.items():
        text = " ".join(_text(word) for word in _list(get(keyword))).strip()
        if keyword in {"KVP", "SliceThickness"}:
            number = _number(text)
            text = "" if number is None else f"{number:g}"
        if text:
            facts[name] = "".join(c for c in text if c.isprintable())[:64]
    agent = _text(get("ContrastBolusAgent")).upper()
    if agent:  # technicians type into it, so only whether there is one is told
        facts["contrast"] = "no" if re.fullmatch(r"(NO|NONE|NON|N|0|WITHOUT|NATIVE?|-)( .*)?", agent) else "yes"
    year = _text(get("StudyDate"))[:4]
    if year.isdigit() and len(year) == 4:
        facts["study year"] = year
    return facts


def _part(get: Callable[[str], Any]) -> tuple[str, int, int] | None:
    uid, number = _text(get("ConcatenationUID")), _integer(get("InConcatenationNumber"))
    return (uid, number, _integer(get("InConcatenationTotalNumber")) or 0) if uid and number else None


def _padding(get: Callable[[str], Any]) -> tuple[int, int] | None:
    """Return the range of padding (PS3.3 C.7.5.1.1.2); values written as unsigned are meant as the pixels are."""
    first = _integer(get("PixelPaddingValue"))
    if first is None:
        return None
    limit = _integer(get("PixelPaddingRangeLimit"))
    if _integer(get("PixelRepresentation")) == 1:
        first, limit = (None if v is None else v - 65536 if v > 32767 else v for v in (first, limit))
    else:
        first, limit = (None if v is None else v % 65536 for v in (first, limit))
    assert first is not None  # noqa: S101  # None was left above
    limit = first if limit is None else limit
    return min(first, limit), max(first, limit)


def _unit(orientation: Numbers) -> Numbers | None:
    """Return two unit vectors, or None where they are none or not at right angles."""
    columns, rows = orientation[:3], orientation[3:]
    lengths = math.hypot(*columns), math.hypot(*rows)
    if not all(0.9 < length < 1.1 for length in lengths):
        return None
    if abs(sum(a * b for a, b in zip(columns, rows, strict=True))) > 0.01:
        return None
    return (*(a / lengths[0] for a in columns), *(b / lengths[1] for b in rows))


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if not isinstance(value, (str, bytes)) and hasattr(value, "__iter__") else [value]


def _text(value: Any) -> str:
    return "" if value is None else without_escapes(str(value)).strip().strip("\0")


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def _integer(value: Any) -> int | None:
    number = _number(value)
    return None if number is None else int(number)


def _numbers(value: Any, count: int) -> Numbers | None:
    numbers = [_number(item) for item in _list(value)]
    if len(numbers) != count or any(number is None for number in numbers):
        return None
    return tuple(number for number in numbers if number is not None)
