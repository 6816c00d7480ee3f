"""Which network a state dict is, and that ImageNet backbones compute here what they compute where they come from."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import math
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from jcs_ct import create_model
from jcs_ct.core.errors import UsageError, WeightsError
from jcs_ct.inference.golden import fill
from jcs_ct.weights import recognition
from jcs_ct.weights.recognition import recognise

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

Shapes = dict[str, tuple[int, ...]]


def empty(shapes: Shapes) -> dict[str, Tensor]:
    """Tensors of these shapes that take no memory: names and shapes are all that recognition reads."""
    return {name: torch.ones(()).expand(shape) for name, shape in shapes.items()}


def with_counters(shapes: Shapes) -> Shapes:
    """What the same network has with ordinary batch norm."""
    means = [name for name in shapes if name.endswith("running_mean")]
    return shapes | {name.replace("running_mean", "num_batches_tracked"): () for name in means}


def vgg_numbered(layers: int = 13) -> Shapes:
    """Names and shapes of torchvision's vgg16_bn, from its configuration."""
    shapes: Shapes = {}
    number, c_in, made = 0, 3, 0
    for width in (64, 64, 0, 128, 128, 0, 256, 256, 256, 0, 512, 512, 512, 0, 512, 512, 512, 0, 512, 512, 512):
        if width == 0:
            number += 1
            continue
        if made == layers:
            break
        shapes[f"features.{number}.weight"] = (width, c_in, 3, 3)
        shapes[f"features.{number}.bias"] = (width,)
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"features.{number + 1}.{part}"] = (width,)
        shapes[f"features.{number + 1}.num_batches_tracked"] = ()
        number, c_in, made = number + 3, width, made + 1
    return shapes


VGG_HEAD: Shapes = {"classifier.0.weight": (4096, 25088), "classifier.0.bias": (4096,), "classifier.6.bias": (1000,)}


def vgg_named() -> Shapes:
    return dict(recognition.expected_shapes("vgg16-bn"))


def res2net_named() -> Shapes:
    return dict(recognition.expected_shapes("res2net101-v1b"))


# Recognition


@pytest.mark.parametrize("name", ["jcs-single", "jcs-joint", "jcs-classifier"])
def test_official_checkpoints_are_recognised_and_left_alone(name: str, official_shapes: dict[str, Shapes]) -> None:
    state = empty(official_shapes[name])
    found = recognise(state, path="x.pth")
    assert (found.architecture, found.bn_eps) == (name, 0)
    assert found.tensors.keys() == state.keys()
    assert all(found.tensors[key] is value for key, value in state.items())
    assert recognise(state, path="x.pth", architecture=name).architecture == name


@pytest.mark.parametrize(
    ("shapes", "architecture", "dropped"),
    [
        (lambda: vgg_numbered() | VGG_HEAD, "vgg16-bn", "classifier"),
        (vgg_numbered, "vgg16-bn", None),
        (lambda: {k.removeprefix("features."): v for k, v in vgg_numbered().items()}, "vgg16-bn", None),
        (vgg_named, "vgg16-bn", None),
        (lambda: {f"vgg16.{k}": v for k, v in with_counters(vgg_named()).items()}, "vgg16-bn", None),
        (
            lambda: with_counters(res2net_named()) | {"fc.weight": (1000, 2048), "fc.bias": (1000,)},
            "res2net101-v1b",
            "fc",
        ),
        (res2net_named, "res2net101-v1b", None),
        (lambda: {f"res2net.{k}": v for k, v in res2net_named().items()}, "res2net101-v1b", None),
    ],
)
def test_imagenet_backbones_are_recognised_and_get_their_epsilon(
    shapes: Callable[[], Shapes], architecture: str, dropped: str | None
) -> None:
    found = recognise(empty(shapes()), path="x.pth")
    assert (found.architecture, found.bn_eps) == (architecture, 1e-5)
    found_shapes = {name: tuple(value.shape) for name, value in found.tensors.items()}
    assert found_shapes == recognition.expected_shapes(architecture)
    variances = [value for name, value in found.tensors.items() if name.endswith("running_var")]
    assert all(torch.equal(value, torch.full_like(value, 1 + 1e-5)) for value in variances)
    notes = " | ".join(found.notes)
    assert "1e-05" in notes
    assert (f"dropped, not part of the backbone: {dropped}" in notes) == (dropped is not None)


