"""The slices of a run of `jcs-lite`: several data sets together, each divided in the same way."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.slices import content_digest
from jcs_ct.datasets.split import make_folds
from jcs_ct.io.files.walk import few
from jcs_ct.training.fingerprint import started_on
from jcs_ct.training.lite.config import NO_MATTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.datasets.samples import Dataset, Sample
    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.lite.config import LiteConfig


@dataclass(frozen=True)
class Corpus:
    """The slices of a run.

    Attributes:
        samples: To train on.
        held: Those of the fold that is held out.
    """

    samples: tuple[Sample, ...]
    held: tuple[Sample, ...]

    @property
    def lesions(self) -> list[int]:
        """Positions of the slices with a lesion mask."""
        return [i for i, s in enumerate(self.samples) if s.mask is not None and not s.empty]

    @property
    def quiet(self) -> list[int]:
        """Positions of the slices that are known to show no lesion."""
        return [i for i, s in enumerate(self.samples) if s.empty]

    @property
    def labelled(self) -> list[int]:
        """Positions of the other slices with a label."""
        return [i for i, s in enumerate(self.samples) if s.mask is None and not s.empty and s.label is not None]

    def drawn(self, config: LiteConfig) -> list[Sample]:
        """Return the slices to train on of which the steps draw some."""
        kinds = ((self.labelled, config.labelled), (self.lesions, config.lesions), (self.quiet, config.quiet))
        return [self.samples[i] for positions, count in kinds if count for i in positions]


def open_sets(config: LiteConfig, *, divided: bool) -> tuple[Dataset, ...]:
    """Return the data sets of a run, without the sources that are left out.

    `divided`: each slice is to have a fold. Where a data set brings none, folds are made by group; which slices are in
    which does not depend on their order or on the names of files.

    Raises:
        InputError, UsageError: No such data; a data set with neither masks nor labels; too few groups.
    """
    found = []
    for folder in config.data:
        dataset = open_dataset(folder, None)
        known = tuple(s for s in dataset.samples if s.source not in config.without)
        if not known:
            left_out = ", ".join(sorted({s.source for s in dataset.samples if s.source}))
            raise UsageError(
                f"has slices of the sources {left_out} alone, and --without leaves them out",
                path=folder,
                hint="leave fewer out, or leave out the data set",
            )
        dataset = replace(dataset, samples=known)
        if not any(s.mask is not None or s.label is not None or s.empty for s in known):
            raise UsageError("holds neither masks nor labels", path=folder, hint="see `jcs data check`")
        found.append(_with_folds(dataset, config.folds) if divided and not dataset.folds else dataset)
    return tuple(found)


def _with_folds(dataset: Dataset, folds: int) -> Dataset:
    first = {s.path: s for s in reversed(dataset.samples)}
    content = {path: content_digest(s) for path, s in first.items()}

    def what(sample: Sample) -> tuple[str, ...]:
        known = (sample.index, sample.label, sample.group, sample.source)
        return content[sample.path], *("" if value is None else str(value) for value in known)

    made = make_folds(replace(dataset, samples=tuple(sorted(dataset.samples, key=what))), folds, seed=0).folds
    number = {(s.path, s.index): i for i, fold in enumerate(made, 1) for s in fold}
    return replace(dataset, samples=tuple(replace(s, fold=number.get((s.path, s.index))) for s in dataset.samples))


def folds_of(datasets: Sequence[Dataset]) -> tuple[int, ...]:
    """Return the numbers of the folds. Raises UsageError where data sets have different ones."""
    folds = datasets[0].folds
    for dataset in datasets[1:]:
        if dataset.folds != folds:
            there, here = (", ".join(map(str, numbers)) for numbers in (dataset.folds, folds))
            raise UsageError(
                f"has the folds {there}, and {datasets[0].root} has {here}",
                path=dataset.root,
                hint="a fold is held out of every data set: divide them into equally many",
            )
    return folds


def divide(config: LiteConfig, datasets: Sequence[Dataset] | None = None) -> Corpus:
    """Return the slices of a run; `datasets` are what `open_sets` returned, where that is at hand.

    Raises:
        InputError, UsageError: As `open_sets`; there is no such fold, or it cuts a group; nothing is left to train on.
    """
    if datasets is None:
        datasets = open_sets(config, divided=config.fold is not None)
    parts = [(d.samples, ()) if config.fold is None else _held_out(d, config.fold) for d in datasets]
    corpus = Corpus(tuple(s for train, _ in parts for s in train), tuple(s for _, held in parts for s in held))
    if not corpus.samples:
        raise UsageError("nothing is left to train on", path=config.data[0], hint="see --fold and --without")
    return corpus


def _held_out(dataset: Dataset, fold: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
    train, held = dataset.fold(fold)
    cut = sorted({s.group for s in train if s.group is not None} & {s.group for s in held if s.group is not None})
    if cut:
        raise InputError(
            f"fold {fold} cuts {len(cut)} group{'s' * (len(cut) != 1)}: {few(cut)}",
            path=dataset.root,
            hint="keep all slices of a patient in one fold; `jcs data split` does",
        )
    return train, held


def fingerprint_of(config: LiteConfig, corpus: Corpus, datasets: Sequence[Dataset]) -> Fingerprint:
    """Return what a run is started on. Raises InputError where a file cannot be read."""
    roots = [os.path.abspath(d.root) for d in datasets]  # noqa: PTH100  # links stay as they were given
    root = datasets[0].root
    with suppress(ValueError):  # on two drives of Windows
        root = root if len(roots) == 1 else Path(os.path.commonpath(roots))
    return started_on(config, NO_MATTER, corpus.samples, corpus.held, datasets, root)
