"""Attention maps, against MONAI's implementation and by properties."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from jcs_ct.core.errors import UsageError
from jcs_ct.inference.attention import Attention, attention_of_slice, class_answer, lesion_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    Filled = Callable[..., nn.Module]


@pytest.fixture(scope="module")
def picture() -> torch.Tensor:
    return torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("layer", ["layer4", "layer3", "layer2.3.conv3"])
def test_grad_cam_agrees_with_monai(layer: str, picture: torch.Tensor, filled: Filled) -> None:
    from monai.visualize import GradCAM

    model = filled("jcs-classifier")
    for index in (0, 1):
        ours = attention_of_slice(model, [picture], layer, class_answer(index)).raw
        cam: Any = GradCAM(nn_module=deepcopy(model), target_layers=layer)  # a copy: its hooks stay behind
        theirs = cam.compute_map(picture, class_idx=index)[0, 0].detach().clamp(min=0).numpy()
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * float(ours.max()))


def test_layer_cam_is_its_formula(picture: torch.Tensor, filled: Filled) -> None:
    model = filled("jcs-classifier")
    held: list[torch.Tensor] = []

    def keep(_m: nn.Module, _i: object, output: torch.Tensor) -> None:
        output.retain_grad()
        held.append(output)

    handle = model.get_submodule("layer3").register_forward_hook(keep)
    model(picture)[0, 1].backward()
    handle.remove()
    model.zero_grad()
    gradient = held[0].grad
    assert gradient is not None
    expected = (gradient.clamp(min=0) * held[0]).sum(dim=1).clamp(min=0)[0].detach().numpy()
    ours = attention_of_slice(model, [picture], "layer3", class_answer(), "layer-cam").raw
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "layer"), [("jcs-single", "fpn.fuse.0"), ("jcs-joint", "fpn.fuse.2"), ("jcs-joint", "gpd")]
)
def test_a_segmenter_is_explained_too(name: str, layer: str, picture: torch.Tensor, filled: Filled) -> None:
    model = filled(name)
    with torch.inference_mode():
        threshold = float(model(picture)[:, 0].sigmoid().quantile(0.9))
    found = attention_of_slice(model, [picture], layer, lesion_answer(threshold))
    assert found.output.shape == (5, 96, 128)
    scaled = found.scaled()
    assert found.degenerate is not None or (scaled.min() == 0 and scaled.max() == 1)
    nothing = attention_of_slice(model, [picture], layer, lesion_answer(1.1))
    assert nothing.degenerate == "no lesion found, so nothing to explain"
    assert not nothing.scaled().any()


def test_a_layer_that_the_answer_does_not_need_is_named() -> None:
    class Aside(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.aside = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.aside(x)
            used: torch.Tensor = self.used(x)
            return used

    with pytest.raises(UsageError, match="does not depend on layer 'aside'"):
        attention_of_slice(Aside(), [torch.rand(1, 1, 4, 4).requires_grad_()], "aside", lambda y: y.sum())


def test_features_as_input(filled: Filled) -> None:
    found = attention_of_slice(
        filled("jcs-classifier", "features"), [torch.rand(1, 64, 56, 56)], "layer4", class_answer()
    )
    assert found.raw.shape == (4, 4)


def test_a_map_that_is_zero_everywhere_is_reported(picture: torch.Tensor, filled: Filled) -> None:
    found = attention_of_slice(filled("jcs-classifier"), [picture], "layer4", lambda y: -1e-30 * y.square().sum() * 0)
    assert found.degenerate == "zero everywhere"
    assert not found.scaled().any()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [([[np.nan, 1.0]], "not finite"), ([[0.0, 0.0]], "zero everywhere"), ([[2.0, 2.0]], "the same everywhere")],
)
def test_degenerate_maps_have_a_reason(raw: list[list[float]], reason: str) -> None:
    class Fixed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            kept: torch.Tensor = self.layer(x)
            return kept.sum(dim=(2, 3))

    values = torch.tensor(raw)[None, None]
    found = attention_of_slice(Fixed(), [values], "layer", lambda y: y.sum())
    assert found.degenerate == reason
    assert not Attention(found.raw, found.output, reason).scaled().any()


def test_the_network_is_left_as_it_was(picture: torch.Tensor, filled: Filled) -> None:
    model = filled("jcs-classifier")
    before = [p.requires_grad for p in model.parameters()]
    attention_of_slice(model, [picture], "layer4", class_answer())
    with pytest.raises(RuntimeError, match="on purpose"):
        attention_of_slice(model, [picture], "layer4", lambda _y: (_ for _ in ()).throw(RuntimeError("on purpose")))
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert not model.get_submodule("layer4")._forward_hooks


def test_wrong_layers_and_methods_are_named(picture: torch.Tensor, filled: Filled) -> None:
    classifier, joint = filled("jcs-classifier"), filled("jcs-joint")
    for layer in ("layer5", ""):
        with pytest.raises(UsageError, match="some that exist: conv1"):
            attention_of_slice(classifier, [picture], layer, class_answer())
    with pytest.raises(UsageError, match="not a feature map"):
        attention_of_slice(joint, [picture], "vgg16", lesion_answer(0))
    with pytest.raises(UsageError, match="not a feature map"):
        attention_of_slice(classifier, [picture], "fc", class_answer())
    with pytest.raises(UsageError, match="did not run layer 'conv1'"):
        attention_of_slice(filled("jcs-classifier", "features"), [torch.rand(1, 64, 32, 32)], "conv1", class_answer())
    assert (
        attention_of_slice(joint, [picture], "cls5", lesion_answer(0)).degenerate == "zero everywhere"
    )  # it feeds map 4 alone
    with pytest.raises(UsageError, match="known: grad-cam, layer-cam"):
        attention_of_slice(classifier, [picture], "layer4", class_answer(), "cam")  # type: ignore[arg-type]
