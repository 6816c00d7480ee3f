"""What a training run of `jcs-lite` is. No torch here."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from jcs_ct.core.errors import UsageError


@dataclass(frozen=True)
class LiteConfig:
    """Everything that decides what a run computes.

    Attributes:
        data: The data sets: those with masks teach segmentation, those with labels classification.
        fold: Hold this fold out of every data set, and score on it; None: train on all of it.
        folds: Number of folds that are made, by group, for a data set that brings none.
        without: Sources that are left out, where one holds a single class.
        steps: Optimiser steps.
        labelled: Slices with labels in a step; drawn so that source, label and group come equally often.
        masked: Slices with masks in a step; each comes equally often.
        lr: Peak learning rate of AdamW with one cycle.
        weight_decay: Of AdamW.
        mix: α of the Beta distribution of λ when two labelled slices are mixed; 0: no mixing.
        attention: Weight of pixel supervision of the evidence map; 0: the ablation without masks for the classifier.
        weak: Weight of the label as a word on lesions: without the disease no pixel is lesion, with it some are.
        precision: "bf16" (autocast; half the time where the processor has AVX512-BF16 or AMX) or "fp32".
        keep: Decay of the moving average of the weights, a step; the average is what is kept.
        seed: Of initialisation, order, augmentation and mixing.
        every: Steps between checkpoints.
        threads: Of PyTorch; 0: as it comes. Two runs of one thread beside each other do more than one of two.
    """

    data: tuple[str, ...]
    fold: int | None = None
    folds: int = 4
    without: tuple[str, ...] = ()
    steps: int = 1000
    labelled: int = 10
    masked: int = 6
    lr: float = 1e-3
    weight_decay: float = 0.02
    mix: float = 0.3
    attention: float = 0.5
    weak: float = 0.3
    precision: str = "bf16"
    keep: float = 0.99
    seed: int = 0
    every: int = 100
    threads: int = 0

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> LiteConfig:
        """Read what `to_json` wrote. Raises UsageError for anything else."""
        try:
            values: dict[str, Any] = json.loads(text)
            known = {f.name for f in fields(cls)}
            if set(values) != known:
                raise UsageError(f"the configuration has other fields: {', '.join(sorted(set(values) ^ known))}")
            return cls(**values | {k: tuple(values[k]) for k in ("data", "without")})
        except (ValueError, TypeError) as error:
            raise UsageError("the configuration is not one of `train lite`", hint="start a new run") from error
