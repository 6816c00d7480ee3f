"""PyTorch twice: `torch` is the plain published computation, `torch-tuned` leaves out what inference does not need.

Tuned: norms fused, one lesion map, memory in the order channels-last, which oneDNN's convolutions like best, and
freed memory kept for the next layer, since mapping fresh pages costs more than the arithmetic on them. A compiled graph
(`torch.compile`) is not used: it needs a C++ compiler on the machine, and time at every start.

On CUDA, float32 is float32: PyTorch otherwise rounds the inputs of convolutions to TF32, which has eleven significant
bits.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.core.memory import never_return_blocks
from jcs_ct.inference.fused import FusedNetwork
from jcs_ct.models import spec_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jcs_ct.inference.runtimes import Arrays
    from jcs_ct.models import InferenceNetwork

_tf32 = threading.RLock()  # the switch is one for the process


class PlainEngine:
    """The network as it was published: every output is computed, those that nobody reads are left behind."""

    def __init__(self, network: nn.Module, device: str) -> None:
        spec_of(network)  # refuses what has no results
        self.network: InferenceNetwork | Any = network
        self.device = torch.device(device)
        self.facts = _facts()

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.runtimes.Engine`."""
        with strict_float32(self.device), torch.inference_mode():
            tensors = [_tensor(array).to(self.device) for array in arrays]
            return [_array(tensor) for tensor in self.network.published(*tensors)]


class TunedEngine:
    """The same numbers with less work.

    Args:
        network: In evaluation mode.
        device: "cpu", "cuda" or "mps".
    """

    def __init__(self, network: nn.Module, device: str) -> None:
        self.device = torch.device(device)
        with torch.inference_mode(False):
            tuned: Any = FusedNetwork(network)  # has parameters of its own, so that `network` keeps its memory format
            self.network = tuned.to(self.device, memory_format=torch.channels_last)
        kept = self.device.type == "cpu" and self.network.spec.load == "heavy" and never_return_blocks()
        self.facts = _facts() | {"memory format": "channels last", "memory": "kept" if kept else "as the system has it"}

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.runtimes.Engine`."""
        with strict_float32(self.device), torch.inference_mode():
            tensors = [_tensor(a).to(self.device, memory_format=torch.channels_last) for a in arrays]
            return [_array(tensor) for tensor in self.network(*tensors)]


def engine(name: str, network: nn.Module, device: str) -> PlainEngine | TunedEngine:
    """Return the engine called `torch` or `torch-tuned`."""
    return (PlainEngine if name == "torch" else TunedEngine)(network, device)


@contextmanager
def strict_float32(device: torch.device) -> Iterator[None]:
    """Keep convolutions on CUDA from rounding their inputs to TF32, PyTorch's default on GPUs that have it."""
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    owner, name, value = (
        (cudnn.conv, "fp32_precision", "ieee") if hasattr(cudnn, "conv") else (cudnn, "allow_tf32", False)
    )
    with _tf32:
        before = getattr(owner, name)
        setattr(owner, name, value)
        try:
            yield
        finally:
            setattr(owner, name, before)


def _facts() -> dict[str, str]:
    return {"library": f"PyTorch {torch.__version__}", "threads": str(torch.get_num_threads()), "precision": "float32"}


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.float().cpu().numpy())
