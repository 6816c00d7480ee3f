"""What a run on volumes is told by: every file that is read, headers, sub-folders, what labels mean; not names."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.slices import open_labels, open_volume
from jcs_ct.evaluate.inputs import from_dataset
from jcs_ct.evaluate.record import differences as record_differences
from jcs_ct.evaluate.record import record_of
from jcs_ct.phantom import make_phantom, write_dicom
from jcs_ct.training.fingerprint import Fingerprint, differences, entries_of, label_names
from volumes_help import write_metaimage, write_nrrd

if TYPE_CHECKING:
    from collections.abc import Callable

SHAPE = (20, 16, 4)  # columns, rows, slices as they are stored


def voxels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(-900, 100, SHAPE).astype(np.int16)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Four volumes, one of each kind, with masks; a manifest names them and their lesions."""
    root, lps = tmp_path / "d", np.diag([2.0, 2.0, 5.0, 1.0])
    (root / "masks").mkdir(parents=True)
    write_metaimage(root / "a.mhd", voxels(1), lps)
    write_nrrd(root / "b.nhdr", voxels(2), lps)
    nib.save(nib.Nifti1Image(voxels(3), np.diag([-2.0, -2.0, 5.0, 1.0])), root / "c.nii")  # type: ignore[no-untyped-call]
    study = make_phantom(slices=4, size=64, seed=1)
    write_dicom(study, root / "d" / "lower")
    (root / "d" / "upper").mkdir()
    for path in sorted((root / "d" / "lower").iterdir())[2:]:
        path.rename(root / "d" / "upper" / path.name)
    for name, shape, lesion in (("a", SHAPE, 1), ("b", SHAPE, 2), ("c", SHAPE, 3), ("d", (64, 64, 4), 1)):
        labels = np.zeros(shape, np.uint8)
        labels[4:8, 4:8, 2] = lesion
        nib.save(nib.Nifti1Image(labels, np.diag([-2.0, -2.0, 5.0, 1.0])), root / "masks" / f"{name}.nii")  # type: ignore[no-untyped-call]
    rows = "".join(f"{file},masks/{file[0]}.nii\n" for file in ("a.mhd", "b.nhdr", "c.nii", "d"))
    (root / "table.csv").write_text("file,mask\n" + rows)
    return root


def now(root: Path) -> Fingerprint:
    for cached in (open_volume, open_labels):
        cached.cache_clear()
    data = open_dataset(root / "table.csv", "segment")
    return Fingerprint(entries_of(data.samples, "training", root), label_names([data]), {})


def text(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        held = (root / name).read_text(errors="surrogateescape")
        assert old in held
        (root / name).write_text(held.replace(old, new), errors="surrogateescape")

    return change


def byte(name: str, at: int) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        held = bytearray((root / name).read_bytes())
        held[at] ^= 1
        (root / name).write_bytes(held)

    return change


def image_below(root: Path) -> None:
    path = sorted((root / "d" / "upper").iterdir())[0]
    held = bytearray(path.read_bytes())
    held[-9] ^= 1
    path.write_bytes(held)


CHANGED: dict[str, tuple[Callable[[Path], None], str]] = {
    "values beside .mhd": (byte("a.raw", 100), "a.mhd#"),
    "spacing of .mhd": (text("a.mhd", "ElementSpacing = 2.0", "ElementSpacing = 2.5"), "a.mhd#"),
    "values beside .nhdr": (byte("b.raw.gz", 4), "b.nhdr#"),
    "origin of .nhdr": (text("b.nhdr", "space origin: (0.0", "space origin: (9.0"), "b.nhdr#"),
    "rescale slope of NIfTI": (byte("c.nii", 112), "c.nii#"),
    "spacing of NIfTI": (byte("c.nii", 82), "c.nii#"),
    "affine of a mask": (byte("masks/c.nii", 282), "c.nii#"),
    "an image in a folder below": (image_below, "d#"),
}


@pytest.mark.parametrize("change", CHANGED)
def test_what_a_volume_is_read_from_counts(change: str, root: Path) -> None:
    before = now(root)
    assert [e.name for e in before.entries[:2]] == ["a.mhd#0", "a.mhd#1"]
    alter, named = CHANGED[change]
    alter(root)
    (line,) = differences(before, now(root))
    assert line.startswith("4 slices (")
    assert named in line


def test_other_names_and_other_folders_below_go_on(root: Path, tmp_path: Path) -> None:
    before = now(root)
    for path in (root / "d" / "upper").iterdir():
        path.rename(root / "d" / f"x{path.name}")
    (root / "d" / "upper").rmdir()
    (root / "d" / "notes.txt").write_text("of nobody")
    (root / "table.csv").write_text(
        "\n".join(["file,mask", *reversed(root.joinpath("table.csv").read_text().split()[1:])])
    )
    moved = Path(shutil.move(root, tmp_path / "elsewhere"))
    assert differences(before, now(moved)) == []


def test_what_labels_mean_counts(tmp_path: Path) -> None:
    for name in ("imagesTr/a_0000", "labelsTr/a"):
        path = tmp_path / f"{name}.nii.gz"
        path.parent.mkdir()
        held = voxels(4) if "images" in name else (voxels(4) > 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(held, np.diag([-2.0, -2.0, 5.0, 1.0])), path)  # type: ignore[no-untyped-call]
    names = {"background": 0, "lesion": 1}
    prints = []
    for labels, training in ((names, 1), ({"background": 0, "lung": 1}, 1), (dict(reversed(names.items())), 7)):
        content = {"channel_names": {"0": "CT"}, "labels": labels, "numTraining": training, "file_ending": ".nii.gz"}
        (tmp_path / "dataset.json").write_text(json.dumps(content))
        data = open_dataset(tmp_path, "segment")
        prints.append(Fingerprint(entries_of(data.samples, "training", tmp_path), label_names([data]), {}))
    assert differences(prints[0], prints[1]) == [
        'label names was {"background": 0, "lesion": 1} and is {"background": 0, "lung": 1}'
    ]
    assert differences(prints[0], prints[2]) == []


def test_scores_know_the_same(root: Path) -> None:
    def record(lesions: tuple[int, ...] = ()) -> object:
        for cached in (open_volume, open_labels):
            cached.cache_clear()
        cases = from_dataset(root / "table.csv", "segment", lesions=lesions).cases
        return record_of("segment", "m", "0" * 16, {}, cases)

    before = record()
    byte("a.raw", 100)(root)
    (line,) = record_differences(before, record())  # type: ignore[arg-type]
    assert line == "4 slices (a, slice 1, a, slice 2, a, slice 3, …) have other pictures, masks, labels or patients"
    assert record((1, 3)).data != record((1,)).data  # type: ignore[attr-defined]
