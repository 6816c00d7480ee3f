"""Does a picture of a slice lie as radiologists look at it: front up, lungs dark?

A small network (1,024 grey ranks, 64 hidden units, four answers) that knows public slices of many sources, each of them
turned, stood on its head and inverted (`tools/orientation.py` trains and scores it). It sees the picture at 32×32, its
grey values replaced by their ranks, so that the window does not matter. Right and left cannot be told apart.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from jcs_ct.imaging.lung_box import find_lung_box

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

SIDE = 32
ORIENTATIONS = ("upright", "turned", "upside down", "inverted")
ASSET = "assets/orientation.npz"
SURE = 0.97  # probability from which an answer counts
HALF = 0.5  # mean probability from which the answers for many slices count together


def ranks(grey: NDArray[np.uint8], box: tuple[float, float, float, float] | None = None) -> NDArray[np.float32]:
    """Return what the network sees of a picture (uint8, rows × columns): 1,024 ranks in −1 … 1.

    Args:
        grey: The picture.
        box: (top, left, rows, columns); by default what is dark and enclosed, so that scanners do not differ.
    """
    top, left, rows, columns = find_lung_box(grey) if box is None else box
    box = (left, top, left + columns, top + rows)
    small = Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BOX, box=box)
    values = np.asarray(small, dtype=np.float32).ravel()
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    middle = np.cumsum(counts) - (counts + 1) / 2  # equal values share a rank
    return (middle[places.ravel()] / (values.size - 1) * 2 - 1).astype(np.float32)


def sure_orientation(p: NDArray[np.float32]) -> str:
    """Return how a picture lies, one of `ORIENTATIONS`, by their probabilities; "upright" where none is sure."""
    return ORIENTATIONS[int(p.argmax())] if p.max() >= SURE else ORIENTATIONS[0]


def mean_orientation(answers: Sequence[NDArray[np.float32]]) -> str:
    """Return how the slices of a study lie, by the mean of what is answered of each: surer than any one of them."""
    if not answers:
        return ORIENTATIONS[0]
    mean = np.mean(answers, axis=0)
    return ORIENTATIONS[int(mean.argmax())] if mean.max() > HALF else ORIENTATIONS[0]


def orientation_probabilities(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the probabilities of `ORIENTATIONS` for a picture."""
    weights = _weights()
    hidden = np.maximum(ranks(grey) @ weights["w1"] + weights["b1"], 0)
    logits = hidden @ weights["w2"] + weights["b2"]
    p = np.exp(logits - logits.max())
    return np.asarray(p / p.sum(), np.float32)


@lru_cache(maxsize=1)
def _weights() -> dict[str, NDArray[Any]]:
    with np.load(BytesIO(files("jcs_ct").joinpath(ASSET).read_bytes()), allow_pickle=False) as held:
        return {name: held[name].astype(np.float32) for name in ("w1", "b1", "w2", "b2")}
