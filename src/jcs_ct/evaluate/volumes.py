"""Scores of whole volumes, out of the counts of their slices: 3-D Dice, volumes in ml, slices marked for nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.metrics import Counts, bootstrap
from jcs_ct.metrics.bootstrap import average

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.metrics.counts import Empty

NAMES = ("dice", "absolute_error_ml", "empty_slices_marked")


@dataclass
class Volume:
    """What was counted of a volume.

    Attributes:
        name: As tables call it.
        group: Its patient.
        voxel_ml: Of one voxel.
        counts: Of all its slices that were scored.
        slices: How many.
        empty: Slices whose mask holds no lesion.
        marked: Those of them with more than 0.1 % of their pixels marked.
    """

    name: str
    group: str
    voxel_ml: float
    counts: Counts = field(default_factory=Counts)
    slices: int = 0
    empty: int = 0
    marked: int = 0

    def add(self, counts: Counts) -> None:
        """Count a slice."""
        self.counts += counts
        self.slices += 1
        if counts.tp + counts.fn == 0:
            self.empty += 1
            self.marked += counts.marks_the_empty

    def row(self, empty: Empty) -> dict[str, Any]:
        """Return its line of the table; `empty` is the policy for volumes without lesion in mask and prediction."""
        truth, found = ((self.counts.tp + other) * self.voxel_ml for other in (self.counts.fn, self.counts.fp))
        return {
            "volume": self.name,
            "group": self.group,
            "slices": self.slices,
            "dice": self.counts.scores(empty)["dice"],
            "mask_ml": truth,
            "predicted_ml": found,
            "error_ml": found - truth,
            "empty_slices": self.empty,
            "empty_slices_marked": self.marked,
            "undefined": "no lesion is in the mask and the map" if self.counts.both_empty and empty != "one" else "",
        }


def summary(volumes: Sequence[Volume], empty: Empty, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return the mean scores of volumes, with intervals over groups.

    "dice" is the mean 3-D Dice, "absolute_error_ml" the mean absolute error of the volume, "empty_slices_marked" the
    share of all slices without lesion of which more than 0.1 % is marked; NaN where there is none.
    """
    rows = [volume.row(empty) for volume in volumes]
    dice = np.array([row["dice"] for row in rows], float)
    error = np.abs(np.array([row["error_ml"] for row in rows], float))
    empties, marked = (np.array([row[name] for row in rows], float) for name in ("empty_slices", "empty_slices_marked"))

    def scores(weights: NDArray[np.float64] | None) -> dict[str, float]:
        w = np.ones(len(rows)) if weights is None else weights
        total = float(w @ empties)
        return {
            "dice": average(dice, w),
            "absolute_error_ml": average(error, w),
            "empty_slices_marked": float(w @ marked) / total if total else math.nan,
        }

    found = bootstrap(scores, [volume.group for volume in volumes], resamples=resamples, seed=seed)
    return {
        "volumes": len(volumes),
        "groups": len({volume.group for volume in volumes}),
        "dice_undefined": int(np.isnan(dice).sum()),
        "empty_slices": int(empties.sum()),
        **{name: vars(found[name]) for name in NAMES},
    }
