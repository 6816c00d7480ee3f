"""All folds of a data set in one run that can be resumed: each in a folder of its own, one table at the end."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TextIO, TypeVar

from jcs_ct.core.errors import UsageError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.fingerprint import FINISHED, RESUMED, compare_with_start
from jcs_ct.training.outlook import UNDEFINED
from jcs_ct.training.parts import check_samples, fingerprint_of, open_data, outlook_of, parts_of
from jcs_ct.training.records import csv_table
from jcs_ct.training.result import Result
from jcs_ct.training.run import train
from jcs_ct.training.start import CONFIG, LAST, RESULT, check_folder, locked
from jcs_ct.weights import WeightsCard

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.training.config import TrainConfig
    from jcs_ct.training.fingerprint import Fingerprint

    Checked = tuple[Sequence[str], Callable[[], Fingerprint]]  # warnings of a run; gives what it would start on

TABLE, CARD = "folds.csv", "best.json"
COLUMNS = ("fold", "training", "validation", "epoch", "score", "dice", "loss")

R = TypeVar("R")


def train_each(
    folds: Sequence[int],
    config: str,
    out: Path,
    inspect: Callable[[int], Checked],
    start: Callable[[int, Path, bool], R],
    finished: Callable[[Path], R | None],
    *,
    resume: bool,
    accept: bool,
    say: Callable[[str], None],
) -> dict[int, R]:
    """Look at every fold, then train each into `OUT/fold_N`; return how they ended.

    Args:
        folds: Their numbers.
        config: Of all of them, as JSON.
        out: Folder of all of them.
        inspect: Looks at a fold before anything starts; returns its warnings, and its fingerprint once it is called.
        start: Trains a fold into a folder, or goes on with it.
        finished: Returns how the run in a folder ended; None where it is to go on.
        resume: Keep finished folds, go on with one that was begun, start the others.
        accept: As in `train`.
        say: Where to say what happens.

    Raises:
        JcsError: As `inspect`, `compare_with_start` and `start`; another process trains into the folder.
    """
    with locked(out):
        inspections = {out / f"fold_{n}": (f"fold {n}", partial(inspect, n)) for n in folds}
        settled = check_ahead(inspections, accept, say)
        write_whole(out / CONFIG, config.encode(), overwrite=True)
        results: dict[int, R] = {}
        for number in folds:
            folder = out / f"fold_{number}"
            done = finished(folder) if resume else None
            if done is not None:
                say(f"fold {number}: is trained")
                keep_finished(folder, settled[folder], say)
                results[number] = finished(folder) or done
                continue
            say(f"fold {number} of {len(folds)}")
            results[number] = start(number, folder, (folder / LAST).is_file())
    return results


def check_ahead(
    runs: Mapping[Path, tuple[str, Callable[[], Checked]]], accept: bool, say: Callable[[str], None]
) -> dict[Path, Fingerprint]:
    """Look at every run before the first one starts, so that no fault of the third is found after two are trained.

    `runs` are folders, what each is called, and what looks at it (see `train_each`). Returned is what counts from now
    on, of each run that was begun, also of those that are finished. Raises JcsError where a run cannot be, or was
    started on something else.
    """
    settled = {}
    for folder, (name, inspect) in runs.items():
        warnings, now = inspect()
        for warning in warnings:
            say(f"{name}: {warning}")
        if any((folder / left).is_file() for left in (LAST, RESULT)):
            settled[folder] = compare_with_start(folder, now(), accept=accept, say=lambda _: None)
    return settled


def keep_finished(folder: Path, settled: Fingerprint, say: Callable[[str], None]) -> None:
    """Note on the card, the result and the fingerprint of a finished run that its data were changed, as accepted.

    Nothing is noted where nothing differs from `settled`, which `check_ahead` returned.
    """
    result = json.loads((folder / RESULT).read_text(encoding="utf-8")) if (folder / RESULT).is_file() else {}
    known = tuple(result.get("accepted", ()))
    lines = [line.replace(RESUMED, FINISHED) for line in settled.accepted if line not in known]
    if not lines:
        return
    accepted = (*known, *lines)
    card = WeightsCard.read(folder / CARD)
    notes = (*card.notes, *(line for line in lines if line not in card.notes))
    write_whole(folder / CARD, replace(card, notes=notes).to_json().encode(), overwrite=True)
    replace(settled, accepted=accepted).write(folder)
    if result:
        text = json.dumps(result | {"accepted": accepted}, indent=2, ensure_ascii=False) + "\n"
        write_whole(folder / RESULT, text.encode(), overwrite=True)
    for line in lines:
        say(f"warning: {folder.name}: {line}")


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

    A fold ends as if it had been trained alone. The arguments are those of `train`, but the `fold` of the configuration
    does not count, and `resume` keeps folds that are finished.

    Raises:
        UsageError: There are no folds; several processes were asked for.
        JcsError: As `train`.
    """
    if config.devices > 1:
        raise UsageError(
            f"--folds all trains on one device, and --devices is {config.devices}",
            hint="train the folds one by one, with --fold 1 and so on",
        )
    check_folder(out, CONFIG, resume=resume, holds=(CONFIG, LAST))
    dataset = open_data(config)
    if not dataset.folds:
        raise UsageError("has no folds", path=config.data, hint="`jcs data split` makes them")
    empty = check_samples(dataset, dataset.samples)

    def one(number: int) -> TrainConfig:
        return replace(config, fold=number, all_folds=False)

    def inspect(number: int) -> tuple[list[str], Callable[[], Fingerprint]]:
        parts = parts_of(one(number))
        warning = outlook_of(one(number), *parts, empty).warning
        return [warning] if warning else [], lambda: fingerprint_of(one(number), *parts)

    def start(number: int, folder: Path, begun: bool) -> Result:
        return train(one(number), folder, resume=begun, say=say, progress=progress, accept=accept)

    def finished(folder: Path) -> Result | None:
        done = Result.read(folder / RESULT)
        return done if done is not None and done.epochs >= config.epochs else None

    results = train_each(
        dataset.folds, config.to_json(), out, inspect, start, finished, resume=resume, accept=accept, say=say
    )
    rows = table_of(results)
    write_whole(out / TABLE, csv_table(COLUMNS, rows), overwrite=True)
    name = next(iter(results.values())).score_name
    warnings = [
        f"warning: fold {number}: {line}"
        for number, r in results.items()
        for line in (*r.accepted, r.best.painting())
        if line
    ]
    return [f"done: {len(results)} folds; the score is {name}", *printed(rows, COLUMNS), *warnings]