def test_the_epsilon_can_be_chosen(official_shapes: dict[str, Shapes]) -> None:
    as_the_release_does = recognise(empty(vgg_named()), path="x", bn_eps=0)
    assert as_the_release_does.bn_eps == 0
    assert float(as_the_release_does.tensors["conv1_1.bn.running_var"][0]) == 1
    found = recognise(empty(official_shapes["jcs-joint"]), path="x", bn_eps=1e-3)
    assert float(found.tensors["vgg16.conv1_1.bn.running_var"][0]) == pytest.approx(1.001)
    assert float(found.tensors["fuse.cat_modules.0.bn.running_var"][0]) == 1  # ordinary batch norm has its own
    for wrong in (-1e-5, 1.0, math.nan):
        with pytest.raises(UsageError, match="epsilon"):
            recognise(empty(vgg_named()), path="x", bn_eps=wrong)


def test_counters_may_be_missing_or_too_many_in_a_jcs_checkpoint(official_shapes: dict[str, Shapes]) -> None:
    joint = official_shapes["jcs-joint"]
    older = {name: shape for name, shape in joint.items() if not name.endswith("num_batches_tracked")}
    found = recognise(empty(older), path="x")
    assert found.tensors.keys() == joint.keys()
    found = recognise(empty(with_counters(joint)), path="x")
    assert found.tensors.keys() == joint.keys()
    assert "--bn-eps 1e-5" in " ".join(found.notes)


def line_of(tensors: dict[str, Tensor], **options: Any) -> str:
    with pytest.raises(WeightsError) as caught:
        recognise(tensors, path="x.pth", **options)
    line = caught.value.line()
    assert line.startswith("x.pth: ")
    assert len(line) < 600
    return line


def test_another_network_is_named(official_shapes: dict[str, Shapes]) -> None:
    joint = empty(official_shapes["jcs-joint"])
    assert "this is jcs-joint, not jcs-single" in line_of(joint, architecture="jcs-single")
    assert "this is vgg16-bn, not jcs-classifier" in line_of(empty(vgg_numbered()), architecture="jcs-classifier")
    del joint["cls1.bias"]
    line = line_of(joint, architecture="jcs-single")
    assert "is not jcs-single; closest to jcs-joint" in line
    assert "1 missing (cls1.bias)" in line


def test_what_is_missing_left_over_or_wrong_is_counted_and_named(official_shapes: dict[str, Shapes]) -> None:
    shapes = dict(official_shapes["jcs-single"])
    del shapes["gpd.expand_conv.conv.weight"], shapes["gpd.expand_conv.conv.bias"]
    shapes |= {"cls1.weight": (2, 64, 1, 1), "cls1.bias": ()}
    shapes |= {f"extra.{i}": (1,) for i in range(5)}
    line = line_of(empty(shapes))
    assert "closest to jcs-single" in line
    assert "2 missing (gpd.expand_conv.conv.weight, gpd.expand_conv.conv.bias)" in line
    assert "5 left over (extra.0, extra.1, extra.2, …)" in line
    assert "2 of a wrong shape (cls1.weight is 2×64×1×1, expected 1×64×1×1, cls1.bias is a single number" in line
    assert "does not fit jcs-single" in line_of(empty(shapes), architecture="jcs-single")


