"""All folds of `jcs-lite` in one run: looked at before the first, each as if trained alone, one table."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.folds import TABLE, cell, over_folds, printed, train_each
from jcs_ct.training.lite.corpus import divide, fingerprint_of, folds_of, open_sets
from jcs_ct.training.lite.initial import initial_weights
from jcs_ct.training.lite.outlook import outlook_of, refuse_copies, with_lesions
from jcs_ct.training.lite.run import LiteResult, train
from jcs_ct.training.outlook import UNDEFINED
from jcs_ct.training.records import csv_table
from jcs_ct.training.start import CONFIG, LAST, RESULT, check_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Dataset
    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.lite.config import LiteConfig
    from jcs_ct.training.lite.outlook import Key

FIRST = ("fold", "training", "validation")


def train_all(
    config: LiteConfig,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
    progress: TextIO | None = None,
    accept: bool = False,
) -> list[str]:
    """Train a network for each fold, into `OUT/fold_1` and so on; return what to say at the end.

    The arguments are those of `train`, but the `fold` of the configuration does not count, and `resume` keeps folds
    that are finished. Data sets without folds are divided into `config.folds`. Raises JcsError as `train`, for any of
    the folds, before the first one starts.
    """
    check_folder(out, CONFIG, resume=resume, holds=(CONFIG, LAST))
    datasets = open_sets(config, divided=True)
    lesions = with_lesions([s for d in datasets for s in d.samples])

    def one(number: int) -> LiteConfig:
        return replace(config, fold=number, all_folds=False)

    def start(number: int, folder: Path, begun: bool) -> LiteResult:
        return train(one(number), folder, resume=begun, say=say, progress=progress, accept=accept)

    def finished(folder: Path) -> LiteResult | None:
        done = LiteResult.read(folder / RESULT)
        return done if done is not None and done.steps >= config.steps else None

    def inspect(number: int) -> tuple[list[str], Callable[[], Fingerprint]]:
        return inspect_run(one(number), datasets, lesions)

    results = train_each(
        folds_of(datasets), config.to_json(), out, inspect, start, finished, resume=resume, accept=accept, say=say
    )
    columns, rows = table_of(results)
    write_whole(out / TABLE, csv_table(columns, rows), overwrite=True)
    changes = [f"warning: fold {number}: {line}" for number, r in results.items() for line in r.accepted]
    return [f"done: {len(results)} folds, scored on the slices that each held out", *printed(rows, columns), *changes]


def inspect_run(
    config: LiteConfig, datasets: Sequence[Dataset], lesions: set[Key]
) -> tuple[list[str], Callable[[], Fingerprint]]:
    """Look at one run before it starts; return its warnings, and its fingerprint once it is called.

    Raises InputError or UsageError where it cannot be.
    """
    corpus = divide(config, datasets)
    now = fingerprint_of(config, corpus, datasets)
    refuse_copies(config, now)
    if config.init:
        initial_weights(config, now)
    return outlook_of(config, corpus, lesions).warnings, lambda: now


def table_of(results: Mapping[int, LiteResult]) -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Return the columns and rows of the table: each fold, the mean, the standard deviation."""
    names = tuple(dict.fromkeys(n for r in results.values() for n in (*r.scores, *r.undefined)))
    columns = (*FIRST, *names)
    rows = []
    for number, result in results.items():
        row = {"fold": str(number), "training": str(result.slices[0]), "validation": str(result.slices[1])}
        row |= {name: cell(result.scores.get(name, math.nan)) for name in names}
        rows.append(row | {name: f"{UNDEFINED} {why}" for name, why in result.undefined.items()})
    values = {name: [r.scores.get(name, math.nan) for r in results.values()] for name in names}
    return columns, [*rows, *over_folds(values, columns)]
