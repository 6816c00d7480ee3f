"""Volumes as data: folders, nnU-Net, manifests; checked, divided and scored slice by slice and as a whole."""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from jcs_ct.cli import main
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.check import check
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.slices import read_sample
from jcs_ct.datasets.split import make_folds, save_folds
from jcs_ct.datasets.volumes import lesion_labels
from jcs_ct.phantom import make_phantom, write_dicom
from volumes_help import write_metaimage

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SHAPE = (6, 40, 48)  # slices from the head, rows, columns
SPACING = (5.0, 2.0, 1.5)
VOXEL_ML = 0.015
LESIONS = {1: 0, 2: 1, 3: 2}  # slice from the head → label of its lesion, 0: none


def hu(seed: int) -> NDArray[np.int16]:
    random = np.random.default_rng(seed)
    values = np.full(SHAPE, -1000, np.int16)
    values[:, 5:35, 5:43] = 40
    values[:, 10:30, 8:22], values[:, 10:30, 26:40] = -850, -850
    return (values + random.integers(-20, 20, SHAPE)).astype(np.int16)


def labels() -> NDArray[np.uint8]:
    """Slice 2 and 3 from the head hold lesions, of label 1 and 2."""
    found = np.zeros(SHAPE, np.uint8)
    for index, label in LESIONS.items():
        found[index, 12:20, 10:18] = label
    return found


