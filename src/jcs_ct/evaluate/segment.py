"""Lesion maps against masks: scores of every slice, and of the set with intervals.

Maps come one at a time; what is kept of a slice is a row of numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.evaluate.undefined import of_slice
from jcs_ct.evaluate.volumes import Volume
from jcs_ct.metrics import (
    Counts,
    bootstrap,
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
    from collections.abc import Mapping

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

    @property
    def unit(self) -> str:
        """The unit of HD95."""
        return "px" if self.spacing is None else "mm"


class Collector:
    """Takes the maps of one model, slice by slice, and tells the scores.

    Args:
        label: What reports call the model.
        options: How to score.

    Raises:
        UsageError: Unknown policy for empty masks.
    """

    def __init__(self, label: str, options: Options) -> None:
        check_policy(options.empty)
        self.label, self.options = label, options
        self.names: list[str] = []
        self.groups: list[str] = []
        self._counts: list[Counts] = []
        self._rows: list[list[float]] = []
        self._release: list[tuple[float, float]] = []
        self._curve = np.zeros(256)
        self._volumes: dict[str, Volume] = {}
        self._highest = 0.0

    def add(
        self,
        name: str,
        group: str,
        probability: NDArray[np.float64],
        mask: NDArray[np.bool_],
        volume: tuple[str, float] | None = None,
    ) -> None:
        """Score one slice.

        Args:
            name: Of the slice.
            group: Its patient, or the slice itself where patients are not known.
            probability: (row, column), in [0, 1].
            mask: The same shape.
            volume: Name of the volume that it is a slice of, and ml of one of its voxels.

        Raises:
            ShapeError: The shapes differ, or the probability is not within [0, 1].
            UsageError: The threshold or the spacing is out of range.
        """
        o = self.options
        counts = pixel_counts(probability, mask, o.threshold)
        curve = e_measure_curve(probability, mask)
        row = [
            *(counts.scores(o.empty)[key] for key in OVERLAP),
            mean_absolute_error(probability, mask),
            s_measure(probability, mask),
            float(curve.mean()),
            e_measure_adaptive(probability, mask),
            weighted_f(probability, mask, o.empty),
            hausdorff95(probability >= o.threshold, mask, o.spacing or (1.0, 1.0), o.empty),
        ]
        self._release.append((release_iou(probability[None], mask[None]), release_mae(probability[None], mask[None])))
        self._rows.append(row)
        self._counts.append(counts)
        self._curve += curve
        self._highest = max(self._highest, float(probability.max(initial=0.0)))
        self.names.append(name)
        self.groups.append(group)
        if volume is not None:
            self._volumes.setdefault(volume[0], Volume(volume[0], group, volume[1])).add(counts)

    @property
    def volumes(self) -> list[Volume]:
        """What was counted of volumes, in the order in which they came."""
        return list(self._volumes.values())

    def __len__(self) -> int:
        return len(self.names)

    def column(self, name: str) -> NDArray[np.float64]:
        """Return one score (a member of `COLUMNS`) of all slices."""
        return np.array([row[COLUMNS.index(name)] for row in self._rows])

    def rows(self) -> list[dict[str, Any]]:
        """Return the table of slices."""
        rows: list[dict[str, Any]] = [
            {
                "slice": name,
                "group": group,
                **{key: getattr(counts, key) for key in ("tp", "fp", "fn", "tn")},
                **dict(zip(COLUMNS, row, strict=True)),
                "release_iou": iou,
                "release_mae": mae,
            }
            for name, group, counts, row, (iou, mae) in zip(
                self.names, self.groups, self._counts, self._rows, self._release, strict=True
            )
        ]
        return [row | {"undefined": of_slice(row)} for row in rows]

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

    def statistic(self) -> Statistic:
        """Return the scores of the set (pooled ones as "pooled_…") as a function of the slices' weights."""
        return _SetScores(
            np.array(self._rows), np.array([(c.tp, c.fp, c.fn, c.tn) for c in self._counts]), self.options.empty
        )

    def summary(self) -> dict[str, Any]:
        """Return the scores of the set, with intervals over groups.

        Raises:
            UsageError: No slice came.
        """
        o = self.options
        found = bootstrap(self.statistic(), self.groups, resamples=o.resamples, seed=o.seed)
        undefined = np.isnan(np.array(self._rows)).sum(axis=0)
        curve = self._curve / len(self)
        release = np.array(self._release)
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


class _SetScores:
    """Means over slices and pooled scores, as a function of the slices' weights."""

    def __init__(self, rows: NDArray[np.float64], counts: NDArray[np.float64], empty: Empty) -> None:
        self._known = (~np.isnan(rows)).astype(np.float64)
        self._values, self._counts, self._empty = np.nan_to_num(rows), counts, empty

    def __call__(self, weights: NDArray[np.float64] | None) -> Mapping[str, float]:
        w = np.ones(len(self._values)) if weights is None else weights
        total = w @ self._known
        means = np.where(total > 0, w @ self._values / np.where(total > 0, total, 1), math.nan)
        pooled = Counts(*(float(n) for n in w @ self._counts)).scores(self._empty)
        return {**dict(zip(COLUMNS, means.tolist(), strict=True)), **{f"pooled_{k}": v for k, v in pooled.items()}}
