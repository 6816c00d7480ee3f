"""Do the values drift along the body? Fat, muscle and the air around the body lie at one level from neck to abdomen.

Slices are taken together in up to 24 groups; a level is told of each, and a line laid through them that a few odd ones
do not move (Theil and Sen). From the first slice to the last, HU:

| level | 20 real volumes | the same with a drift of 60 HU | limit |
| --- | --- | --- | --- |
| fat and muscle together | up to 13 | 42 and more | 30 |
| fat, where its peak stands out | up to 25 | 37 and more in 15 of them, as little as 0 in the others | 30 |
| air around the body, where it is not cut off | up to 12 | 23 and more, in one 17 | 20 |

Contrast agent in liver and heart moves the first alone. So a drift is one that fat or air shows as well, and nothing is
said where neither can be told: little fat, and air below −1024 HU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.levels import FEW_PIXELS, HIGHEST_AIR, MIDDLES, near_tissue, smoothed
from jcs_ct.core.warning import CodedWarning

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Counts = NDArray[np.int64]
    Levels = NDArray[np.float64]

TISSUE_DRIFT, FAT_DRIFT, AIR_DRIFT = 30.0, 30.0, 20.0  # HU
GROUPS, FEWEST = 24, 12
SHIFTS = np.arange(-80.0, 81.0, 4.0)  # HU; beyond them muscle lies where fat does
LEAST_DENSE = -300.0  # HU of what counts as tissue
FAT_FROM, FAT_TO = -185.0, -25.0  # HU, where its peak is sought
VALLEY = 8  # bins to each side of a peak
STANDS_OUT = 0.15  # of its height, above the higher valley beside it
KEPT = 0.5  # of what is around the body: so much must not be cut off
APART = 1 / 3  # of the body, between two groups that are compared
_WINDOWS = np.array([near_tissue(shift) for shift in SHIFTS], np.float64)  # shifts × bins


class DriftCheck:
    """Keeps the histograms of slices, in order from head to feet."""

    def __init__(self) -> None:
        self._tissue: list[Counts] = []
        self._air: list[Counts] = []
        self._around: list[int] = []

    def add(self, tissue: Counts, air: Counts, around: int) -> None:
        """Take the next slice.

        Args:
            tissue: Histogram (`levels.counted`) of the slice, at some 2.5 mm a pixel: noise hides the peaks.
            air: Of what is around the body and not cut off at −1024 HU.
            around: Pixels around the body, cut off or not.
        """
        self._tissue.append(tissue)
        self._air.append(air)
        self._around.append(around)

    def warnings(self) -> list[CodedWarning]:
        """Return whether the values drift."""
        dense = MIDDLES > LEAST_DENSE
        seen = [i for i, one in enumerate(self._tissue) if one[dense].sum() > FEW_PIXELS]
        if len(seen) < FEWEST:
            return []
        groups = np.array_split(np.array(seen), min(GROUPS, len(seen)))
        tissue = np.array([sum(self._tissue[i] for i in group) for group in groups])
        drift = _slope(_tissue_levels(np.where(dense, tissue, 0)))
        if abs(drift) < TISSUE_DRIFT:
            return []
        air = np.array([sum(self._air[i] for i in group) for group in groups])
        around = np.array([sum(self._around[i] for i in group) for group in groups])
        same = np.sign(drift)
        fat_too = bool(same * _slope(_fat_levels(tissue)) >= FAT_DRIFT)
        air_too = bool(same * _slope(_air_levels(air, around)) >= AIR_DRIFT)
        if not (fat_too or air_too):
            return []
        way = "higher" if drift > 0 else "lower"
        text = f"the values drift along the body: soft tissue lies about {abs(drift):.0f} HU {way} in the last slice"
        return [CodedWarning("drift", f"{text} than in the first")]


def _slope(levels: Levels) -> float:
    """Return the change from the first group to the last, HU; NaN where fewer than half of the levels are known."""
    known = np.flatnonzero(~np.isnan(levels))
    if len(known) < max(FEWEST / 2, len(levels) / 2):
        return float("nan")
    places, values = known / (len(levels) - 1), levels[known]
    first, second = np.triu_indices(len(known), 1)
    apart = places[second] - places[first]
    far = apart >= APART
    return float(np.median(((values[second] - values[first])[far]) / apart[far])) if far.any() else float("nan")


def _tissue_levels(counts: Counts) -> Levels:
    """Return by how much muscle and fat lie too high: the middle of the shifts at which nearly most of it fits."""
    fit = counts @ _WINDOWS.T
    return np.array([SHIFTS[one >= 0.97 * one.max()].mean() for one in fit])


def _fat_levels(counts: Counts) -> Levels:
    """Return where the peak of fat is; NaN where none stands out, for all groups where it does not in most of them."""
    where = np.flatnonzero((MIDDLES > FAT_FROM) & (MIDDLES < FAT_TO))
    levels, heights = np.full(len(counts), np.nan), np.zeros(len(counts))
    for i, one in enumerate(counts):
        curve = np.convolve(one, [1 / 3, 1 / 3, 1 / 3], "same")
        peaks = [at for at in where if curve[at] > 0 and curve[at] >= max(curve[at - 1], curve[at + 1])]
        stands = [curve[at] - max(curve[at - VALLEY : at].min(), curve[at + 1 : at + VALLEY + 1].min()) for at in peaks]
        if peaks:
            best = int(np.argmax(stands))
            levels[i], heights[i] = MIDDLES[peaks[best]], stands[best] / curve[peaks[best]]
    levels[heights <= 2 / 3 * STANDS_OUT] = np.nan
    return levels if np.median(heights) >= STANDS_OUT else np.full(len(counts), np.nan)


def _air_levels(counts: Counts, around: NDArray[np.int64]) -> Levels:
    """Return where the peak of the air around the body is; NaN where most of it is cut off."""
    thin = MIDDLES < HIGHEST_AIR
    levels = np.full(len(counts), np.nan)
    for i, (one, pixels) in enumerate(zip(counts, around, strict=True)):
        if one[thin].sum() > max(KEPT * pixels, FEW_PIXELS):
            levels[i] = MIDDLES[thin][smoothed(one)[thin].argmax()]
    return levels
