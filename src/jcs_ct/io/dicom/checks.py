"""What speaks against a DICOM series as a CT volume of the chest, from its headers alone. No pydicom here.

Images that do not fit the others of their series may be left out, and series that are torn into one image each are
joined; nothing of it is done in silence. Only few images are left out: where many do not fit, two acquisitions share a
series, and which of them is meant cannot be told.

| what changes | what follows |
| --- | --- |
| Patient ID, size, pixel spacing, orientation | refused |
| patient's name or date of birth, or said in some images only | not reliable |
| frame of reference: positions count from different points | not reliable |
| scanner (manufacturer or model) | not reliable |
| kernel, kVp, slice thickness | said |
| bits stored, HighBit, sign of the stored values | said: each image is decoded by its own header |
| slope, intercept | said: each image gets its own; a jump that they make is found in the pixels (`pixel_checks`) |
"""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice, pairwise
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.dicom.header import CT_IMAGE, ENHANCED, RESCALE, SECONDARY_CAPTURE
from jcs_ct.io.files.walk import count

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Sequence

    from numpy.typing import NDArray

    from jcs_ct.io.dicom.header import ImageHeader

MAX_OBLIQUE = 30.0
"""Degrees between the normal of the slices and the patient's long axis."""
FEW = 0.1
"""Share of a series that may be left out as not fitting."""
LEAST_TORN = 3
"""Series of one image from which on they are taken for one that was torn."""
LEAVE_OUT = "give one acquisition, or leave them out with --drop-odd"
_CT = {"", CT_IMAGE, SECONDARY_CAPTURE, *ENHANCED}  # a secondary capture is named as such
_PROJECTIONS = {"MIP", "MINIP", "MIN IP", "PROJECTION IMAGE", "VOLUME_MIP", "MAXIMUM", "MINIMUM", "VRT", "SSD"}
_HOUNSFIELD = re.compile(r"HU?|H(O?U)?NSF(IE|EI)?LDS?( UNITS?)?|HOUN[DS]*FIELDS?( UNITS?)?", re.IGNORECASE)


def plane_of(image: ImageHeader) -> str:
    """Return "axial", "sagittal", "coronal", "oblique", or "unknown" without an orientation."""
    if image.orientation is None:
        return "unknown"
    along = np.abs(normal_of(image))
    axis = int(along.argmax())
    if math.degrees(math.acos(min(1.0, float(along[axis])))) > MAX_OBLIQUE:
        return "oblique"
    return ("sagittal", "coronal", "axial")[axis]


def missing_rescale(image: ImageHeader) -> list[str]:
    """Return which of RescaleSlope and RescaleIntercept an image does not have."""
    values = zip(RESCALE, (image.slope, image.intercept), strict=True)
    return [keyword for keyword, value in values if value is None and keyword not in image.faulty]


def is_localizer(image: ImageHeader) -> bool:
    """Return whether an image is an overview for planning and not a slice."""
    return bool({"LOCALIZER", "SCOUT", "TOPOGRAM"} & set(image.image_type))


def is_original(images: Sequence[ImageHeader]) -> bool:
    """Return whether all images come from the scanner as they are: neither derived nor secondary."""
    return not any({"DERIVED", "SECONDARY"} & set(image.image_type[:2]) for image in images)


