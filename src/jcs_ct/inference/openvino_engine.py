"""OpenVINO on the CPU. It reads ONNX itself, so that no converter of its own is needed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.inference.onnx_engine import convert

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from numpy.typing import NDArray

    from jcs_ct.inference.runtimes import Arrays

__all__ = ["convert", "engine", "library"]


def library() -> ModuleType:
    """Return the module `openvino`, imported without its reports to the vendor.

    On import it sends an event through `openvino_telemetry` unless that cannot be imported.
    """
    if "openvino" not in sys.modules:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # None: "cannot be imported"
    import openvino

    module: ModuleType = openvino
    return module


class OpenvinoEngine:
    """A network compiled for each shape that comes: with open sizes it would be slower."""

    def __init__(self, file: Path, threads: int) -> None:
        ov: Any = library()
        self.core = ov.Core()
        self.model = self.core.read_model(str(file))
        self.settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": str(threads),
        }
        self.compiled: dict[tuple[tuple[int, ...], ...], Any] = {}
        self.facts = {"library": f"OpenVINO {ov.__version__}", "threads": str(threads), "precision": "float32"}

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.runtimes.Engine`."""
        shapes = tuple(array.shape for array in arrays)
        if shapes not in self.compiled:
            fixed = self.model.clone()
            fixed.reshape({given.any_name: list(shape) for given, shape in zip(fixed.inputs, shapes, strict=True)})
            while len(self.compiled) >= 4:  # a study has one shape, a folder of pictures may have many
                self.compiled.pop(next(iter(self.compiled)))
            self.compiled[shapes] = self.core.compile_model(fixed, "CPU", self.settings).create_infer_request()
        request = self.compiled[shapes]
        found = request.infer([np.ascontiguousarray(array) for array in arrays], share_inputs=True)
        return [np.array(found[i]) for i in range(len(found))]


def engine(file: Path, threads: int) -> OpenvinoEngine:
    """Open a file."""
    return OpenvinoEngine(file, threads)
