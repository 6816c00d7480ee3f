"""MNN on the CPU: Winograd convolutions on x86 and ARM.

Two things that its command `mnnconvert` does are left out by calling the converter below it: it installs a package
with pip, and reports each conversion to the vendor.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.runtime.engines import RuntimeFailedError, quiet_output
from jcs_ct.runtime.onnx_engine import write_onnx

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jcs_ct.runtime.engines import Arrays


def convert(network: nn.Module, example: Sequence[Tensor], file: Path) -> None:
    """Write the file that this runtime opens. Raises RuntimeFailedError."""
    from jcs_ct.runtime.fold import Inference

    with quiet_output():  # it greets on standard output when it is loaded
        import _tools  # type: ignore[import-not-found]  # a top-level module of MNN's wheel

    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        between = Path(folder) / "network.onnx"
        write_onnx(Inference(network), example, between)
        command = ["MNNConvert", "-f", "ONNX", "--modelFile", str(between), "--MNNModel", str(file), "--bizCode", "jcs"]
        with quiet_output():
            done = _tools.mnnconvert(command)
    if not done or not file.exists() or not file.stat().st_size:
        raise RuntimeFailedError("MNN cannot convert this network", hint="use another --runtime")


class MnnEngine:
    """A module of MNN's expression interface; sizes may change from call to call."""

    def __init__(self, file: Path, threads: int) -> None:
        with quiet_output():
            import MNN
            from MNN import expr, nn

            self.expr: Any = expr
            # "high" is float32; the default may take half precision where the processor has it
            settings = {"backend": "CPU", "precision": "high", "numThread": threads}
            self.manager: Any = nn.create_runtime_manager((settings,))
            self.module: Any = nn.load_module_from_file(str(file), [], [], runtime_manager=self.manager)
            info = self.module.get_info()
        self.names = list(info["inputNames"])
        self.facts = {"library": f"MNN {MNN.version()}", "threads": str(threads), "precision": "float32"}

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.runtime.engines.Engine`."""
        given = []
        for array in arrays:
            placeholder = self.expr.placeholder(list(array.shape), self.expr.NCHW)
            placeholder.write(np.ascontiguousarray(array))
            given.append(placeholder)
        found = self.module.forward(given)
        return [self._array(variable) for variable in found]

    def _array(self, variable: Any) -> NDArray[np.float32]:
        """Return a copy: MNN computes in a layout of its own, and writes over its memory in the next call."""
        plain = self.expr.convert(variable, self.expr.NCHW) if len(variable.shape) == 4 else variable
        return np.array(plain.read(), dtype=np.float32).reshape(plain.shape)


def engine(file: Path, threads: int) -> MnnEngine:
    """Open a file."""
    return MnnEngine(file, threads)
