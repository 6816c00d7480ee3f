"""PyTorch twice: `torch` is the plain published computation, `torch-tuned` leaves out what inference does not need.

Tuned: norms folded, one lesion map, memory in the order channels-last, which oneDNN's convolutions like best, and
freed memory kept for the next layer, since mapping fresh pages costs more than the arithmetic on them. A compiled graph
(`torch.compile`) is not used: it needs a C++ compiler on the machine, and time at every start.
"""

from __future__ import annotations

import ctypes
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.runtime.fold import Inference

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jcs_ct.runtime.engines import Arrays


class PlainEngine:
    """The network as it was published: every output is computed, those that nobody reads are left behind."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network = network
        self.device = torch.device(device)
        self.names = Inference(network, fold=False).outputs
        self.facts = _facts()

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.runtime.engines.Engine`."""
        with torch.inference_mode():
            out: Any = self.network(*(_tensor(array).to(self.device) for array in arrays))
        if len(self.names) > 1:
            return [_array(tensor) for tensor in (out.logit, out.evidence, out.maps[:, :1])]
        return [_array(out[:, :1] if self.names == ("lesion",) else out)]


class TunedEngine:
    """The same numbers with less work."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.device = torch.device(device)
        with torch.inference_mode(False):
            tuned: Any = Inference(network)  # has parameters of its own, so that `network` keeps its memory format
            self.network = tuned.to(self.device, memory_format=torch.channels_last)
        kept = self.device.type == "cpu" and self.network.outputs == ("lesion",) and keep_memory()
        self.facts = _facts() | {"memory format": "channels last", "memory": "kept" if kept else "as the system has it"}

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.runtime.engines.Engine`."""
        with torch.inference_mode():
            tensors = [_tensor(array).to(self.device, memory_format=torch.channels_last) for array in arrays]
            found: tuple[Tensor, ...] = self.network(*tensors)
        return [_array(tensor) for tensor in found]


def engine(name: str, network: nn.Module, device: str) -> PlainEngine | TunedEngine:
    """Return the engine called `torch` or `torch-tuned`."""
    return (PlainEngine if name == "torch" else TunedEngine)(network, device)


def keep_memory() -> bool:
    """Tell the C library to keep large blocks that are freed instead of giving them back; return whether it could.

    Blocks of more than 32 MB are mapped afresh each time otherwise, whatever the size of those freed before (mallopt(3)
    of glibc). It holds for the whole process, whose memory then stays at its peak.
    """
    if sys.platform != "linux":
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if set_option is None:
        return False
    mmap_max, trim_threshold, top_pad = -4, -1, -2
    return all(set_option(*pair) for pair in ((mmap_max, 0), (trim_threshold, 2**31 - 1), (top_pad, 64 << 20)))


def _facts() -> dict[str, str]:
    return {"library": f"PyTorch {torch.__version__}", "threads": str(torch.get_num_threads()), "precision": "float32"}


def _tensor(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array))


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return np.ascontiguousarray(tensor.float().cpu().numpy())
