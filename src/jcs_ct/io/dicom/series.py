"""From the headers of one DICOM series to a `CTSeries`: duplicates, order, a look at some slices, and the refusal.

A few slices are looked at before a series is accepted: values that cannot be Hounsfield units, and a body part without
lungs, are told at once and not after a study has been computed.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.geometry import CTSeries
from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.dicom.checks import (
    LEAVE_OUT,
    are_few,
    dropped_warning,
    is_localizer,
    joined_warnings,
    missing_parts,
    missing_rescale,
    normal_of,
    other_grids,
    unsuitable,
    without_other_grids,
)
from jcs_ct.io.dicom.header import SECONDARY_CAPTURE
from jcs_ct.io.dicom.pixel_checks import padding_warnings, rescale_warnings
from jcs_ct.io.dicom.stack import stack
from jcs_ct.io.files.walk import count
from jcs_ct.io.plausibility import NO_LUNG, implausible, sample_of, shows_lung

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.io.dicom.header import ImageHeader
    from jcs_ct.io.dicom.stack import Stack

OTHER_PARTS = frozenset(
    {"HEAD", "BRAIN", "SKULL", "NECK", "ABDOMEN", "PELVIS", "HIP", "KNEE", "FOOT", "ANKLE", "LEG", "ARM", "HAND"}
    | {"LSPINE", "CSPINE", "EXTREMITY", "SINUS", "ORBIT", "EAR", "JAW", "LIVER", "KIDNEY", "ABDOMENPELVIS"}
)
_SAME_PLACE = 0.01  # mm
_GIVE = "give a whole axial CT series of the chest"


class RefusedError(InputError):
    """A series that must not be read. `reason` is the message without the series' number and length."""

    def __init__(self, images: Sequence[ImageHeader], reasons: Sequence[str], *, path: str, hint: str) -> None:
        self.reason = "; ".join(reasons)
        number = f"series {images[0].number}, " if images[0].number is not None else ""
        super().__init__(f"{number}{count(len(images), 'image')}: {self.reason}", path=path, hint=hint)


@dataclass(frozen=True)
class Opened:
    """A series that can be read, whether the slices looked at show lung, and what to say beside its warnings."""

    series: CTSeries
    lungs: bool
    notes: tuple[str, ...]


def open_next(images: Sequence[ImageHeader], *, allow_gaps: bool, drop_odd: bool) -> CTSeries:
    """Return another series of a study, for `OtherSeries.open`. Arguments and errors as in `open_series`."""
    return open_series(images, allow_gaps=allow_gaps, drop_odd=drop_odd).series


def case_name(images: Sequence[ImageHeader]) -> str:
    """Return "study-" and 8 hexadecimal digits: SHA-256 of the series' UID, or of its images' where it has none.

    Of a series that was joined it is made of the study's UID, so that one slice more does not change it.
    """
    joined = len({image.series for image in images}) > 1
    key = (images[0].study if joined else images[0].series) or "\n".join(sorted(image.sop for image in images))
    return f"study-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def place(images: Sequence[ImageHeader]) -> str:
    """Return what a message about a series names: its file, or the folder or archive it lies in."""
    sources = [image.source for image in images]
    if len({source.label for source in sources}) == 1:
        return sources[0].label
    paths = {str(source.path) for source in sources}
    if len(paths) == 1:
        return paths.pop()
    folders = {str(source.path.parent) for source in sources}
    try:
        return str(Path(os.path.commonpath(folders)))
    except ValueError:  # on two drives
        return str(sources[0].path.parent)


def without_strays(images: Sequence[ImageHeader]) -> tuple[list[ImageHeader], list[str]]:
    """Leave out localizers and screen shots that share a series with slices. Returns the rest, and notes."""
    strays = [i for i in images if is_localizer(i) or i.sop_class.startswith(SECONDARY_CAPTURE)]
    if not strays or len(strays) == len(images):
        return list(images), []
    text = f"{count(len(strays), 'localizer or screen shot')} in the series left out"
    return [image for image in images if image not in strays], [text]


