"""What a training run of `jcs-lite` is. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, fields

from jcs_ct.core.errors import UsageError
from jcs_ct.training.config import RunConfig, check_types, held_values

NO_MATTER = ("data", "fold", "folds", "without", "init", "steps", "every", "threads", "all_folds")
"""Settings that decide nothing that a fingerprint does not hold by itself."""


@dataclass(frozen=True)
class LiteConfig(RunConfig):
    """Everything that decides what a run computes.

    Attributes:
        data: The data sets. What is known of a slice (mask, label, that it is empty) decides what it teaches.
        fold: Hold this fold out of every data set, and score on it; None: train on all of it.
        folds: Number of folds that are made, by group, for a data set that brings none.
        without: Sources that are left out, where one holds a single class.
        init: Weights to start from ("jcs-lite", a file, or the folder of a --build, of which each run takes the network
            of its own fold); "": ImageNet values of the encoder.
        freeze: Beginnings of the names of parameters that keep their values, with their norms' statistics.
        steps: Optimiser steps.
        coarse: Share of the steps, from the first on, that see slices at three quarters of the size.
        labelled: Slices with labels in a step, drawn by source and label, then by patient.
        lesions: Slices with lesion masks in a step, drawn by source, then by patient.
        quiet: Slices that are known to show no lesion in a step, drawn in the same way.
        lr: Peak learning rate of AdamW with one cycle; the encoder has half of it.
        weight_decay: Of AdamW.
        mix: α of the Beta distribution of λ when two labelled slices are mixed; 0: no mixing.
        attention: Weight of pixel supervision of the evidence map; 0: the ablation without masks for the classifier.
        silence: Weight of the empty slices in the loss of lesion maps.
        precision: "bf16" (autocast; half the time where the processor has AVX512-BF16 or AMX) or "fp32".
        keep: Decay of the moving average of the weights, a step; the average is what is kept.
        seed: Of initialisation, order, augmentation and mixing.
        every: Steps between checkpoints.
        threads: Of PyTorch; 0: `OMP_NUM_THREADS`, else what affinity and cgroup leave. Two runs of one thread beside
            each other do more than one of two.
        all_folds: All folds, one after the other, each in a folder of its own.
    """

    LENGTH = "steps"
    MAY_CHANGE = ("data", "every", "threads")

    data: tuple[str, ...]
    fold: int | None = None
    folds: int = 4
    without: tuple[str, ...] = ()
    init: str = ""
    freeze: tuple[str, ...] = ()
    steps: int = 1000
    coarse: float = 0.6
    labelled: int = 5
    lesions: int = 5
    quiet: int = 3
    lr: float = 1e-3
    weight_decay: float = 0.02
    mix: float = 0.3
    attention: float = 0.5
    silence: float = 1.0
    precision: str = "fp32"
    keep: float = 0.99
    seed: int = 0
    every: int = 50
    threads: int = 0
    all_folds: bool = False

    @classmethod
    def from_json(cls, text: str) -> LiteConfig:
        """Read what `to_json` wrote. Raises UsageError for anything else."""
        values, known = held_values(text), {f.name for f in fields(cls)}
        values.setdefault("all_folds", False)  # runs of one fold did not say so once
        hint = "start a new run in another folder"
        if other := set(values) ^ known:
            raise UsageError(f"the configuration has other fields: {', '.join(sorted(other))}", hint=hint)
        try:
            read = cls(**values | {k: tuple(values[k]) for k in ("data", "without", "freeze")})
        except TypeError as error:
            raise UsageError("the configuration is not one of `train lite`", hint=hint) from error
        check_types(read)
        return read
