"""The headers of the source images that SEG and SR refer to, of single images or of the frames of an enhanced CT.

And what SEG and SR say of themselves.
"""

from __future__ import annotations

import copy
import io
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import highdicom as hd
import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    generate_uid,
)
from pydicom.valuerep import format_number_as_ds

from jcs_ct.core.errors import InputError
from jcs_ct.core.version import __version__
from jcs_ct.io.dicom.read import quiet
from jcs_ct.outputs.dicom import codes
from jcs_ct.outputs.dicom.attributes import HINT, TAGS, UIDS, clean_identity, clean_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jcs_ct.core.geometry import CTSeries

ENHANCED = (EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)

_STAND_IN = "2.25.184467440737095516150"  # of images that are none; in nothing that is written
_FRAME_TAGS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
# Where the functional groups of a frame (PS3.3 C.7.6.16) keep what a single image has at its top.
_GROUPS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
}


@dataclass(frozen=True)
class SourceHeaders:
    """Headers of the source images without pixels.

    Attributes:
        images: What identifies and places every canonical slice.
        frames: Number of each in its object, from 1; None for single images.
        objects: The SOP instances: the images, or the enhanced CT, of one object or several. The first also holds the
            attributes of patient and study but the name. Text is Unicode, to be written as UTF-8 (ISO_IR 192).
        patient_name: For `name_patient`: highdicom quotes names that it doubts in warnings.
        shape: Stored (rows, columns) of every image.
        notes: What was missing or faulty and what became of it, a line each. They name attributes, never values.
    """

    images: tuple[Dataset, ...]
    frames: tuple[int | None, ...]
    objects: tuple[Dataset, ...]
    patient_name: str
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
    with quiet():  # of faulty values: they become notes or errors below
        derived: set[str] = set()
        files = list(dict.fromkeys(series.sources))
        raw = _read(files[0])
        identity = clean_identity(raw, notes)
        name = str(identity.PatientName)
        identity.PatientName = ""
        enhanced = raw.get("SOPClassUID") in ENHANCED
        if enhanced:
            groups = [_frames(raw if file is files[0] else _read(file), file.label, derived) for file in files]
            images = [image for group in groups for image in group]
            if len(images) != len(series):
                raise InputError(
                    f"has {len(images)} frames, the series {len(series)} slices; DICOM SEG and SR need every frame to "
                    "be one",
                    path=files[0].label,
                    hint="use the NIfTI masks",
                )
        else:
            images = [clean_image(raw, files[0].label, derived)]
            images += [clean_image(_read(source), source.label, derived) for source in series.sources[1:]]
    _check(images, enhanced, series)
    if derived:
        keywords = ", ".join(keyword for keyword in UIDS if keyword in derived)
        notes.append(
            f"not valid in the images: {keywords}; SEG and SR have valid ones made of them, the same for the same: "
            "2.25. and the UUID (version 5, namespace of OIDs) of the text that stands there"
        )
    _fill(images, series.geometry.spacing[0], notes)
    if not enhanced:
        images[0].update(identity)
        numbers: list[int | None] = [None] * len(images)
        objects = tuple(images)
    else:  # in the order of slices, which need not be that of frames
        objects = tuple(_whole(group, identity) for group in groups)
        if len({one.SOPInstanceUID for one in objects}) < len(objects):
            raise InputError("two objects share one SOPInstanceUID", path=series.label, hint=HINT)
        order = np.argsort([series.geometry.affine[:3, 0] @ np.array(i.ImagePositionPatient, float) for i in images])
        within = [number for group in groups for number in range(1, len(group) + 1)]
        images, numbers = [images[k] for k in order], [within[k] for k in order]
    shape = int(images[0].Rows), int(images[0].Columns)
    return SourceHeaders(tuple(images), tuple(numbers), objects, name, shape, tuple(notes))


def single_images(source: SourceHeaders) -> list[Dataset]:
    """Return the slices of several enhanced objects as if each were an image of its own.

    highdicom makes a SEG of one object of many frames, or of many of one. `refer_to_frames` undoes it.
    """
    images = []
    for index, image in enumerate(source.images):
        single = Dataset()
        if index == 0:
            single.update(source.objects[0])
            for keyword in (*_FRAME_TAGS, "NumberOfFrames"):
                del single[keyword]
        single.update(image)
        single = copy.deepcopy(single)  # elements are shared otherwise
        single.SOPClassUID, single.SOPInstanceUID = CTImageStorage, f"{_STAND_IN}.{index + 1}"
        images.append(single)
    return images


