"""Slices with masks and slices with labels, as one stream of steps.

What a slice becomes depends on (seed, step, place in the step) alone, so that a run can go on anywhere.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import Sampler

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.masks import read_mask
from jcs_ct.datasets.split import make_folds
from jcs_ct.imaging.lung_box import find_field
from jcs_ct.imaging.recipes import grey, look, recipe, stretch
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.pictures import decode_slice
from jcs_ct.training.lite.augment import disguise, jitter, looks, moves
from jcs_ct.training.order import balanced_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.training.lite.config import LiteConfig

Item = dict[str, Tensor]
Parts = tuple[tuple["Sample", ...], tuple["Sample", ...]]  # to train on, held out


def divide(config: LiteConfig) -> tuple[Parts, Parts]:
    """Return the slices with masks and those with labels, each (to train on, held out).

    Raises:
        InputError, UsageError: No such data; a data set with neither masks nor labels; no such fold.
    """
    masked: list[list[Sample]] = [[], []]
    labelled: list[list[Sample]] = [[], []]
    for folder in config.data:
        dataset = open_dataset(folder, None)
        samples = tuple(s for s in dataset.samples if s.source not in config.without)
        dataset = replace(dataset, samples=samples)
        with_masks = any(s.mask is not None for s in samples)
        if not with_masks and not any(s.label is not None for s in samples):
            raise UsageError("holds neither masks nor labels", path=folder, hint="see `jcs data check`")
        if config.fold is None:
            parts: Parts = (samples, ())
        elif dataset.folds:
            parts = dataset.fold(config.fold)
        else:
            made = make_folds(dataset, config.folds, seed=0).folds
            if not 1 <= config.fold <= len(made):
                raise UsageError(f"there is no fold {config.fold}; its folds: 1 to {len(made)}", path=folder)
            others = tuple(s for i, fold in enumerate(made, 1) for s in fold if i != config.fold)
            parts = (others, made[config.fold - 1])
        for into, part in zip(masked if with_masks else labelled, parts, strict=True):
            into.extend(part)
    return (tuple(masked[0]), tuple(masked[1])), (tuple(labelled[0]), tuple(labelled[1]))


class LiteSlices(TorchDataset[Item]):
    """Augmented slices, by (position, step, place in the step).

    An item holds "image" 1×H×W; "mask" H×W in 0 … 1, or −1 where there is none; "label" 0 or 1, or −1.
    Decoded slices are kept: a few hundred megabytes, and no decoding after the first pass.
    """

    def __init__(self, samples: Sequence[Sample], seed: int) -> None:
        self.samples, self.seed = tuple(samples), seed
        how = recipe("lung-field")
        self.shape = (how.size, how.columns)
        self.moves: Any = moves()
        self.looks: Any = looks()
        self.decoded: dict[int, tuple[NDArray[np.uint8], NDArray[np.uint8] | None]] = {}
        self.boxes: dict[int, tuple[int, int, int, int]] = {}

    def __len__(self) -> int:
        return len(self.samples)

    def slice_of(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return the grey slice and its mask (0 or 255), or None. Raises InputError where they differ in size."""
        if position not in self.decoded:
            sample = self.samples[position]
            picture = grey(decode_slice(read_file(sample.path), sample.path.stem, str(sample.path)).pixels)
            mask = None
            if sample.mask is not None:
                mask = read_mask(sample.mask).astype(np.uint8) * np.uint8(255)
                if mask.shape != picture.shape:
                    raise InputError(
                        f"is {mask.shape[0]}×{mask.shape[1]}, its slice {picture.shape[0]}×{picture.shape[1]}",
                        path=sample.mask,
                        hint="a mask has the size of its slice",
                    )
            self.decoded[position] = picture, mask
        return self.decoded[position]

    def __getitem__(self, key: tuple[int, int, int]) -> Item:
        position, step, place = key
        rng = np.random.default_rng([self.seed, step, place])
        picture, mask = self.slice_of(position)
        if position not in self.boxes:
            self.boxes[position] = find_field(picture).box
        box = jitter(self.boxes[position], (picture.shape[0], picture.shape[1]), rng)
        seen = disguise(look(picture, box, self.shape), rng)
        both = {"image": torch.from_numpy(stretch(seen))[None]}
        if mask is not None:
            target = look(mask, box, self.shape).astype(np.float32) / np.float32(255)
            both["mask"] = torch.from_numpy(target)[None]
        self.moves.set_random_state(seed=int(rng.integers(2**31)))
        moved = self.moves(both)
        self.looks.set_random_state(seed=int(rng.integers(2**31)))
        label = self.samples[position].label
        return {
            "image": self.looks(moved["image"]).as_tensor(),
            "mask": moved["mask"].as_tensor()[0] if mask is not None else torch.full(self.shape, -1.0),
            "label": torch.tensor(-1.0 if label is None or mask is not None else float(label)),
        }


class LiteSteps(Sampler[list[tuple[int, int, int]]]):
    """The slices of each step: `labelled` drawn in balance, then `masked` by shuffled rounds.

    Args:
        masked: Number of slices with masks; they come first in the data set.
        labelled: The others.
        config: Of the run.
    """

    def __init__(self, masked: int, labelled: Sequence[Sample], config: LiteConfig) -> None:
        self.masked, self.config = masked, config
        self.weights = balanced_weights(labelled) if labelled else []
        self.start = 0  # the first step of the next iteration (see `ResumableLoader`)

    def __len__(self) -> int:
        return self.config.steps

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        c = self.config
        start, self.start = self.start, 0
        for step in range(start, c.steps):
            chosen: list[int] = []
            if self.weights:
                rng = np.random.default_rng([c.seed, step])
                chosen += [self.masked + int(i) for i in rng.choice(len(self.weights), c.labelled, p=self.weights)]
            if self.masked:
                for at in range(step * c.masked, (step + 1) * c.masked):
                    order = np.random.default_rng([c.seed, at // self.masked, 1]).permutation(self.masked)
                    chosen.append(int(order[at % self.masked]))
            yield [(position, step, place) for place, position in enumerate(chosen)]
