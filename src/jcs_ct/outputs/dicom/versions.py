"""SEG and SR of a study as one version of its results: with UIDs that are the same whenever it is made again.

`write_seg` and `write_sr` draw new UIDs. What is sent to an archive must not: whoever is stopped after sending sends
the same object again, which an archive then knows. A version that replaces another says so: the SR by its Predecessor
Documents Sequence (PS3.3 C.17.2), the SEG by its Related Series Sequence (C.7.3.1).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from jcs_ct.core.errors import InputError
from jcs_ct.outputs.dicom.attributes import derived_uid

if TYPE_CHECKING:
    from pathlib import Path

_TRACKING = "112040"  # Tracking Unique Identifier, of DCM


@dataclass(frozen=True)
class Place:
    """Where an object of a version is found: SOPInstanceUID and SeriesInstanceUID."""

    sop: str
    series: str


def place(key: str, what: str) -> Place:
    """Return where the "seg" or the "sr" of a version is found."""
    return Place(_uid(key, f"{what}/object"), _uid(key, f"{what}/series"))


def as_version(
    seg: Path | None, sr: Path, key: str, number: int, replaced: tuple[str, bool] | None
) -> tuple[bytes | None, bytes]:
    """Return SEG and SR as version `number` of a study's results.

    Args:
        seg: What `write_seg` wrote; None where there is none.
        sr: What `write_sr` wrote for the same images.
        key: Of the version; all UIDs follow from it.
        number: From 1.
        replaced: Key of the version that these results replace, and whether that has a SEG; None where there is none.

    Raises:
        InputError: A file cannot be read.
    """
    segmentation, report = None if seg is None else _read(seg), _read(sr)
    known: dict[str, str] = {}
    for what, made in (("seg", segmentation), ("sr", report)):
        if made is not None:
            known = _own(made, key, what) | known  # the SR follows segments by the UIDs of the SEG
    for what, made in (("seg", segmentation), ("sr", report)):
        if made is None:
            continue
        _replace(made, known)
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        made.InstanceNumber = number
        if number > 1:
            made.SeriesDescription = f"{made.SeriesDescription}, version {number}"[:64]
        if replaced is not None:
            _refer(made, what, *replaced)
    return None if segmentation is None else _bytes(segmentation), _bytes(report)


def _uid(key: str, role: str) -> str:
    return derived_uid(f"jcs-ct/{key}/{role}")


def _read(path: Path) -> Dataset:
    try:
        return dcmread(path)
    except (OSError, EOFError, InvalidDicomError) as error:
        raise InputError("is not a readable DICOM file", path=path, hint="diagnose the study again") from error


def _own(made: Dataset, key: str, what: str) -> dict[str, str]:
    """Return what stands for each UID that was drawn for this object, in the order in which they stand there."""
    where = place(key, what)
    found = {str(made.SOPInstanceUID): where.sop, str(made.SeriesInstanceUID): where.series}
    drawn = [str(e.value) for e in made.iterall() if e.keyword in {"TrackingUID", "DimensionOrganizationUID"}]
    for item in made.iterall():
        if item.keyword == "ContentSequence":
            drawn += [str(part.UID) for part in item.value if _names(part) == _TRACKING and "UID" in part]
    for index, uid in enumerate(dict.fromkeys(drawn)):
        found.setdefault(uid, _uid(key, f"{what}/{index}"))
    return found


def _names(part: Dataset) -> str:
    names = part.get("ConceptNameCodeSequence") or [Dataset()]
    return str(names[0].get("CodeValue", ""))


def _replace(made: Dataset, known: dict[str, str]) -> None:
    for element in made.iterall():
        if element.VR == "UI" and str(element.value) in known:
            element.value = known[str(element.value)]


def _refer(made: Dataset, what: str, key: str, seg: bool) -> None:
    item, old = Dataset(), place(key, what)
    item.StudyInstanceUID = made.StudyInstanceUID
    if what == "seg":
        if not seg:
            return
        item.SeriesInstanceUID = old.series
        item.PurposeOfReferenceCodeSequence = []
        made.RelatedSeriesSequence = [item]
        return
    series, document = Dataset(), Dataset()
    series.SeriesInstanceUID = old.series
    document.ReferencedSOPClassUID, document.ReferencedSOPInstanceUID = made.SOPClassUID, old.sop
    series.ReferencedSOPSequence = [document]
    item.ReferencedSeriesSequence = [series]
    made.PredecessorDocumentsSequence = [item]


def _bytes(made: Dataset) -> bytes:
    data = io.BytesIO()
    made.save_as(data, enforce_file_format=True)
    return data.getvalue()
