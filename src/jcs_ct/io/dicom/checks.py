"""What speaks against a DICOM series as a CT volume of the chest, from its headers alone. No pydicom here."""

from __future__ import annotations

import math
import re
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.io.dicom.header import CT_IMAGE, ENHANCED, RESCALE, SECONDARY_CAPTURE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from jcs_ct.io.dicom.header import ImageHeader

MAX_OBLIQUE = 30.0
"""Degrees between the normal of the slices and the patient's long axis."""
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
    units = {image.rescale_type for image in images if not _hounsfield(image.rescale_type)}
    if units:
        reasons.append(f"holds non-HU values (RescaleType {_code(min(units))})")
    frames = max(image.frames for image in images)
    if frames > 1:
        reasons.append(f"holds {frames} frames in one plain CT image, which does not say where each of them lies")

    def where(odd: Sequence[ImageHeader]) -> str:
        return f"in {len(odd)} of {total} images, the first {_file_of(odd[0])}"

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
    count = len(images) - len(grids[0])
    return [f"mixes grids: {count} of {len(images)} images differ in {' and '.join(what)}"]


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


def _hounsfield(unit: str) -> bool:
    return unit in {"", "US"} or _HOUNSFIELD.fullmatch(unit) is not None


def _file_of(image: ImageHeader) -> str:
    return (image.source.member or image.source.path.name).rpartition("/")[2]


def _code(text: str) -> str:
    """Return a code for a message; what is none is not repeated, since anything may have been typed there."""
    return text if re.fullmatch(r"[A-Z0-9_]{1,16}", text) else "of another kind"
