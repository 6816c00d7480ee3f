"""One behavioural suite that every network passes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.models import MODELS, OUTPUTS, build_model, spec_of
from jcs_ct.models.layers import FrozenBatchNorm2d, check_input

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    Filled = Callable[..., nn.Module]

NETWORKS = ["jcs-single", "jcs-joint", "jcs-classifier"]
SMALLEST = {"jcs-single": 16, "jcs-joint": 16, "jcs-classifier": 1}


def features_of(name: str, n: int, rows: int, columns: int) -> list[torch.Tensor]:
    vgg = torch.rand(n, 64, rows, columns)
    res2net = torch.rand(n, 64, (rows + 1) // 2, (columns + 1) // 2)
    return {"jcs-single": [vgg], "jcs-joint": [vgg, res2net], "jcs-classifier": [res2net]}[name]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("rows", "columns"), [(16, 16), (17, 31), (33, 50), (64, 24)])
def test_any_size(name: str, rows: int, columns: int, filled: Filled) -> None:
    expected = (2, 2) if name == "jcs-classifier" else (2, 5, rows, columns)
    with torch.inference_mode():
        from_image = filled(name)(torch.rand(2, 3, rows, columns))
        from_features = filled(name, "features")(*features_of(name, 2, rows, columns))
    assert tuple(from_image.shape) == tuple(from_features.shape) == expected
    assert torch.isfinite(from_image).all()
    assert torch.isfinite(from_features).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_batch_is_its_slices(name: str, filled: Filled) -> None:
    batch = torch.rand(3, 3, 40, 48)
    with torch.inference_mode():
        together = filled(name)(batch)
        apart = torch.cat([filled(name)(x[None]) for x in batch])
    torch.testing.assert_close(together, apart, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_smallest_size_and_one_below(name: str, filled: Filled) -> None:
    least = SMALLEST[name]
    with torch.inference_mode():
        assert torch.isfinite(filled(name)(torch.rand(1, 3, least, least))).all()
        with pytest.raises(ShapeError, match=f"at least {least}"):
            filled(name)(torch.rand(1, 3, least, least - 1))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    "shape", [(1, 1, 64, 64), (1, 4, 64, 64), (3, 64, 64), (1, 64, 64, 64), (0, 3, 64, 64), (), (1, 3, 64, 64, 1)]
)
def test_a_wrong_shape_is_named(name: str, shape: tuple[int, ...], filled: Filled) -> None:
    with pytest.raises(ShapeError, match=r"was given; N×3×H×W"):
        filled(name)(torch.zeros(shape))


@pytest.mark.parametrize("name", NETWORKS)
def test_features_of_wrong_channels_are_named(name: str, filled: Filled) -> None:
    wrong = [torch.rand(1, 3, 32, 32)] * (2 if name == "jcs-joint" else 1)
    with pytest.raises(ShapeError, match="N×64×H×W"):
        filled(name, "features")(*wrong)


def test_integers_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"torch\.uint8"):
        check_input(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "an image", 3, 8)


def test_joint_features_must_belong_together(filled: Filled) -> None:
    joint = filled("jcs-joint", "features")
    with pytest.raises(ShapeError, match="1×64×17×16 belong to VGG features of 33×32"):
        joint(torch.rand(1, 64, 33, 32), torch.rand(1, 64, 16, 16))
    with pytest.raises(ShapeError, match="those of Res2Net are needed"):
        joint(torch.rand(1, 64, 32, 32))
    with pytest.raises(ShapeError, match="no second input"):
        filled("jcs-joint")(torch.rand(1, 3, 32, 32), torch.rand(1, 64, 16, 16))


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_reach_every_parameter(name: str) -> None:
    torch.manual_seed(0)
    model = build_model(name).eval()
    model(torch.rand(1, 3, 64, 64)).square().sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None]
    assert unreached == []


@pytest.mark.parametrize("name", NETWORKS)
def test_save_and_load(name: str, filled: Filled, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    save_file(filled(name).state_dict(), tmp_path / "weights.safetensors")
    other = build_model(name).eval()
    other.load_state_dict(load_file(tmp_path / "weights.safetensors"))
    x = torch.rand(1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(other(x), filled(name)(x))


@pytest.mark.parametrize("name", NETWORKS)
def test_export_keeps_the_numbers(name: str, filled: Filled) -> None:
    x = torch.rand(1, 3, 48, 32)
    exported: Any = torch.export.export(filled(name), (x,)).module()
    with torch.inference_mode():
        torch.testing.assert_close(exported(x), filled(name)(x))


def test_double_precision_agrees(filled: Filled) -> None:
    from copy import deepcopy

    x = torch.rand(1, 3, 64, 48)
    model = filled("jcs-single")
    with torch.inference_mode():
        exact = deepcopy(model).double()(x.double()).sigmoid()
        torch.testing.assert_close(model(x).sigmoid().double(), exact, rtol=0, atol=3e-6)


def test_frozen_batch_norm_is_batch_norm_without_epsilon() -> None:
    ours, theirs = FrozenBatchNorm2d(5), torch.nn.BatchNorm2d(5, eps=0.0).eval()
    state = {k: torch.rand(5) + 0.5 for k in ("weight", "bias", "running_mean", "running_var")}
    ours.load_state_dict(state)
    theirs.load_state_dict(state, strict=False)
    x = torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(ours(x), theirs(x))
    assert list(ours.parameters()) == []


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UsageError, match="jcs-single, jcs-joint, jcs-classifier"):
        build_model("jcs-triple")
    with pytest.raises(UsageError, match="'image' or 'features'"):
        build_model("jcs-single", "pixels")


@pytest.mark.parametrize("name", list(MODELS))
def test_the_table_is_true(name: str) -> None:
    spec = MODELS[name]
    with torch.device("meta"):
        model: Any = build_model(name)
        image = torch.empty(2, spec.channels, 64, 96)
    assert bool(spec.attention) == bool(spec.outputs) == (spec.task != "backbone")
    assert bool(spec.lesion_head) == spec.gives_lesions
    if not spec.outputs:
        with pytest.raises(UsageError, match="has no result of its own"):
            spec_of(model)
        return
    assert spec_of(model) is spec
    assert spec.one_pass == (spec.gives("probability") and spec.gives("lesions"))
    for module in filter(None, (spec.attention, spec.lesion_head)):
        assert model.get_submodule(module)
    model.eval().check(image)
    found, published = model.infer(image), model.published(image)
    assert [f.shape for f in found] == [p.shape for p in published]
    for output, values in zip(spec.outputs, found, strict=True):
        assert values.dim() == OUTPUTS[output].partition(",")[0].count("×") + 1
        assert values.shape[0] == 2
    assert model.explained(model(image)).dim() == (2 if spec.gives_probability else 4)
