"""Ensembles: the mean of the members' probabilities, in every task, and what cannot be joined."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.special import expit

from jcs_ct.cli import main
from jcs_ct.core.errors import UsageError
from jcs_ct.core.types import SliceImage
from jcs_ct.inference import apply
from jcs_ct.inference.ensemble import Ensemble, grouped_by_architecture
from jcs_ct.inference.network import Network, OnePass
from jcs_ct.models import build_model
from jcs_ct.study.settings import Networks
from jcs_ct.weights import write
from weights_help import card_for

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

A, B = "a" * 64, "b" * 64


class Fixed(Network):
    """A network that always says the same."""

    def __init__(self, architecture: str, digest: str, values: NDArray[np.float32] | float, **card: object) -> None:
        card = {"name": digest[0], "weights_sha256": digest} | card
        described = replace(card_for("jcs-lite"), architecture=architecture, **card)  # type: ignore[arg-type]
        super().__init__(None, described, torch.device("cpu"))
        self.values = np.asarray(values, np.float32)

    def logits(self, arrays: object, inputs: str = "image") -> NDArray[np.float32]:
        return self.values

    def class_pass(self, values: object) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        return self.values, np.full((2, 2), self.values[1], np.float32)

    def passes(self, batch: object) -> list[OnePass]:
        value = float(self.values)
        return [OnePass(value, np.full((2, 3), value, np.float32), np.full((4, 6), -value, np.float32))]


def test_the_mean_is_of_probabilities_not_of_logits() -> None:
    both = Ensemble([Fixed("jcs-lite", A, 4.0), Fixed("jcs-lite", B, -1.0)])
    (found,) = both.passes([np.zeros((1, 64, 64), np.float32)])
    assert expit(found.logit) == pytest.approx((expit(4) + expit(-1)) / 2, abs=1e-6)
    np.testing.assert_allclose(expit(found.lesion), (expit(-4) + expit(1)) / 2, atol=1e-6)
    np.testing.assert_allclose(found.evidence, 1.5)


def test_a_classifier_keeps_two_logits() -> None:
    both = Ensemble(
        [Fixed("jcs-classifier", A, np.array([1.0, 3.0])), Fixed("jcs-classifier", B, np.array([2.0, -1.0]))]
    )
    wanted = (expit(2.0) + expit(-3.0)) / 2
    assert apply._softmax(both.logits([])) == pytest.approx(wanted, abs=1e-6)
    passed = both.class_pass(np.zeros((3, 8, 8), np.float32))
    assert passed is not None
    assert apply._softmax(passed[0]) == pytest.approx(wanted, abs=1e-6)
    np.testing.assert_allclose(passed[1], 1.0)


def test_a_segmenter_gives_its_finest_map() -> None:
    five = np.stack([np.full((4, 4), value, np.float32) for value in (2.0, 9.0, 9.0, 9.0, 9.0)])
    both = Ensemble([Fixed("jcs-single", A, five), Fixed("jcs-single", B, five - 2)])
    found = both.logits([])
    assert found.shape == (1, 4, 4)
    np.testing.assert_allclose(expit(found), (expit(2) + 0.5) / 2, atol=1e-6)


def test_the_card_names_all_and_its_digest_does_not_depend_on_their_order() -> None:
    one, two = (
        Fixed("jcs-lite", A, 0, threshold=0.4, patient=(1.0, 0.5)),
        Fixed("jcs-lite", B, 0, threshold=0.6, patient=(2.0, 0.0)),
    )
    card = Ensemble([one, two]).card
    assert card.name == "a+b"
    assert card.threshold == pytest.approx(0.5)
    assert card.patient == pytest.approx((1.5, 0.25))
    assert card.weights_sha256 == Ensemble([two, one]).card.weights_sha256
    assert card.weights_sha256 not in {A, B}
    assert "mean of the probabilities of 2 networks: a, b" in card.notes


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (Fixed("jcs-lite", A, 0), "given twice"),
        (Fixed("jcs-lite", B, 0, recipe="lung-field@64"), "differ in recipe"),
        (Fixed("jcs-lite", B, 0, mirror=True), "differ in mirror"),
    ],
)
def test_what_cannot_be_joined_is_refused(other: Network, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Ensemble([Fixed("jcs-lite", A, 0), other])


def test_networks_of_several_kinds_keep_their_roles() -> None:
    lites, segmenter = [Fixed("jcs-lite", A, 0), Fixed("jcs-lite", B, 0)], Fixed("jcs-single", A, 0)
    found = Networks.of([lites[0], segmenter, lites[1]])
    assert isinstance(found.screen, Ensemble)
    assert found.screen.members == tuple(lites)
    assert found.segment is segmenter
    alone = Networks.of(lites)
    assert alone.one_pass
    assert grouped_by_architecture([segmenter]) == [segmenter]


def stored(folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    tensors = {name: tensor.contiguous() for name, tensor in build_model("jcs-lite").eval().state_dict().items()}
    tensors["offset"] = torch.tensor(float(seed))
    path = folder / f"net{seed}.safetensors"
    write(path, tensors, replace(card_for("jcs-lite"), name=f"net{seed}", recipe="lung-field@64"))
    return path


def test_the_commands_give_the_mean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`jcs classify` with two networks says the mean of what each says alone; `jcs train`-like doors take one."""
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 255, (96, 128), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "slice.png")
    paths = [stored(tmp_path, 1), stored(tmp_path, 2)]

    def jcs(*words: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            main([str(word) for word in words])
        return int(end.value.code or 0), capsys.readouterr().err

    probabilities = []
    for i, models in enumerate(([paths[0]], [paths[1]], paths)):
        options = [word for path in models for word in ("-m", path)]
        table = tmp_path / f"{i}.csv"
        assert jcs("classify", tmp_path / "slice.png", "-o", table, *options, "--runtime", "torch")[0] == 0
        probabilities.append(float(table.read_text(encoding="utf-8").splitlines()[1].split(",")[1]))
    assert probabilities[0] != pytest.approx(probabilities[1], abs=1e-4)
    assert probabilities[2] == pytest.approx(np.mean(probabilities[:2]), abs=2e-6)
    words = ("evaluate", "explain", "--data", tmp_path, "-o", tmp_path / "s", "-m", paths[0], "-m", paths[1])
    status, said = jcs(*words)
    assert status == 2
    assert "--model was given 2 times" in said


def test_an_ensemble_has_no_layers_to_explain() -> None:
    both = Ensemble([Fixed("jcs-lite", A, 0), Fixed("jcs-lite", B, 0)])
    with pytest.raises(UsageError, match="is an ensemble"):
        apply.explain(SliceImage("s", "s", np.zeros((64, 64, 3), np.uint8)), both, "grad-cam")
