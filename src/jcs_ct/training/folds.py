"""All folds of a data set in one run that can be resumed: each in a folder of its own, one table at the end."""

from __future__ import annotations

import csv
import io
import math
import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.fingerprint import settle
from jcs_ct.training.lock import alone
from jcs_ct.training.prospects import UNDEFINED
from jcs_ct.training.run import RESULT, Result, checked, fingerprint_of, open_data, outlook, parts_of, train

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.training.config import TrainConfig

TABLE = "folds.csv"
COLUMNS = ("fold", "training", "validation", "epoch", "score", "dice", "loss")


def train_all(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
    progress: TextIO | None = None,
    accept: bool = False,
) -> list[str]:
    """Train a network for each fold of the data set, into `OUT/fold_1` and so on; return what to say at the end.

    Every fold is looked at before the first one starts, so that no fault of the third is found after two are trained.
    A fold ends as if it had been trained alone.

    Args:
        config: Of the run; its `fold` does not count.
        out: Its folder.
        resume: Go on: finished folds are kept, one that was begun goes on, the others start.
        say: Where to say what happens.
        progress: As in `train`.
        accept: As in `train`.

    Raises:
        UsageError: There are no folds; several processes were asked for.
        JcsError: As `train`.
    """
    if config.devices > 1:
        raise UsageError(
            f"--folds all trains on one device, and --devices is {config.devices}",
            hint="train the folds one by one, with --fold 1 and so on",
        )
    written = (out / "config.json").is_file()
    if resume and not written:
        raise InputError("has no config.json to go on from", path=out, hint="start it without --resume")
    if not resume and (written or (out / "last.ckpt").exists()):
        raise OutputError("holds a run already", path=out, hint="--resume goes on with it; or give another folder")
    dataset = open_data(config)
    if not dataset.folds:
        raise UsageError("has no folds", path=config.data, hint="`jcs data split` makes them")
    with alone(out):
        empty = checked(dataset, dataset.samples)
        for number in dataset.folds:
            one, folder = replace(config, fold=number, all_folds=False), out / f"fold_{number}"
            parts = parts_of(one)
            undefined = outlook(one, *parts, empty).warning
            if undefined:
                say(f"fold {number}: {undefined}")
            if resume and (folder / "last.ckpt").is_file():
                settle(folder, fingerprint_of(one, *parts), accept=accept, say=lambda _: None)
        write_whole(out / "config.json", config.to_json().encode(), overwrite=True)
        results: dict[int, Result] = {}
        for number in dataset.folds:
            folder = out / f"fold_{number}"
            done = Result.read(folder / RESULT)
            if resume and done is not None and done.epochs >= config.epochs:
                say(f"fold {number}: is trained")
                results[number] = done
                continue
            say(f"fold {number} of {len(dataset.folds)}")
            one, begun = replace(config, fold=number, all_folds=False), (folder / "last.ckpt").is_file()
            results[number] = train(one, folder, resume=begun, say=say, progress=progress, accept=accept)
        rows = table_of(results)
        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_whole(out / TABLE, text.getvalue().encode(), overwrite=True)
    name = next(iter(results.values())).score_name
    warnings = [
        f"warning: fold {number}: {painting}" for number, r in results.items() if (painting := r.best.painting())
    ]
    return [f"done: {len(results)} folds; the score is {name}", *printed(rows), *warnings]


def table_of(results: Mapping[int, Result]) -> list[dict[str, str]]:
    """Return a row for each fold, then the mean and the standard deviation over those that have a score."""
    rows = [
        {
            "fold": str(number),
            "training": str(result.slices[0]),
            "validation": str(result.slices[1]),
            "epoch": str(result.best.epoch),
            "score": f"{UNDEFINED} {result.best.because}" if result.best.because else _cell(result.best.value),
            "dice": _cell(result.best.dice),
            "loss": _cell(result.best.loss),
        }
        for number, result in results.items()
    ]
    columns = {
        "score": [r.best.value for r in results.values()],
        "dice": [r.best.dice for r in results.values()],
        "loss": [r.best.loss for r in results.values()],
    }
    known = {name: [v for v in values if not math.isnan(v)] for name, values in columns.items()}
    mean = {name: _cell(statistics.fmean(values)) if values else "" for name, values in known.items()}
    spread = {name: _cell(statistics.stdev(values)) if len(values) > 1 else "" for name, values in known.items()}
    nothing = dict.fromkeys(COLUMNS, "")
    return [*rows, nothing | {"fold": "mean"} | mean, nothing | {"fold": "deviation"} | spread]


def printed(rows: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the table as lines of equal columns."""
    table = [dict(zip(COLUMNS, COLUMNS, strict=True)), *rows]
    widths = {name: max(len(row[name]) for row in table) for name in COLUMNS}
    return ["  ".join(row[name].rjust(widths[name]) for name in COLUMNS).rstrip() for row in table]


def _cell(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.4f}"