def refer_to_frames(made: Dataset, source: SourceHeaders) -> None:
    """Let an object that was made of `single_images` refer to the frames of the objects that they stand for."""
    for item in made:
        if item.VR != "SQ":
            continue
        kept, known = [], set()
        for part in item.value:
            refer_to_frames(part, source)
            uid = str(part.get("ReferencedSOPInstanceUID", ""))
            if uid.startswith(f"{_STAND_IN}."):
                index = int(uid.rpartition(".")[2]) - 1
                part.ReferencedSOPClassUID = source.images[index].SOPClassUID
                part.ReferencedSOPInstanceUID = source.images[index].SOPInstanceUID
                if item.keyword == "SourceImageSequence":
                    part.ReferencedFrameNumber = source.frames[index]
                elif part.ReferencedSOPInstanceUID in known:  # an object is named once, whatever its frames
                    continue
                known.add(part.ReferencedSOPInstanceUID)
            kept.append(part)
        if len(kept) < len(item.value):
            made[item.tag].value = kept


def made_here() -> dict[str, Any]:
    """Return what highdicom asks of any object it makes: new UIDs, and this software as the equipment (C.7.5.1)."""
    return {
        "series_instance_uid": hd.UID(),
        "sop_instance_uid": hd.UID(),
        "instance_number": 1,
        "manufacturer": codes.PRODUCT,
        "manufacturer_model_name": codes.PRODUCT,
        "software_versions": __version__,
        "device_serial_number": "none, this is software",
    }


def name_patient(made: Dataset, source: SourceHeaders) -> None:
    """Put the patient's name into what highdicom made.

    As a new element: those of `made` are the source's own, and the next object that is made of the source would have
    the name from the start, and be warned of with it.
    """
    made.add_new("PatientName", "PN", source.patient_name)


@contextmanager
def refused_by_highdicom(label: str) -> Iterator[None]:
    """Turn what highdicom finds wrong with source images into an InputError."""
    try:
        yield
    except ValueError as error:
        raise InputError(f"cannot be referred to by DICOM SEG or SR: {error}", path=label, hint=HINT) from error


def _read(source: Any) -> Dataset:
    """Return the header of a file, a `jcs_ct.io.files.sources.Source`."""
    try:
        data = io.BytesIO(source.read())
        return dcmread(data, stop_before_pixels=True, specific_tags=[*TAGS, *_FRAME_TAGS], force=True)
    except InputError:
        raise
    except Exception as error:  # its text may quote the patient
        message = "is damaged: its DICOM header cannot be read"
        raise InputError(message, path=source.label, hint="copy or export it again") from error


def _frames(raw: Dataset, label: str, derived: set[str]) -> list[Dataset]:
    """Return the frames of an enhanced CT as if each were a single image, in the order of the file."""
    shared = (raw.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    images = []
    for group in raw.get("PerFrameFunctionalGroupsSequence") or []:
        flat = Dataset()
        for keyword in (*UIDS, "Rows", "Columns"):
            if keyword in raw:
                flat[keyword] = raw[keyword]
        for keyword, sequence in _GROUPS.items():
            holder = (group.get(sequence) or shared.get(sequence) or [Dataset()])[0]
            if keyword in holder:
                flat[keyword] = holder[keyword]
        images.append(clean_image(flat, label, derived))
    return images


def _whole(frames: list[Dataset], identity: Dataset) -> Dataset:
    """Return an enhanced CT with nothing but what is needed of it."""
    first = frames[0]
    whole, shared, orientation, measures = Dataset(), Dataset(), Dataset(), Dataset()
    whole.update(identity)
    for keyword in (*UIDS, "Rows", "Columns"):
        whole[keyword] = first[keyword]
    whole.NumberOfFrames = len(frames)
    orientation.ImageOrientationPatient = first.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = first.PixelSpacing, first.SliceThickness
    shared.PlaneOrientationSequence, shared.PixelMeasuresSequence = [orientation], [measures]
    whole.SharedFunctionalGroupsSequence = [shared]
    groups = []
    for frame in frames:
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = frame.ImagePositionPatient
        group.PlanePositionSequence = [position]
        groups.append(group)
    whole.PerFrameFunctionalGroupsSequence = groups
    return whole


def _check(images: list[Dataset], enhanced: bool, series: CTSeries) -> None:
    """Raise where images are of another kind, or not of one series."""
    kinds = ENHANCED if enhanced else (CTImageStorage,)
    for image, source in zip(images, series.sources, strict=True):
        if image.SOPClassUID not in kinds:
            raise InputError(f"is {image.SOPClassUID.name}; a CT image is expected", path=source.label, hint=HINT)
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Rows", "Columns"):
        if len({image.get(keyword) for image in images}) > 1:
            raise InputError(f"{keyword} differs between images of the series", path=series.label, hint=HINT)
    if not enhanced and len({image.SOPInstanceUID for image in images}) < len(images):
        raise InputError("two images share one SOPInstanceUID", path=series.label, hint=HINT)
    for keyword, tolerance in (("ImageOrientationPatient", 1e-3), ("PixelSpacing", 1e-3)):
        values = np.array([image[keyword].value for image in images], float)
        if np.abs(values - values[0]).max() > tolerance:
            raise InputError(f"{keyword} differs between images of the series", path=series.label, hint=HINT)
        for image in images:  # the same to the last digit: SEG states it once for all frames
            setattr(image, keyword, images[0][keyword].value)


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
