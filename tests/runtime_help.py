"""What the tests of runtimes share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.inference.golden import self_check_network

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference import Network

TINY = 64, 80


def noise(channels: int, *shape: int) -> NDArray[np.float32]:
    """Inputs N×C×H×W that no code of the package had a hand in."""
    return np.random.default_rng(3).normal(size=(shape[0], channels, *shape[1:])).astype(np.float32)


def expected(network: nn.Module, array: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """What the published computation gives, in the order of `OUTPUTS`."""
    deepest: list[torch.Tensor] = []
    classifier: Any = network if hasattr(network, "fc") else None
    handle = classifier.layer4.register_forward_hook(lambda *a: deepest.append(a[2])) if classifier else None
    with torch.inference_mode():
        out: Any = network(torch.from_numpy(array))
    if handle is not None:
        handle.remove()
        return [out.numpy(), np.einsum("nchw,c->nhw", deepest[0].numpy(), classifier.fc.weight[1].detach().numpy())]
    if hasattr(out, "evidence"):
        return [out.logit.numpy(), out.evidence.numpy(), out.maps[:, :1].numpy()]
    return [(out[:, :1] if out.dim() == 4 else out).numpy()]


def far(plain: Sequence[NDArray[np.float32]], found: Sequence[NDArray[np.float32]]) -> float:
    """The largest difference over the largest value of each output."""
    assert [a.shape for a in plain] == [b.shape for b in found]
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(plain, found, strict=True))


def lite(runtime: str, said: list[str] | None = None) -> Network:
    """`jcs-lite` with deterministic weights on a runtime, checked at a small size."""
    network = self_check_network("jcs-lite", "cpu", runtime)
    network.card = replace(network.card, recipe="lung-field@64")
    if said is not None:
        network._say = said.append
    return network


def many(network: Network, slices: int = 100) -> Network:
    """The same, with so many slices to come that converted files are opened."""
    network.slices = slices
    return network


class Wrong:
    """An engine that is off by as much as a bad conversion once was."""

    def __init__(self, *_: object) -> None:
        self.facts: dict[str, str] = {}

    def run(self, arrays: Sequence[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        from jcs_ct.inference.golden import filled_model

        logit, evidence, lesion = expected(filled_model("jcs-lite"), np.asarray(arrays[0]))
        return [logit, evidence, lesion + np.float32(1.5)]
