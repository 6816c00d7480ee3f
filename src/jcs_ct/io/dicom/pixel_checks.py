"""What only pixels can say of a DICOM series' headers: padding over the body, and a rescale that makes a step."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.levels import FEW_PIXELS
from jcs_ct.core.geometry import LOWEST
from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.dicom.padding import HIGHEST_AIR, LEAST_COVERED, covered_share, padding_hu
from jcs_ct.io.plausibility import sample_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.io.dicom.header import ImageHeader

MOST_PAIRS = 12  # neighbours with another rescale that are compared
LEAST_STEP = 5.0  # HU; what is less does no harm
DENSEST = 2000.0  # HU of what is looked at in a lung or around it; padding above it is told apart


def padding_warnings(images: Sequence[ImageHeader]) -> list[CodedWarning]:
    """Return what is to be said of padding; of each range in HU, some slices are read.

    Raises InputError where one of them cannot be read.
    """
    from jcs_ct.io.dicom.read import read_hu

    groups: dict[tuple[float, float], list[ImageHeader]] = {}
    for image in images:
        if (span := padding_hu(image)) is not None and span[1] > LOWEST:  # at or below it needs no search
            groups.setdefault(span, []).append(image)
    found = []
    for (low, high), members in groups.items():
        share = 0.0
        if high - low > 1 and high > HIGHEST_AIR:  # one value hides hardly a pixel
            share = max(covered_share(read_hu(members[i]), low, high) for i in sample_of(len(members)))
        if share >= LEAST_COVERED:
            text = f"the header calls {low:.0f} to {high:.0f} HU padding, which {100 * share:.0f} % of the body has"
            found.append(CodedWarning("padding", f"{text}; only what lies around the body was taken for air"))
        elif high > -900 and low < DENSEST:
            value = low if low > -900 else high
            text = f"the header's padding value stands for {value:.0f} HU, which tissue has too"
            found.append(CodedWarning("padding-value", f"{text}; taken as air only around the body"))
    return list({warning.code: warning for warning in found}.values())  # one a code, whatever the images differ in


def rescale_warnings(images: Sequence[ImageHeader]) -> list[CodedWarning]:
    """Return whether a rescale that changes from slice to slice makes a step that the stored values do not have.

    Scanners of PET, and some of CT, scale each slice by itself: then the stored values jump and the Hounsfield units go
    on. Where it is the other way round, a header is wrong. The images are in the order of their slices. Raises
    InputError where one of those that are compared cannot be read.
    """
    from jcs_ct.io.dicom.read import read_hu

    changes = [i for i, (a, b) in enumerate(itertools.pairwise(images)) if a.rescale != b.rescale]
    chosen = changes[:: max(1, -(-len(changes) // MOST_PAIRS))]
    wrong, largest = [], 0.0
    for i in chosen:
        (slope, intercept), (own_slope, own_intercept) = images[i].rescale, images[i + 1].rescale
        before, after = read_hu(images[i]), read_hu(images[i + 1])
        if not own_slope:
            continue
        as_before = (after - np.float32(own_intercept)) / np.float32(own_slope) * np.float32(slope) + intercept
        both = (before > -150) & (before < 180) & (after > -400) & (after < 430)
        if np.count_nonzero(both) < FEW_PIXELS:
            continue
        step, without = (float(np.median(values[both] - before[both])) for values in (after, as_before))
        if abs(step) > abs(without) + LEAST_STEP:
            wrong.append(i + 2)
            largest = max(largest, abs(step))
    if not wrong:
        return []
    places = ", ".join(map(str, wrong[:4])) + (" …" if len(wrong) > 4 else "")
    text = f"the rescale of the header makes the values jump by up to {largest:.0f} HU, the stored values go on: slice"
    return [CodedWarning("rescale-jump", f"{text}{'s' * (len(wrong) > 1)} {places}")]
