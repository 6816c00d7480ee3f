"""The weights in the package: file, card and code agree, and their scores on a frozen subset are the stored ones.

`python tests/test_shipped.py` writes the stored numbers anew (`tests/golden/lite.json`), after a training.
"""

from __future__ import annotations

import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from jcs_ct.cli import main  # noqa: E402
from jcs_ct.core.types import SliceImage  # noqa: E402
from jcs_ct.datasets.masks import read_mask  # noqa: E402
from jcs_ct.imaging.recipes import RECIPES  # noqa: E402
from jcs_ct.inference import Network, apply, open_network  # noqa: E402
from jcs_ct.io.files.opening import read_file  # noqa: E402
from jcs_ct.io.pictures import decode_slice  # noqa: E402
from jcs_ct.metrics.segmentation import pixel_counts  # noqa: E402
from jcs_ct.phantom import lung_window, make_phantom  # noqa: E402
from jcs_ct.weights import load  # noqa: E402
from jcs_ct.weights.store import sha256_of, shipped  # noqa: E402

STORED = ROOT / "tests" / "golden" / "lite.json"
MASKED = ("tr_im_0001", "tr_im_0019", "tr_im_0035", "tr_im_0055", "tr_im_0068", "tr_im_0092")
BY_SOURCE = 6  # labelled slices of each source, three of each class


def phantom_slice() -> SliceImage:
    study = make_phantom(slices=24, seed=0)
    index = int(study.lesions.sum(axis=(1, 2)).argmax())
    grey = lung_window(study.hu[index])
    return SliceImage("phantom", "phantom", grey[:, :, None].repeat(3, axis=2))


@lru_cache
def plain_network() -> Network:
    return open_network(None, "cpu", runtime="torch")


def facts(image: SliceImage) -> dict[str, float]:
    """What the shipped network says of a slice, on plain PyTorch."""
    found = apply.diagnose_slice(image, plain_network())
    return {
        "probability": round(found.probability, 6),
        "lesion_share": round(float((found.lesion >= 0.5).mean()), 6),
        "attention_mean": round(float(found.attention.mean()), 6),
    }


def real_slices(data: Path) -> dict[str, dict[str, float]]:
    """Scores on the frozen subset of the real slices."""
    import csv

    scores = {}
    for stem in MASKED:
        path = data / "ct100" / "images" / f"{stem}.png"
        mask = data / "ct100" / "masks" / f"{stem.replace('im', 'mask')}.png"
        image = decode_slice(read_file(path), stem, str(path))
        lesion = apply.segment(image, plain_network())
        dice = pixel_counts(lesion, read_mask(mask)).scores()["dice"]
        scores[stem] = facts(image) | {"dice": round(float(dice), 5)}
    chosen: dict[tuple[str, str], int] = {}
    with (data / "ct_classification" / "labels.csv").open(newline="", encoding="utf-8") as table:
        for row in csv.DictReader(table):
            key = row["source"], row["label"]
            chosen[key] = chosen.get(key, 0) + 1
            if chosen[key] > BY_SOURCE // 2 or row["source"] not in {"ucsd", "sarscov2", "mosmed"}:
                continue
            path = data / "ct_classification" / "images" / Path(row["file"]).name
            scores[f"{row['source']} {row['label']} {chosen[key]}"] = facts(
                decode_slice(read_file(path), path.stem, str(path))
            )
    return scores


@pytest.fixture(scope="module")
def stored() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(STORED.read_text(encoding="utf-8"))
    return found


def test_file_card_and_code_agree(stored: dict[str, Any]) -> None:
    tensors, card = load("jcs-lite")
    assert shipped().stat().st_size <= 14e6
    assert sum(t.numel() for t in tensors.values()) <= 6e6
    assert {t.dtype for t in load_file(shipped()).values() if t.is_floating_point()} == {torch.float16}
    assert {t.dtype for t in tensors.values() if t.is_floating_point()} == {torch.float32}
    assert card.weights_sha256 == sha256_of(shipped()) == stored["weights_sha256"]
    assert (card.name, card.architecture, card.mirror) == ("jcs-lite", "jcs-lite", True)
    assert card.recipe.partition("@")[0] in RECIPES
    assert card.threshold == 0.5
    assert card.covid_threshold is not None
    assert card.patient is not None
    assert "research" in card.licence
    notes = " ".join(card.notes)
    for word in (
        "Dice per image",
        "AUC of slices, ucsd",
        "AUC of slices, sarscov2",
        "AUC of slices, mosmed",
        "95 % interval",
        "sensitivity",
        "not for diagnosis",
    ):
        assert word in notes, word


def test_models_show_prints_the_card(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["models", "show", "jcs-lite"])
    assert not ended.value.code
    shown = capsys.readouterr().out
    assert "Dice per image" in shown
    assert "not for diagnosis" in shown


def test_it_is_loaded_by_default_and_gives_the_stored_numbers(stored: dict[str, Any]) -> None:
    assert facts(phantom_slice()) == pytest.approx(stored["phantom"], abs=2e-3)


def test_scores_on_the_frozen_subset_are_the_stored_ones(stored: dict[str, Any], real_data: Path) -> None:
    found = real_slices(real_data)
    assert found.keys() == stored["slices"].keys()
    for name, numbers in found.items():
        assert numbers == pytest.approx(stored["slices"][name], abs=2e-3), name
    dice = np.mean([numbers["dice"] for numbers in found.values() if "dice" in numbers])
    assert dice > 0.6  # seen in training: a floor, no score


if __name__ == "__main__":
    content = {
        "weights_sha256": sha256_of(shipped()),
        "phantom": facts(phantom_slice()),
        "slices": real_slices(ROOT.parent / "shared" / "data"),
    }
    STORED.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
