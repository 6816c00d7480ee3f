"""Lesion maps against masks: scores of every slice, and of the set with intervals; and their report.

Maps come one at a time; what is kept of a slice is a row of numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.version import __version__
from jcs_ct.evaluate import tables, volumes
from jcs_ct.evaluate.volumes import Volume
from jcs_ct.metrics import (
    EMPTY_POLICIES,
    Counts,
    bootstrap,
    compare,
    e_measure_adaptive,
    e_measure_curve,
    hausdorff95,
    mean_absolute_error,
    pixel_counts,
    release_iou,
    release_mae,
    s_measure,
    weighted_f,
)
from jcs_ct.metrics.bootstrap import RESAMPLES
from jcs_ct.metrics.counts import check_policy

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from jcs_ct.metrics.bootstrap import Statistic
    from jcs_ct.metrics.counts import Empty

OVERLAP = ("dice", "iou", "miou", "sensitivity", "specificity", "precision")
COLUMNS = (*OVERLAP, "mae", "s_measure", "e_measure_mean", "e_measure_adaptive", "weighted_f", "hd95")
"""Scores of a slice. The release's two are kept beside them, since its mean is NaN as soon as one of them is."""


@dataclass(frozen=True)
class Options:
    """How to score.

    Attributes:
        threshold: A pixel is lesion where p reaches this, in (0, 1].
        empty: Policy for empty masks, a key of `EMPTY_POLICIES`.
        spacing: Size of a pixel in mm (row, column), for HD95 in mm; None: HD95 in pixels.
        resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap.
    """

    threshold: float = 0.5
    empty: Empty = "exclude"
    spacing: tuple[float, float] | None = None
    resamples: int = RESAMPLES
    seed: int = 0


class Collector:
    """Takes the maps of one model, which reports call `label`, slice by slice, and tells the scores.

    Raises UsageError for an unknown policy for empty masks.
    """

    def __init__(self, label: str, options: Options) -> None:
        check_policy(options.empty)
        self.label, self.options = label, options
        self.names: list[str] = []
        self.groups: list[str] = []
        self.volumes: dict[str, Volume] = {}
        self._counts: list[Counts] = []
        self._rows: list[dict[str, float]] = []
        self._curve = np.zeros(256)
        self._highest = 0.0

    def add(
        self,
        name: str,
        group: str,
        probability: NDArray[np.float64],
        mask: NDArray[np.bool_],
        volume: tuple[str, float] | None = None,
    ) -> None:
        """Score one slice: a probability (row, column) in [0, 1], and a mask of the same shape.

        `group` is its patient, or the slice itself; `volume` the name of the volume that it is of, and ml of a voxel.

        Raises:
            ShapeError: The shapes differ, or the probability is not within [0, 1].
            UsageError: The threshold or the spacing is out of range.
        """
        o = self.options
        counts = pixel_counts(probability, mask, o.threshold)
        curve = e_measure_curve(probability, mask)
        self._rows.append(
            {
                **counts.scores(o.empty),
                "mae": mean_absolute_error(probability, mask),
                "s_measure": s_measure(probability, mask),
                "e_measure_mean": float(curve.mean()),
                "e_measure_adaptive": e_measure_adaptive(probability, mask),
                "weighted_f": weighted_f(probability, mask, o.empty),
                "hd95": hausdorff95(probability >= o.threshold, mask, o.spacing or (1.0, 1.0), o.empty),
                "release_iou": release_iou(probability[None], mask[None]),
                "release_mae": release_mae(probability[None], mask[None]),
            }
        )
        self._counts.append(counts)
        self._curve += curve
        self._highest = max(self._highest, float(probability.max(initial=0.0)))
        self.names.append(name)
        self.groups.append(group)
        if volume is not None:
            self.volumes.setdefault(volume[0], Volume(volume[0], group, volume[1])).add(counts)

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one score of all slices."""
        return np.array([row[name] for row in self._rows])

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of slices."""
        rows: list[dict[str, Any]] = [
            {"slice": name, "group": group, **vars(counts), **row}
            for name, group, counts, row in zip(self.names, self.groups, self._counts, self._rows, strict=True)
        ]
        return [row | {"undefined": tables.undefined_of_slice(row)} for row in rows]

    def empties(self) -> dict[str, int]:
        """Return how often the mask, the prediction or both hold no lesion."""
        return {
            "masks_empty": sum(c.tp + c.fn == 0 for c in self._counts),
            "predictions_empty": sum(c.tp + c.fp == 0 for c in self._counts),
            "both_empty": sum(c.both_empty for c in self._counts),
        }

    def doubts(self) -> list[str]:
        """Return what says that maps or masks are not stored as they are read, a line each.

        Lungs take less than half of a slice, so that lesions of more than half of it are black and white exchanged.
        """
        lines = []
        total = len(self)
        if 0 < self._highest < self.options.threshold and not any(c.tp + c.fp for c in self._counts):
            lines.append(
                f"{self.label}: no map reaches the threshold {self.options.threshold:g}; the highest value is "
                f"{self._highest:.3g} ({255 * self._highest:.0f} of 255): are they per cent, labels or masks of "
                "another number? Lesions are expected as 255, or as floor(255·p)"
            )
        for what, marked in (
            (f"{self.label}: %s maps", [c.tp + c.fp for c in self._counts]),
            ("%s masks", [c.tp + c.fn for c in self._counts]),
        ):
            large = sum(m > c.total / 2 for m, c in zip(marked, self._counts, strict=True))
            if large > total / 2:
                lines.append(
                    f"{what % f'{large} of {total}'} mark more than half of their slice: are 0 and 255 exchanged?"
                )
        return lines

    def _table(self, names: Sequence[str]) -> NDArray[np.float64]:
        return np.array([[row[name] for name in names] for row in self._rows])

    def statistic(self) -> Statistic:
        """Return the scores of the set (pooled ones as "pooled_…") as a function of the slices' weights."""
        rows = self._table(COLUMNS)
        known, values = (~np.isnan(rows)).astype(np.float64), np.nan_to_num(rows)
        counted = np.array([(c.tp, c.fp, c.fn, c.tn) for c in self._counts])

        def scores(weights: NDArray[np.float64] | None) -> Mapping[str, float]:
            w = np.ones(len(values)) if weights is None else weights
            total = w @ known
            means = np.where(total > 0, w @ values / np.where(total > 0, total, 1), math.nan)
            pooled = Counts(*(float(n) for n in w @ counted)).scores(self.options.empty)
            return {**dict(zip(COLUMNS, means.tolist(), strict=True)), **{f"pooled_{k}": v for k, v in pooled.items()}}

        return scores

    def summary(self) -> dict[str, Any]:
        """Return the scores of the set, with intervals over groups. Raises UsageError where no slice came."""
        o = self.options
        found = bootstrap(self.statistic(), self.groups, resamples=o.resamples, seed=o.seed)
        undefined = np.isnan(self._table(COLUMNS)).sum(axis=0)
        curve = self._curve / len(self)
        release = self._table(("release_iou", "release_mae"))
        return {
            "predictions": self.label,
            "per_image": {
                name: {**vars(found[name]), "images_undefined": int(undefined[i])} for i, name in enumerate(COLUMNS)
            },
            "pooled": {name: vars(found[f"pooled_{name}"]) for name in OVERLAP},
            "e_measure": {
                "max": float(curve.max()),
                "max_at": (255 - int(curve.argmax())) / 255,
                "definition": "maximum over the 256 thresholds of the mean curve of all images",
            },
            "release": {
                "iou": float(release[:, 0].mean()),
                "mae": float(release[:, 1].mean()),
                "images_undefined": int(np.isnan(release[:, 0]).sum()),
                "definition": "mean IoU of (p > 2·mean(p)): 0 for a perfect mask over half the slice, "
                "null as soon as one empty mask meets an empty prediction; to compare with published figures only",
            },
        }


