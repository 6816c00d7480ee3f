"""The slices of a run: which it trains on, which it validates on, and whether they can be."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.check import check
from jcs_ct.datasets.folds import FOLDS
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.samples import relative_name
from jcs_ct.training.config import NO_MATTER
from jcs_ct.training.fingerprint import TRAINING, VALIDATION, compare_with_start, in_order, started_on
from jcs_ct.training.outlook import Outlook, outlook_of_labels, outlook_of_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Dataset, Sample
    from jcs_ct.training.config import TrainConfig
    from jcs_ct.training.fingerprint import Fingerprint


def open_data(config: TrainConfig) -> Dataset:
    """Return the data set of a run. Raises InputError where there is none of its kind."""
    folds = os.path.abspath(config.folds) if config.folds else FOLDS  # noqa: PTH100  # a given one is not the data set's
    return open_dataset(config.data, "classify" if config.task == "classify" else "segment", folds=folds)


def parts_of(config: TrainConfig) -> tuple[Dataset, tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the data set, and the samples to train on and to validate on.

    Raises InputError where there is no such data set, or the two parts share slices or groups; UsageError where there
    is no such fold or split.
    """
    dataset = open_data(config)
    splits = {sample.split for sample in dataset.samples}
    if config.fold is not None:
        train, held = dataset.fold(config.fold)
    elif "train" in splits:
        train, held = dataset.part("train"), dataset.part("val") if "val" in splits else ()
    else:
        raise UsageError(
            "has no split called train, and no --fold was given",
            path=config.data,
            hint="`jcs data split` makes folds; then give --fold N",
        )
    if not train:
        raise UsageError("leaves nothing to train on", path=config.data, hint="make more than one fold")
    lacking = [s for s in (*train, *held) if (s.features if config.inputs == "features" else s.image) is None]
    if lacking:
        what = "stage-1 features" if config.inputs == "features" else "picture"
        raise UsageError(
            f"has no {what}, and {len(lacking) - 1} others have none" if len(lacking) > 1 else f"has no {what}",
            path=lacking[0].path,
            hint="--inputs features trains from .mat files, --inputs image from pictures",
        )
    return dataset, train, held


def verify(config: TrainConfig, dataset: Dataset, train: Sequence[Sample], held: Sequence[Sample]) -> Outlook:
    """Read every sample once, so that bad data ends the run at its start; return whether it can be scored.

    Raises InputError, with ten names, where some cannot be used, or the two parts share slices or groups; UsageError
    where there is nothing to learn.
    """
    parts = [replace(s, split=TRAINING, fold=None) for s in train]
    parts += [replace(s, split=VALIDATION, fold=None) for s in held]
    return outlook_of(config, dataset, train, held, check_samples(dataset, parts))


def outlook_of(
    config: TrainConfig, dataset: Dataset, train: Sequence[Sample], held: Sequence[Sample], empty: set[str]
) -> Outlook:
    """Return what can be learned and scored, where `empty` are the names of slices whose masks are empty.

    Raises UsageError where there is nothing to learn.
    """
    if config.task == "classify":
        return outlook_of_labels(train, held, str(dataset.root))

    def lesion(sample: Sample) -> bool:
        return sample.mask is not None and not sample.empty and relative_name(sample.path, dataset.root) not in empty

    return outlook_of_masks(train, held, lesion, str(dataset.root))


def check_samples(dataset: Dataset, samples: Sequence[Sample]) -> set[str]:
    """Read the samples of a data set; return the names of those whose mask is empty. Raises InputError as `verify`."""
    report = check(replace(dataset, samples=tuple(samples)), similarity=None)
    bad = [fault.error().line() for fault in report.faults]
    if bad:
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise InputError(
            f"cannot be trained on, {len(bad)} fault{'s' * (len(bad) != 1)}: {'; '.join(bad[:10])}{more}",
            path=dataset.root,
            hint="`jcs data check` explains them",
        )
    return {finding.path for finding in report.findings if finding.kind == "empty-mask"}


def fingerprint_of(
    config: TrainConfig, dataset: Dataset, training: Sequence[Sample], held: Sequence[Sample]
) -> Fingerprint:
    """Return what a run is started on. Raises InputError where a file cannot be read."""
    features = config.inputs == "features"
    return started_on(config, NO_MATTER, training, held, [dataset], dataset.root, features=features)


def resume_parts(
    out: Path,
    now: Fingerprint,
    training: Sequence[Sample],
    held: Sequence[Sample],
    *,
    accept: bool,
    say: Callable[[str], None],
) -> tuple[Fingerprint, tuple[Sample, ...], tuple[Sample, ...]]:
    """Compare a run that is resumed with its start; return what counts, and its slices in the order of the start.

    `now` is what is there: the slices to train on (`training`) first, then those to validate on (`held`). The other
    arguments and errors are as of `compare_with_start`.
    """
    settled = compare_with_start(out, now, accept=accept, say=say)
    count = len(training)
    return (
        settled,
        in_order(training, now.entries[:count], [e for e in settled.entries if e.part == TRAINING]),
        in_order(held, now.entries[count:], [e for e in settled.entries if e.part == VALIDATION]),
    )
