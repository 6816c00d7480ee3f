"""The networks: an explicit table, and one function that builds an entry of it. PyTorch loads with the first build.

A network is one file of this package and one row of the table. Everything else asks the row, or calls what the class
has to have (`InferenceNetwork`); blocks with batch norm also say how it is fused (`models.fusing`).
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, Protocol

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

Task = Literal["segmentation", "classification", "lite", "backbone"]
Load = Literal["light", "medium", "heavy"]
Gives = Literal["probability", "lesions"]
RESULTS: tuple[Gives, ...] = ("probability", "lesions")

OUTPUTS = {
    "lesion": "N×1×H×W, logit of lesion: probability = sigmoid",
    "logits": "N×2, logits of the classes: probability of COVID-19 = softmax, index 1",
    "logit": "N, logit of COVID-19: probability = sigmoid(logit / temperature)",
    "evidence": "N×h×w, a coarse map; attention is its positive part over its maximum",
}
"""What `InferenceNetwork.infer` may return, by name.

The evidence of a classifier is its last feature map A weighted by the row w of its linear layer for COVID-19. Behind
global average pooling the gradient of that logit is w / (h·w) everywhere, so that Grad-CAM is ReLU(w·A) / (h·w)."""


@dataclass(frozen=True)
class ModelSpec:
    """One network of the table.

    Attributes:
        name: What users call it.
        task: What it was trained for; how weights, training and messages tell the kinds of networks apart.
        home: "module:class" of the implementation.
        summary: A line for a list.
        recipe: The preprocessing it was trained with (`jcs_ct.imaging.recipes.RECIPES`).
        attention: The module whose output Grad-CAM explains by default; empty where there is nothing to explain.
        feature_arrays: The stage-1 features it reads and writes, in the order of its arguments.
        backbones: The module whose `stage_one` writes each of them; "" is the network itself.
        outputs: Keys of `OUTPUTS`, in the order of `InferenceNetwork.infer`; empty for a backbone.
        channels: Of its image: 3, normalised as for ImageNet, or 1, grey from -1 to 1.
        load: How long a slice takes on a processor: tens of milliseconds (light), a tenth of a second, a second.
        native_plan: Its plan for the kernels of this package (`jcs_ct.inference.native.networks`); empty for none.
        lesion_head: The module that makes the logits of the lesion map; empty for none.
    """

    name: str
    task: Task
    home: str
    summary: str
    recipe: str
    attention: str
    feature_arrays: tuple[str, ...]
    backbones: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    channels: int = 3
    load: Load = "heavy"
    native_plan: str = ""
    lesion_head: str = ""

    @property
    def gives_probability(self) -> bool:
        """Whether it says how probable COVID-19 is."""
        return "logit" in self.outputs or "logits" in self.outputs

    @property
    def gives_lesions(self) -> bool:
        """Whether it draws lesions."""
        return "lesion" in self.outputs

    @property
    def one_pass(self) -> bool:
        """Whether probability, attention and lesions come out of one pass."""
        return self.gives_probability and self.gives_lesions

    @property
    def classifies_only(self) -> bool:
        """Whether a probability is all that it says of a slice."""
        return self.gives_probability and not self.gives_lesions

    def gives(self, what: Gives) -> bool:
        """Tell whether it gives a result, by its name."""
        return self.gives_probability if what == "probability" else self.gives_lesions


class InferenceNetwork(Protocol):
    """What the class of a network with results has beside its `forward`."""

    def check(self, *inputs: Tensor) -> None:
        """Raise ShapeError for inputs that `forward` cannot take; only their shapes and types are looked at."""

    def infer(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs that the row of the table names, and compute nothing else.

        It neither checks nor turns sizes into constants, so that it can be traced for other sizes.
        """
        ...

    def published(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the same outputs as `forward` computes them: what runtimes are compared with."""
        ...

    def explained(self, output: Any) -> Tensor:
        """Return what attention explains of an output of `forward`.

        N×k logits of classes, of which the last is COVID-19, or N×k×H×W logits of lesion, the finest first.
        """
        ...


_SEGMENTER: dict[str, Any] = {
    "task": "segmentation",
    "recipe": "release-segmentation",
    "attention": "fpn.fuse.0",
    "outputs": ("lesion",),
    "native_plan": "segmenter",
    "lesion_head": "cls1",
}
_BACKBONE: dict[str, Any] = {
    "task": "backbone", "recipe": "release-segmentation", "attention": "", "backbones": ("",),
}  # fmt: skip
MODELS: dict[str, ModelSpec] = {
    spec.name: spec
    for spec in (
        ModelSpec(
            name="jcs-single",
            home="jcs_ct.models.segmenter:SingleSegmenter",
            summary="VGG-16 segmenter of the paper",
            feature_arrays=("vgg",),
            backbones=("vgg16",),
            **_SEGMENTER,
        ),
        ModelSpec(
            name="jcs-joint",
            home="jcs_ct.models.segmenter:JointSegmenter",
            summary="segmenter fed with the classifier's features",
            feature_arrays=("vgg", "res2net"),
            backbones=("vgg16", "res2net"),
            **_SEGMENTER,
        ),
        ModelSpec(
            name="jcs-classifier",
            task="classification",
            home="jcs_ct.models.res2net:Res2NetClassifier",
            summary="Res2Net-101 v1b classifier of the paper",
            recipe="release-classification",
            attention="layer4",
            feature_arrays=("res2net",),
            backbones=("",),
            outputs=("logits", "evidence"),
            load="medium",
            native_plan="classifier",
        ),
        ModelSpec(
            name="jcs-lite",
            task="lite",
            home="jcs_ct.models.lite:LiteNetwork",
            summary="small network: probability, attention and lesion map in one pass",
            recipe="lung-field",
            attention="context",
            feature_arrays=(),
            outputs=("logit", "evidence", "lesion"),
            channels=1,
            load="light",
            lesion_head="lesion.heads.0",
        ),
        ModelSpec(
            name="vgg16-bn",
            home="jcs_ct.models.vgg:VGG16",
            summary="VGG-16 backbone (ImageNet)",
            feature_arrays=("vgg",),
            **_BACKBONE,
        ),
        ModelSpec(
            name="res2net101-v1b",
            home="jcs_ct.models.res2net:Res2Net101",
            summary="Res2Net-101 v1b backbone (ImageNet)",
            feature_arrays=("res2net",),
            **_BACKBONE,
        ),
    )
}


def model_spec(name: str) -> ModelSpec:
    """Return the table's entry. Raises UsageError with the known names for an unknown one."""
    if name not in MODELS:
        raise UsageError(f"no network is called {name!r}", hint=f"known: {', '.join(MODELS)}")
    return MODELS[name]


def spec_of(network: nn.Module) -> ModelSpec:
    """Return the row of a network that gives results. Raises UsageError for a backbone or another module."""
    home = f"{type(network).__module__}:{type(network).__qualname__}"
    for spec in MODELS.values():
        if spec.home == home and spec.outputs:
            return spec
    raise UsageError(f"{type(network).__name__} has no result of its own", hint="backbones run on --runtime torch only")


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
    network: nn.Module = getattr(import_module(module), attribute)(inputs)
    return network