def unsuitable(images: Sequence[ImageHeader]) -> list[str]:
    """Return why the images of a series cannot be read as a CT volume, most telling first; empty where nothing is."""
    reasons = []
    total = len(images)
    most = Counter(plane_of(image) for image in images).most_common(1)[0][0]
    modality = next((image.modality for image in images if image.modality not in {"", "CT"}), "")
    if modality:
        reasons.append(f"is {_code(modality)}, not CT")
    elif any(image.modality == "" and image.sop_class not in _CT for image in images):
        reasons.append("does not say that it is CT: Modality is missing, and its SOP class is not that of CT images")
    if any(image.sop_class.startswith(SECONDARY_CAPTURE) for image in images):
        reasons.append("is a secondary capture: a picture of a screen or a scan, not a slice")
    if any(is_localizer(image) for image in images):
        return [*reasons, "is a localizer: an overview for planning, not a volume"]
    words = {word for image in images for word in image.image_type}
    if words & _PROJECTIONS:
        reasons.append("is a projection through many slices (MIP or the like), not slices")
    if most not in {"axial", "unknown"}:
        made = " reformat" if not is_original(images) else ""
        reasons.append(f"is {'an' if most == 'oblique' else 'a'} {most}{made}; axial slices are expected")
    if any(
        image.samples != 1 or image.photometric.removeprefix("MONOCHROME") not in {"", "1", "2"} for image in images
    ):
        reasons.append("holds colour or palette pixels; grey values are expected")
    if any(0 < image.bits <= 8 for image in images):
        reasons.append("holds 8-bit values, which are not Hounsfield units")
    patients = Counter(image.patient for image in images if image.patient)
    if len(patients) > 1:
        most_of = patients.most_common(1)[0][1]
        other = f"{total - most_of} of {total} have another Patient ID than the rest"
        reasons.append(f"holds images of {len(patients)} patients ({other})")
    said = {image.rescale_type for image in images}
    units = {unit for unit in said - {"", "US"} if not _HOUNSFIELD.fullmatch(unit)}
    if units:
        reasons.append(f"holds non-HU values (RescaleType {_code(min(units))})")
    frames = max(image.frames for image in images)
    if frames > 1:
        reasons.append(f"holds {frames} frames in one plain CT image, which does not say where each of them lies")

    def where(odd: Sequence[ImageHeader]) -> str:
        first = odd[0].source.member or odd[0].source.path.name
        return f"in {len(odd)} of {total} images, the first {first.rpartition('/')[2]}"

    for keyword in RESCALE:
        faulty = [image for image in images if keyword in image.faulty]
        if faulty:
            reasons.append(f"has a {keyword} that is not one number {where(faulty)}")
        missing = [image for image in images if keyword in missing_rescale(image)]
        if 0 < len(missing) < total:
            reasons.append(f"lacks {keyword} {where(missing)}")
    flat = [image for image in images if image.slope == 0]
    if flat:
        reasons.append(f"has a RescaleSlope of 0, which makes all values one, {where(flat)}")
    for what, missing in (
        ("lacks PhotometricInterpretation", [image for image in images if not image.photometric]),
        ("lacks a valid ImageOrientationPatient", [image for image in images if image.orientation is None]),
        ("lacks a valid ImagePositionPatient", [image for image in images if image.position is None]),
        ("lacks a valid PixelSpacing", [image for image in images if image.spacing is None]),
        ("is cut short", [image for image in images if image.cut]),
    ):
        if missing:
            reasons.append(f"{what} {f'in {total} of {total} images' if len(missing) == total else where(missing)}")
    return reasons + _mixed(images)


def missing_parts(images: Sequence[ImageHeader]) -> list[str]:
    """Return which parts of concatenations are not there: what they hold may lie at the end, where no gap shows."""
    parts: dict[str, dict[int, int]] = {}
    for image in images:
        if image.part is not None:
            uid, number, total = image.part
            parts.setdefault(uid, {})[number] = total
    reasons = []
    for there in parts.values():
        total = max(*there, *there.values())
        gone = total - len(there)
        if gone > 0:
            which = ", ".join(map(str, islice((n for n in range(1, total + 1) if n not in there), 5)))
            text = f"lacks {gone} of the {total} files that an object was divided into: number {which}"
            reasons.append(text + " …" * (gone > 5))
    return reasons


def by_grid(images: Sequence[ImageHeader]) -> list[list[ImageHeader]]:
    """Return the images of each grid (size, pixel spacing, orientation) together, those of the commonest one first."""
    return sorted(grouped(images, same_geometry), key=len, reverse=True)


