"""Images that do not fit the others of their series, and series that are torn into one image each. No pydicom here.

What is left out or joined is told as a warning; nothing of it is done in silence. Only few images are left out: where
many do not fit, two acquisitions share a series, and which of them is meant cannot be told.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.dicom.checks import by_grid, grouped, is_localizer, plane_of, same_geometry
from jcs_ct.io.files.walk import count

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.io.dicom.header import ImageHeader

FEW = 0.1
"""Share of a series that may be left out as not fitting."""
LEAST_TORN = 3
"""Series of one image from which on they are taken for one that was torn."""
LEAVE_OUT = "give one acquisition, or leave them out with --drop-odd"


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
