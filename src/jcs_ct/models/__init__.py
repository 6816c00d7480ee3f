"""The networks: an explicit table, and one function that builds an entry of it. PyTorch loads with the first build."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

Task = Literal["segmentation", "classification", "lite", "backbone"]
Inputs = Literal["image", "features"]


@dataclass(frozen=True)
class ModelSpec:
    """One network of the table.

    Attributes:
        name: What users call it.
        task: What its output is: five lesion maps, two class logits, `lite.LiteOutput`, or a feature pyramid.
        home: "module:class" of the implementation.
        summary: A line for a list.
        recipe: The preprocessing it was trained with (`jcs_ct.imaging.recipes.RECIPES`).
        attention: The module whose output Grad-CAM explains by default; empty where there is nothing to explain.
        feature_arrays: The stage-1 features it reads and writes, in the order of its arguments.
    """

    name: str
    task: Task
    home: str
    summary: str
    recipe: str
    attention: str
    feature_arrays: tuple[str, ...]


_SEGMENT, _CLASSIFY = "release-segmentation", "release-classification"
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            "jcs-single",
            "segmentation",
            "jcs_ct.models.segmenter:SingleSegmenter",
            "VGG-16 segmenter of the paper",
            _SEGMENT,
            "fpn.fuse.0",
            ("vgg",),
        ),
        ModelSpec(
            "jcs-joint",
            "segmentation",
            "jcs_ct.models.segmenter:JointSegmenter",
            "segmenter fed with the classifier's features",
            _SEGMENT,
            "fpn.fuse.0",
            ("vgg", "res2net"),
        ),
        ModelSpec(
            "jcs-classifier",
            "classification",
            "jcs_ct.models.res2net:Res2NetClassifier",
            "Res2Net-101 v1b classifier of the paper",
            _CLASSIFY,
            "layer4",
            ("res2net",),
        ),
        ModelSpec(
            "jcs-lite",
            "lite",
            "jcs_ct.models.lite:LiteNetwork",
            "small network: probability, attention and lesion map in one pass",
            "lung-field",
            "context",
            (),
        ),
        ModelSpec(
            "vgg16-bn",
            "backbone",
            "jcs_ct.models.vgg:VGG16",
            "VGG-16 backbone (ImageNet)",
            _SEGMENT,
            "",
            ("vgg",),
        ),
        ModelSpec(
            "res2net101-v1b",
            "backbone",
            "jcs_ct.models.res2net:Res2Net101",
            "Res2Net-101 v1b backbone (ImageNet)",
            _SEGMENT,
            "",
            ("res2net",),
        ),
    )
}


def model_spec(name: str) -> ModelSpec:
    """Return the table's entry. Raises UsageError with the known names for an unknown one."""
    if name not in MODELS:
        raise UsageError(f"no network is called {name!r}", hint=f"known: {', '.join(MODELS)}")
    return MODELS[name]


def build_model(name: str, inputs: str = "image") -> nn.Module:
    """Build a network of the table with PyTorch's random initialisation, in training mode.

    Args:
        name: A key of `MODELS`.
        inputs: "image", or "features" for the stage-1 features of the COVID-CS release.

    Raises:
        UsageError: Unknown `name` or `inputs`.
    """
    spec = model_spec(name)
    if inputs not in ("image", "features"):
        raise UsageError(f"inputs={inputs!r} is unknown", hint="use 'image' or 'features'")
    module, _, attribute = spec.home.partition(":")
    network: Any = getattr(import_module(module), attribute)(inputs)
    built: nn.Module = network
    return built
