"""The whole recipe of the shipped weights: a run for each fold, one on everything, calibration, one file.

Each run is a process of its own, so that two can share two cores, and each resumes by itself: started again, finished
runs are kept and the others go on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.core.processors import threads
from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.fingerprint import FILE, read_fingerprint
from jcs_ct.training.folds import check_ahead, keep_finished
from jcs_ct.training.lite.calibrate import Calibration, calibrate, fit_patients
from jcs_ct.training.lite.collect import collect, describe
from jcs_ct.training.lite.corpus import folds_of, open_sets
from jcs_ct.training.lite.folds import inspect_run
from jcs_ct.training.lite.outlook import with_lesions
from jcs_ct.training.lite.run import LiteResult
from jcs_ct.training.lite.score import Row, read_table, table
from jcs_ct.training.lite.sources import source_accuracy
from jcs_ct.training.start import BEST, LAST, RESULT, locked
from jcs_ct.weights import load, write
from jcs_ct.weights.store import hashes_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor

    from jcs_ct.datasets.samples import Dataset
    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.lite.config import LiteConfig
    from jcs_ct.weights import WeightsCard

SHARED = (
    "folds", "steps", "coarse", "labelled", "lesions", "quiet", "lr", "mix", "attention", "silence", "precision",
    "seed", "every", "threads",
)  # fmt: skip
"""What every run of a recipe has in common."""


def build(config: LiteConfig, out: Path, *, jobs: int, say: Callable[[str], None], accept: bool = False) -> WeightsCard:
    """Train all folds and the final network, and write `best.safetensors` with what the folds tell about it.

    Every run, of which `jobs` go on at the same time, has a folder of its own in `out`, and its fold. `accept`: go on
    with runs that were started on something else; their cards will say so.

    Raises:
        UsageError: The recipe could not be finished: the folds could not calibrate the final network.
        JcsError: A run cannot be, or was started on something else; a run failed, its log is named; another process
            builds into the folder.
    """
    datasets = open_sets(config, divided=True)
    numbers = folds_of(datasets)
    refuse_uncalibrated(config, datasets)
    runs: dict[str, int | None] = {f"fold_{k}": k for k in numbers} | {"all": None}
    one = replace(config, threads=threads(config.threads, jobs))
    configs = {out / name: replace(one, fold=fold) for name, fold in runs.items()}
    lesions = with_lesions([s for d in datasets for s in d.samples])

    def inspect(folder: Path) -> tuple[Sequence[str], Callable[[], Fingerprint]]:
        return inspect_run(configs[folder], datasets, lesions)

    with locked(out):
        settled = check_ahead({folder: (folder.name, partial(inspect, folder)) for folder in configs}, accept, say)
        for folder, its in configs.items():
            if _finished(folder, its) and folder in settled:
                keep_finished(folder, settled[folder], say)
        run_all(list(configs.items()), jobs, say, accept=accept)
        folds = [read_table(out / name / "held_out.csv") for name, fold in runs.items() if fold is not None]
        begun = [folder for folder in configs if (folder / FILE).is_file()]
        changes = [f"{folder.name}: {line}" for folder in begun for line in read_fingerprint(folder).accepted]
        card = finish(out, folds, load(out / "all" / BEST), say, changes)
        write_whole(hashes_path(out / BEST), hashes_path(out / "all" / BEST).read_bytes(), overwrite=True)
        return card


def refuse_uncalibrated(config: LiteConfig, datasets: Sequence[Dataset]) -> None:
    """Refuse data of which the held-out slices could not calibrate the final network: each fold by the others.

    Raises UsageError where fewer than two folds hold slices of both labels, of sources that have both.
    """
    rows: dict[int, list[Row]] = {}
    for sample in (s for d in datasets for s in d.samples if s.fold is not None):
        row = {"label": "" if sample.label is None else sample.label, "source": sample.source or ""}
        rows.setdefault(sample.fold or 0, []).append(row)
    both = sum({r["label"] for r in fold} == {0, 1} for fold in rows_of_mixed_sources(list(rows.values())))
    if both < 2:
        raise UsageError(
            f"--build fits the final probabilities on the held-out slices of two folds or more, and {both} hold slices "
            "with and without COVID-19 of one source",
            path=config.data[0],
            hint="add a data set with labels of both classes; or train without --build, with --folds all",
        )


def run_all(
    runs: Sequence[tuple[Path, LiteConfig]], jobs: int, say: Callable[[str], None], *, accept: bool = False
) -> None:
    """Run what is not finished, `jobs` at a time. Raises JcsError if one fails."""
    waiting = [run for run in runs if not _finished(*run)]
    active: list[tuple[Path, subprocess.Popen[bytes]]] = []
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                folder, config = waiting.pop(0)
                say(f"training {folder.name}; its log: {folder}.log")
                active.append((folder, _start(folder, config, accept)))
            time.sleep(0.5)
            for folder, process in list(active):
                if process.poll() is None:
                    continue
                active.remove((folder, process))
                if process.returncode:
                    raise JcsError(
                        "a run failed; its log says why",
                        path=f"{folder}.log",
                        hint="remove the cause, and run it again",
                    )
    finally:
        for _, process in active:
            process.terminate()


def _finished(folder: Path, config: LiteConfig) -> bool:
    """Return whether a run has its weights, and was not asked to become longer."""
    done = LiteResult.read(folder / RESULT)
    return (folder / BEST).exists() and (done is None or done.steps >= config.steps)


def _start(folder: Path, config: LiteConfig, accept: bool) -> subprocess.Popen[bytes]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "jcs_ct", "train", "lite", "-o", str(folder)]
    for data in config.data:
        command += ["--data", data]
    if (folder / LAST).exists():
        command += ["--resume", "--steps", str(config.steps), "--threads", str(config.threads)]
        command += ["--accept-changed-data"] * accept
    else:
        for source in config.without:
            command += ["--without", source]
        for name in SHARED:
            command += [f"--{name.replace('quiet', 'quiet-slices')}", str(getattr(config, name))]
        if config.init:
            command += ["--init", config.init]
        for name in config.freeze:
            command += ["--freeze", name]
        if config.fold is not None:
            command += ["--fold", str(config.fold)]
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        # Without idle threads spinning for their turn, runs beside each other do not disturb one another.
        environment = os.environ | {"OMP_WAIT_POLICY": "PASSIVE"}
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)  # noqa: S603


def by_group(rows: Sequence[Row], scaling: Calibration) -> list[tuple[NDArray[np.float64], int]]:
    """Return the probabilities of each group of slices, and whether one of its slices shows the disease."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["source"], row["group"] or row["file"]), []).append(row)
    found = []
    for members in groups.values():
        logits = np.array([float(row["logit"]) for row in members])
        label = max(int(row["label"]) for row in members)
        found.append((expit(logits / scaling.temperature + scaling.offset), label))
    return found