def grouped(
    images: Iterable[ImageHeader], alike: Callable[[ImageHeader, ImageHeader], bool]
) -> list[list[ImageHeader]]:
    """Return images together that are like the first of their group."""
    groups: list[list[ImageHeader]] = []
    for image in images:
        for group in groups:
            if alike(group[0], image):
                group.append(image)
                break
        else:
            groups.append([image])
    return groups


def _mixed(images: Sequence[ImageHeader]) -> list[str]:
    """Return which images have another grid than most of the series."""
    grids = by_grid(images)
    if len(grids) < 2:
        return []
    main, others = grids[0][0], [grid[0] for grid in grids[1:]]
    what = [
        name
        for name, differs in (
            ("size", any((main.rows, main.columns) != (o.rows, o.columns) for o in others)),
            ("pixel spacing", any(not _near(main.spacing, o.spacing, 1e-3) for o in others)),
            ("orientation", any(not _near(main.orientation, o.orientation, 1e-3) for o in others)),
        )
        if differs
    ]
    odd = len(images) - len(grids[0])
    return [f"mixes grids: {odd} of {len(images)} images differ in {' and '.join(what)}"]


def same_geometry(a: ImageHeader, b: ImageHeader) -> bool:
    """Return whether two images have one size, pixel spacing and orientation, as far as they say."""
    same = (a.rows, a.columns) == (b.rows, b.columns)
    return same and _near(a.spacing, b.spacing, 1e-3) and _near(a.orientation, b.orientation, 1e-3)


