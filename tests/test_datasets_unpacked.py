"""Slices of volumes that are unpacked once give what the volumes give, in every process, and leave nothing behind."""

from __future__ import annotations

import multiprocessing
import pickle
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.datasets.samples import Sample
from jcs_ct.datasets.slices import mask_of, pixels_of
from jcs_ct.datasets.unpacked import UnpackedSlices

if TYPE_CHECKING:
    from pathlib import Path

SHAPE = (40, 48, 5)  # x, y, z as NIfTI stores them


@pytest.fixture
def samples(tmp_path: Path) -> list[Sample]:
    """Slices of two volumes, in no order, and a picture."""
    found = []
    for seed in range(2):
        random = np.random.default_rng(seed)
        mask = np.zeros(SHAPE, np.uint8)
        mask[4:9, 6:12, 1:3] = 3
        for name, values in (("ct", random.integers(-1000, 500, SHAPE).astype(np.int16)), ("mask", mask)):
            image = nib.Nifti1Image(values, np.diag([1.5, 1.5, 5.0, 1.0]))  # type: ignore[no-untyped-call]
            nib.save(image, tmp_path / f"{name}{seed}.nii.gz")
        volume = Sample(tmp_path / f"ct{seed}.nii.gz", tmp_path / f"mask{seed}.nii.gz", lesions=(3,))
        found += [replace(volume, index=index) for index in (3, 0, 2)]
    Image.fromarray(np.arange(40 * 48).reshape(40, 48).astype(np.uint8)).save(tmp_path / "a.png")
    return [found[0], found[4], found[2], Sample(tmp_path / "a.png"), *found[1:2], found[3]]


def same(unpacked: UnpackedSlices, samples: list[Sample]) -> bool:
    images = all(np.array_equal(unpacked.pixels(sample), pixels_of(sample)) for sample in samples)
    return images and all(np.array_equal(unpacked.mask(s), mask_of(s)) for s in samples if s.mask)


def test_they_give_what_the_volumes_give(samples: list[Sample], tmp_path: Path) -> None:
    unpacked = UnpackedSlices(samples, tmp_path / "slices.tmp")
    assert same(unpacked, samples)
    assert unpacked.mask(samples[2]).sum() == 30
    assert (tmp_path / "slices.tmp").stat().st_size == 5 * 2 * 40 * 48
    assert same(pickle.loads(pickle.dumps(unpacked)), samples)
    unpacked.close()
    assert not (tmp_path / "slices.tmp").exists()


def test_volumes_are_read_once(samples: list[Sample], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unpacked = UnpackedSlices(samples, tmp_path / "slices.tmp")

    def fail(*_: Any) -> Any:
        raise AssertionError("a volume is read again")

    monkeypatch.setattr("jcs_ct.datasets.slices.open_volume", fail)
    monkeypatch.setattr("jcs_ct.datasets.slices.open_labels", fail)
    for sample in samples:
        assert unpacked.pixels(sample).shape == (40, 48, 3) if sample.index is None else (48, 40, 3)


def _sums(unpacked: UnpackedSlices, samples: list[Sample], queue: Any) -> None:
    queue.put([int(unpacked.pixels(sample).sum()) for sample in samples])


def test_another_process_reads_them(samples: list[Sample], tmp_path: Path) -> None:
    unpacked = UnpackedSlices(samples, tmp_path / "slices.tmp")
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=_sums, args=(unpacked, samples, queue))
    process.start()
    assert queue.get(timeout=120) == [int(pixels_of(sample).sum()) for sample in samples]
    process.join()


def test_pictures_alone_need_no_file(samples: list[Sample], tmp_path: Path) -> None:
    unpacked = UnpackedSlices([samples[3]], tmp_path / "slices.tmp")
    assert not (tmp_path / "slices.tmp").exists()
    assert same(unpacked, [samples[3]])
    unpacked.close()


def test_what_cannot_be_read_or_written_is_said(samples: list[Sample], tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be unpacked"):
        UnpackedSlices(samples, tmp_path / "none" / "slices.tmp")
    with pytest.raises(InputError, match="slice 9 was asked for"):
        UnpackedSlices([replace(samples[0], index=9)], tmp_path / "slices.tmp")
    assert not (tmp_path / "slices.tmp").exists()
