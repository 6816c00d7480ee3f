"""The scores of all folds put together, each with its interval, and the lines of the card that tell them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.metrics import Counts, roc_auc
from jcs_ct.metrics.bootstrap import average, bootstrap
from jcs_ct.training.lite.score import Row, counts_of, label, summary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from jcs_ct.metrics.bootstrap import Statistic
    from jcs_ct.training.lite.calibrate import Calibration

Score = dict[str, float]

POOLED = ("miou", "sensitivity", "precision")
BY_SLICE = ("dice", "pointing", "energy")
COUNTS = ("tp", "fp", "fn", "tn")
PLAIN = {"", "ct100"}  # sources whose scores have no ending
UNTOLD = POOLED  # how scores begin that a card leaves to scores.json


def collect(folds: Sequence[Sequence[Row]]) -> dict[str, Score]:
    """Return each score with its 95 % bootstrap interval: "value", "low", "high".

    Segmentation and attention: the mean of the folds' figures (per slice: averaged within a fold; pooled: of a fold's
    summed pixels), resampled by slice. AUC of a source: of all held-out slices together, resampled by group, and
    "folds", the mean of the folds' own. Nothing is resampled across the sets.
    """
    found: dict[str, Score] = {}
    every = [(k, row) for k, fold in enumerate(folds) for row in fold]
    for source in sorted({row["source"] for _, row in every}):
        rows = [(k, row) for k, row in every if row["source"] == source and row["dice"] not in (None, "")]
        if rows:
            ending = "" if source in PLAIN else f"_{source}"
            found |= {f"{name}{ending}": score for name, score in _segmentation(rows, by_fold=not ending).items()}
    empty = [row for _, row in every if row.get("tp") not in (None, "") and row["dice"] in (None, "")]
    if empty:
        groups = [f"{row['source']} {row['group'] or row['file']}" for row in empty]
        marked = np.array([counts_of(row).marks_the_empty for row in empty], float)
        found |= _intervals(lambda w: {"marked_empty_slices": average(marked, w)}, groups)
    labelled = [row for fold in folds for row in fold if row["label"] != ""]
    own = [summary(fold) for fold in folds]
    for source in sorted({row["source"] for row in labelled}):
        part = [row for row in labelled if row["source"] == source]
        if len({row["label"] for row in part}) == 2:
            name = f"auc_{source or 'all'}"
            folds_own = [fold[name] for fold in own if name in fold]
            found[name] = _auc(part) | ({"folds": float(np.mean(folds_own))} if folds_own else {})
    return found


def _segmentation(rows: Sequence[tuple[int, Row]], *, by_fold: bool) -> dict[str, Score]:
    """Return the scores of slices with lesions: the mean over folds (CT100), or over patients (other sets)."""
    part_of = np.array([str(k) if by_fold else row["group"] or row["file"] for k, row in rows])
    columns = {name: np.array([float(row[name]) for _, row in rows]) for name in (*BY_SLICE, *COUNTS)}

    def mean(weights: NDArray[np.float64] | None) -> dict[str, float]:
        w = np.ones(len(part_of)) if weights is None else weights
        each = [
            _of_fold({n: c[part_of == k] for n, c in columns.items()}, w[part_of == k]) for k in sorted(set(part_of))
        ]
        return {name: float(np.nanmean([scores[name] for scores in each])) for name in each[0]}

    units = [row["file"] if by_fold else row["group"] or row["file"] for _, row in rows]
    return _intervals(mean, units)


def _intervals(statistic: Statistic, groups: Sequence[str]) -> dict[str, Score]:
    found = bootstrap(statistic, groups)
    return {name: {"value": i.value, "low": i.low, "high": i.high} for name, i in found.items()}


def _of_fold(columns: Mapping[str, NDArray[np.float64]], weights: NDArray[np.float64]) -> dict[str, float]:
    if not weights.sum():  # a resample without a slice of this fold
        return dict.fromkeys((*BY_SLICE, "pooled_dice", *POOLED), float("nan"))
    pooled = Counts(*(float(weights @ columns[name]) for name in COUNTS)).scores()
    scores = {name: average(columns[name], weights) for name in BY_SLICE}
    return scores | {"pooled_dice": pooled["dice"]} | {name: pooled[name] for name in POOLED}


def _auc(rows: Sequence[Row]) -> Score:
    labels, logits = np.array([int(r["label"]) for r in rows]), np.array([float(r["logit"]) for r in rows])
    groups = [r["group"] or r["file"] for r in rows]
    return _intervals(lambda w: {"auc": roc_auc(labels, logits, w)}, groups)["auc"]


def describe(scores: dict[str, Score], calibration: Calibration, told: Mapping[str, float]) -> list[str]:
    """Return the scores and what else a user should know, a line each, for the card."""
    lines = []
    for name, values in scores.items():
        if not name.startswith(UNTOLD):
            interval = f"95 % interval {values['low']:.3f} to {values['high']:.3f}"
            lines.append(f"held out, {label(name)}: {values['value']:.3f} ({interval})")
    lines.append(
        f"COVID-19 at p >= {calibration.threshold:.3f}: held-out sensitivity {calibration.sensitivity:.3f}, "
        f"specificity {calibration.specificity:.3f}; calibration error {calibration.error:.3f}"
    )
    if told:
        lines.append(
            f"its features tell the source of a slice with balanced accuracy {told['balanced_accuracy']:.2f} "
            f"(chance {told['chance']:.2f}): part of what it knows may be the hospital"
        )
    return [
        *lines,
        "scores are of networks trained the same way without the fold they are scored on",
        "not for diagnosis, triage or treatment; not for children, radiographs, other organs or other windows",
    ]