def _near(a: Sequence[float] | None, b: Sequence[float] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return True  # what is missing is named as such
    return max(abs(x - y) for x, y in zip(a, b, strict=True)) <= tolerance


def normal_of(image: ImageHeader) -> NDArray[np.float64]:
    """Return the unit vector at right angles to the image plane, from which columns and rows turn right-handed."""
    assert image.orientation is not None  # noqa: S101  # `plane_of` and `unsuitable` see to it
    return np.cross(np.array(image.orientation[:3]), np.array(image.orientation[3:]))


def are_few(odd: int, total: int) -> bool:
    """Return whether so many images of a series may be left out: one of at least three, or a tenth."""
    return odd <= max(1, FEW * total) < total - odd


def other_grids(images: Sequence[ImageHeader]) -> list[ImageHeader]:
    """Return the images of another size, pixel spacing or orientation than most, where they are few; else none."""
    odd = [image for grid in by_grid(images)[1:] for image in grid]
    return odd if are_few(len(odd), len(images)) else []


def without_other_grids(images: Sequence[ImageHeader]) -> tuple[list[ImageHeader], list[CodedWarning]]:
    """Leave out the few images of another grid; returns the rest, and what is to be said."""
    odd = other_grids(images)
    if not odd:
        return list(images), []
    left = [image for image in images if image not in odd]
    return left, [dropped_warning(len(odd), "images of another size, pixel spacing or orientation", odd[0])]


def dropped_warning(number: int, what: str, first: ImageHeader) -> CodedWarning:
    """Return the warning for images that were left out."""
    place = "" if first.position is None else f", the first at z = {first.position[2]:.1f} mm"
    return CodedWarning("dropped-images", f"{number} {what} left out (--drop-odd){place}")


def join_single_slices(groups: Sequence[Sequence[ImageHeader]]) -> list[list[ImageHeader]]:
    """Return the series of a study, those joined that hold one slice each and lie on one grid at several positions.

    Some exports give every image a series UID of its own. Each would be a study of one slice. Images at the same
    position are told as in any other series.
    """
    whole = [list(group) for group in groups if not _may_be_a_piece(group)]
    for stack in grouped((group[0] for group in groups if _may_be_a_piece(group)), _continues):
        places = {tuple(np.round(image.position or (), 2)) for image in stack}
        if len(places) >= LEAST_TORN:
            whole.append(stack)
        else:
            whole += [[image] for image in stack]
    return whole


def not_joined(groups: Sequence[Sequence[ImageHeader]]) -> str:
    """Return a line for single slices that were not joined, "" where they are too few to be one series."""
    pieces = sum(_may_be_a_piece(group) for group in groups)
    if pieces < LEAST_TORN:
        return ""
    return (
        f"{pieces} series of one slice each were not joined: they differ in size, spacing, orientation, kernel, "
        "description or rescale values, or lie at fewer than three positions"
    )


def joined_warnings(images: Sequence[ImageHeader]) -> list[CodedWarning]:
    """Return what is to be said of a series that was joined."""
    series = {image.series for image in images}
    if len(series) < 2:
        return []
    text = f"{count(len(series), 'series')[:-1]} of one slice each were joined by their positions"
    return [CodedWarning("joined-series", text)]


def _may_be_a_piece(group: Sequence[ImageHeader]) -> bool:
    if len(group) != 1 or not group[0].is_image or group[0].frame is not None or not group[0].series:
        return False
    return group[0].position is not None and plane_of(group[0]) == "axial" and not is_localizer(group[0])


def _continues(a: ImageHeader, b: ImageHeader) -> bool:
    same = ("modality", "image_type", "thickness", "description", "slope", "intercept", "patient", "sop_class")
    kernels = a.facts.get("kernel"), b.facts.get("kernel")
    return (
        same_geometry(a, b) and kernels[0] == kernels[1] and all(getattr(a, name) == getattr(b, name) for name in same)
    )


def change_warnings(images: Sequence[ImageHeader]) -> list[CodedWarning]:
    """Return what changes within a series, whose images are in the order of their slices, a line each."""
    found = _of_patients(images)
    references = {image.reference for image in images if image.reference}
    if 1 < len(references) < len(images):  # some exports invent one for every file
        text = f"the images have {len(references)} frames of reference: their positions count from different points"
        found.append(CodedWarning("mixed-references", text))
    found += _told(images, "mixed-scanners", "scanner", lambda i: (i.facts.get("manufacturer"), i.facts.get("model")))
    for code, what, key in (
        ("mixed-kernels", "kernel", "kernel"),
        ("mixed-kvp", "tube voltage (KVP)", "kVp"),
        ("mixed-thickness", "slice thickness", "slice thickness (mm)"),
    ):
        found += _told(images, code, what, lambda i, key=key: i.facts.get(key))  # type: ignore[misc]
    found += _told(images, "mixed-bits", "form of the stored values", lambda i: (i.bits, i.high_bit, i.signed))
    found += _told(images, "mixed-rescale", "rescale slope and intercept", lambda i: (i.slope, i.intercept))
    return found


def _of_patients(images: Sequence[ImageHeader]) -> list[CodedWarning]:
    """Return what says that images are of several patients; nothing of what it says is repeated."""
    parts = []
    for what, values in (
        ("Patient ID", Counter(image.patient for image in images)),
        ("patient's name", Counter(image.patient_name for image in images)),
        ("date of birth", Counter(image.birth_date for image in images)),
    ):
        if len(values) < 2:
            continue
        most = values.most_common(1)[0][1]
        kind = "have none" if len(values) == 2 and "" in values else "have another than the rest"
        parts.append(f"{what}: {len(images) - most} of {len(images)} {kind}")
    if not parts:
        return []
    return [CodedWarning("mixed-patients", f"the images may be of several patients ({'; '.join(parts)})")]


def _told(
    images: Sequence[ImageHeader], code: str, what: str, value: Callable[[ImageHeader], Hashable]
) -> list[CodedWarning]:
    values = [value(image) for image in images]
    different = len(set(values))
    if different < 2:
        return []
    first = next(i for i, (a, b) in enumerate(pairwise(values), 2) if a != b)
    return [CodedWarning(code, f"the {what} changes within the series ({different} kinds, first at slice {first})")]


def _code(text: str) -> str:
    """Return a code for a message; what is none is not repeated, since anything may have been typed there."""
    return text if re.fullmatch(r"[A-Z0-9_]{1,16}", text) else "of another kind"