def table_of(results: Mapping[int, Result]) -> list[dict[str, str]]:
    """Return a row for each fold, then the mean and the standard deviation over those that have a score."""
    rows = [
        {
            "fold": str(number),
            "training": str(result.slices[0]),
            "validation": str(result.slices[1]),
            "epoch": str(result.best.epoch),
            "score": f"{UNDEFINED} {result.best.because}" if result.best.because else cell(result.best.value),
            "dice": cell(result.best.dice),
            "loss": cell(result.best.loss),
        }
        for number, result in results.items()
    ]
    found = [result.best for result in results.values()]
    columns = {"score": [b.value for b in found], "dice": [b.dice for b in found], "loss": [b.loss for b in found]}
    return [*rows, *over_folds(columns, COLUMNS)]


def over_folds(values: Mapping[str, Sequence[float]], columns: Sequence[str]) -> list[dict[str, str]]:
    """Return the rows "mean" and "deviation" of a table; what a fold has no figure for (NaN) does not count."""
    known = {name: [v for v in column if not math.isnan(v)] for name, column in values.items()}
    mean = {name: cell(statistics.fmean(column)) if column else "" for name, column in known.items()}
    spread = {name: cell(statistics.stdev(column)) if len(column) > 1 else "" for name, column in known.items()}
    nothing = dict.fromkeys(columns, "")
    return [nothing | {"fold": "mean"} | mean, nothing | {"fold": "deviation"} | spread]


def printed(rows: Sequence[Mapping[str, str]], columns: Sequence[str]) -> list[str]:
    """Return the table as lines of equal columns; why a figure is not defined stands below it."""
    short = UNDEFINED.split(",")[0]
    table = [dict(zip(columns, columns, strict=True))]
    table += [{name: short if row[name].startswith(UNDEFINED) else row[name] for name in columns} for row in rows]
    widths = {name: max(len(row[name]) for row in table) for name in columns}
    lines = ["  ".join(row[name].rjust(widths[name]) for name in columns).rstrip() for row in table]
    reasons: dict[str, list[str]] = {}
    for row in rows:
        for name in columns:
            if row[name].startswith(UNDEFINED):
                reasons.setdefault(f"{name} is {row[name]}", []).append(row["fold"])
    return lines + [f"fold {', '.join(folds)}: {reason}" for reason, folds in reasons.items()]


def cell(value: float) -> str:
    """Return a figure as a cell of a table; "" for NaN."""
    return "" if math.isnan(value) else f"{value:.4f}"
