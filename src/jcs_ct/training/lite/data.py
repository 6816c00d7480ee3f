"""Slices of every kind as one stream of steps: with lesion masks, known to be empty, and with labels alone.

What a slice becomes depends on (seed, step, place in the step) alone, so that a run can go on anywhere.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from jcs_ct.core.errors import InputError
from jcs_ct.core.memory import available_memory, gib
from jcs_ct.datasets.slices import Pixels, read_sample
from jcs_ct.imaging.lung_box import content_box, find_lung_box
from jcs_ct.imaging.recipes import recipe, stretch
from jcs_ct.training.lite.augment import jitter, random_view, recurved, vary_appearance, vary_contrast, windowed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.training.lite.config import LiteConfig
    from jcs_ct.training.lite.corpus import Corpus

Item = dict[str, Tensor]


def balanced_shares(samples: Sequence[Sample]) -> NDArray[np.float64]:
    """Return how often to draw each sample: by source and label, then by group, then by slice.

    Those of a source with one label count as the fourth root of slices times groups: large sets say more, small ones
    are not drowned, and two patients of whom there are many slices are not learned by heart.
    """
    group_of = [((s.source or "", s.label), s.group or str(s.path)) for s in samples]
    groups, slices = Counter(group_of), Counter(cell for cell, _ in group_of)
    count = Counter(cell for cell, _ in groups)
    share = {cell: (number * count[cell]) ** 0.25 / count[cell] for cell, number in slices.items()}
    weights = np.array([share[group[0]] / groups[group] for group in group_of])
    even: NDArray[np.float64] = weights / weights.sum()
    return even


class LiteSlices(TorchDataset[Item]):
    """Augmented slices, by (position, step, place in the step).

    An item holds "image" 1×H×W; "mask" H×W in 0 … 1, or −1 where there is none; "label" 0 or 1, or −1.
    Decoded slices are kept: a few hundred megabytes, and no decoding after the first pass. The first `coarse` steps are
    at three quarters of the size.
    """

    def __init__(self, samples: Sequence[Sample], seed: int, coarse: int) -> None:
        self.samples, self.seed, self.coarse = tuple(samples), seed, coarse
        how = recipe("lung-field")
        self.shape = (how.size, how.columns)
        self.decoded: dict[int, Pixels] = {}
        self.boxes: dict[int, tuple[int, int, int, int]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def pixels(self, position: int) -> Pixels:
        """Return a decoded slice. Raises InputError where it or its mask cannot be read."""
        if position not in self.decoded:
            self.decoded[position] = _without_frame(read_sample(self.samples[position]))
        return self.decoded[position]

    def memory_warning(self) -> str:
        """Return a warning where decoded slices as large as the first are more than there is memory; else ""."""
        try:
            first = self.pixels(0)
        except InputError:  # named with all others when they are read
            return ""
        needed = len(self) * (first.image.nbytes + (0 if first.mask is None else first.mask.nbytes))
        memory = available_memory()
        if memory.free is None or needed <= memory.free:
            return ""
        return (
            f"warning: {len(self):,} decoded slices take {gib(needed)} of memory, and {memory.words()}: the run is "
            "likely to be killed (fewer data sets or --without need less)"
        )

    def _thick(self, position: int, rng: np.random.Generator) -> NDArray[Any]:
        """Return the slice, or now and then the mean of it and its neighbours in the volume: a thicker slice."""
        image = self.pixels(position).image
        index = self.samples[position].index
        if index is None or rng.random() > 0.3:
            return image
        near = [image]
        for step in (-1, 1):
            if 0 <= position + step < len(self):
                other = self.samples[position + step]
                if other.path == self.samples[position].path and other.index == index + step:
                    beside = self.pixels(position + step).image
                    near += [beside] if beside.shape == image.shape else []
        thick: NDArray[Any] = np.mean(near, axis=0).round().astype(np.int16)
        return thick

    def __getitem__(self, key: tuple[int, int, int]) -> Item:
        position, step, place = key
        rng = np.random.default_rng([self.seed, step, place])
        read = self.pixels(position)
        raw, mask = read.image, read.mask
        shape = self.shape if step >= self.coarse else (self.shape[0] * 3 // 4, self.shape[1] * 3 // 4)
        hounsfield = raw.dtype == np.int16
        if position not in self.boxes:
            self.boxes[position] = find_lung_box(read.grey)
        box = jitter(self.boxes[position], (raw.shape[0], raw.shape[1]), rng)
        picture = windowed(self._thick(position, rng), rng) if hounsfield else recurved(raw, rng)
        target = None if mask is None else mask.astype(np.uint8) * np.uint8(255)
        seen, lesion = random_view(picture, target, box, shape, rng)
        values = vary_contrast(stretch(vary_appearance(seen, rng)), rng)
        label = self.samples[position].label
        known = np.full(shape, -1.0, np.float32) if lesion is None else lesion.astype(np.float32) / np.float32(255)
        return {
            "image": torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))[None],
            "mask": torch.from_numpy(known),
            "label": torch.tensor(-1.0 if label is None else float(label)),
        }


def _without_frame(read: Pixels) -> Pixels:
    """Return a slice without what was filled in around it: frames would tell one source from another."""
    top, left, rows, columns = content_box(read.grey)
    place = slice(top, top + rows), slice(left, left + columns)
    mask = None if read.mask is None else np.ascontiguousarray(read.mask[place])
    return Pixels(np.ascontiguousarray(read.image[place]), mask, read.spacing)


class LiteSteps(Sampler[list[tuple[int, int, int]]]):
    """The slices of each step: those with labels first, then lesions, then empty ones."""

    def __init__(self, corpus: Corpus, config: LiteConfig) -> None:
        self.config = config
        pick = corpus.samples.__getitem__
        self.parts: list[tuple[list[int], Any, int]] = []
        kinds = (corpus.labelled, config.labelled), (corpus.lesions, config.lesions), (corpus.quiet, config.quiet)
        for positions, count in kinds:
            if positions:
                self.parts.append((positions, balanced_shares([pick(i) for i in positions]), count))
        self.start = 0  # the first step of the next iteration (see `ResumableLoader`)

    def __len__(self) -> int:
        return self.config.steps

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        start, self.start = self.start, 0
        for step in range(start, self.config.steps):
            rng = np.random.default_rng([self.config.seed, step])
            chosen = [
                positions[int(i)]
                for positions, weights, count in self.parts
                for i in rng.choice(len(positions), count, p=weights)
            ]
            yield [(position, step, place) for place, position in enumerate(chosen)]
