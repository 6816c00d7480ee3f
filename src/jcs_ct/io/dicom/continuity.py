"""What changes from image to image within a series, by their headers, and what that says. No pydicom here.

| what changes | what follows |
| --- | --- |
| Patient ID, size, pixel spacing, orientation | refused (`jcs_ct.io.dicom.checks`) |
| patient's name or date of birth, or said in some images only | not reliable |
| frame of reference: positions count from different points | not reliable |
| scanner (manufacturer or model) | not reliable |
| kernel, kVp, slice thickness | said |
| bits stored, HighBit, sign of the stored values | said: each image is decoded by its own header |
| slope, intercept | said: each image gets its own; a jump that they make is found in the pixels (`pixel_checks`) |
"""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from jcs_ct.core.warning import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from jcs_ct.io.dicom.header import ImageHeader


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
    first = next(i for i, (a, b) in enumerate(itertools.pairwise(values), 2) if a != b)
    return [CodedWarning(code, f"the {what} changes within the series ({different} kinds, first at slice {first})")]
