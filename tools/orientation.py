"""Train and score the network that tells turned, upside-down and inverted pictures (`jcs_ct.imaging.orientation`).

    python tools/orientation.py CORPUS.csv OUT.npz

CORPUS.csv is what `tools/lite_corpus.py` writes. Slices of fold 1 are scored by a network that has not seen them; the
one that is written has seen all.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from sklearn.neural_network import MLPClassifier

from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.slices import read_sample
from jcs_ct.imaging.lung_box import find_lung_box
from jcs_ct.imaging.orientation import ORIENTATIONS, SURE, ranks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample

HIDDEN, SEED = 64, 0


def variants(grey: NDArray[np.uint8], rng: np.random.Generator) -> list[tuple[NDArray[np.float32], int]]:
    """Return ranks and answer of a slice as it is, turned, on its head and inverted, some of them mirrored."""
    mirrored = grey[:, ::-1] if rng.random() < 0.5 else grey
    some = np.rot90(mirrored, int(rng.integers(4)))
    forms = (
        (grey, 0), (mirrored, 0), (np.rot90(mirrored, 1), 1), (np.rot90(mirrored, 3), 1), (np.flipud(grey), 2),
        (np.rot90(grey, 2), 2), (255 - mirrored, 3), (255 - some, 3),
    )  # fmt: skip
    return [(jittered(np.ascontiguousarray(form), rng), answer) for form, answer in forms]


def jittered(grey: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.float32]:
    """Return the ranks in a box that is moved and scaled at random, or now and then in the whole picture."""
    height, width = grey.shape
    top, left, rows, columns = find_lung_box(grey) if rng.random() < 0.9 else (0, 0, height, width)
    high, wide = rows * np.exp(rng.uniform(-0.15, 0.25)), columns * np.exp(rng.uniform(-0.15, 0.25))
    y = top + (rows - high) / 2 + rng.uniform(-0.08, 0.08) * rows
    x = left + (columns - wide) / 2 + rng.uniform(-0.08, 0.08) * columns
    y0, x0 = float(np.clip(y, 0, height - 2)), float(np.clip(x, 0, width - 2))
    return ranks(grey, (y0, x0, float(min(high, height - y0)), float(min(wide, width - x0))))


def table(samples: list[Sample], rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the variants of slices: ranks and answers."""
    rows = []
    for sample in samples:
        rows += variants(read_sample(sample).grey, rng)
    return np.stack([x for x, _ in rows]), np.array([y for _, y in rows])


def network() -> MLPClassifier:
    """Return the network before it is trained."""
    return MLPClassifier((HIDDEN,), alpha=0.1, batch_size=256, max_iter=15, learning_rate_init=2e-3, random_state=SEED)


def main(corpus: Path, out: Path) -> None:
    """Train, score, write."""
    rng = np.random.default_rng(SEED)
    samples = [s for s in open_dataset(corpus, None).samples if s.index is None or s.index % 3 == 0]
    inside = [s for s in samples if s.fold != 1]
    held = [s for s in samples if s.fold == 1]
    x, y = table(inside, rng)
    x1, y1 = table(held, rng)
    p = network().fit(x, y).predict_proba(x1)
    found = np.where(p.max(axis=1) >= SURE, p.argmax(axis=1), 0)
    for k, answer in enumerate(ORIENTATIONS):
        print(f"{answer}: {np.mean(found[y1 == k] == k):.4f} of {np.sum(y1 == k)} held-out slices")
    final = network().fit(np.concatenate([x, x1]), np.concatenate([y, y1]))
    arrays = {"w1": final.coefs_[0], "b1": final.intercepts_[0], "w2": final.coefs_[1], "b2": final.intercepts_[1]}
    np.savez_compressed(out, **{name: array.astype(np.float16) for name, array in arrays.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
