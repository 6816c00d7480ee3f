"""The report of a segmentation: scores with intervals, the policy they follow, and two models compared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.core.version import __version__
from jcs_ct.evaluate import tables, volumes
from jcs_ct.evaluate.segment import COLUMNS, OVERLAP
from jcs_ct.evaluate.undefined import of_maps, of_volumes
from jcs_ct.metrics import EMPTY_POLICIES, compare
from jcs_ct.metrics.bootstrap import CONFIDENCE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jcs_ct.evaluate.segment import Collector

_TITLES = {
    "dice": "Dice",
    "iou": "IoU",
    "miou": "mIoU with background",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "mae": "MAE",
    "s_measure": "S-measure",
    "e_measure_mean": "E-measure, mean of 256 thresholds",
    "e_measure_adaptive": "E-measure, adaptive threshold 2·mean(p)",
    "weighted_f": "weighted F-measure",
    "hd95": "HD95",
}


def report(first: Collector, second: Collector | None = None) -> dict[str, Any]:
    """Return everything that `scores.json` holds.

    Args:
        first: The model.
        second: Another one on the same slices, to be compared with it: differences are first minus second.

    Raises:
        UsageError: No slice came.
    """
    o = first.options
    content: dict[str, Any] = {
        "task": "segmentation",
        "jcs_ct": __version__,
        "slices": len(first),
        "groups": len(set(first.groups)),
        "threshold": o.threshold,
        "hd95_unit": o.unit,
        "empty_masks": {"policy": o.empty, "meaning": EMPTY_POLICIES[o.empty], **first.empties()},
        "bootstrap": {"resamples": o.resamples, "seed": o.seed, "confidence": CONFIDENCE, "unit": "group"},
        **first.summary(),
    }
    why = of_maps(content, _TITLES, len(first), content["empty_masks"])
    if first.volumes:
        content["volumes"] = volumes.summary(first.volumes, o.empty, resamples=o.resamples, seed=o.seed)
        why += of_volumes(content["volumes"])
    if second is not None:
        found = compare(first.statistic(), second.statistic(), first.groups, resamples=o.resamples, seed=o.seed)
        content["against"] = second.summary() | {"empty_masks": second.empties()}
        of_second = of_maps(content["against"], _TITLES, len(second), content["against"]["empty_masks"])
        why += [f"{second.label}: {line}" for line in of_second]
        content["difference"] = {
            "definition": "first minus second on the same resamples; above: share of resamples above 0",
            "per_image": {name: vars(found[name]) for name in COLUMNS},
            "pooled": {name: vars(found[f"pooled_{name}"]) for name in OVERLAP},
        }
    if why:
        content["undefined"] = "; ".join(why)
    return content


def to_markdown(content: Mapping[str, Any]) -> bytes:
    """Return the report as Markdown."""
    sets = [content, content["against"]] if "against" in content else [content]
    header = ["score", *(str(s["predictions"]) for s in sets)] + ["difference", "above 0"] * (len(sets) > 1)
    body = []
    for kind, names in (("per_image", COLUMNS), ("pooled", OVERLAP)):
        for name in names:
            title = f"{_TITLES[name]} ({content['hd95_unit']})" if name == "hd95" else _TITLES[name]
            row = [f"{title}, {'mean over slices' if kind == 'per_image' else 'pooled'}"]
            row += [_cell(s[kind][name]) for s in sets]
            if len(sets) > 1:
                difference = content["difference"][kind][name]
                row += [_cell(difference), tables.number(difference["above"], 3)]
            body.append(row)
    for title, key, field in (
        ("E-measure, maximum of the mean curve", "e_measure", "max"),
        ("release's evaluator: IoU at p > 2·mean(p)", "release", "iou"),
        ("release's evaluator: MAE", "release", "mae"),
    ):
        body.append([title, *(tables.number(s[key][field]) for s in sets)] + ["", ""] * (len(sets) > 1))
    empty, b = content["empty_masks"], content["bootstrap"]
    return tables.document(
        "Segmentation scores",
        f"{content['slices']} slices in {content['groups']} groups, lesion where p ≥ {content['threshold']:g}. "
        f"In brackets: {b['confidence']:.0%} intervals from {b['resamples']} resamples of groups (seed {b['seed']}).",
        tables.slices_seen(content),
        tables.markdown(header, body),
        _volumes(content["volumes"]) if "volumes" in content else "",
        f"{content['undefined']}." if "undefined" in content else "",
        f'Policy for empty masks: "{empty["policy"]}". {empty["meaning"]} '
        f"Masks empty: {empty['masks_empty']}, predictions empty: {empty['predictions_empty']}, "
        f"both: {empty['both_empty']}.",
    )


def _volumes(found: Mapping[str, Any]) -> str:
    rows = [
        ["3-D Dice, mean over volumes", tables.interval(found["dice"])],
        ["absolute error of the volume (ml)", tables.interval(found["absolute_error_ml"], 1)],
        ["slices without lesion that are marked (> 0.1 %)", tables.interval(found["empty_slices_marked"], 3)],
    ]
    left_out = f", {found['dice_undefined']} of them without lesion and mark" if found["dice_undefined"] else ""
    title = f"## {found['volumes']} volumes of {found['groups']} groups{left_out}"
    return f"{title}\n\n{tables.markdown(['score', 'value'], rows)}"


def _cell(found: Mapping[str, Any]) -> str:
    text = tables.interval(found)
    left_out = found.get("images_undefined", 0)
    return f"{text}, {left_out} undefined" if left_out else text
