"""ONNX: the file that ONNX Runtime and OpenVINO read, and ONNX Runtime itself."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import first_line
from jcs_ct.inference.fused import FusedNetwork
from jcs_ct.inference.runtimes import RuntimeFailedError, quiet_output

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.runtimes import Arrays

OPSET = 17
AXES = {0: "batch", 2: "height", 3: "width"}


def input_names(count: int) -> list[str]:
    """Return the names of the inputs: one picture, or stage-1 features."""
    return ["image"] if count == 1 else ["vgg", "res2net"][:count]


def write_onnx(network: FusedNetwork, example: Sequence[torch.Tensor], file: Path) -> None:
    """Write a network as ONNX with batch, height and width left open.

    The trace-based exporter is used: it takes 7 s for `jcs-joint` where the newer one takes 20, and both give the same
    numbers.

    Args:
        network: What to write.
        example: One input of each kind; sides that no level of the network maps to the same size.
        file: Where to write.

    Raises:
        RuntimeFailedError: This version of PyTorch or onnx cannot.
    """
    names = input_names(len(example))
    axes = dict.fromkeys(names, AXES)
    maps = {"lesion": AXES, "evidence": {0: "batch", 1: "rows", 2: "columns"}}
    axes |= {name: maps.get(name, {0: "batch"}) for name in network.spec.outputs}
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad(), quiet_output():
            warnings.simplefilter("ignore")  # of checks of shapes, which a trace leaves out
            torch.onnx.export(
                network,
                tuple(example),
                str(file),
                dynamo=False,
                opset_version=OPSET,
                input_names=names,
                output_names=list(network.spec.outputs),
                dynamic_axes=axes,
            )
    except Exception as error:
        raise RuntimeFailedError(
            f"this network cannot be written as ONNX: {first_line(error)}",
            hint="PyTorch and onnx may be too old or too new for each other; use --runtime torch",
        ) from error


def convert(network: nn.Module, example: Sequence[torch.Tensor], file: Path) -> None:
    """Write the file that this runtime opens. Raises RuntimeFailedError."""
    write_onnx(FusedNetwork(network), example, file)


class OnnxEngine:
    """ONNX Runtime on the CPU."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        onnxruntime.disable_telemetry_events()  # there are none on Linux; on Windows there are
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.session: Any = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.names = [given.name for given in self.session.get_inputs()]
        self.facts = {
            "library": f"ONNX Runtime {onnxruntime.__version__}",
            "threads": str(threads),
            "precision": "float32",
        }

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.runtimes.Engine`."""
        return list(self.session.run(None, dict(zip(self.names, arrays, strict=True))))


def engine(file: Path, threads: int) -> OnnxEngine:
    """Open a file."""
    return OnnxEngine(file, threads)
