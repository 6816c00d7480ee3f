"""A network that is ready to run: checked weights on a device, fed with NumPy arrays. Plain PyTorch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from jcs_ct import __version__
from jcs_ct.errors import UsageError, WeightsError
from jcs_ct.models import ModelSpec, build_model, model_spec
from jcs_ct.weights import WeightsCard, load
from jcs_ct.weights.store import SHIPPED, shipped

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from torch import Tensor, nn


class OnePass(NamedTuple):
    """What `jcs-lite` computes of a slice.

    Attributes:
        logit: Of COVID-19, divided by the temperature of the weights.
        evidence: float32 h×w, see `jcs_ct.explain.of_evidence`.
        lesion: float32 H×W, logits of lesion.
    """

    logit: float
    evidence: NDArray[np.float32]
    lesion: NDArray[np.float32]


class Network:
    """One set of weights. The variants for images and for stage-1 features share them.

    Attributes:
        card: What is known about the weights.
        spec: The architecture's entry in the table of models.
        device: Where it runs.
    """

    def __init__(self, tensors: dict[str, Tensor], card: WeightsCard, device: torch.device) -> None:
        self.card, self.device = card, device
        self.spec: ModelSpec = model_spec(card.architecture)
        self._tensors = tensors
        self._modules: dict[str, nn.Module] = {}

    def module(self, inputs: str = "image") -> nn.Module:
        """Return the network for "image" or "features", in evaluation mode."""
        if inputs not in self._modules:
            with torch.inference_mode(False):  # parameters made in inference mode could never carry gradients
                with torch.device("meta"):  # no random values are drawn, and none can be left over: assign replaces all
                    module = build_model(self.spec.name, inputs)
                module.load_state_dict(self._tensors, strict=True, assign=True)
                module = module.eval().to(self.device)
            self._tensors = module.state_dict()
            self._modules[inputs] = module
        return self._modules[inputs]

    @property
    def threshold(self) -> float:
        """The probability from which a lesion or COVID-19 counts as present. Raises WeightsError if there is none."""
        if self.card.threshold is None:
            raise WeightsError(
                f"{self.card.name} has no threshold", hint="give --threshold, or import the weights again"
            )
        return self.card.threshold

    def tensors(self, arrays: Sequence[NDArray[np.float32]]) -> list[Tensor]:
        """Return the arrays (C×H×W) as a batch of one each, on the device."""
        return [torch.from_numpy(np.ascontiguousarray(a))[None].to(self.device) for a in arrays]

    def logits(self, arrays: Sequence[NDArray[np.float32]], inputs: str = "image") -> NDArray[np.float32]:
        """Run one slice.

        Args:
            arrays: float32 C×H×W: the image, or the stage-1 features in the order of the network's arguments.
            inputs: "image" or "features".

        Returns:
            float32: 5×H×W of a segmenter, 2 of a classifier.

        Raises:
            WeightsError: The result is not finite.
        """
        with torch.inference_mode():
            output = self.module(inputs)(*self.tensors(arrays))
        return self.finite(output[0].float().cpu().numpy())

    def one_pass(self, values: NDArray[np.float32]) -> OnePass:
        """Run one slice (1×H×W) through `jcs-lite`. Raises WeightsError if the result is not finite."""
        with torch.inference_mode():
            out = self.module()(*self.tensors([values]))
        logit, evidence, lesion = (self.finite(t[0].float().cpu().numpy()) for t in (out.logit, out.evidence, out.maps))
        return OnePass(float(logit) / self.card.temperature, evidence, lesion[0])

    @property
    def covid_threshold(self) -> float:
        """The probability from which a slice counts as COVID-19; of `jcs-lite`, it is not that of lesions."""
        return self.threshold if self.card.covid_threshold is None else self.card.covid_threshold

    def stage_one(self, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the stage-1 features ("vgg" and/or "res2net", 64×H×W each) of an image 3×H×W."""
        module = self.module()
        homes = {"vgg": "vgg16", "res2net": "res2net"}
        features: dict[str, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for which in self.spec.feature_arrays:
                backbone: Any = getattr(module, homes[which], module)
                output = backbone.stage_one(*self.tensors([image]))
                features[which] = self.finite(output[0].float().cpu().numpy())
        return features

    def finite(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `values`. Raises WeightsError if any of them is NaN or infinite."""
        if not np.isfinite(values).all():
            raise WeightsError(
                f"{self.card.name} computed values that are not finite",
                hint="the weights do not fit this kind of input; try `jcs models show` and import them again",
            )
        return values


def pick_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "mps". Raises UsageError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available.get(name, False):
        there = [device for device, is_there in available.items() if is_there]
        raise UsageError(f"device {name} is not available here", hint=f"available: {', '.join(there)}")
    return torch.device(name)


def open_network(model: str | Path | None, device: str = "auto", tasks: Sequence[str] = ()) -> Network:
    """Load weights and check that they can do the task.

    Args:
        model: A stored name or a file; None: the weights that come with the package, if any do.
        device: See `pick_device`.
        tasks: The tasks ("segmentation", "classification", "lite", "backbone") of which one is needed; empty for any.

    Raises:
        UsageError: No model was named and none is shipped, it does another task, or the device is not there.
        WeightsError: See `jcs_ct.weights.load`.
    """
    if model is None and not shipped().exists():
        raise UsageError(
            "no --model was given, and this version ships no trained weights",
            hint="`jcs models import FILE` stores a checkpoint, `jcs models list` shows what there is",
        )
    chosen = pick_device(device)
    tensors, card = load(SHIPPED if model is None else model)
    spec = model_spec(card.architecture)
    if tasks and spec.task not in tasks:
        raise UsageError(f"{card.name} is {spec.name} ({spec.task})", hint=f"this command needs {' or '.join(tasks)}")
    return Network(tensors, card, chosen)


def self_check_network(name: str, device: str = "auto") -> Network:
    """Return a network with the deterministic weights of the self-check: for shapes and speed, never for a map."""
    from jcs_ct.golden import filled_model

    spec = model_spec(name)
    card = WeightsCard(
        name=f"{spec.name} (self-check)",
        architecture=spec.name,
        source_file="",
        source_kind="deterministic values, not trained",
        source_sha256="0" * 64,
        source_url=None,
        weights_sha256="0" * 64,
        imported_at="",
        jcs_ct_version=__version__,
        recipe=spec.recipe,
        classes=(),
        threshold=None,
        threshold_from="",
        licence="",
        citation="",
        bn_eps_folded=0.0,
    )
    return Network(filled_model(name).state_dict(), card, pick_device(device))