def open_series(images: Sequence[ImageHeader], *, allow_gaps: bool = False, drop_odd: bool = False) -> Opened:
    """Return the volume that the images of one series, in any order, make.

    Args:
        images: Their headers.
        allow_gaps: Accept missing slices and uneven distances, with a warning; the volume gets the mean distance.
        drop_odd: Leave out the few images that do not fit the others (see `checks`), with a warning.

    Raises:
        InputError: It must not be read, for all reasons named; or a file cannot be read.
    """
    where = place(images)
    images, notes = without_strays(images)
    images, dropped = without_other_grids(images) if drop_odd else (images, [])
    reasons = unsuitable(images)
    if reasons:
        hint = LEAVE_OUT if other_grids(images) and len(reasons) == 1 else _GIVE
        raise RefusedError(images, reasons, path=where, hint=hint)
    images, more, doubled = _distinct(images, where, drop_odd=drop_odd)
    dropped += doubled
    stacked = stack(images)
    gaps = [*stacked.gaps, *missing_parts(images)]
    reasons = [*stacked.reasons, *(() if allow_gaps else gaps)]
    part = images[0].facts.get("body part", "").upper().replace(" ", "").replace("_", "")
    if reasons:
        if part in OTHER_PARTS:
            reasons.append(f"the header says {part}, not chest")
        hint = _GIVE if stacked.reasons else "give the missing files, or use --allow-gaps"
        raise RefusedError(images, reasons, path=where, hint=hint)
    samples = [_read(stacked, index) for index in sample_of(len(images))]
    reasons = implausible(samples)
    if reasons and (missing := missing_rescale(images[0])):
        reasons = [f"lacks {' and '.join(missing)}, and the stored values are none: it {reasons[0]}"]
    elif reasons:  # the commonest cause
        first = images[0]
        reasons = [f"{reasons[0]} (RescaleSlope {first.slope:g}, RescaleIntercept {first.intercept:g})"]
    lungs = shows_lung(samples)
    if not lungs and part in OTHER_PARTS:
        reasons.append(f"is no chest: the header says {part}, and the slices show no lung")
    if reasons:
        raise RefusedError(images, reasons, path=where, hint=_GIVE)
    warnings = [CodedWarning("gaps", f"{gap} (read with the mean distance)") for gap in stacked.gaps]
    warnings += [CodedWarning("gaps", gap) for gap in gaps[len(stacked.gaps) :]]
    warnings += [*dropped, *joined_warnings(images), *stacked.warnings]
    warnings += [*padding_warnings(stacked.images), *rescale_warnings(stacked.images)]
    if part in OTHER_PARTS:
        warnings.append(CodedWarning("other-part", f"the header says {part}, but the slices show lung"))
    if not lungs:
        warnings.append(NO_LUNG)
    series = CTSeries(
        name=case_name(images),
        label=stacked.images[0].source.label,
        kind="dicom",
        geometry=stacked.geometry,
        axes=stacked.axes,
        read=partial(_read, stacked),  # no closure, since a result that is pickled takes it along
        sources=tuple(image.source for image in stacked.images),
        facts=dict(stacked.images[0].facts),
        warnings=tuple(warnings),
        study_uid=images[0].study,
        series_uid="" if len({image.series for image in images}) > 1 else images[0].series,
        number=images[0].number,
    )
    return Opened(series, lungs, tuple(notes + more))


def _read(stacked: Stack, index: int) -> NDArray[np.int16]:
    """Return canonical slice `index`. Raises InputError where it cannot be read."""
    from jcs_ct.io.dicom.read import read_hu

    hu = read_hu(stacked.images[index])
    return np.ascontiguousarray(stacked.axes.to_canonical(hu[None])[0])


def _distinct(
    images: Sequence[ImageHeader], where: str, *, drop_odd: bool
) -> tuple[list[ImageHeader], list[str], list[CodedWarning]]:
    """Leave out images that are there twice; returns the rest, notes and warnings.

    Raises where different images lie at the same place, and are too many or not to be dropped.
    """
    normal = normal_of(images[0])
    ordered = sorted(images, key=lambda image: (float(normal @ np.array(image.position)), image.source.label))
    kept: list[ImageHeader] = []
    different = []
    for image in ordered:
        before = kept[-1] if kept else None
        if before is None or float(normal @ (np.array(image.position) - np.array(before.position))) > _SAME_PLACE:
            kept.append(image)
        elif not _same(before, image):
            different.append(image)
    twice = len(images) - len(kept) - len(different)
    warnings = []
    if different:
        z = np.array(different[0].position)[2]
        few = are_few(len(different), len(images))
        if not (drop_odd and few):
            reason = f"has different images at the same position ({len(different)}, the first at z = {z:.1f} mm)"
            hint = LEAVE_OUT if few else "give one acquisition; two phases or reconstructions share this series"
            raise RefusedError(images, [reason], path=where, hint=hint)
        warnings = [dropped_warning(len(different), "other images at the same position", different[0])]
    return kept, [f"{count(twice, 'image')} in the series twice, read once"] if twice else [], warnings


def _same(a: ImageHeader, b: ImageHeader) -> bool:
    """Return whether two images show the same."""
    from jcs_ct.io.dicom.read import read_hu

    if a.frame is None and b.frame is None and a.source.read() == b.source.read():
        return True
    return bool(np.array_equal(read_hu(a), read_hu(b)))
