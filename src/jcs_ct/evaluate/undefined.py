"""Why a score cannot be computed, in words: for the reports, the tables and what a command says at its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

UNDEFINED = "not defined"
_CLASSES = {1: "COVID-19", 0: "no COVID-19"}


def sentence(names: Sequence[str], because: str) -> str:
    """Return "A, B and C are not defined, because …"."""
    *first, last = names
    told = f"{', '.join(first)} and {last}" if first else last
    return f"{told} {'are' if first else 'is'} {UNDEFINED}, because {because}"


def is_undefined(value: float | None) -> bool:
    """Return whether a score has no value: NaN, infinite, or None as JSON has it."""
    return value is None or not math.isfinite(value)


def of_labels(labels: Iterable[int], what: str, *, precision: bool = True) -> str:
    """Return which scores of a set cannot be computed, where all its labels are of one class; else "".

    Args:
        labels: 1 = COVID-19, 0 = not.
        what: What has a label: "slices", "studies", "groups".
        precision: Whether average precision is one of the scores.
    """
    known = list(labels)
    one = set(known)
    if len(one) != 1:
        return ""
    label = one.pop()
    without = ["AUC", "average precision", "sensitivity"] if precision else ["AUC", "sensitivity"]
    names = ["AUC", "specificity"] if label else without
    told = f"all {len(known)} {what} have" if len(known) > 1 else f"the only one of the {what} has"
    return sentence(names, f"{told} the label {label} ({_CLASSES[label]}): one class")


def of_slice(row: Mapping[str, Any]) -> str:
    """Return why scores of a slice, or of a volume, have no value, by its counts of pixels; "" where all have one."""
    if not any(isinstance(value, float) and math.isnan(value) for value in row.values()):
        return ""
    truth, found = row["tp"] + row["fn"], row["tp"] + row["fp"]
    where = "the mask and the map" if not truth and not found else "the mask" if not truth else "the map"
    return f"no lesion is in {where}" if not truth or not found else "no pixel without lesion is in the mask"


def of_maps(
    summary: Mapping[str, Any], titles: Mapping[str, str], slices: int, empties: Mapping[str, int]
) -> list[str]:
    """Return which scores of lesion maps cannot be computed, and why: a line for each reason.

    Args:
        summary: Of one model: "per_image", "pooled", "release".
        titles: Name of a score → what reports call it.
        slices: How many were scored.
        empties: "masks_empty", "predictions_empty", "both_empty".
    """
    reasons = {
        "sensitivity": f"no lesion is in the {slices} masks",
        "precision": f"no lesion is in the {slices} maps",
        "hd95": "no slice has a lesion both in its mask and in its map",
        "specificity": "every pixel of the masks is lesion",
        "miou": "no slice holds both classes in its mask and its map together",
    }
    every = f"no lesion is in the {slices} masks and none is marked"
    named: dict[str, list[str]] = {}
    for kind, held in (("", summary["per_image"]), ("pooled ", summary["pooled"])):
        for name, found in held.items():
            if is_undefined(found["value"]):
                because = every if empties["both_empty"] == slices else reasons.get(name, every)
                named.setdefault(because, []).append(f"{kind}{titles[name]}")
    lines = [sentence(names, because) for because, names in named.items()]
    release = summary["release"]
    if is_undefined(release["iou"]):
        count = release["images_undefined"]
        slices_are = f"{count} slices have" if count != 1 else "one slice has"
        lines.append(sentence(["the release's IoU"], f"{slices_are} no lesion in the mask and none in the map"))
    return lines


def of_volumes(found: Mapping[str, Any]) -> list[str]:
    """Return which scores of whole volumes cannot be computed, and why."""
    lines = []
    if is_undefined(found["dice"]["value"]):
        lines.append(sentence(["3-D Dice"], "no volume has a lesion in its mask or its map"))
    if is_undefined(found["empty_slices_marked"]["value"]):
        lines.append(sentence(["the share of marked slices without lesion"], "every slice has a lesion"))
    return lines
