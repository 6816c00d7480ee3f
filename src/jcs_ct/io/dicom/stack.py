"""Where the slices of a DICOM series lie: sorted by position, checked for tilt, gaps and shifts. No pydicom here.

Slices are sorted by their position along the normal of the image plane (PS3.3 C.7.6.2.1.1), never by their numbers.
A volume is refused where its grid would be a guess: tilted gantry, uneven or missing slices.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.geometry import Axes, Geometry, canonical_axes
from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.dicom.checks import change_warnings, is_original, missing_rescale, normal_of
from jcs_ct.io.dicom.header import RESCALE
from jcs_ct.io.plausibility import extent_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.io.dicom.header import ImageHeader

MAX_TILT = 1.0
"""Degrees between the normal of the slices and the way they are stacked. 1° shifts a 300 mm chest by 5 mm."""
MAX_SHIFT = 1.0
"""mm by which a slice may lie beside the straight line through the first and the last."""
SMALL_ANGLE = 5.0
"""Degrees beyond which an oblique series is flagged."""
UNEVEN = 0.15
"""Share of the usual distance between slices by which one may differ."""
ROUNDING = 0.11
"""mm by which slices may lie off an even grid whatever their distances: positions are often rounded to 0.1 mm."""
ADULT = 18.0
"""Years of age."""
_TAKEN = {RESCALE: "are missing; 1 and 0 are", RESCALE[:1]: "is missing; 1 is", RESCALE[1:]: "is missing; 0 is"}


@dataclass(frozen=True)
class Stack:
    """Images in the order of canonical slices, and what is to be said of them.

    Attributes:
        images: From head to feet.
        geometry: Of the canonical axes.
        axes: (file, row, column) → canonical; files are in order already.
        reasons: Why it must not be read, without allowing gaps.
        gaps: Why it must not be read unless gaps are allowed.
        warnings: What limits what can be said of it.
    """

    images: tuple[ImageHeader, ...]
    geometry: Geometry
    axes: Axes
    reasons: tuple[str, ...]
    gaps: tuple[str, ...]
    warnings: tuple[CodedWarning, ...]


def stack(images: Sequence[ImageHeader]) -> Stack:
    """Sort images by position and say where their voxels lie. They are those of `unsuitable` without a reason.

    Images at the same position must be gone already.
    """
    normal = normal_of(images[0])
    ordered = sorted(images, key=lambda image: float(normal @ _position(image)))
    if normal[2] > 0:
        ordered.reverse()  # from head to feet
    first, last = _position(ordered[0]), _position(ordered[-1])
    reasons: list[str] = []
    gaps: list[str] = []
    warnings = [*_header_warnings(ordered), *change_warnings(ordered)]
    if len(ordered) > 1:
        step = (last - first) / (len(ordered) - 1)
        down = normal if normal @ step > 0 else -normal
        along = np.array([float(down @ (_position(image) - first)) for image in ordered])
        aside = (last - first) - down * along[-1]
        tilt = math.degrees(math.atan2(float(np.linalg.norm(aside)), float(along[-1])))
        shift = _shift(ordered, down, along, aside)
        if shift > MAX_SHIFT:
            reasons.append(f"has slices shifted sideways by {shift:.1f} mm against their neighbours")
        elif tilt > MAX_TILT:
            text = f"was scanned with a tilted gantry: the slices stand {tilt:.1f}° off their stack"
            reasons.append(f"{text}, at most {MAX_TILT:g}° is read")
        gaps = _gaps(along, ordered)
        if np.linalg.norm(aside) < 0.1:
            step = down * along[-1] / (len(ordered) - 1)
    else:
        distance = ordered[0].distance or ordered[0].thickness or 1.0
        step = (-normal if normal[2] > 0 else normal) * abs(distance)
    if not reasons and abs(ordered[0].tilt or 0.0) > MAX_TILT:
        text = f"the header says the gantry was tilted by {ordered[0].tilt:g}°, the positions do not show it"
        warnings.append(CodedWarning("header-tilt", text))
    affine = _affine(ordered[0], step, first)
    shape = (len(ordered), ordered[0].rows, ordered[0].columns)
    axes = canonical_axes(affine)
    geometry = axes.geometry(affine, shape)
    warnings += _extent_warnings(ordered, geometry)
    return Stack(tuple(ordered), geometry, axes, tuple(reasons), tuple(gaps), tuple(warnings))


def _affine(image: ImageHeader, step: NDArray[np.float64], first: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (file, row, column, 1) → (x, y, z, 1) in mm."""
    assert image.orientation is not None  # noqa: S101  # `unsuitable` saw to it
    assert image.spacing is not None  # noqa: S101
    affine = np.eye(4)
    affine[:3, 0] = step
    affine[:3, 1] = np.array(image.orientation[3:]) * image.spacing[0]
    affine[:3, 2] = np.array(image.orientation[:3]) * image.spacing[1]
    affine[:3, 3] = first
    return affine