def test_strangers_are_called_strangers() -> None:
    line = line_of({"encoder.weight": torch.ones(3), "decoder.weight": torch.ones(3)})
    assert "is not a network of this package: 2 tensors (encoder.weight, decoder.weight)" in line
    assert "jcs-joint" in line


def test_deeper_vgg_and_a_classifier_with_bias_are_not_mistaken(official_shapes: dict[str, Shapes]) -> None:
    assert "left over (features.44.weight" in line_of(empty(vgg_numbered(layers=16)))
    with_bias = empty(official_shapes["jcs-classifier"] | {"fc.bias": (2,)})
    assert "closest to jcs-classifier, but 1 left over (fc.bias)" in line_of(with_bias)
    assert recognise(with_bias, path="x", architecture="res2net101-v1b").architecture == "res2net101-v1b"


def test_unknown_networks_are_refused() -> None:
    with pytest.raises(UsageError, match="jcs-joint"):
        recognise({}, path="x", architecture="unet")
    with pytest.raises(UsageError):
        recognition.check({}, "unet", path="x")


# Running variances


def test_variances_that_divide_by_zero_are_refused() -> None:
    state = empty(vgg_named())
    state["conv2_1.bn.running_var"] = torch.cat([torch.zeros(1), torch.ones(127)])
    line = line_of(state, bn_eps=0)
    assert "'conv2_1.bn.running_var' is 0 somewhere" in line
    assert "--bn-eps" in line
    found = recognise(
        state, path="x"
    )  # a dead channel of an ImageNet network: theirs computes 1/sqrt(1e-5), and so do we
    assert float(found.tensors["conv2_1.bn.running_var"][0]) == pytest.approx(1e-5)


def test_negative_variances_are_refused_everywhere(official_shapes: dict[str, Shapes]) -> None:
    state = empty(vgg_named())
    state["conv2_1.bn.running_var"] = torch.full((128,), -1e-6)
    assert "negative" in line_of(state)
    joint = empty(official_shapes["jcs-joint"])
    joint["fuse.se_modules.0.bn.running_var"] = torch.zeros(64)
    recognise(joint, path="x")  # ordinary batch norm has an epsilon
    joint["fuse.se_modules.0.bn.running_var"] = -torch.ones(64)
    assert "fuse.se_modules.0.bn.running_var" in line_of(joint)


def test_check_is_strict_about_counters(official_shapes: dict[str, Shapes]) -> None:
    joint = empty(official_shapes["jcs-joint"])
    recognition.check(joint, "jcs-joint", path="x")
    del joint["fuse.cat_modules.0.bn.num_batches_tracked"]
    with pytest.raises(WeightsError, match="1 missing"):
        recognition.check(joint, "jcs-joint", path="x")
    with pytest.raises(WeightsError, match="left over"):
        recognition.check(empty(with_counters(vgg_named())), "vgg16-bn", path="x")


# The whole way, against the golden numbers and against timm


@pytest.mark.parametrize("name", ["jcs-single", "jcs-joint", "jcs-classifier"])
def test_an_official_pth_computes_the_golden_numbers(
    name: str, golden: dict[str, NDArray[Any]], filled: Callable[..., nn.Module], tmp_path: Path
) -> None:
    path = tmp_path / "official.pth"
    torch.save({"state_dict": {f"module.{k}": v for k, v in filled(name).state_dict().items()}, "epoch": 60}, path)
    model = create_model(name, weights=path)
    path.unlink()  # the network does not hang on the file
    assert not model.training
    with torch.inference_mode():
        logits = model(torch.from_numpy(golden["image"]))
    key = {"jcs-single": "single_maps", "jcs-joint": "joint_maps", "jcs-classifier": "classifier_logits"}[name]
    outputs = logits if name == "jcs-classifier" else logits.sigmoid()
    torch.testing.assert_close(outputs, torch.from_numpy(golden[key]), rtol=1e-4, atol=1e-5)