def report(first: Collector, second: Collector | None = None) -> dict[str, Any]:
    """Return everything that `scores.json` holds of a model, compared with another one on the same slices, if any.

    Differences are first minus second. Raises UsageError where no slice came.
    """
    o = first.options
    content: dict[str, Any] = {
        "task": "segmentation",
        "jcs_ct": __version__,
        "slices": len(first),
        "groups": len(set(first.groups)),
        "threshold": o.threshold,
        "hd95_unit": "px" if o.spacing is None else "mm",
        "empty_masks": {"policy": o.empty, "meaning": EMPTY_POLICIES[o.empty], **first.empties()},
        "bootstrap": tables.bootstrap_facts(o.resamples, o.seed),
        **first.summary(),
    }
    why = tables.undefined_of_maps(content, len(first), content["empty_masks"]["both_empty"])
    if first.volumes:
        parts = list(first.volumes.values())
        content["volumes"] = volumes.summary(parts, o.empty, resamples=o.resamples, seed=o.seed)
        why += tables.undefined_of_volumes(content["volumes"])
    if second is not None:
        found = compare(first.statistic(), second.statistic(), first.groups, resamples=o.resamples, seed=o.seed)
        empties = second.empties()
        content["against"] = second.summary() | {"empty_masks": empties}
        of_second = tables.undefined_of_maps(content["against"], len(second), empties["both_empty"])
        why += [f"{second.label}: {line}" for line in of_second]
        content["difference"] = {
            "definition": tables.DIFFERENCE,
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
            title = tables.title(name) + (f" ({content['hd95_unit']})" if name == "hd95" else "")
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
    empty = content["empty_masks"]
    return tables.document(
        "Segmentation scores",
        f"{content['slices']} slices in {content['groups']} groups, lesion where p ≥ {content['threshold']:g}. "
        f"{tables.in_brackets(content)}",
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
