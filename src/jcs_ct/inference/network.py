"""A network that is ready to run: checked weights on a device and a runtime, fed with NumPy arrays."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from jcs_ct.core.errors import UsageError, WeightsError
from jcs_ct.inference.choice import Choice, Chosen, choose, payoff
from jcs_ct.inference.device import pick_device
from jcs_ct.inference.exported import open_exported
from jcs_ct.inference.records import Workload
from jcs_ct.inference.runtimes import ConcurrentEngine, find_runtime
from jcs_ct.models import ModelSpec, build_model, model_spec
from jcs_ct.models.mirror import merged, with_mirrors
from jcs_ct.weights import WeightsCard, load
from jcs_ct.weights.store import SHIPPED, shipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jcs_ct.models import Gives


class OnePass(NamedTuple):
    """What a network that does everything in one pass (`jcs-lite`) computes of a slice.

    Attributes:
        logit: Of COVID-19, divided by the temperature of the weights.
        evidence: float32 h×w, see `jcs_ct.inference.attention.of_evidence`.
        lesion: float32 H×W, logits of lesion.
    """

    logit: float
    evidence: NDArray[np.float32]
    lesion: NDArray[np.float32]


class Network:
    """One set of weights. The variants for images and for stage-1 features share them.

    The runtime is chosen, checked and started when the first slice comes. `module` is always the plain network, since
    attention needs gradients.

    Attributes:
        card: What is known about the weights.
        spec: The architecture's entry in the table of models.
        device: Where it runs.
        slices: How many are expected; `runtime="auto"` converts a network only when that pays.
        opened: The name or the file that it was opened by; "" for one that was made otherwise.
    """

    def __init__(
        self,
        tensors: dict[str, Tensor] | None,
        card: WeightsCard,
        device: torch.device,
        runtime: str = "torch",
        say: Callable[[str], None] | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.card, self.device, self.slices = card, device, 1
        self.opened: str | Path = ""
        self.spec: ModelSpec = model_spec(card.architecture)
        self._asked, self._say = runtime, say
        self._tensors = tensors
        self._modules: dict[str, nn.Module] = {}
        self._choices: dict[str, Choice] = {} if choice is None else {"image": choice}
        self._left: dict[int, dict[str, Choice]] = {}  # choices for other numbers of slices, see `expect`

    def module(self, inputs: str = "image") -> nn.Module:
        """Return the network for "image" or "features", in evaluation mode.

        Raises:
            UsageError: It was opened from an exported file, which gives results for pictures only.
        """
        if self._tensors is None:
            raise UsageError(
                f"{self.card.name} was opened from an exported file, which gives results for pictures only",
                hint="give the weights themselves as --model",
            )
        if inputs not in self._modules:
            with torch.inference_mode(False):  # parameters made in inference mode could never carry gradients
                with torch.device("meta"):  # no random values are drawn, and none can be left over: assign replaces all
                    module = build_model(self.spec.name, inputs)
                module.load_state_dict(self._tensors, strict=True, assign=True)
                module = module.eval().to(self.device)
            self._tensors = module.state_dict()
            self._modules[inputs] = module
        return self._modules[inputs]

    def expect(self, slices: int) -> None:
        """Take the runtime that pays for so many slices from now on: a process that lives long sees many studies."""
        before, now = (payoff(self.spec.load, count) for count in (self.slices, slices))
        self.slices = slices
        if self._asked == "auto" and before != now:
            self._left[before] = self._choices
            self._choices = self._left.pop(now, {})

    def start(self, inputs: str = "image") -> Choice:
        """Choose and start the runtime, unless that was done, and return it.

        Raises:
            UsageError: The runtime is not installed, or not for this network or device.
            RuntimeFailedError: It does not compute what the network computes, or its file was changed.
        """
        if inputs not in self._choices:
            if self._tensors is None:
                self.module(inputs)  # says that there is none
            say = self._say or (lambda _text: None)
            known = self.card.weights_sha256.strip("0")
            weights = self.card.weights_sha256 if known or self._asked == "torch" else _digest(self._tensors or {})
            workload = Workload(
                self.card.name,
                self.spec,
                weights,
                self.card.recipe,
                inputs,
                self.device.type,
                lambda: self.module(inputs),
            )
            choice = choose(workload, self._asked, self.slices, say)
            if self._asked == "auto":
                say(Chosen(f"runtime {choice.name} for {self.card.name}: {choice.text}"))
            self._choices[inputs] = choice
        return self._choices[inputs]

    @property
    def runtime(self) -> str:
        """The name of the runtime that executed pictures; `torch` when only attention was computed, which needs it."""
        choice = self._choices.get("image")
        return "torch" if choice is None else choice.name

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
            float32: the logits of lesion 1×H×W of a segmenter; the 2 logits of a classifier.

        Raises:
            WeightsError: The result is not finite.
        """
        return self.finite(self.start(inputs).engine.run([array[None] for array in arrays])[0][0])

    def class_pass(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return the 2 logits and the evidence h×w of a classifier for an image C×H×W; None with the runtime `torch`.

        Grad-CAM is the positive part of the evidence over h·w (`jcs_ct.models.OUTPUTS`). Raises as `logits`.
        """
        choice = self.start()
        if choice.name == "torch":  # there gradients are at hand
            return None
        logits, evidence = choice.engine.run([values[None]])
        return self.finite(logits)[0], self.finite(evidence)[0]

    def one_pass(self, values: NDArray[np.float32]) -> OnePass:
        """Run one slice (1×H×W) through `jcs-lite`. Raises WeightsError if the result is not finite."""
        return self.passes([values])[0]

    def passes(self, batch: Sequence[NDArray[np.float32]]) -> list[OnePass]:
        """Run several slices (1×H×W each, all of one size) through `jcs-lite` together. Raises as `one_pass`."""
        slices = with_mirrors(batch) if self.card.mirror else np.stack(batch)
        logits, evidences, lesions = self.start().engine.run([slices])
        for values in (logits, evidences, lesions):
            self.finite(values)
        if self.card.mirror:
            logits, evidences, lesions = merged(logits, evidences, lesions)
        return [
            OnePass(float(logit) / self.card.temperature, evidence, lesion[0])
            for logit, evidence, lesion in zip(logits, evidences, lesions, strict=True)
        ]

    @property
    def batch(self) -> int:
        """How many slices of a study to give to `passes` at once: on a processor more than one is slower."""
        return 1 if self.device.type == "cpu" else 8

    @contextmanager
    def concurrent_calls(self, slices: int) -> Iterator[int]:
        """Let several threads give it pictures at the same time, each with a share of the processors.

        Args:
            slices: How many there are; a single one has all processors.

        Yields:
            How many threads may; 1 with a runtime that takes one slice at a time.
        """
        engine = self.start().engine
        if not isinstance(engine, ConcurrentEngine):
            yield 1
            return
        try:
            yield engine.share(slices)
        finally:
            engine.share(1)

    @property
    def cards(self) -> tuple[WeightsCard, ...]:
        """The cards of all weights that answer."""
        return (self.card,)

    @property
    def covid_threshold(self) -> float:
        """The probability from which a slice counts as COVID-19; of `jcs-lite`, it is not that of lesions."""
        return self.threshold if self.card.covid_threshold is None else self.card.covid_threshold

    def stage_one(self, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Return the stage-1 features ("vgg" and/or "res2net", 64×H×W each) of an image 3×H×W."""
        features: dict[str, NDArray[np.float32]] = {}
        with torch.inference_mode():
            for which, backbone in zip(self.spec.feature_arrays, self.spec.backbones, strict=True):
                module: Any = self.module().get_submodule(backbone)
                output = module.stage_one(*self.tensors([image]))
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


def open_network(
    model: str | Path | None,
    device: str = "auto",
    gives: Sequence[Gives] = (),
    runtime: str = "auto",
    say: Callable[[str], None] | None = None,
) -> Network:
    """Load weights and check that they give what is needed.

    Args:
        model: A stored name, a file of weights or an exported network; None: the weights that come with the package,
            if any do.
        device: See `pick_device`.
        gives: Results ("probability", "lesions") of which one is needed; empty for any network.
        runtime: "auto" or a name of `jcs_ct.inference.runtimes.RUNTIMES`.
        say: Gets a line about what takes time, and about the runtime that `auto` took.

    Raises:
        UsageError: No model was named and none is shipped, it gives something else, or the device or runtime is not
            there.
        WeightsError: See `jcs_ct.weights.load`.
    """
    if model is None and not shipped().exists():
        raise UsageError(
            "no --model was given, and this version ships no trained weights",
            hint="`jcs models import FILE` stores a checkpoint, `jcs models list` shows what there is",
        )
    place = pick_device(device)
    if runtime != "auto":
        find_runtime(runtime).need()
    exported = None if model is None else open_exported(Path(model))
    if exported is not None:
        card, choice = exported
        if runtime not in ("auto", choice.name) or device not in ("auto", "cpu"):
            raise UsageError(f"{model} runs with {choice.name} on cpu only", hint="leave --runtime and --device out")
        network = Network(None, card, torch.device("cpu"), choice.name, say, choice)
    else:
        network = Network(*load(SHIPPED if model is None else model), place, runtime, say)
    spec = network.spec
    if gives and not any(spec.gives(what) for what in gives):
        needed = f"this command needs a network that gives {' or '.join(gives)}"
        raise UsageError(f"{network.card.name} is {spec.name} ({spec.task})", hint=needed)
    network.opened = SHIPPED if model is None else model
    return network


def _digest(tensors: dict[str, Tensor]) -> str:
    """Return a SHA-256 of weights that come from no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(tensor.cpu().numpy()).tobytes())
    return digest.hexdigest()
