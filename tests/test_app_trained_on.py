"""A study that the network was trained on is called so: exactly, nearly, in 3-D, by the user's own weights too."""

from __future__ import annotations

import shutil
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from jcs_ct import Diagnoser
from jcs_ct.app.trained_on import COMPARED, TrainingWatch
from jcs_ct.core.warning import INFORMING, code_of
from jcs_ct.datasets.fingerprint import digest, fingerprint
from jcs_ct.datasets.training_slices import hashes_of
from jcs_ct.phantom import lung_window, make_phantom
from jcs_ct.weights.card import WeightsCard
from jcs_ct.weights.store import shipped

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


@pytest.fixture(scope="module")
def slices() -> list[NDArray[np.uint8]]:
    study = make_phantom(slices=4, size=96, seed=3)
    return [np.repeat(lung_window(hu)[:, :, None], 3, axis=2) for hu in study.hu]


@pytest.fixture(scope="module")
def weights(slices: list[NDArray[np.uint8]], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shipped weights as if they were trained on two slices."""
    path = tmp_path_factory.mktemp("own") / "mine.safetensors"
    for ending in (".safetensors", ".json"):
        shutil.copy(shipped().with_suffix(ending), path.with_suffix(ending))
    learned = hashes_of([(digest(s), fingerprint(s)) for s in slices[1:3]])
    path.with_suffix(".hashes").write_bytes(learned.to_bytes())
    return path


def seen(weights: Path, pictures: list[NDArray[np.uint8]], total: int = 0) -> list[str]:
    card = WeightsCard.read(weights.with_suffix(".json"))
    networks: Any = SimpleNamespace(all=[SimpleNamespace(card=card, opened=weights)])
    watch = TrainingWatch(networks, total or len(pictures))
    for picture in pictures:
        watch.look(picture)
    assert all(code_of(w) in INFORMING and not w.unreliable for w in watch.warnings())
    return [str(w) for w in watch.warnings()]


SAYS = (
    "this study is part of the training data of jcs-lite, so the result does not show how well it works on new patients"
)


def test_slices_that_were_trained_on_are_counted(weights: Path, slices: list[NDArray[np.uint8]]) -> None:
    assert seen(weights, [slices[1], slices[2]]) == [f"{SAYS} (all 2 slices are identical)"]
    larger = np.asarray(Image.fromarray(slices[1]).resize((128, 128)).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    near = "no slice is identical; 1 of 1 compared slices is nearly identical"
    assert seen(weights, [larger]) == [f"{SAYS} ({near})"]


def test_other_slices_and_a_few_that_look_alike_are_not_called_so(weights: Path) -> None:
    rng = np.random.default_rng(0)
    others = [np.repeat(rng.integers(0, 255, (64, 64, 1)).astype(np.uint8), 3, axis=2) for _ in range(3)]
    assert seen(weights, others) == []


def test_of_a_long_study_all_are_compared_exactly(weights: Path, slices: list[NDArray[np.uint8]]) -> None:
    blank = np.zeros((8, 8, 3), np.uint8)
    found = seen(weights, [*[blank] * (2 * COMPARED - 1), slices[2]])  # an odd one, which is not compared by its looks
    assert found == [f"{SAYS} (1 of {2 * COMPARED} slices is identical)"]


def test_a_diagnosis_says_so(weights: Path, slices: list[NDArray[np.uint8]]) -> None:
    """In report.json, with its code; by the weights beside whose file the hashes lie, and not by the shipped ones."""
    pictures = [Image.fromarray(s) for s in slices[1:3]]
    plain = Diagnoser(device="cpu", runtime="torch")(pictures).to_dict()
    own = Diagnoser(weights, device="cpu", runtime="torch")(pictures).to_dict()
    caution = {"code": "trained-on", "text": f"{SAYS} (all 2 slices are identical)"}
    assert [c for c in own["cautions"] if c not in plain["cautions"]] == [caution]
    assert caution["text"] in own["warnings"]
    assert own["verdict"] == plain["verdict"]
