"""From samples on disk to tensors: the same reading and recipes as in inference, seeded augmentation on top.

What a sample becomes depends on (seed, epoch, position) alone, never on the process that reads it or on what was read
before. That is what lets a run continue exactly where it was.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.slices import mask_of, pixels_of
from jcs_ct.imaging.recipes import prepare, recipe
from jcs_ct.io.features import dequantise, read_features
from jcs_ct.io.files.opening import read_file
from jcs_ct.models import model_spec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.datasets.unpacked import UnpackedSlices
    from jcs_ct.training.config import TrainConfig

Item = dict[str, Tensor]


class SliceDataset(TorchDataset[Item]):
    """Samples as tensors.

    An item holds "input0" (and "input1" for joint features), float32 C×H×W; "mask" float32 H×W in {0, 1}, or −1 where
    there is none; "label" 0 or 1, or −1. Where `train`, they are augmented. Slices of volumes are found in `unpacked`;
    without it, each is read out of its volume.
    """

    def __init__(
        self, samples: Sequence[Sample], config: TrainConfig, *, train: bool, unpacked: UnpackedSlices | None = None
    ) -> None:
        self.samples = tuple(samples)
        self.pixels_of = pixels_of if unpacked is None else unpacked.pixels
        self.mask_of = mask_of if unpacked is None else unpacked.mask
        self.seed = config.seed
        self.from_features = config.inputs == "features"
        self.arrays = model_spec(config.network).feature_arrays
        self.how = recipe(config.recipe_name)
        self.augment = _augmentation(config) if train and config.augment else None

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: int | tuple[int, int]) -> Item:
        """Return the sample at a position; with (position, epoch) as key, augmented for that epoch."""
        position, epoch = key if isinstance(key, tuple) else (key, 0)
        sample = self.samples[position]
        item = self._features(sample) if self.from_features else self._image(sample)
        if self.augment is not None:
            item = self._augmented(item, position, epoch)
        item["label"] = torch.tensor(-1 if sample.label is None else sample.label)
        return item

    def _image(self, sample: Sample) -> Item:
        pixels = self.pixels_of(sample)
        values, placement = prepare(pixels, self.how)
        item = {"input0": torch.from_numpy(values)}
        mask = self._mask(sample, pixels.shape[:2])
        top, left, rows, columns = placement.crop
        if mask is None:
            item["mask"] = torch.full((rows, columns), -1.0)
        else:
            whole = _nearest(mask, placement.resized)[top : top + rows, left : left + columns]
            item["mask"] = torch.from_numpy(whole.astype(np.float32))
        return item

    def _features(self, sample: Sample) -> Item:
        path = sample.features or sample.path
        read = read_features(read_file(path), path.stem, str(path), self.arrays)
        arrays = [array for which in self.arrays if (array := getattr(read, which)) is not None]
        item = {f"input{i}": torch.from_numpy(dequantise(a)) for i, a in enumerate(arrays)}
        shape = (arrays[0].shape[1], arrays[0].shape[2])
        mask = self._mask(sample, None)
        target = np.full(shape, -1.0) if mask is None else _nearest(mask, shape)
        item["mask"] = torch.from_numpy(target.astype(np.float32))
        return item

    def _mask(self, sample: Sample, shape: tuple[int, ...] | None) -> NDArray[np.bool_] | None:
        if sample.mask is None:
            return None
        mask = self.mask_of(sample)
        if shape is not None and mask.shape != tuple(shape):
            raise InputError(
                f"is {mask.shape[0]}×{mask.shape[1]}, its slice {sample.path.name} is {shape[0]}×{shape[1]}",
                path=sample.mask,
                hint="a mask has the size of its slice",
            )
        return mask

    def _augmented(self, item: Item, position: int, epoch: int) -> Item:
        transform: Any = self.augment
        transform.set_random_state(seed=int(np.random.SeedSequence([self.seed, epoch, position]).generate_state(1)[0]))
        moved = transform({"image": item["input0"], "mask": item["mask"][None]})
        return {"input0": moved["image"].as_tensor(), "mask": moved["mask"].as_tensor()[0]}


def validation_loader(
    held: Sequence[Sample], config: TrainConfig, rank: int, unpacked: UnpackedSlices
) -> DataLoader[Any] | None:
    """Return the validation slices of one process: every `devices`-th, none twice; read in this process."""
    if not held:
        return None
    dataset = SliceDataset(held[rank :: config.devices], config, train=False, unpacked=unpacked)
    return DataLoader(dataset, batch_size=config.batch)


def _nearest(mask: NDArray[np.bool_], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the mask at another shape: each pixel is the one that its centre falls into."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(shape, mask.shape, strict=True))
    return mask[np.ix_(rows, columns)]


def _augmentation(config: TrainConfig) -> Any:
    """Return MONAI's transforms: flips left to right, small affine moves, contrast, blur and noise."""
    from monai.transforms import (
        Compose,
        RandAdjustContrastd,
        RandAffined,
        RandFlipd,
        RandGaussianNoised,
        RandGaussianSmoothd,
        RandScaleIntensityd,
        RandShiftIntensityd,
    )

    how = recipe(config.recipe_name)
    both = ["image", "mask"]
    lost = -1.0 if config.task == "classify" else 0.0  # what a mask holds where the slice was moved out of view
    return Compose(
        [
            RandFlipd(both, prob=0.5, spatial_axis=1),
            RandAffined(
                both,
                prob=0.9,
                rotate_range=0.26,
                scale_range=0.15,
                translate_range=0.06 * (how.crop or how.size),
                shear_range=0.05,
                mode=["bilinear", "nearest"],
                padding_mode=["border", "zeros"] if lost == 0.0 else ["border", "border"],
            ),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.4)),
            RandScaleIntensityd("image", factors=0.15, prob=0.5),
            RandShiftIntensityd("image", offsets=0.15, prob=0.5),
            RandGaussianSmoothd("image", prob=0.15, sigma_x=(0.3, 1.0), sigma_y=(0.3, 1.0)),
            RandGaussianNoised("image", prob=0.15, std=0.08),
        ]
    )
