"""What a run was trained on is known from the file beside its weights, also where it went on with other data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from jcs_ct.datasets.fingerprint import digest, fingerprint
from jcs_ct.datasets.samples import Sample
from jcs_ct.datasets.training_slices import read_training_slices
from jcs_ct.training.start import keep_hashes

if TYPE_CHECKING:
    from pathlib import Path


def test_slices_of_all_starts_are_kept(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    pixels = [np.repeat(rng.integers(0, 255, (64, 64, 1), np.uint8), 3, axis=2) for _ in range(3)]
    for i, picture in enumerate(pixels):
        Image.fromarray(picture).save(tmp_path / f"{i}.png")
    samples = [Sample(image=tmp_path / f"{i}.png") for i in range(3)]
    weights = tmp_path / "best.safetensors"
    keep_hashes(weights, samples[:2])
    first = read_training_slices(tmp_path / "best.hashes")
    known = [first.find(digest(p), fingerprint(p)) for p in pixels]
    assert known == ["same", "same", None]
    keep_hashes(weights, samples[1:])
    both = read_training_slices(tmp_path / "best.hashes")
    assert len(both) == 3
    turned = [np.rot90(p).copy() for p in pixels]
    assert [both.find(digest(p), fingerprint(p)) for p in (*pixels, *turned)] == ["same"] * 3 + ["similar"] * 3
