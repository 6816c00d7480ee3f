"""What a study came to: values with everything that its files are made of, but for the pictures of its slices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.warning import CodedWarning
from jcs_ct.imaging.slice_check import MISORIENTED, ORIENTATION_CODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.anatomy.burden import Burden
    from jcs_ct.study.case import Case
    from jcs_ct.study.flow import Clock
    from jcs_ct.study.packed import PackedMap
    from jcs_ct.study.rules import Verdict
    from jcs_ct.study.settings import Settings, UsedNetwork

FEW_SLICES = 10  # looked at; a verdict on fewer says little about a patient
MANY_FLAGGED = 0.5  # share of slices
MANY_LYING = 0.25  # share of slices that lie wrong in the same way; upright slices of unknown scanners reach 0.07
_DECIMALS = {"z_mm": 3, "probability": 6, "lung_mm2": 2, "lesion_mm2": 2, "lesion_share": 6}


@dataclass(frozen=True)
class SliceResult:
    """One slice. Areas are None for pictures, whose scale is not known.

    Attributes:
        index: From 1, nearest the head.
        name: Stem of a picture; empty for a volume, whose file names might say too much.
        z_mm: Position along the patient's axis.
        probability: Of COVID-19, in [0, 1]; None where the slice was not looked at (no lung in it).
        positive: Whether the probability reaches the threshold of the weights.
        lung_mm2: Lung in the slice.
        lesion_mm2: Lesion in the slice.
        lesion_share: Of the lung (pictures: of the picture), in [0, 1].
        flags: What speaks against the slice.
        lesions: Mask of what counts as lesion, on the grid of the slice.
        attention: In steps of 1/255, on the grid of the slice.
        lungs: Labels: 0, 1 right, 2 left; None for pictures.
        unread: Why the slice could not be read, or "".
        notes: What was noticed when it was read.
    """

    index: int
    name: str
    z_mm: float | None
    probability: float | None
    positive: bool
    lung_mm2: float | None
    lesion_mm2: float | None
    lesion_share: float | None
    flags: tuple[str, ...]
    lesions: PackedMap = field(repr=False)
    attention: PackedMap = field(repr=False)
    lungs: PackedMap | None = field(default=None, repr=False)
    unread: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values, numbers rounded to what they are worth."""
        names = ("index", "name", "z_mm", "probability", "positive", "lung_mm2", "lesion_mm2", "lesion_share")
        values: dict[str, Any] = {name: getattr(self, name) for name in names} | {"flags": list(self.flags)}
        return {k: round(v, _DECIMALS[k]) if k in _DECIMALS and v is not None else v for k, v in values.items()}


@dataclass(frozen=True)
class StudyResult:
    """The result of one study.

    Attributes:
        case: What was looked at.
        screen: The network that gave probability and attention.
        segmenter: The network that found lesions; the same where one pass does both, None where there was none.
        settings: How it was looked at.
        verdict: The patient's verdict.
        slices: A result for each slice.
        burden: The lesions of a volume; None of pictures, and where they were not looked for.
        warnings: What a reader should know of the study, a line each.
        seconds: How long it took.
        clock: Seconds by stage.
    """

    case: Case
    screen: UsedNetwork
    segmenter: UsedNetwork | None
    settings: Settings
    verdict: Verdict
    slices: tuple[SliceResult, ...]
    burden: Burden | None
    warnings: tuple[str, ...]
    seconds: float
    clock: Clock = field(repr=False)

    @property
    def lesion(self) -> NDArray[np.uint8]:
        """The lesion mask: uint8 0 or 1, slice × row × column (head to feet, front to back, right to left)."""
        return np.stack([one.lesions.levels() for one in self.slices])

    @property
    def attention(self) -> NDArray[np.uint8]:
        """The attention: uint8, 255 is 1, slice × row × column."""
        return np.stack([one.attention.levels() for one in self.slices])

    @property
    def scored(self) -> list[SliceResult]:
        """The slices that a network has seen."""
        return [one for one in self.slices if one.probability is not None]

    def most_affected(self, most: int = 5) -> list[int]:
        """Return the slices with the most lesion, the most first, each 5 % of the study away from the others."""
        apart = max(1, round(0.05 * len(self.slices)))
        with_lesions = (one for one in self.slices if one.lesion_share)
        chosen: list[int] = []
        for one in sorted(with_lesions, key=lambda one: -(one.lesion_mm2 or one.lesion_share or 0.0)):
            if len(chosen) < most and all(abs(one.index - index) >= apart for index in chosen):
                chosen.append(one.index)
        return chosen

    def doubts(self) -> list[CodedWarning]:
        """Return why the verdict should not be relied on, a line and a code each."""
        looked = self.scored
        reasons = []
        if len(looked) < FEW_SLICES:
            count = "one slice was" if len(looked) == 1 else f"{len(looked)} slices were"
            text = f"only {count} looked at; a patient's verdict needs the whole chest"
            reasons.append(CodedWarning("few-slices", text))
        reasons += _flagged(looked)
        reasons += [one for one in self.warnings if isinstance(one, CodedWarning) and one.unreliable]
        return list(dict.fromkeys(reasons))


def _flagged(looked: Sequence[SliceResult]) -> list[CodedWarning]:
    """Return what the flags of slices, taken together, say against a study of pictures."""
    flagged = [one for one in looked if one.flags]
    if looked and len(flagged) >= MANY_FLAGGED * len(looked):
        share = f"{len(flagged)} of {len(looked)} slices"
        text = f"{share} do not look like axial chest slices in a lung window: {flagged[0].flags[0]}"
        return [CodedWarning("flagged-slices", text)]
    reasons = []
    for name, how in MISORIENTED.items():
        lying = sum(how in one.flags for one in looked)
        if lying >= max(2, MANY_LYING * len(looked)):
            text = f"of {len(looked)} slices {lying} look wrong: {how}"
            reasons.append(CodedWarning(ORIENTATION_CODES[name], text))
    return reasons
