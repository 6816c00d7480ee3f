"""Scores as JSON, Markdown and CSV. An undefined score (NaN) is null, "not defined" and an empty cell.

Why it is not defined stands beside, in words: as "undefined" in JSON, below the table in Markdown, in the column
"undefined", and at the end of a command.
"""

from __future__ import annotations

import csv
import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.metrics.bootstrap import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

RESEARCH = "Research tool, not a medical device."
UNDEFINED = "not defined"
DIFFERENCE = "first minus second on the same resamples; above: share of resamples above 0"
_CLASSES = {1: "COVID-19", 0: "no COVID-19"}
_TITLES = {
    "auc": "AUC",
    "ece": "ECE",
    "dice": "Dice",
    "iou": "IoU",
    "miou": "mIoU with background",
    "mae": "MAE",
    "s_measure": "S-measure",
    "e_measure_mean": "E-measure, mean of 256 thresholds",
    "e_measure_adaptive": "E-measure, adaptive threshold 2·mean(p)",
    "weighted_f": "weighted F-measure",
    "hd95": "HD95",
}
"""What reports call scores whose names are not words."""


def title(name: str) -> str:
    """Return what reports call a score.

    >>> title("auc"), title("average_precision")
    ('AUC', 'average precision')
    """
    return _TITLES.get(name, name.replace("_", " "))


def bootstrap_facts(resamples: int, seed: int) -> dict[str, Any]:
    """Return what `scores.json` says of the intervals."""
    return {"resamples": resamples, "seed": seed, "confidence": CONFIDENCE, "unit": "group"}


def in_brackets(content: Mapping[str, Any], unit: str = "groups") -> str:
    """Return what a report says of the intervals."""
    b = content["bootstrap"]
    drawn = f"{b['resamples']} resamples of {unit} (seed {b['seed']})"
    return f"In brackets: {b['confidence']:.0%} intervals from {drawn}."


def plain(value: Any) -> Any:
    """Return `value` as JSON can hold it: NaN and infinity are None, arrays are unfolded."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value


def to_json(content: Mapping[str, Any]) -> bytes:
    """Return strict JSON (no NaN), indented, UTF-8."""
    return (json.dumps(plain(dict(content)), indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode(
        errors="backslashreplace"  # names that are no text, as JSON itself spells them
    )


def to_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return a table with the keys of the first row as header; numbers in full precision."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(rows[0])
    for row in rows:
        cells = (plain(value) for value in row.values())
        table.writerow(["" if cell is None else cell for cell in cells])
    return text.getvalue().encode(errors="surrogateescape")


def reservation(content: Mapping[str, Any]) -> str:
    """Return why scores may be too good: the network learned from the slices, or nobody knows; else ""."""
    found = content.get("training_data", {"known": True, "seen": 0, "text": ""})
    return "" if found["known"] and not found["seen"] else str(found["text"])


def slices_seen(content: Mapping[str, Any]) -> str:
    """Return what a report says of its slices: whether the network learned from them, and how many were flagged."""
    if "training_data" not in content:
        return ""
    text, flagged = content["training_data"]["text"], content["guard"]["flagged"]
    what = "do not look like axial chest slices in a lung window, or lie in a volume that is not reliable"
    note = f" {flagged} {what} (named in scores.json)." if flagged else ""
    told = f"{text[0].upper()}{text[1:]}."
    return f"**{told}**{note}" if reservation(content) else f"{told}{note}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    line = "| " + " | ".join(header) + " |"
    rule = "| --- |" + " ---: |" * (len(header) - 1)
    return "\n".join(
        [line, rule, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)]
    )


def number(value: float, digits: int = 4) -> str:
    """Return a score as text."""
    return f"{value:.{digits}f}" if math.isfinite(value) else UNDEFINED


def interval(found: Mapping[str, Any], digits: int = 4) -> str:
    """Return "value (low to high)" of an `Interval` as a dictionary; the value alone where there is no interval."""
    text = number(found["value"], digits)
    if math.isfinite(found["low"]):
        text += f" ({number(found['low'], digits)} to {number(found['high'], digits)})"
    return text


def document(title: str, *parts: str) -> bytes:
    """Return a Markdown file of paragraphs and tables."""
    return ("\n\n".join([f"# {title}", *(part for part in parts if part), RESEARCH]) + "\n").encode(errors="replace")


def sentence(names: Sequence[str], because: str) -> str:
    """Return "A, B and C are not defined, because …"."""
    *first, last = names
    told = f"{', '.join(first)} and {last}" if first else last
    return f"{told} {'are' if first else 'is'} {UNDEFINED}, because {because}"


def is_undefined(value: float | None) -> bool:
    """Return whether a score has no value: NaN, infinite, or None as JSON has it."""
    return value is None or not math.isfinite(value)


def undefined_of_labels(labels: Iterable[int], what: str, *, precision: bool = True) -> str:
    """Return which scores of a set cannot be computed, where all its labels (1 = COVID-19, 0 = not) are of one class.

    "" where they are of both. `what` has a label: "slices", "studies", "groups"; `precision`: average precision is one
    of the scores.
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


def undefined_of_slice(row: Mapping[str, Any]) -> str:
    """Return why scores of a slice, or of a volume, have no value, by its counts of pixels; "" where all have one."""
    if not any(isinstance(value, float) and math.isnan(value) for value in row.values()):
        return ""
    truth, found = row["tp"] + row["fn"], row["tp"] + row["fp"]
    where = "the mask and the map" if not truth and not found else "the mask" if not truth else "the map"
    return f"no lesion is in {where}" if not truth or not found else "no pixel without lesion is in the mask"


def undefined_of_maps(summary: Mapping[str, Any], slices: int, both_empty: int) -> list[str]:
    """Return which scores of lesion maps ("per_image", "pooled", "release") cannot be computed: a line for each reason.

    `slices` were scored; of `both_empty` of them mask and map are empty.
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
                because = every if both_empty == slices else reasons.get(name, every)
                named.setdefault(because, []).append(f"{kind}{title(name)}")
    lines = [sentence(names, because) for because, names in named.items()]
    release = summary["release"]
    if is_undefined(release["iou"]):
        count = release["images_undefined"]
        slices_are = f"{count} slices have" if count != 1 else "one slice has"
        lines.append(sentence(["the release's IoU"], f"{slices_are} no lesion in the mask and none in the map"))
    return lines


def undefined_of_volumes(found: Mapping[str, Any]) -> list[str]:
    """Return which scores of whole volumes cannot be computed, and why."""
    lines = []
    if is_undefined(found["dice"]["value"]):
        lines.append(sentence(["3-D Dice"], "no volume has a lesion in its mask or its map"))
    if is_undefined(found["empty_slices_marked"]["value"]):
        lines.append(sentence(["the share of marked slices without lesion"], "every slice has a lesion"))
    return lines