def save(path: Path, canonical: NDArray[np.generic]) -> Path:
    """Write slices × rows × columns (head, front, right first) as NIfTI in RAS order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.ascontiguousarray(
        canonical[::-1, ::-1, ::-1].transpose(2, 1, 0)
    )  # to left→right, back→front, feet→head
    affine = np.diag([SPACING[2], SPACING[1], SPACING[0], 1.0])
    image = nib.Nifti1Image(stored, affine)  # type: ignore[no-untyped-call]
    nib.save(image, path)
    return path


def folders(root: Path, count: int = 3, images: str = "images", masks: str = "masks", ending: str = "") -> Path:
    for i in range(count):
        save(root / images / f"p{i}{ending}.nii.gz", hu(i))
        save(root / masks / f"p{i}.nii.gz", labels() if i else np.zeros(SHAPE, np.uint8))
    return root


def test_a_volume_is_a_sample_for_each_slice(tmp_path: Path) -> None:
    data = open_dataset(folders(tmp_path, 2), "segment")
    assert [(s.path.name, s.index, s.group, s.empty) for s in data.samples[6:]] == [
        ("p1.nii.gz", index, "p1", not LESIONS.get(index)) for index in range(6)
    ]
    assert all(s.empty for s in data.samples[:6])
    read = read_sample(data.samples[6 + 3])
    np.testing.assert_array_equal(read.image, hu(1)[3])
    assert read.mask is not None
    np.testing.assert_array_equal(read.mask, labels()[3] > 0)
    assert read.spacing == (2.0, 1.5)
    assert "2 volumes of 12 slices" in data.notes


def test_labels_say_what_is_lesion(tmp_path: Path) -> None:
    data = open_dataset(folders(tmp_path, 2), "segment", lesions=lesion_labels("2"))
    assert [s.index for s in data.samples if not s.empty] == [3]
    read = read_sample(data.samples[6 + 2])
    assert read.mask is not None
    assert not read.mask.any()


@pytest.mark.parametrize("text", ["", "0", "1,x", "-1", "1.5"])
def test_labels_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="numbers above 0"):
        lesion_labels(text)


def nnunet(root: Path, **changes: object) -> Path:
    folders(root, 3, "imagesTr", "labelsTr", "_0000")
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (root / "dataset.json").write_text(json.dumps(content | changes), encoding="utf-8")
    return root


def test_a_folder_of_nnunet_is_read(tmp_path: Path) -> None:
    data = open_dataset(nnunet(tmp_path), "segment")
    assert data.layout == "nnU-Net"
    assert [s.group for s in data.samples[::6]] == ["p0", "p1", "p2"]
    assert sum(not s.empty for s in data.samples) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"channel_names": {"0": "CT", "1": "PET"}}, "names 2 channels"),
        ({"file_ending": ".png"}, "names the file ending '.png'"),
    ],
)
def test_what_nnunet_has_and_this_has_not_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        open_dataset(nnunet(tmp_path, **changes), "segment")


def test_a_case_of_nnunet_without_labels_is_named(tmp_path: Path) -> None:
    (nnunet(tmp_path) / "labelsTr" / "p1.nii.gz").unlink()
    data = open_dataset(tmp_path, "segment", strict=False)
    assert [str(p.message) for p in data.problems] == ["has no p1.nii.gz in labelsTr/"]


def test_a_manifest_of_volumes_keeps_patient_and_label(tmp_path: Path) -> None:
    folders(tmp_path, 3)
    (tmp_path / "d.csv").write_text(
        "file,mask,label,group\np0.nii.gz,,0,a\np1.nii.gz,p1.nii.gz,1,a\np2.nii.gz,,1,b\n", encoding="utf-8"
    )
    data = open_dataset(tmp_path / "d.csv")
    assert {s.group for s in data.samples[:12]} == {"a"}
    assert [s.label for s in data.samples] == [0] * 6 + [0, 0, 1, 1, 0, 0] + [None] * 6  # no lesion, no positive
    assert any("1 positive volumes have no mask" in note for note in data.notes)


def test_volumes_may_be_of_another_format_but_masks_are_nifti(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    affine = np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])
    stored = np.ascontiguousarray(hu(0)[::-1, ::-1, ::-1].transpose(2, 1, 0))
    write_metaimage(tmp_path / "images" / "p0.mha", stored, affine)
    save(tmp_path / "masks" / "p0.nii.gz", labels())
    data = open_dataset(tmp_path, "segment")
    assert [s.index for s in data.samples if not s.empty] == [2, 3]
    np.testing.assert_array_equal(read_sample(data.samples[3]).image, hu(0)[3])
    (tmp_path / "masks" / "p0.nii.gz").rename(tmp_path / "masks" / "p0.mha")
    with pytest.raises(InputError, match="cannot be read as NIfTI") as error:
        open_dataset(tmp_path, "segment")
    assert "give a mask as .nii or .nii.gz" in str(error.value)


def test_a_series_of_dicom_has_its_mask_by_the_name_of_its_folder(tmp_path: Path) -> None:
    study = make_phantom(slices=4, size=64, seed=1)
    write_dicom(study, tmp_path / "images" / "p0")
    lesion = np.zeros(study.hu.shape, np.uint8)
    lesion[1, 30:34, 20:24] = 1
    save(tmp_path / "masks" / "p0.nii.gz", lesion)
    data = open_dataset(tmp_path, "segment")
    assert data.problems == ()
    assert [(s.path.name, s.index, s.empty) for s in data.samples] == [("p0", i, i != 1) for i in range(4)]
    np.testing.assert_array_equal(read_sample(data.samples[1]).image, study.hu[1])


def test_a_mask_on_another_grid_is_a_problem(tmp_path: Path) -> None:
    save(folders(tmp_path, 2) / "masks" / "p1.nii.gz", labels()[:5])
    data = open_dataset(tmp_path, "segment", strict=False)
    assert [p.message for p in data.problems] == ["is 5 × 40 × 48, its volume p1.nii.gz is 6 × 40 × 48"]
    assert {s.group for s in data.samples} == {"p0"}


def test_check_reads_slices_and_names_volumes_without_lesion(tmp_path: Path) -> None:
    folders(tmp_path, 2)
    save(tmp_path / "images" / "copy.nii.gz", hu(1))
    save(tmp_path / "masks" / "copy.nii.gz", labels())
    report = check(open_dataset(tmp_path, "segment", strict=False))
    assert report.counts["volumes"] == 3
    assert report.counts["slices"] == 18
    found = {(f.kind, f.path): f.message for f in report.findings}
    assert found["empty-mask", "images/p0.nii.gz"] == "has a mask without lesion"
    assert found["exact-duplicate", "images/copy.nii.gz, slice 3"].startswith(
        "has the same pixels as images/p1.nii.gz, slice 3"
    )


def test_folds_keep_a_volume_together_and_name_it_once(tmp_path: Path) -> None:
    data = open_dataset(folders(tmp_path, 4), "segment")
    made = make_folds(data, 2, seed=0)
    assert sum(len(fold) for fold in made.folds) == 24
    save_folds(made, data, tmp_path / "folds.json")
    written = json.loads((tmp_path / "folds.json").read_text(encoding="utf-8"))["folds"]
    assert sorted(name for fold in written for name in fold) == ["p0", "p1", "p2", "p3"]
    again = open_dataset(tmp_path, "segment")
    train, test = again.fold(1)
    assert len(train) + len(test) == 24
    assert {s.path for s in train}.isdisjoint({s.path for s in test})


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "segment", *map(str, words)])
    return int(end.value.code or 0), "".join(capsys.readouterr())


def test_predicted_volumes_are_scored_by_slice_and_as_a_whole(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """p1: half of the lesion found; p2: all, and a slice without lesion is marked; p0: nothing, unmarked."""
    data, maps = folders(tmp_path / "data", 3), tmp_path / "maps"
    half, more = labels(), labels()
    half[:, 16:20] = 0
    more[5, 12:14, 10:18] = 1
    for name, values in (("p0", np.zeros(SHAPE, np.uint8)), ("p1", half), ("p2", more)):
        save(maps / f"{name}.nii.gz", values)
    words = ("--data", data, "--predictions", maps, "-o", tmp_path / "out", "--resamples", 20)
    status, said = evaluated(capsys, *words)
    assert status == 0, said
    with (tmp_path / "out" / "per_volume.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["volume"]: row for row in csv.DictReader(file)}
    assert rows["p0"]["dice"] == ""
    assert float(rows["p1"]["dice"]) == pytest.approx(2 / 3)
    assert float(rows["p2"]["dice"]) == pytest.approx(2 * 128 / (2 * 128 + 16))
    assert float(rows["p1"]["mask_ml"]) == pytest.approx(128 * VOXEL_ML)
    assert float(rows["p1"]["error_ml"]) == pytest.approx(-64 * VOXEL_ML)
    assert (rows["p2"]["empty_slices"], rows["p2"]["empty_slices_marked"]) == ("4", "1")
    scores = json.loads((tmp_path / "out" / "scores.json").read_text(encoding="utf-8"))
    assert scores["volumes"]["dice"]["value"] == pytest.approx((2 / 3 + 256 / 272) / 2)
    assert scores["volumes"]["empty_slices_marked"]["value"] == pytest.approx(1 / 14)
    assert scores["slices"] == 18
    assert "## 3 volumes of 3 groups" in (tmp_path / "out" / "scores.md").read_text(encoding="utf-8")


def test_a_volume_without_prediction_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = folders(tmp_path / "data", 2)
    save(tmp_path / "maps" / "p1.nii.gz", labels())
    words = ("--data", data, "--predictions", tmp_path / "maps", "-o", tmp_path / "out", "--resamples", 0)
    status, said = evaluated(capsys, *words)
    assert status == 1
    assert said.count("has no volume of maps") == 1


def test_volumes_can_be_trained_on(tmp_path: Path) -> None:
    """What a network learns from is the slice as `diagnose` shows it, and its mask at the size of the input."""
    from jcs_ct.imaging.recipes import prepare, recipe
    from jcs_ct.imaging.window import to_grey
    from jcs_ct.training.config import TrainConfig
    from jcs_ct.training.samples import SliceDataset

    samples = open_dataset(folders(tmp_path, 2), "segment").samples
    config = TrainConfig(task="segment", data=str(tmp_path), network="jcs-single")
    item = SliceDataset(samples, config, train=False)[6 + 3]
    expected, _ = prepare(np.repeat(to_grey(hu(1)[3])[:, :, None], 3, axis=2), recipe(config.recipe_name))
    np.testing.assert_array_equal(item["input0"].numpy(), expected)
    assert item["mask"].mean() == pytest.approx(64 / (40 * 48), rel=0.1)


def scored(
    tmp_path: Path, values: NDArray[np.generic], capsys: pytest.CaptureFixture[str], *words: str
) -> tuple[int, str, float | None]:
    """Score one kind of map of p1 and p2 against their masks; return status, words, and the mean 3-D Dice."""
    data, maps = tmp_path / "data", tmp_path / "maps"
    if not data.exists():
        folders(data, 3)
        (data / "images" / "p0.nii.gz").unlink()
        (data / "masks" / "p0.nii.gz").unlink()
    for name in ("p1", "p2"):
        save(maps / f"{name}.nii.gz", values)
    given = ("--data", data, "--predictions", maps, "-o", tmp_path / "out", "--resamples", 0, "--overwrite", *words)
    status, said = evaluated(capsys, *given)
    if status:
        return status, said, None
    return status, said, json.loads((tmp_path / "out" / "scores.json").read_text())["volumes"]["dice"]["value"]


def test_maps_of_volumes_are_read_as_what_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every way to store the same map gives the same Dice; what can be several things is refused."""
    lesion = labels() > 0
    shares = np.where(lesion, 0.9, 0.2).astype(np.float32)  # all above 0: as labels the whole volume would be lesion
    for values, words in (
        (lesion.astype(np.uint8), ()),
        (lesion.astype(np.float32), ()),
        (lesion * np.uint8(255), ()),
        (shares, ()),
        (np.floor(255 * shares).astype(np.uint8), ("--map-values", "probabilities")),
        (labels(), ("--labels", "1,2")),
    ):
        assert scored(tmp_path, values, capsys, *words)[2] == 1.0, (values.dtype, words)
    levels = np.floor(255 * shares).astype(np.uint8)
    levels[0, 0, 0] = 77
    for values, words, text in (
        (levels, (), "holds 3 whole numbers up to 229: labels, or probabilities as floor(255·p)"),
        (shares - 0.5, (), "holds values from -0.3 to 0.4; labels, or probabilities from 0 to 1, are expected"),
        (shares * 3, (), "holds values from 0.6 to 2.7, some no whole numbers"),
        (lesion * np.uint8(4), ("--labels", "1,2"), "maps hold the labels 4, and --labels 1, 2 says that others are"),
    ):
        status, said, _ = scored(tmp_path, values, capsys, *words)
        assert status == 2, said
        assert text in said


def test_masks_between_whole_numbers_are_refused(tmp_path: Path) -> None:
    folders(tmp_path, 2)
    save(tmp_path / "masks" / "p1.nii.gz", labels().astype(np.float32) / 2)
    with pytest.raises(InputError, match=r"holds values such as 0\.5; labels, which are whole numbers, are expected"):
        open_dataset(tmp_path, "segment")
