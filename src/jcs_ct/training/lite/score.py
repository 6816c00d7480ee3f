"""Scores of `jcs-lite` on slices held out of its training, one line a slice, so that folds can be put together."""

from __future__ import annotations

import csv
import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from scipy.special import expit

from jcs_ct.datasets.slices import read_sample
from jcs_ct.imaging.recipes import grey_as_rgb, prepare, recipe, restore
from jcs_ct.inference.attention import of_evidence
from jcs_ct.metrics import Counts, roc_auc
from jcs_ct.metrics.explanation import energy_inside, pointing_game
from jcs_ct.metrics.segmentation import pixel_counts
from jcs_ct.models.mirror import merged, with_mirrors
from jcs_ct.training.records import csv_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.imaging.recipes import Placement
    from jcs_ct.models.lite import LiteNetwork

Row = dict[str, Any]


class Answer(NamedTuple):
    """What a network says of a slice and its mirror image; its maps are brought to the slice by `restore`.

    Attributes:
        sample: The slice.
        mask: bool, rows × columns of the slice; None where its lesions are not known.
        placement: Where the maps lie on the slice.
        logit: Of COVID-19.
        evidence: float32, see `jcs_ct.inference.attention.of_evidence`.
        lesion: float32, logits of lesion.
    """

    sample: Sample
    mask: NDArray[np.bool_] | None
    placement: Placement
    logit: float
    evidence: NDArray[np.float32]
    lesion: NDArray[np.float32]


def answers(network: LiteNetwork, samples: Iterable[Sample]) -> Iterator[Answer]:
    """Yield what a network in evaluation mode says of each slice."""
    how = recipe("lung-field")
    for sample in samples:
        pixels = read_sample(sample)
        values, placement = prepare(grey_as_rgb(pixels.grey), how)
        with torch.inference_mode():
            out = network(torch.from_numpy(with_mirrors([values])))
        logit, evidence, maps = merged(out.logit.numpy(), out.evidence.numpy(), out.maps.numpy())
        yield Answer(sample, pixels.mask, placement, float(logit[0]), evidence[0], maps[0, 0])


def score(network: LiteNetwork, samples: Sequence[Sample]) -> Iterator[Row]:
    """Yield a row for each held-out slice: counts at 0.5 on its own grid, attention scores, the logit.

    Pixels of slices with a mask, or known to be empty, are counted. The network is in evaluation mode.
    """
    for sample, mask, placement, logit, evidence, lesion in answers(network, samples):
        row: Row = {"file": sample.path.name, "slice": "" if sample.index is None else sample.index}
        row |= {"source": sample.source or "", "group": sample.group or ""}
        row |= {"label": "" if sample.label is None else sample.label, "logit": round(logit, 5)}
        if mask is not None:
            found = pixel_counts(restore(expit(lesion), placement), mask)
            row |= {name: int(number) for name, number in vars(found).items()}
            if mask.any():
                attention = restore(of_evidence(evidence), placement)
                row["dice"] = round(found.scores()["dice"], 5)
                row["pointing"] = round(pointing_game(attention, mask), 5)
                row["energy"] = round(energy_inside(attention, mask), 5)
        yield row


LABELS = {
    "dice": "Dice per image", "pooled_dice": "Dice, all pixels pooled", "miou": "mIoU with background, pooled",
    "sensitivity": "sensitivity of pixels, pooled", "precision": "precision of pixels, pooled",
    "pointing": "attention, pointing game", "energy": "attention, energy inside lesions", "auc": "AUC of slices",
    "marked_empty_slices": "slices without lesion that have more than 0.1 % of their pixels marked",
}  # fmt: skip
COLUMNS = ("file", "slice", "source", "group", "label", "logit", "dice", "tp", "fp", "fn", "tn", "pointing", "energy")


def table(rows: Sequence[Row]) -> bytes:
    """Return the rows as CSV."""
    return csv_table(COLUMNS, rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Read what `table` wrote."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def counts_of(row: Mapping[str, Any]) -> Counts:
    """Return the counts of pixels in a row."""
    return Counts(*(float(row[name]) for name in ("tp", "fp", "fn", "tn")))


def label(name: str) -> str:
    """Return what a score of `summary` or of `collect`, which may end in a source, is called for a reader.

    >>> label("auc_mosmed"), label("miou")
    ('AUC of slices, mosmed', 'mIoU with background, pooled')
    >>> label("pooled_dice_ct100")
    'Dice, all pixels pooled, ct100'
    """
    kind = next((kind for kind in LABELS if f"{name}_".startswith(f"{kind}_")), name)
    return ", ".join([LABELS.get(kind, kind), *filter(None, [name[len(kind) + 1 :]])])


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the scores of one fold: segmentation per image and pooled, attention, AUC of every source."""
    found: dict[str, float] = {}
    masked = [r for r in rows if r.get("dice") not in (None, "")]
    if masked:
        pooled = sum((counts_of(row) for row in masked), start=Counts()).scores()
        found |= {"dice": float(np.mean([float(r["dice"]) for r in masked])), "pooled_dice": pooled["dice"]}
        found |= {name: pooled[name] for name in ("miou", "sensitivity", "precision")}
        found |= {name: float(np.mean([float(r[name]) for r in masked])) for name in ("pointing", "energy")}
    labelled = [r for r in rows if r["label"] != ""]
    for source in sorted({r["source"] for r in labelled}):
        part = [r for r in labelled if r["source"] == source]
        auc = roc_auc([int(r["label"]) for r in part], [float(r["logit"]) for r in part])
        if not math.isnan(auc):
            found[f"auc_{source or 'all'}"] = auc
    return found