def rows_of_mixed_sources(folds: Sequence[Sequence[Row]]) -> list[list[Row]]:
    """Return, fold by fold, the labelled rows of the sources that hold both labels."""
    labels: dict[str, set[str]] = {}
    for row in (row for rows in folds for row in rows if row["label"] != ""):
        labels.setdefault(row["source"], set()).add(str(row["label"]))
    return [[r for r in rows if r["label"] != "" and len(labels[r["source"]]) == 2] for rows in folds]


def finish(
    out: Path,
    folds: Sequence[Sequence[Row]],
    network: tuple[dict[str, Tensor], WeightsCard],
    say: Callable[[str], None],
    changes: Sequence[str] = (),
) -> WeightsCard:
    """Calibrate on the held-out slices, write scores and the final weights in half precision.

    `out` holds the runs and gets the result; `folds` are the held-out rows of each fold's network, `network` tensors
    and card of the run on everything. `changes`, accepted though they came after a run's start, are noted on the card.
    """
    labelled = rows_of_mixed_sources(folds)
    calibration = calibrate(
        [(np.array([float(r["logit"]) for r in f]), np.array([float(r["label"]) for r in f])) for f in labelled]
    )
    scores = collect(folds)
    patient = fit_patients(by_group([row for fold in labelled for row in fold], calibration))
    told = source_accuracy(out, say)
    tensors, card = network
    tensors["offset"] = tensors["offset"] + calibration.offset * calibration.temperature
    half = {k: v.half() if v.is_floating_point() else v for k, v in tensors.items()}
    card = replace(
        card,
        name="jcs-lite",
        temperature=calibration.temperature,
        covid_threshold=calibration.threshold,
        patient=patient,
        threshold_from="lesions: 0.5, not tuned; COVID-19: where sensitivity and specificity of the held-out slices of "
        "the folds are equal",
        notes=(*describe(scores, calibration, told), *changes),
    )
    card = write(out / BEST, half, card, overwrite=True)
    content = {
        "scores": scores,
        "calibration": vars(calibration),
        "sources_told_from_features": told,
        "patient": patient,
    }
    write_whole(out / "scores.json", (json.dumps(content, indent=2) + "\n").encode(), overwrite=True)
    write_whole(out / "held_out.csv", table([row for fold in folds for row in fold]), overwrite=True)
    say(f"{out / BEST}: {(out / BEST).stat().st_size / 1e6:.1f} MB")
    return card
