"""PyTorch twice: `torch` is the plain published computation, `torch-tuned` leaves out what inference does not need.

Tuned: norms folded, one lesion map, memory in the order channels-last, which oneDNN's convolutions like best, and
freed memory kept for the next layer, since mapping fresh pages costs more than the arithmetic on them. A compiled graph
(`torch.compile`) is not used: it needs a C++ compiler on the machine, and time at every start.

On CUDA, also: CUDA graphs, and convolutions in float16 for the weights that bear it. Whether they do is measured at
every start against float32, with the limits of `jcs_ct.inference.parity`: float16 has eleven significant bits, and with
them probabilities of the shipped `jcs-lite` are off by 0.02 where 0.002 is allowed. TF32 has as many (only its range is
wider), and PyTorch takes it for "float32" convolutions unless told otherwise: here float32 is float32.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.core.memory import keep_everything
from jcs_ct.inference.fold import Inference
from jcs_ct.inference.graphs import KEPT, Graphs, capture
from jcs_ct.inference.half import InHalf, half_passes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jcs_ct.inference.engines import Arrays
    from jcs_ct.inference.graphs import Captured, Forward

TENSOR_CORES = 7, 0  # compute capability from which float16 is fast

_gpu = threading.RLock()  # graphs have one memory for inputs, and the switch for TF32 is one for the process


class PlainEngine:
    """The network as it was published: every output is computed, those that nobody reads are left behind."""

    def __init__(self, network: nn.Module, device: str) -> None:
        self.network = network
        self.device = torch.device(device)
        self.inference = Inference(network, fold=False)
        self.facts = _facts()

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.engines.Engine`."""
        with strict_float32(self.device), torch.inference_mode():
            tensors = [_tensor(array).to(self.device) for array in arrays]
            if self.inference.outputs == ("logits", "evidence"):
                return [_array(tensor) for tensor in self.inference(*tensors)]
            out: Any = self.network(*tensors)
        if self.inference.outputs == ("lesion",):
            return [_array(out[:, :1])]
        return [_array(tensor) for tensor in (out.logit, out.evidence, out.maps[:, :1])]


class TunedEngine:
    """The same numbers with less work.

    Args:
        network: In evaluation mode.
        device: "cpu", "cuda" or "mps".
        half: Whether to use float16 if it passes its check; None: on GPUs that are fast with it.
        record: Makes CUDA graphs; None: on CUDA only.
    """

    def __init__(
        self,
        network: nn.Module,
        device: str,
        half: bool | None = None,
        record: Callable[[Forward, Sequence[Tensor]], Captured] | None = None,
    ) -> None:
        self.device = torch.device(device)
        cuda = self.device.type == "cuda"
        with torch.inference_mode(False):
            tuned: Any = Inference(network)  # has parameters of its own, so that `network` keeps its memory format
            self.network = tuned.to(self.device, memory_format=torch.channels_last)
        kept = self.device.type == "cpu" and self.network.outputs == ("lesion",) and keep_everything()
        self.facts = _facts() | {"memory format": "channels last", "memory": "kept" if kept else "as the system has it"}
        self.half, self.repeats = False, 0
        self._forward: Forward = self._exact
        self._graphs: Graphs | None = None
        if half is None:
            half = cuda and torch.cuda.get_device_capability(self.device) >= TENSOR_CORES
        if half:
            forward = InHalf(self.network, self.device.type)
            with self._alone():
                self.half, text = half_passes(self.network, self._exact, forward, self._upload)
            self.facts["float16"] = f"{'passed its check' if self.half else 'left out'}: {text}"
            if self.half:
                self._forward, self.facts["precision"] = forward, "float16 convolutions, float32 outputs"
        if record is not None or cuda:
            self._graphs = Graphs(self._forward, record or capture)
            self._forward, self.facts["CUDA graphs"] = self._graphs, f"from the second run of a shape, {KEPT} at most"

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.engines.Engine`. What is not finite in float16 is computed again in float32."""
        with self._alone(), torch.inference_mode():
            tensors = [self._upload(array) for array in arrays]
            found = [_array(tensor) for tensor in self._forward(*tensors)]
            if self.half and not all(np.isfinite(values).all() for values in found):
                self.repeats += 1
                self.facts["repeated in float32"] = f"{self.repeats} batches that were not finite in float16"
                found = [_array(tensor) for tensor in self._exact(*tensors)]
        if self._graphs is not None and self._graphs.trouble:
            self.facts["CUDA graphs"] = f"off: {self._graphs.trouble}"
        return found

    def _exact(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        with strict_float32(self.device):
            found: tuple[Tensor, ...] = self.network(*tensors)
        return found

    def _upload(self, array: NDArray[np.float32]) -> Tensor:
        tensor, cuda = _tensor(array), self.device.type == "cuda"
        if cuda:
            tensor = tensor.pin_memory()  # what the GPU fetches by itself, while the processor goes on
        return tensor.to(self.device, non_blocking=cuda, memory_format=torch.channels_last)

    def _alone(self) -> AbstractContextManager[object]:
        return _gpu if self.device.type == "cuda" else nullcontext()


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
    with _gpu:
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
