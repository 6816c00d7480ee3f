"""Attention maps of any of the networks: which part of the slice speaks for the answer.

* `grad-cam`: Selvaraju et al., ICCV 2017. Channel weights are the spatial mean of the gradient.
* `layer-cam`: Jiang et al., IEEE TIP 2021. Weights are the positive gradients of each position; useful on finer layers.

For a segmenter the answer is the mean lesion logit over the pixels it calls lesion (Vinogradova et al., AAAI 2020).
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

Method = Literal["grad-cam", "layer-cam"]


@dataclass(frozen=True)
class Attention:
    """An attention map on the grid of the layer.

    Attributes:
        raw: float32, h × w, at least 0, not scaled.
        output: float32, what the network computed on the way (without the batch axis).
        degenerate: Why there is nothing to see ("zero everywhere", …), or None.
    """

    raw: NDArray[np.float32]
    output: NDArray[np.float32]
    degenerate: str | None

    def scaled(self, values: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
        """Return `values` (default: `raw`) scaled to [0, 1] by minimum and maximum; zeros for a degenerate map."""
        values = self.raw if values is None else values
        low, high = float(values.min()), float(values.max())
        if self.degenerate is not None or high <= low:
            return np.zeros_like(values)
        scaled: NDArray[np.float32] = (values - np.float32(low)) / np.float32(high - low)
        return scaled.clip(0, 1)


def of_evidence(evidence: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the attention map that `jcs-lite` gives in its own pass: the positive evidence, scaled to a maximum of 1.

    Equal to Grad-CAM of the layer below it (see `jcs_ct.models.lite`); zeros where no evidence is positive.
    """
    positive: NDArray[np.float32] = np.maximum(evidence, np.float32(0))
    highest = float(positive.max())
    scaled: NDArray[np.float32] = positive / np.float32(highest) if highest > 0 else positive
    return scaled


def of_class_evidence(logits: NDArray[np.float32], evidence: NDArray[np.float32]) -> Attention:
    """Return Grad-CAM of a classifier from its logits and the evidence of its pass (`jcs_ct.models.OUTPUTS`)."""
    raw: NDArray[np.float32] = (np.maximum(evidence, 0) / evidence.size).astype(np.float32)
    return Attention(raw, logits, _degenerate(raw))


@contextmanager
def cut_at(model: nn.Module, layer: str, seen: list[Tensor]) -> Iterator[None]:
    """Cut the graph at `layer` while the block runs: append its output to `seen`, as a leaf that gradients reach.

    Nothing before the layer keeps its activations, so memory does not depend on the depth of the network.

    Raises:
        UsageError: The network has no such layer, or the layer's output is not a feature map N×C×h×w.
    """
    modules = dict(model.named_modules())
    if layer not in modules or not layer:
        names = [n for n in modules if n and n.count(".") <= 1]
        raise UsageError(f"no layer is called {layer!r}", hint=f"some that exist: {', '.join(names[:12])} …")

    def cut(_module: nn.Module, _inputs: object, output: object) -> Tensor:
        if not isinstance(output, Tensor) or output.dim() != 4:
            raise UsageError(
                f"the output of layer {layer!r} is not a feature map N×C×h×w", hint="name a convolution block"
            )
        seen.append(output.detach().requires_grad_())
        return seen[-1].clone()  # a copy, since what follows may work in place

    handle = modules[layer].register_forward_hook(cut)
    trainable = [p for p in model.parameters() if p.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        yield
    finally:
        handle.remove()
        for parameter in trainable:
            parameter.requires_grad_()


def attention_of_slice(
    model: nn.Module,
    inputs: Sequence[Tensor],
    layer: str,
    answer: Callable[[Tensor], Tensor | None],
    method: Method = "grad-cam",
    head: Callable[[Any], Tensor] = lambda output: output,
) -> Attention:
    """Explain one slice.

    Args:
        model: A network of this package, in evaluation mode.
        inputs: Its inputs, a batch of one.
        layer: Dotted name of the module whose output is weighted, e.g. "layer4".
        answer: From the network's output to the scalar to explain, or None when there is nothing to explain.
        method: "grad-cam" or "layer-cam".
        head: Which tensor of the model's output `answer` gets, where the model has several.

    Raises:
        UsageError: Unknown layer or method, or a layer that the network did not run.
    """
    seen: list[Tensor] = []
    with torch.enable_grad(), cut_at(model, layer, seen):
        output = head(model(*inputs))
        if not seen:
            raise UsageError(f"the network did not run layer {layer!r} on this input", hint="name another layer")
        value = answer(output)
        computed = output.detach()[0].float().cpu().numpy()
        if value is None:
            empty = np.zeros(seen[-1].shape[2:], dtype=np.float32)
            return Attention(empty, computed, "no lesion found, so nothing to explain")
        (gradient,) = torch.autograd.grad(value, seen[-1], allow_unused=True)
    if gradient is None:
        raise UsageError(f"the output does not depend on layer {layer!r}", hint="name another layer")
    activation = seen[-1].detach()
    if method == "grad-cam":
        weighted = gradient.mean(dim=(2, 3), keepdim=True) * activation
    elif method == "layer-cam":
        weighted = gradient.relu() * activation
    else:
        raise UsageError(f"no attention method is called {method!r}", hint="known: grad-cam, layer-cam")
    raw = weighted.sum(dim=1)[0].relu().float().cpu().numpy()
    return Attention(raw, computed, _degenerate(raw))


def _degenerate(raw: NDArray[np.float32]) -> str | None:
    if not np.isfinite(raw).all():
        return "not finite"
    if not raw.any():
        return "zero everywhere"
    if raw.size > 1 and raw.max() == raw.min():
        return "the same everywhere"
    return None


def class_answer(index: int = -1) -> Callable[[Tensor], Tensor]:
    """Return the answer "logit of class `index`"; the last is COVID-19."""
    return lambda logits: logits[:, index].sum()


def lesion_answer(threshold: float) -> Callable[[Tensor], Tensor | None]:
    """Return the answer "mean lesion logit where p ≥ threshold" of a segmenter; None without such a pixel."""

    def answer(logits: Tensor) -> Tensor | None:
        lesion = logits[:, 0].detach().sigmoid() >= threshold
        return logits[:, 0][lesion].mean() if bool(lesion.any()) else None

    return answer