def _shift(
    images: Sequence[ImageHeader], down: NDArray[np.float64], along: NDArray[np.float64], aside: NDArray[np.float64]
) -> float:
    """Return by how many mm an image lies beside the straight line through the first and the last."""
    first = _position(images[0])
    length = along[-1] or 1.0
    return max(
        float(np.linalg.norm(_position(image) - first - down * at - aside * (at / length)))
        for image, at in zip(images, along, strict=True)
    )


def _gaps(along: NDArray[np.float64], images: Sequence[ImageHeader]) -> list[str]:
    """Return what is wrong with the distances between slices."""
    steps = np.diff(along)
    grid = np.arange(along.size) * along[-1] / (along.size - 1)
    if np.abs(along - grid).max() <= min(ROUNDING, UNEVEN * along[-1] / (along.size - 1)):
        return []
    usual = float(np.median(steps))
    wrong = np.flatnonzero(np.abs(steps - usual) > UNEVEN * usual)
    if wrong.size == 0:
        return []
    missing = np.rint(steps[wrong] / usual) - 1
    whole = np.abs(steps[wrong] / usual - np.rint(steps[wrong] / usual)) < UNEVEN
    places = ", ".join(f"slice {i + 1} (z = {_position(images[i])[2]:.1f} mm)" for i in wrong[:3])
    places += f" and {wrong.size - 3} more places" if wrong.size > 3 else ""
    if whole.all() and (missing > 0).all():
        count = int(missing.sum())
        return [f"lacks {count} slice{'s' * (count != 1)}: after {places}; slices lie {usual:.4g} mm apart"]
    return [f"has uneven gaps between slices ({steps.min():.4g} to {steps.max():.4g} mm): after {places}"]


def _header_warnings(images: Sequence[ImageHeader]) -> list[CodedWarning]:
    missing = missing_rescale(images[0])  # then all lack it
    youngest = min((image.age for image in images if image.age is not None), default=ADULT)
    found = (
        (
            any(image.modality == "" for image in images),
            "no-modality",
            "the header does not say that this is CT (Modality is missing); the values look like it",
        ),
        (not is_original(images), "derived", "the slices are derived, not as the scanner made them"),
        (
            bool(missing),
            "no-rescale",
            f"{' and '.join(missing)} {_TAKEN.get(tuple(missing), '')} taken, and the values look like it",
        ),
        (
            any(image.rescale_type.upper() == "US" for image in images),
            "no-unit",
            "the header does not say what the values are (RescaleType US); they look like Hounsfield units",
        ),
        (
            any(image.photometric == "MONOCHROME1" for image in images),
            "monochrome1",
            "is meant to be shown inverted (MONOCHROME1); the values are taken as Hounsfield units",
        ),
        (youngest < ADULT, "child", f"the header says an age of {youngest:.3g} years; only adults were tested"),
        (
            any(image.annotated for image in images),
            "burnt-in-text",
            "the header says that the images hold burned-in text; it may name the patient",
        ),
        (any(image.lossy for image in images), "lossy", "was compressed with loss"),
    )
    return [CodedWarning(code, text) for said, code, text in found if said]


def _extent_warnings(images: Sequence[ImageHeader], geometry: Geometry) -> list[CodedWarning]:
    count, step = len(images), geometry.spacing[0]
    warnings = extent_warnings(geometry)
    angle = math.degrees(math.acos(min(1.0, abs(float(normal_of(images[0])[2])))))
    if angle > SMALL_ANGLE:
        warnings.append(CodedWarning("oblique-header", f"the slices are oblique: {angle:.0f}° off axial"))
    thickness = images[0].thickness
    if count > 1 and thickness and step > max(1.5 * thickness, thickness + 1):
        unseen = 100 * (1 - thickness / step)
        text = f"slices of {thickness:.4g} mm lie {step:.4g} mm apart: {unseen:.0f} % of the lung was not imaged"
        warnings.append(CodedWarning("unseen-between", text))
    return warnings


def _position(image: ImageHeader) -> NDArray[np.float64]:
    return np.array(image.position, dtype=np.float64)
