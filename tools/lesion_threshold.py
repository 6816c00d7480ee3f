"""The lesion threshold of `jcs-lite`, chosen on held-out slices: of each fold by the patients of the other folds.

    python tools/lesion_threshold.py score DATA FOLD WEIGHTS OUT.csv
    python tools/lesion_threshold.py table OUT.csv [OUT.csv …]

`score` counts the pixels of each slice of a fold that has a mask, or is known to show no lesion, at several thresholds.
`table` prints for each threshold the mean Dice of the patients' series, per image and pooled, and how many slices
without lesion are marked on more than 0.1 % of their pixels; then the threshold that each fold gets from the others
(the highest mean of both Dice) and what that comes to.
"""

from __future__ import annotations

import csv
import sys
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.imaging.recipes import restore
from jcs_ct.metrics import Counts
from jcs_ct.metrics.segmentation import pixel_counts
from jcs_ct.models.lite import LiteNetwork
from jcs_ct.training.lite.score import answers
from jcs_ct.weights import load

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

THRESHOLDS = (0.2, 0.25, 0.3, 0.35, 0.4, 0.5)
COLUMNS = ("fold", "file", "slice", "source", "group", "threshold", "dice", "tp", "fp", "fn", "tn")
PATIENTS = ("coronacases", "radiopaedia")  # sets of whole series; in the others a patient has one slice

Row = dict[str, str]


def score(data: str, fold: int, weights: str, out: Path) -> None:
    """Write a row for each slice and threshold."""
    tensors, _ = load(weights)
    network = LiteNetwork()
    network.load_state_dict({name: tensor.float() for name, tensor in tensors.items()})
    network.eval()
    held = [s for s in open_dataset(data, None).samples if s.fold == fold and (s.mask is not None or s.empty)]
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for sample, mask, placement, _, _, logits in answers(network, held):
            if mask is None:
                continue
            lesion = restore(expit(logits), placement)
            who = (sample.path.name, "" if sample.index is None else sample.index, sample.source, sample.group)
            for threshold in THRESHOLDS:
                counts = pixel_counts((lesion >= threshold).astype(np.float32), mask)
                dice = round(counts.scores()["dice"], 5) if mask.any() else ""
                pixel = (int(counts.tp), int(counts.fp), int(counts.fn), int(counts.tn))
                writer.writerow((fold, *who, threshold, dice, *pixel))


def series_of(row: Row) -> str:
    """Return the series of a slice: a volume, or pictures whose names count on."""
    return row["file"] if row["slice"] else row["file"].rpartition("_")[0]


def dice_of(rows: Iterable[Row]) -> tuple[float, float]:
    """Return the Dice of slices with lesions, per image and pooled."""
    dice, tp, fp, fn = np.array([[float(row[name]) for name in ("dice", "tp", "fp", "fn")] for row in rows]).T
    return float(dice.mean()), float(2 * tp.sum() / (2 * tp.sum() + fp.sum() + fn.sum()))


def mean_of(rows: Sequence[Row]) -> tuple[float, float]:
    """Return the mean over series of patients of Dice per image and pooled."""
    series: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["source"] in PATIENTS and row["dice"]:
            series[series_of(row)].append(row)
    one, two = np.mean([dice_of(part) for part in series.values()], axis=0)
    return float(one), float(two)


def line(rows: Sequence[Row]) -> str:
    """Return the scores of slices as text."""
    found = ["series {:.3f} / {:.3f}".format(*mean_of(rows))]
    for source in ("ct100", "mosmed"):
        part = [row for row in rows if row["source"] == source and row["dice"]]
        found += ["{} {:.3f} / {:.3f}".format(source, *dice_of(part))] if part else []
    empty = [Counts(*(float(row[name]) for name in ("tp", "fp", "fn", "tn"))) for row in rows if not row["dice"]]
    return ", ".join([*found, f"marked {sum(one.marks_the_empty for one in empty)} of {len(empty)}"])


def table(files: Sequence[Path]) -> None:
    """Print the scores at each threshold, and with those that each fold gets from the others."""
    rows: dict[str, list[Row]] = defaultdict(list)
    for path in files:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                rows[row["threshold"]].append(row)
    for threshold, part in rows.items():
        print(f"{threshold}: {line(part)}")
    chosen: list[Row] = []
    for fold in sorted({row["fold"] for part in rows.values() for row in part}):
        others = {t: sum(mean_of([row for row in part if row["fold"] != fold])) for t, part in rows.items()}
        best = max(others, key=lambda threshold: others[threshold])
        print(f"fold {fold} gets {best}")
        chosen += [row for row in rows[best] if row["fold"] == fold]
    print(f"so chosen: {line(chosen)}")


if __name__ == "__main__":
    if sys.argv[1] == "score":
        score(sys.argv[2], int(sys.argv[3]), sys.argv[4], Path(sys.argv[5]))
    else:
        table([Path(name) for name in sys.argv[2:]])
