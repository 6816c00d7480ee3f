"""The way of a group with volumes of its own: check, divide, fine-tune jcs-lite in folds, score, diagnose together."""

from __future__ import annotations

import csv
import json
import math
from typing import TYPE_CHECKING

import nibabel as nib
import numpy as np
import pytest

from jcs_ct.cli import main
from jcs_ct.phantom import make_phantom, write_dicom
from jcs_ct.weights import load

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.phantom import PhantomStudy

PATIENTS, SLICES, SIZE = 40, 2, 64
SPACING = (5.0, 5.0, 5.0)
HEALTHY = range(0, PATIENTS, 8)
"""Patients of whom no slice holds a lesion."""


@pytest.fixture(scope="module")
def patients() -> list[PhantomStudy]:
    return [
        make_phantom(SLICES, SIZE, seed=i, lesions=0 if i in HEALTHY else 10, spacing=SPACING) for i in range(PATIENTS)
    ]


def save(path: Path, canonical: np.ndarray[tuple[int, ...], np.dtype[np.generic]]) -> None:
    """Write head-to-feet, front-to-back, right-to-left slices as NIfTI in RAS order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = np.ascontiguousarray(canonical[::-1, ::-1, ::-1].transpose(2, 1, 0))
    image = nib.Nifti1Image(stored, np.diag([*SPACING[::-1], 1.0]))  # type: ignore[no-untyped-call]
    nib.save(image, path)


def read_rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    return int(str(left.value.code))


def walk(data: Path, out: Path) -> None:
    """Every command of the way, from a folder of volumes to the weights of two folds, scored."""
    assert run("data", "check", data, "--no-near", "-o", out / "check") == 0
    assert run("data", "split", data, "--folds", 2, "-o", data / "folds.json") == 0
    small = ("--steps", 2, "--lesions", 2, "--quiet-slices", 1, "--labelled", 0, "--every", 1, "--threads", 1)
    frozen = ("--init", "jcs-lite", "--freeze", "encoder.", "--freeze", "top.")
    assert run("train", "lite", "--data", data, *frozen, *small, "--folds", "all", "-o", out / "run") == 0


def test_forty_volumes_to_an_ensemble(patients: list[PhantomStudy], tmp_path: Path) -> None:
    data, out = tmp_path / "data", tmp_path / "out"
    for i, patient in enumerate(patients):
        save(data / "images" / f"p{i:02}.nii.gz", patient.hu)
        save(data / "masks" / f"p{i:02}.nii.gz", patient.lesions.astype(np.uint8))
    walk(data, out)
    checked = json.loads((out / "check" / "report.json").read_text())
    assert checked["ok"] is True

    folds = json.loads((data / "folds.json").read_text())["folds"]
    groups = [{str(name).rsplit("/", 1)[-1].split(".")[0].split("#")[0] for name in fold} for fold in folds]
    assert not groups[0] & groups[1], "a patient's slices stay in one fold"

    shipped = load("jcs-lite")[0]
    weights = [out / "run" / f"fold_{n}" / "best.safetensors" for n in (1, 2)]
    for file in weights:
        tensors, card = load(file)
        same = {name for name in tensors if bool((tensors[name] == shipped[name]).all())}
        assert {name for name in tensors if name.startswith(("encoder.", "top."))} <= same
        assert any(name not in same for name in tensors if name.startswith("lesion"))
        assert card.architecture == "jcs-lite"
    held_out = [
        (row["file"], row["slice"]) for n in (1, 2) for row in read_rows(out / "run" / f"fold_{n}" / "held_out.csv")
    ]
    assert len(held_out) == len(set(held_out)) == PATIENTS * SLICES, "every slice is scored by the network of one fold"

    scored = out / "scored"
    fold = ("--data", data, "--fold", 1, "-m", weights[0], "--resamples", 0, "--runtime", "torch", "--threads", 1)
    assert run("evaluate", "segment", *fold, "-o", scored) == 0
    rows = read_rows(scored / "per_volume.csv")
    assert len(rows) == len(groups[0])
    for row in rows:
        patient = patients[int(row["volume"].rsplit("/", 1)[-1][1:3])]
        truth = float(patient.lesions.sum()) * math.prod(SPACING) / 1000
        assert float(row["mask_ml"]) == pytest.approx(truth, rel=1e-6)

    study = make_phantom(30, 128, seed=77, spacing=(8.0, 2.5, 2.5))
    write_dicom(study, tmp_path / "study")
    ensemble = ("-m", weights[0], "-m", weights[1], "--runtime", "torch", "--threads", 1)
    assert run("diagnose", tmp_path / "study", *ensemble, "-o", out / "diagnosed") == 0
    (report,) = (out / "diagnosed").glob("*/report.json")
    said = json.loads(report.read_text())
    assert said["model"]["name"] == "fold_1+fold_2"
    assert "mean of the probabilities of 2 networks: fold_1, fold_2" in said["model"]["notes"]
    assert len(said["slices"]) == 30
    assert said["burden"]["lung_ml"] > 1000
    assert (report.parent / "lesions.nii.gz").is_file()


def test_the_same_from_a_folder_of_nnunet(patients: list[PhantomStudy], tmp_path: Path) -> None:
    data, out = tmp_path / "Dataset001_Chest", tmp_path / "out"
    few = patients[:6]
    for i, patient in enumerate(few):
        save(data / "imagesTr" / f"p{i:02}_0000.nii.gz", patient.hu)
        save(data / "labelsTr" / f"p{i:02}.nii.gz", patient.lesions.astype(np.uint8))
    content = {"channel_names": {"0": "CT"}, "labels": {"background": 0, "lesion": 1}, "file_ending": ".nii.gz"}
    (data / "dataset.json").write_text(json.dumps(content | {"numTraining": len(few)}))
    walk(data, out)
    rows = [row for n in (1, 2) for row in read_rows(out / "run" / f"fold_{n}" / "held_out.csv")]
    assert len(rows) == len(few) * SLICES
