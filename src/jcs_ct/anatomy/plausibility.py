"""Is a volume what it seems: Hounsfield units, one patient, every slice in its place, an adult's chest?

One check for every format. It sees each slice once, reduced, while the lungs are looked for, and keeps a few numbers.
The limits stand where real volumes (17 studies: whole and partial, 1 to 8 mm, four makers) leave room on both sides:

| what | real volumes | limit |
| --- | --- | --- |
| change between neighbours, against the usual change there | up to 1.5; 2.2 to 2.5 where slices are missing | 1.7 |
| shift of soft tissue between neighbours | up to 20 HU | 25 HU |
| the same where the air around the body shifts with it | up to 8 HU | 10 HU |
| air around the body, and soft tissue with it | up to 12 HU off | 24 HU off |
| air around the body while soft tissue is right | up to 40 HU off | 60 HU off |
| soft tissue (−200 to 200 HU) of what is denser than lung | 0.83 to 0.95 | 0.5 |
| soft tissue where air is right | less than 50 HU off | 70 HU off |
| cross-section of the body at its widest | 470 to 1080 cm² | 300 to 1800 cm² |

What the lungs of an adult are like stands in `jcs_ct.anatomy.adult_lungs`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jcs_ct.anatomy.adult_lungs import lung_warnings
from jcs_ct.anatomy.drift import DriftCheck
from jcs_ct.anatomy.flat_areas import described, flat_areas, painted
from jcs_ct.anatomy.levels import (
    AIR,
    BINS,
    FEW_PIXELS,
    HIGHEST_AIR,
    MUSCLE,
    counted,
    fitting,
    peak,
    soft_tissue_shift,
    tissue_shift,
)
from jcs_ct.anatomy.wrapped import holes_in_bone, said_of_holes, summed
from jcs_ct.core.warning import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.anatomy.adult_lungs import LungFacts
    from jcs_ct.anatomy.flat_areas import FlatArea
    from jcs_ct.anatomy.wrapped import Holes

SIDE = 128  # a slice is reduced to about that many rows and columns
SOLID = -300  # HU; denser is body
NEAR = 4  # slices to each side that tell what the usual change is
JUMP = 1.7  # times the usual change
LEAST_CHANGE = 8.0  # HU, mean over a slice: what is less is noise
LEAST_LIKENESS = 0.6  # correlation of neighbours; real ones at 8 mm reach 0.88
LEVEL_JUMP = 25.0  # HU
SHARED_JUMP = 10.0  # HU, of soft tissue and of the air around the body alike: anatomy shifts the one without the other
BLANK_SHARE = 0.05  # of the usual cross-section of the body
BESIDE_BLANK_MM2 = 300.0  # of lung; less is the very apex or the recess behind the liver
OFFSET, REFUSED_OFFSET = 24.0, 100.0  # HU
SURE_OFFSET = 50.0  # HU from which air and tissue need not agree closely
AGREEING, AGREEING_ROUGHLY = 20.0, 50.0  # HU between the offsets that air and tissue show
CUT_OFF = 60.0  # HU that air lies off while soft tissue is where it should be
LEAST_OUTSIDE = 0.05  # of all pixels; in tighter pictures what is around the body is its skin
STRETCHED = 70.0  # HU that soft tissue lies off while air is where it should be
IN_PLACE = 0.9  # of the tissue that fits the shift best: so much of it fits where it is
LEAST_SOFT = 0.5  # of what is denser than `SOLID`
CHILD_CM2, LARGEST_CM2 = 300.0, 1800.0
WHOLE_CHEST_MM = 150.0  # along the body; lungs of adults are 200 to 300 high
CLIPPED = 0.5  # of what is outside of the body: most of it lies at −1024 HU, the lowest value that is kept
NO_AIR = 1  # HU: stands for none around the body


class SliceStatistics(NamedTuple):
    """What is kept of a slice.

    Attributes:
        body_cm2: Cross-section of the body.
        change: Mean absolute difference to the slice before, HU; 0 for the first.
        level: Median shift of what is soft tissue in both, HU; 0 where there is too little of it.
        air: Mean shift of what is air around the body in both, HU; 0 where there is too little of it.
        likeness: Correlation with the slice before; 1 for the first.
    """

    body_cm2: float
    change: float
    level: float
    likeness: float
    air: float = 0.0


class VolumeCheck:
    """Looks at the slices of a volume, in order from head to feet.

    Args:
        spacing: mm between slices, rows, columns.
    """

    def __init__(self, spacing: tuple[float, float, float]) -> None:
        self.spacing = spacing
        self.slices: list[SliceStatistics] = []
        self._air = np.zeros(BINS, np.int64)
        self._tissue = np.zeros(BINS, np.int64)
        self._outside = self._pixels = 0
        self._soft = self._solid = 0
        self._flat: list[FlatArea] = []
        self._holes: list[Holes] = []
        self._drift = DriftCheck()
        self._lowest = self._highest = 0
        self._before: NDArray[np.float32] | None = None
        self._around: NDArray[np.int16] = np.zeros((0, 0), np.int16)

    def add(self, hu: NDArray[np.int16], reduced: NDArray[np.int16] | None = None) -> None:
        """Look at the next slice.

        Args:
            hu: int16 HU, rows × columns.
            reduced: What `jcs_ct.anatomy.lungs.Reducer` made of it, where a lot of noise is gone; else `hu` is taken.
        """
        step = max(1, min(hu.shape) // SIDE)
        small = hu[::step, ::step]
        solid = small > SOLID
        body = solid | enclosed(solid)
        outside = small[~body]
        self._outside += outside.size
        self._pixels += small.size
        air_around = counted(outside[outside > -1024])
        self._air += air_around
        self._tissue += counted(small[solid & (small < 900)])
        self._drift.add(counted(hu if reduced is None else reduced), air_around, outside.size)
        self._holes.append(holes_in_bone(hu))
        self._solid += int(np.count_nonzero(solid))
        self._soft += int(np.count_nonzero((small > -200) & (small < 200)))
        pixel_mm2 = self.spacing[1] * self.spacing[2] * step * step
        area = float(body.sum()) * pixel_mm2 / 100
        self._flat += flat_areas(small, body, pixel_mm2, len(self.slices))
        self._lowest, self._highest = min(self._lowest, int(small.min())), max(self._highest, int(small.max()))
        values = small.clip(-1000, 200).astype(np.float32)
        around = np.where(body | (small <= -1024) | (small > HIGHEST_AIR), NO_AIR, small)
        change, level, likeness, air = 0.0, 0.0, 1.0, 0.0
        before = self._before
        if before is not None:
            change = float(np.abs(values - before).mean())
            level = soft_tissue_shift(before, values)
            both = (around != NO_AIR) & (self._around != NO_AIR)
            if np.count_nonzero(both) > FEW_PIXELS:
                air = float((around[both] - self._around[both].astype(np.float32)).mean())
            spread = float(values.std()) * float(before.std())
            likeness = float(((values - values.mean()) * (before - before.mean())).mean()) / spread if spread else 0.0
        self._before, self._around = values, around
        self.slices.append(SliceStatistics(area, change, level, likeness, air))

    def warnings(self, lungs: LungFacts | None) -> list[CodedWarning]:
        """Return what speaks against the volume; `lungs`: what was found of them, None where there are none."""
        found = [*self._slices(), *self._blank_ends(lungs)]
        found += self.units() or [*self._drift.warnings(), *self._wrapped()]  # both take Hounsfield units for granted
        if areas := painted(self._flat, self._lowest, self._highest):
            places = _places(list(dict.fromkeys(one.place for one in areas)))
            found.append(CodedWarning("flat-areas", described(areas, places)))
        extent = self.spacing[0] * len(self.slices)
        largest = max((one.body_cm2 for one in self.slices), default=0.0)
        if largest < CHILD_CM2:
            found.append(
                CodedWarning("child", f"a small body: {largest:.0f} cm² at its widest; only adults were tested")
            )
        elif largest > LARGEST_CM2:
            text = (
                f"a body of {largest:.0f} cm² at its widest; adults have up to {LARGEST_CM2:.0f}: is the spacing right?"
            )
            found.append(CodedWarning("body-size", text))
        if extent >= WHOLE_CHEST_MM and lungs is not None:
            body_ml = sum(one.body_cm2 for one in self.slices) * self.spacing[0] / 10
            found += lung_warnings(lungs, body_ml)
        return found

    def offset(self) -> float:
        """Return by how many HU all values lie too high; 0 where nothing shows it."""
        if self._tissue.sum() < FEW_PIXELS:
            return 0.0
        tissue = tissue_shift(self._tissue)
        if self._air.sum() < FEW_PIXELS or self._air.sum() < (1 - CLIPPED) * self._outside:
            if tissue <= -OFFSET:  # air is filled with −1024, or was shifted below it
                return tissue
            if self._air.sum() < FEW_PIXELS:
                return 0.0
        air = peak(self._air) - AIR
        near = AGREEING_ROUGHLY if abs(air) >= SURE_OFFSET else AGREEING
        return air if abs(air) >= OFFSET and abs(tissue - air) < near else 0.0

    def units(self) -> list[CodedWarning]:
        """Return what says that the values are no Hounsfield units."""
        shift = self.offset()
        if not shift:
            return self._scale() or self._cut_off()
        text = (
            f"the values lie about {abs(shift):.0f} HU too {'high' if shift > 0 else 'low'}: air around the body is at"
        )
        text += f" {AIR + shift:.0f} HU and muscle at {MUSCLE + shift:.0f}, −1000 and {MUSCLE:.0f} are expected"
        return [CodedWarning("offset", text)]

    def _scale(self) -> list[CodedWarning]:
        """Return what says that the values are stretched: air is where it should be, and soft tissue is not."""
        if self._solid < FEW_PIXELS:
            return []
        off = tissue_shift(self._tissue) if self._tissue.sum() >= FEW_PIXELS else 0.0
        if fitting(self._tissue, 0) >= IN_PLACE * fitting(self._tissue, off):
            off = 0.0  # hardly any fat: muscle and what contrast agent fills lie as far apart as fat and muscle do
        if abs(off) < STRETCHED and self._soft >= LEAST_SOFT * self._solid:
            return []
        share = 100 * self._soft / self._solid
        text = f"the values are no Hounsfield units: soft tissue lies about {off:+.0f} HU off, air does not"
        if self._soft < LEAST_SOFT * self._solid:
            text = f"the values are no Hounsfield units: only {share:.0f} % of the body is soft tissue (−200 to 200 HU)"
        return [CodedWarning("scale", text)]

    def _cut_off(self) -> list[CodedWarning]:
        """Return whether what is thinner than some value was cut off, or filled with it: only air is wrong."""
        if self._outside < LEAST_OUTSIDE * self._pixels or self._air.sum() < (1 - CLIPPED) * self._outside:
            return []
        air = peak(self._air)
        if abs(air - AIR) < CUT_OFF:
            return []
        text = f"air around the body is at {air:.0f} HU ({AIR:.0f} is expected), soft tissue is right"
        return [CodedWarning("cut-off-air", f"{text}: were values cut off?")]

    def _wrapped(self) -> list[CodedWarning]:
        """Return whether values ran over the end of their range."""
        found = summed(self._holes)
        places = _places([i for i, one in enumerate(self._holes) if one.holes])
        return [CodedWarning("wrapped", said_of_holes(found, places))] if found.wrapped else []

    def _blank(self) -> list[int]:
        """Return the slices that show nothing."""
        usual = float(np.median([one.body_cm2 for one in self.slices])) if self.slices else 0.0
        return [i for i, one in enumerate(self.slices) if one.body_cm2 < BLANK_SHARE * usual]

    def _blank_ends(self, lungs: LungFacts | None) -> list[CodedWarning]:
        """Return which slices at the ends show nothing although lung lies beside them: they were lost."""
        blank = set(self._blank())
        if not blank or lungs is None or len(lungs.areas_mm2) != len(self.slices):
            return []
        lost: list[int] = []
        order = range(len(self.slices))
        for way in (order, order[::-1]):
            first = next((i for i in way if i not in blank), way[0])
            if first != way[0] and lungs.areas_mm2[first] >= BESIDE_BLANK_MM2:
                lost += range(first) if way is order else range(first + 1, len(order))
        text = f"nothing is seen in {_places(lost)}, and lung is next to them"
        return [CodedWarning("blank-slices", text)] if lost else []

    def _slices(self) -> list[CodedWarning]:
        """Return which slices do not continue their neighbours."""
        slices, blank = self.slices, self._blank()
        seen = [i for i in range(len(slices)) if i not in blank]
        inside = [i for i in blank if seen and seen[0] < i < seen[-1]]
        found = []
        if inside:
            found.append(CodedWarning("blank-slices", f"nothing is seen in {_places(inside)}, within the body"))
        broken, shifted = [], []
        changes = np.array([one.change for one in slices[1:]])
        for i, one in enumerate(slices[1:], 1):
            if i in blank or i - 1 in blank:
                continue
            near = np.delete(changes, i - 1)[max(0, i - 1 - NEAR) : i - 1 + NEAR]
            around = float(np.median(near)) if near.size >= 2 else one.change
            if one.change > max(JUMP * around, LEAST_CHANGE) or one.likeness < LEAST_LIKENESS:
                broken.append(i)
            elif abs(one.level) > LEVEL_JUMP or _shared(one.level, one.air) > SHARED_JUMP:
                shifted.append(i)
        if broken:
            text = f"the anatomy jumps at {_places(broken)}: slices are missing, in disorder, or another patient's"
            found.append(CodedWarning("foreign-slices", text))
        if shifted:
            text = f"the values jump at {_places(shifted)} by up to {max(abs(slices[i].level) for i in shifted):.0f} HU"
            found.append(CodedWarning("level-jump", text))
        return found


def _places(indices: Sequence[int]) -> str:
    """Return "slices 3–5 and 9", counted from 1."""
    runs: list[list[int]] = []
    for i in indices:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    parts = [f"{a + 1}" if a == b else f"{a + 1}–{b + 1}" for a, b in runs]
    shown = ", ".join(parts[:4]) + (f" and {len(parts) - 4} more places" if len(parts) > 4 else "")
    return f"slice{'s' * (len(indices) > 1)} {shown}"


def _shared(a: float, b: float) -> float:
    """Return how much of two shifts is the same."""
    return min(abs(a), abs(b)) if a * b > 0 else 0.0


def enclosed(solid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return what has body on all four sides."""
    inside = np.ones(solid.shape, dtype=bool)
    for axis in (0, 1):
        before = np.logical_or.accumulate(solid, axis=axis)
        after = np.flip(np.logical_or.accumulate(np.flip(solid, axis), axis=axis), axis)
        inside &= before & after
    return inside
