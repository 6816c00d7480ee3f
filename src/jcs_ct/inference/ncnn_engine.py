"""ncnn on the CPU: Winograd convolutions on x86 and ARM, for the published networks.

The network is traced, converted by `pnnx` (a program that comes as a package of its own) and kept as one file: a ZIP
archive, not compressed, with ncnn's two parts, the layers as text and their weights.

ncnn has no batch: slices of a batch run one after the other. Sizes may change from call to call.
"""

from __future__ import annotations

import subprocess
import tempfile
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.core.memory import keep_everything
from jcs_ct.inference.engines import RuntimeFailedError
from jcs_ct.inference.fold import Inference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from jcs_ct.inference.engines import Arrays

PARTS = "network.ncnn.param", "network.ncnn.bin"


def convert(network: nn.Module, example: Sequence[Tensor], file: Path) -> None:
    """Write the file that this runtime opens.

    Args:
        network: `jcs-single`, `jcs-joint` or `jcs-classifier`.
        example: One input of each kind; sides of another size are derived from them, so that none becomes a constant.
        file: Where to write.

    Raises:
        RuntimeFailedError: pnnx cannot convert it.
    """
    from pnnx import EXEC_PATH

    other = [torch.nn.functional.pad(t, (0, t.shape[3] // 2, 0, t.shape[2])) for t in example]
    with tempfile.TemporaryDirectory(dir=file.parent) as name:
        folder = Path(name)
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of checks of shapes, which a trace leaves out
            traced: Any = torch.jit.trace(Inference(network), tuple(example), check_trace=False)
            traced.save(str(folder / "network.pt"))
        shapes = [f"{key}={_shapes(tensors)}" for key, tensors in (("inputshape", example), ("inputshape2", other))]
        command = [EXEC_PATH, "network.pt", *shapes, "fp16=0"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
        missing = [part for part in PARTS if not (folder / part).is_file() or not (folder / part).stat().st_size]
        if done.returncode or missing:
            said = (done.stderr.strip() or done.stdout.strip()).splitlines()
            raise RuntimeFailedError(
                f"pnnx cannot convert this network: {(said or ['it says nothing'])[-1]:.200}",
                hint="use another --runtime",
            )
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for part in PARTS:
                archive.write(folder / part, part)


def _shapes(tensors: Sequence[Tensor]) -> str:
    return ",".join(f"[{','.join(map(str, t.shape))}]f32" for t in tensors)


class NcnnEngine:
    """A network of ncnn's. Everything is float32: half precision in storage would cost the parity."""

    def __init__(self, file: Path, threads: int) -> None:
        import ncnn

        self.ncnn: Any = ncnn
        kept = keep_everything()
        self.net: Any = ncnn.Net()
        self.net.opt.num_threads = threads
        for option in ("use_fp16_storage", "use_fp16_arithmetic", "use_fp16_packed", "use_bf16_storage"):
            setattr(self.net.opt, option, False)
        with tempfile.TemporaryDirectory() as name, zipfile.ZipFile(file) as archive:
            paths = [archive.extract(part, name) for part in PARTS]  # streamed: the weights are half a gigabyte
            if self.net.load_param(paths[0]) or self.net.load_model(paths[1]):
                raise RuntimeFailedError("ncnn cannot load it", path=file, hint="remove the file and try again")
        self.inputs, self.outputs = sorted(self.net.input_names()), sorted(self.net.output_names())
        self.facts = {
            "library": f"ncnn {ncnn.__version__}",
            "threads": str(threads),
            "precision": "float32",
            "convolutions": "Winograd",
            "memory": "kept" if kept else "as the system has it",
        }

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.engines.Engine`."""
        slices = [self._one([array[i] for array in arrays]) for i in range(len(arrays[0]))]
        return [np.stack(parts) for parts in zip(*slices, strict=True)]

    def _one(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        given = [np.ascontiguousarray(array) for array in arrays]  # ncnn reads this memory while it works
        found = []
        with self.net.create_extractor() as extractor:
            for name, array in zip(self.inputs, given, strict=True):
                extractor.input(name, self.ncnn.Mat(array))
            for name in self.outputs:
                code, values = extractor.extract(name)
                if code:
                    raise RuntimeFailedError(f"ncnn failed with code {code}: too little memory, perhaps")
                found.append(np.array(values, dtype=np.float32))
        return found


def engine(file: Path, threads: int) -> NcnnEngine:
    """Open a file."""
    return NcnnEngine(file, threads)
