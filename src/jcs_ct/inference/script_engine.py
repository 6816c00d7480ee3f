"""TorchScript: a file that runs without this package, in Python or C++."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.core.errors import first_line
from jcs_ct.inference.runtimes import RuntimeFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.inference.runtimes import Arrays


def write_script(network: torch.nn.Module, example: Sequence[torch.Tensor], file: Path) -> None:
    """Trace a network and write it. Raises RuntimeFailedError when this version of PyTorch cannot."""
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of checks of shapes, which a trace leaves out
            torch.jit.trace(network.eval(), tuple(example), check_trace=False).save(str(file))
    except Exception as error:
        raise RuntimeFailedError(f"this network cannot be traced: {first_line(error)}", hint="report it") from error


class ScriptEngine:
    """A TorchScript file on the CPU."""

    def __init__(self, file: Path) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.network: Any = torch.jit.load(str(file), map_location="cpu")
        self.facts = {"library": f"PyTorch {torch.__version__} (TorchScript)", "precision": "float32"}

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.runtimes.Engine`."""
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = self.network(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))
        tensors = found if isinstance(found, tuple) else (found,)
        return [np.ascontiguousarray(tensor.numpy()) for tensor in tensors]
