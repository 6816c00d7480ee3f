"""`jcs-lite`: its shapes, its size, and attention that equals Grad-CAM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from jcs_ct.core.errors import ShapeError, UsageError, WeightsError
from jcs_ct.core.types import SliceImage
from jcs_ct.imaging.recipes import luminance, prepare, recipe, restore, stretch
from jcs_ct.inference.apply import classify, diagnose_slice, explain, screen_slice, segment
from jcs_ct.inference.attention import attention_of_slice, class_answer, of_evidence
from jcs_ct.inference.golden import fill
from jcs_ct.inference.network import open_network
from jcs_ct.models import build_model
from jcs_ct.models.lite import LiteNetwork
from jcs_ct.weights import write
from jcs_ct.weights.card import WeightsCard
from weights_help import card_for

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def network() -> LiteNetwork:
    torch.manual_seed(3)
    built = build_model("jcs-lite")
    assert isinstance(built, LiteNetwork)
    return built.eval()


def test_is_small(network: LiteNetwork) -> None:
    assert sum(p.numel() for p in network.parameters()) <= 6_000_000


@pytest.mark.parametrize(("rows", "columns"), [(256, 320), (64, 96), (33, 47)])
def test_shapes(network: LiteNetwork, rows: int, columns: int) -> None:
    with torch.inference_mode():
        out = network(torch.rand(2, 1, rows, columns))
    assert out.logit.shape == (2,)
    assert out.maps.shape == (2, len(network.lesion.heads), rows, columns)
    assert out.evidence.shape == (2, -(-rows // 16), -(-columns // 16))


def test_a_slice_does_not_depend_on_its_neighbours(network: LiteNetwork) -> None:
    x = torch.rand(3, 1, 64, 96)
    with torch.inference_mode():
        together, alone = network(x), network(x[1:2])
    torch.testing.assert_close(together.logit[1:2], alone.logit, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(together.maps[1:2], alone.maps, rtol=1e-4, atol=1e-4)


def test_every_parameter_gets_a_gradient() -> None:
    network = build_model("jcs-lite").train()
    out = network(torch.rand(2, 1, 64, 64))
    (out.logit.sum() + out.maps.square().mean()).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("shape", [(1, 3, 64, 64), (1, 1, 31, 64), (1, 64, 64), (0, 1, 64, 64)])
def test_other_shapes_are_refused(network: LiteNetwork, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the slice of shape"):
        network(torch.zeros(shape))


def test_features_are_refused() -> None:
    with pytest.raises(UsageError, match="reads images, not stage-1 features"):
        build_model("jcs-lite", "features")


def test_attention_is_grad_cam(network: LiteNetwork) -> None:
    """The claim of `models/lite.py`, checked against the gradients."""
    x = torch.rand(1, 1, 96, 128)
    with torch.inference_mode():
        evidence = network(x).evidence[0].numpy()
    found = attention_of_slice(network, [x], "context", class_answer(), head=network.explained)
    assert evidence.max() > 0
    np.testing.assert_allclose(found.raw / found.raw.max(), of_evidence(evidence), atol=1e-5)


def test_no_evidence_is_no_attention() -> None:
    assert not of_evidence(np.full((3, 4), -1.0, np.float32)).any()
    np.testing.assert_array_equal(of_evidence(np.array([[-1, 0.5, 2]], np.float32)), [[0, 0.25, 1]])


def test_stretch_takes_the_window_out() -> None:
    picture = np.random.default_rng(0).integers(40, 120, (64, 64)).astype(np.uint8)
    narrow, wide = stretch(picture), stretch(picture * 2)
    assert narrow.min() == -1
    assert narrow.max() == 1
    np.testing.assert_allclose(narrow, wide, atol=0.03)
    assert (stretch(np.full((8, 8), 7, np.uint8)) == -1).all()


def test_recipe_and_its_inverse(slice_pixels: np.ndarray) -> None:
    values, placement = prepare(slice_pixels, recipe("lung-field"))
    assert values.shape == (1, 256, 320)
    top, left, rows, columns = placement.crop
    back = restore(np.ones((256, 320), np.float32), placement)
    assert back.shape == slice_pixels.shape[:2]
    assert back[top : top + rows, left : left + columns].min() == 1
    assert back.sum() == rows * columns
    assert prepare(slice_pixels, recipe("lung-field@128"))[0].shape == (1, 128, 160)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """Weights in half precision, with a temperature and two thresholds."""
    tensors = fill(build_model("jcs-lite").state_dict())
    card = card_for("jcs-lite", threshold=0.4, covid_threshold=0.7, temperature=2.0)
    half = {name: t.half() if t.is_floating_point() else t for name, t in tensors.items()}
    write(tmp_path / "lite.safetensors", half, card)
    return tmp_path / "lite.safetensors"


def test_half_precision_is_read_as_float(stored: Path) -> None:
    assert stored.stat().st_size <= 14e6
    network = open_network(stored, "cpu", ["lesions"])
    assert {p.dtype for p in network.module().parameters()} == {torch.float32}
    assert (network.threshold, network.covid_threshold) == (0.4, 0.7)


def test_one_pass_and_single_tasks_agree(stored: Path, slice_pixels: np.ndarray) -> None:
    network = open_network(stored, "cpu")
    image = SliceImage("a", "a.png", slice_pixels)
    found = diagnose_slice(image, network)
    assert found.probability == pytest.approx(classify(image, network))
    np.testing.assert_array_equal(found.lesion, segment(image, network))
    probability, attention = screen_slice(image, network)
    assert probability == found.probability
    np.testing.assert_array_equal(attention, found.attention)
    shown = explain(image, network, "grad-cam")
    assert shown.probability == pytest.approx(found.probability, abs=1e-5)
    assert found.attention.shape == found.lesion.shape == slice_pixels.shape[:2]
    values, _ = prepare(slice_pixels, recipe("lung-field"))
    with torch.inference_mode():
        logit = float(network.module()(torch.from_numpy(values)[None]).logit)
    assert found.probability == pytest.approx(1 / (1 + np.exp(-logit / 2)), abs=1e-6)
    assert luminance(slice_pixels).shape == slice_pixels.shape[:2]


def test_a_card_without_the_new_fields_is_read_and_a_wrong_one_is_not() -> None:
    card = card_for("jcs-single")
    assert "temperature" not in card.to_dict()
    assert WeightsCard.from_json(card.to_json()) == card
    text = card_for("jcs-lite", temperature=1.5).to_json()
    assert WeightsCard.from_json(text).temperature == 1.5
    with pytest.raises(WeightsError, match="wrong value in 'temperature'"):
        WeightsCard.from_json(text.replace("1.5", "0"))