class FakeTorchvision(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for torchvision, of which timm imports names that the two networks here never call."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> importlib.machinery.ModuleSpec | None:
        if fullname.partition(".")[0] != "torchvision":
            return None
        return importlib.machinery.ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        def missing(name: str) -> str:  # of a class: InterpolationMode.NEAREST and the like become their own names
            if name.startswith("__"):
                raise AttributeError(name)
            return name

        def attribute(name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            meta = type("Meta", (type,), {"__getattr__": lambda _cls, item: missing(item)})
            return meta(name, (), {})

        module = ModuleType(spec.name)
        module.__getattr__ = attribute  # type: ignore[method-assign]
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


@pytest.fixture(scope="module")
def timm() -> Iterator[Any]:
    """The oracle; with a stand-in for torchvision where that is not installed, and no trace of it afterwards."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("needs timm (pip install --no-deps timm)")
    fake = None
    if importlib.util.find_spec("torchvision") is None:
        fake = FakeTorchvision()
        sys.meta_path.insert(0, fake)
    try:
        yield pytest.importorskip("timm")
    finally:
        if fake is not None:
            sys.meta_path.remove(fake)
            for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
                del sys.modules[name]


def outputs_after(layers: Sequence[nn.Module], x: Tensor, at: Sequence[int]) -> list[Tensor]:
    """Run layers one after the other and keep what some of them return."""
    kept = []
    for i, layer in enumerate(layers):
        x = layer(x)
        if i in at:
            kept.append(x.clone())  # the next layer may work in place
    return kept


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    assert len(ours) == len(theirs) == 5
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).norm() / b.norm()) < 1e-4


def weighted(network: nn.Module, fragile: str) -> tuple[nn.Module, dict[str, Tensor]]:
    """Give an empty network deterministic weights; the variances of one norm are so small that the epsilon matters."""
    state = fill({name: torch.empty_like(value, device="cpu") for name, value in network.state_dict().items()})
    state = {name: value if value.is_floating_point() else torch.tensor(7) for name, value in state.items()}
    state[fragile] *= 1e-5
    network = network.to_empty(device="cpu").eval()
    network.load_state_dict(state)
    return network, state


def test_vgg16_bn_of_timm_computes_the_same_here(timm: Any, tmp_path: Path) -> None:
    whole = timm.create_model("vgg16_bn", device="meta")
    head = {name: torch.zeros(1) for name in whole.state_dict() if not name.startswith("features.")}  # 0.5 GB in truth
    features, state = weighted(nn.ModuleDict({"features": whole.features}), "features.1.running_var")
    torch.save({"state_dict": state | head}, tmp_path / "vgg.pth")
    ours = create_model("vgg16-bn", weights=tmp_path / "vgg.pth")
    (tmp_path / "vgg.pth").unlink()  # pytest keeps the folders of three runs
    x = torch.randn(1, 3, 48, 32, generator=torch.Generator().manual_seed(0))
    layers = list(features.get_submodule("features").children())
    assert isinstance(layers[33], nn.MaxPool2d)
    del layers[33]  # JCS has no pooling between stages 4 and 5
    with torch.inference_mode():
        assert_same(ours(x), outputs_after(layers, x, (5, 12, 22, 32, 41)))


def test_res2net101d_of_timm_computes_the_same_here(timm: Any, tmp_path: Path) -> None:
    theirs, state = weighted(timm.create_model("res2net101d", device="meta"), "conv1.1.running_var")
    torch.save(state, tmp_path / "res2net.pth")
    ours = create_model("res2net101-v1b", weights=tmp_path / "res2net.pth")
    (tmp_path / "res2net.pth").unlink()
    x = torch.randn(1, 3, 72, 40, generator=torch.Generator().manual_seed(0))
    names = ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3", "layer4")
    with torch.inference_mode():
        assert_same(ours(x), outputs_after([theirs.get_submodule(name) for name in names], x, (2, 4, 5, 6, 7)))
