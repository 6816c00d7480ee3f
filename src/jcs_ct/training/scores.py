"""What a validation says: a score without a threshold, the loss, and how much the maps mark.

The score that `best` is chosen by needs no threshold, since early maps are ordered well long before their values reach
0.5: for segmentation the average precision of all pixels of all slices together (empty slices count), for
classification the area under the ROC curve. Of equal scores the lower loss is better; where the score is not defined,
the loss alone decides.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.metrics import roc_auc
from jcs_ct.training.outlook import UNDEFINED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NAMES = {"segmentation": "average precision of pixels", "classification": "AUC"}
STEPS, REACH = 64, 16  # pixels are ranked by their logits in steps of 1/64, from −16 to 16
NOTHING, EVERYTHING = 0.01, 0.9  # share of the lesions' pixels, share of all pixels


@dataclass(frozen=True)
class Score:
    """The score of one validation.

    Attributes:
        value: From 0 to 1; NaN: not defined.
        loss: Mean over the slices; NaN without validation.
        dice: Mean Dice of the slices with a lesion, at p ≥ 0.5; NaN where there is none.
        marked: Share of all pixels with p ≥ 0.5; NaN for labels.
        lesion: Share of all pixels that are lesion; NaN for labels.
        because: Why the value is not defined; "" where it is.
        epoch: After which epoch.
    """

    value: float = math.nan
    loss: float = math.nan
    dice: float = math.nan
    marked: float = math.nan
    lesion: float = math.nan
    because: str = ""
    epoch: int = 0

    def beats(self, other: Score | None) -> bool:
        """Return whether these weights are better than those of `other`. Without any validation later ones are."""
        if other is None or math.isnan(self.loss):
            return True
        return self._key() > other._key()

    def words(self, name: str) -> str:
        """Return it in words, after "epoch 3: "."""
        if math.isnan(self.loss):
            return "no validation"
        scored = f"{UNDEFINED} {self.because}" if math.isnan(self.value) else f"{self.value:.4f}"
        dice = "" if math.isnan(self.dice) else f", Dice {self.dice:.4f} at p ≥ 0.5"
        return f"validation {name} {scored}{dice}, loss {self.loss:.4f}"

    def painting(self) -> str:
        """Say that its maps mark nothing, or everything; "" where they do neither."""
        if math.isnan(self.marked):
            return ""
        what = "nothing" if self.marked < NOTHING * self.lesion else ""
        if self.marked > EVERYTHING > self.lesion:
            what = "everything"
        if not what:
            return ""
        return (
            f"the best map marks {what}: {_percent(self.marked)} of the pixels reach p ≥ 0.5, "
            f"{_percent(self.lesion)} are lesion"
        )

    def facts(self) -> dict[str, Any]:
        """Return it as JSON can hold it, None for NaN."""
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(self).items()}

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> Score:
        """Read what `facts` returned. Raises TypeError for anything else."""
        values: dict[str, Any] = {k: math.nan if v is None else v for k, v in facts.items()}
        return cls(**values)

    def _key(self) -> tuple[float, float]:
        return (-math.inf if math.isnan(self.value) else self.value, -self.loss)


class Validation:
    """Takes the slices of a validation, one by one, and adds up what the score needs."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.dices: list[float] = []
        self.probabilities: list[float] = []
        self.labels: list[int] = []
        # Pixels by their logits, not lesion and lesion.
        self.pixels = np.zeros((2, 2 * REACH * STEPS + 1), dtype=np.int64)
        self.marked = 0

    def add_label(self, loss: float, probability: float, label: int) -> None:
        """Take a slice with a label."""
        self.losses.append(loss)
        self.probabilities.append(probability)
        self.labels.append(label)

    def add_map(self, loss: float, logits: Tensor, lesion: Tensor) -> None:
        """Take a slice with a mask: logits and lesion (bool) of the same H×W."""
        self.losses.append(loss)
        found = logits >= 0
        total = int(found.sum()) + int(lesion.sum())
        if bool(lesion.any()):
            self.dices.append(2 * int((found & lesion).sum()) / total)
        self.marked += int(found.sum())
        places = ((logits.float().clamp(-REACH, REACH) + REACH) * STEPS).round().long()
        for which, here in enumerate((places[~lesion], places[lesion])):
            counts = torch.bincount(here, minlength=self.pixels.shape[1])
            self.pixels[which] += counts.cpu().numpy()

    def score(self, epoch: int = 0, because: str = "") -> Score:
        """Return the score after an epoch; `because`: why it is not defined, as far as that was known before, or ""."""
        if not self.losses:
            return Score(epoch=epoch)
        loss = math.fsum(self.losses) / len(self.losses)
        if self.labels:
            value = roc_auc(self.labels, self.probabilities)
            why = because or f"all slices to validate on have the label {self.labels[0]}: one class"
            return Score(value, loss, because=why if math.isnan(value) else "", epoch=epoch)
        lesions, total = int(self.pixels[1].sum()), int(self.pixels.sum())
        value = average_precision_of(self.pixels)
        found = Score(value, loss, marked=self.marked / total, lesion=lesions / total, epoch=epoch)
        if self.dices:
            found = replace(found, dice=math.fsum(self.dices) / len(self.dices))
        why = because or "no pixel of the slices to validate on is lesion, at the size of the network's input"
        return replace(found, because=why) if math.isnan(value) else found


def together(parts: Sequence[Validation]) -> Validation:
    """Return one validation of the parts that several processes have seen."""
    whole = Validation()
    for part in parts:
        whole.losses += part.losses
        whole.dices += part.dices
        whole.probabilities += part.probabilities
        whole.labels += part.labels
        whole.pixels += part.pixels
        whole.marked += part.marked
    return whole


def average_precision_of(pixels: np.ndarray[Any, np.dtype[np.int64]]) -> float:
    """Return the average precision of counted pixels: the sum of precision × step in recall, not interpolated.

    `pixels` are 2 × K counts, of what is not lesion and of lesion, by rising logit; pixels of one count are ties. From
    0 to 1; NaN where nothing is lesion.
    """
    negative, positive = pixels[:, ::-1].astype(np.float64)
    total = positive.sum()
    if not total:
        return math.nan
    hits, found = positive.cumsum(), (positive + negative).cumsum()
    there = positive > 0
    return float((hits[there] / found[there] * positive[there]).sum() / total)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share == 0 or share >= 0.0005 else "less than 0.1 %"
