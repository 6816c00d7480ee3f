"""A network that marks a band of grey, and small phantom studies, so that whole studies run in a second or two."""

from __future__ import annotations

from contextlib import nullcontext
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.inference.apply import SliceDiagnosis
from jcs_ct.models import model_spec
from jcs_ct.phantom import make_phantom
from jcs_ct.weights import write
from weights_help import card_for

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.types import SliceImage
    from jcs_ct.phantom import PhantomStudy
    from jcs_ct.weights import WeightsCard

MARKER_HU = -450  # between lung and soft tissue: no other voxel of the phantom has just this grey
BAND = (148, 156)  # grey levels of it in the lung window


class BandNetwork:
    """Stands for `jcs-lite`: `mark` gives what one pass of it would, without resampling."""

    def __init__(self) -> None:
        self.spec = model_spec("jcs-lite")
        self.card = card_for("jcs-lite", covid_threshold=0.5)
        self.threshold = self.covid_threshold = 0.5
        self.runtime = "torch"
        self.batch = 1

    def expect(self, slices: int) -> None:
        self.slices = slices

    @property
    def cards(self) -> tuple[WeightsCard, ...]:
        """One set of weights."""
        return (self.card,)

    def concurrent_calls(self, slices: int) -> AbstractContextManager[int]:
        """One slice at a time."""
        return nullcontext(1)


def mark(image: SliceImage, _network: Any) -> SliceDiagnosis:
    """Call every pixel lesion whose grey lies in the band; a slice with many of them is positive."""
    grey = image.pixels[:, :, 1]
    lesion = ((grey >= BAND[0]) & (grey <= BAND[1])).astype(np.float32)
    p = 0.9 if lesion.sum() > 20 else 0.1
    return SliceDiagnosis(p, lesion, lesion)


def mark_all(images: Sequence[SliceImage], network: Any) -> list[SliceDiagnosis]:
    """`mark` slices that come together."""
    assert 1 <= len(images) <= network.batch
    return [mark(image, network) for image in images]


def mark_screened(image: SliceImage, network: Any) -> tuple[float, NDArray[np.float32]]:
    """What `mark` says of a slice, without its lesions."""
    marked = mark(image, network)
    return marked.probability, marked.attention


@lru_cache(maxsize=4)
def small_phantom(slices: int = 24, size: int = 128) -> PhantomStudy:
    """Return a healthy phantom of 128×128×24 voxels of 2.8×2.8×10 mm: a whole chest."""
    return make_phantom(slices=slices, size=size, seed=3, lesions=0, spacing=(240 / slices, 358 / size, 358 / size))


def marked_volume(study: PhantomStudy) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Return the volume with a box of `MARKER_HU` inside the right lung, near the head and the back; and the box."""
    where = np.zeros(study.hu.shape, bool)
    right = study.lungs == 1
    index = int(np.flatnonzero(right.sum(axis=(1, 2)) > 0.6 * right.sum(axis=(1, 2)).max())[1])
    rows, columns = np.nonzero(right[index])
    row, column = int(np.percentile(rows, 65)), int(np.percentile(columns, 45))
    where[index : index + 3, row - 5 : row + 4, column - 4 : column + 3] = True
    hu = study.hu.copy()
    hu[(hu > MARKER_HU - 60) & (hu < MARKER_HU + 60)] = MARKER_HU - 60  # nothing else has its grey
    hu[where] = MARKER_HU
    return hu, where


def write_lite(folder: Path, seed: int = 0) -> Path:
    """Write weights of `jcs-lite` that are only good for running; return their file."""
    from jcs_ct.models.lite import LiteNetwork

    torch.manual_seed(seed)
    network = LiteNetwork()
    with torch.no_grad():
        for head in network.lesion.heads:
            head.bias.fill_(-3.0)  # type: ignore[operator]
    path = folder / "lite.safetensors"
    card = card_for("jcs-lite", covid_threshold=0.5, recipe="lung-field@64")  # small: what it says is of no matter
    write(path, network.state_dict(), card)
    return path
