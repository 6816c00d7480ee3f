"""One process of a benchmark: a network on one runtime, which works when it is told to.

Each runtime has a process of its own, so that its memory is its own and libraries do not disturb one another.
"""

from __future__ import annotations

import resource
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from jcs_ct.inference.network import Network, open_network
from jcs_ct.inference.parity import check_arrays
from jcs_ct.inference.runtimes import RUNTIMES, Engine, file_engine, module_engine
from jcs_ct.inference.self_check import self_check_network
from jcs_ct.models import MODELS

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

SPREAD = 2.0  # standard deviation of the lesion logits that deterministic weights are scaled to


@dataclass(frozen=True)
class Task:
    """What a process does.

    Attributes:
        network: A network of the table (with deterministic weights), or weights: a stored name or a file.
        runtime: Of the table.
        threads: For the library.
        file: What the runtime opens; made by `convert`.
        heads: Name → (gain, shift) of the last convolutions, see `level_heads`.
    """

    network: str
    runtime: str
    threads: int
    file: Path | None = None
    heads: dict[str, tuple[float, float]] = field(default_factory=dict)


def build(task: Task) -> Network:
    """Return the network of a task, with plain PyTorch."""
    torch.set_num_threads(task.threads)
    if task.network not in MODELS:
        return open_network(task.network, "cpu", runtime="torch")
    network = self_check_network(task.network, "cpu")
    for name, (gain, shift) in task.heads.items():
        head: Any = network.module().get_submodule(name)
        with torch.no_grad():
            head.weight.mul_(gain)
            head.bias.mul_(gain).add_(shift)
    return network


def level_heads(network: Network, arrays: list[list[NDArray[np.float32]]]) -> dict[str, tuple[float, float]]:
    """Return gain and shift of the lesion head that give its logits the mean 0 and the deviation `SPREAD`.

    With deterministic weights maps are nearly flat, and lie on one side of any threshold: two runtimes that differ
    would look alike. Scaled, their differences grow by the same factor as the map.
    """
    if not network.spec.gives_lesions:
        return {}
    plain = module_engine(RUNTIMES["torch"], network.module(), "cpu")
    index = network.spec.outputs.index("lesion")
    values = np.concatenate([plain.run(given)[index].ravel() for given in arrays])
    gain = SPREAD / max(float(values.std()), 1e-9)
    return {network.spec.lesion_head: (gain, -gain * float(values.mean()))}


def convert(task: Task) -> None:
    """Write the file of a runtime: in a process of its own, so that it does not count as memory of the runtime."""
    assert task.file is not None  # noqa: S101  # runtimes without files are not converted
    network = build(task)
    example = [torch.from_numpy(array) for array in check_arrays(network.spec, (96, 128))]
    RUNTIMES[task.runtime].module.convert(network.module(), example, task.file)


def multiply_adds(network: Network, arrays: list[NDArray[np.float32]]) -> int:
    """Return the multiplications of the plain network on an input: convolutions and linear layers."""
    total = 0

    def count(layer: Any, _inputs: Any, output: torch.Tensor) -> None:
        nonlocal total
        total += output.numel() * layer.weight[0].numel()

    layers = [m for m in network.module().modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    handles = [layer.register_forward_hook(count) for layer in layers]
    with torch.inference_mode():
        network.module()(*(torch.from_numpy(array) for array in arrays))
    for handle in handles:
        handle.remove()
    return total


def matrix_speed(threads: int) -> float:
    """Return the operations a second of the fastest matrix multiplication in float32 that PyTorch has here.

    The better of `torch.mm` and a 1×1 convolution (the same product through another library), 2048 and 1024 wide.
    """
    torch.set_num_threads(threads)
    best = 0.0
    a, b = torch.randn(2048, 2048), torch.randn(2048, 2048)
    x = torch.randn(1, 1024, 64, 64).to(memory_format=torch.channels_last)
    conv: Any = nn.Conv2d(1024, 1024, 1, bias=False)
    conv = conv.to(memory_format=torch.channels_last)
    works = ((lambda: torch.mm(a, b), 2 * 2048**3), (lambda: conv(x), 2 * 1024 * 1024 * 4096))
    with torch.inference_mode():
        for work, operations in works:
            for turn in range(6):
                started = time.perf_counter()
                work()
                if turn:
                    best = max(best, operations / (time.perf_counter() - started))
    return best


def peak() -> int:
    """Return the largest memory of this process so far, bytes.

    Linux: from /proc, since what `getrusage` says counts the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024


def start(task: Task) -> Engine:
    """Open the engine of a task."""
    runtime = RUNTIMES[task.runtime]
    if task.file is not None:
        torch.set_num_threads(task.threads)
        return file_engine(runtime, task.file, task.threads)
    return module_engine(runtime, build(task).module(), "cpu")


def serve(end: Connection, task: Task, arrays: list[list[NDArray[np.float32]]]) -> None:
    """Be the process: answer "outputs" and "time" until the other side has gone.

    Args:
        end: Where commands come from.
        task: What to run.
        arrays: The inputs, by slice or batch.
    """
    try:
        started = time.perf_counter()
        engine = start(task)
        opened = time.perf_counter() - started
        engine.run(arrays[0])
        first = time.perf_counter() - started - opened
        end.send({"facts": engine.facts, "open": opened, "first": first})
        while True:
            command, index = end.recv()
            given = arrays[index % len(arrays)]
            started = time.perf_counter()
            outputs = engine.run(given)
            seconds = time.perf_counter() - started
            end.send({"seconds": seconds, "peak": peak(), "outputs": outputs if command == "outputs" else None})
    except (EOFError, BrokenPipeError):
        pass
    except Exception as error:  # noqa: BLE001  # whatever a library meets is a line in the table
        text = (str(error).splitlines() or [""])[0]
        end.send({"error": f"{type(error).__name__}: {text:.200}"})
