"""What the process of a benchmark runs: a network on one runtime, when it is told to."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from jcs_ct.bench.child import peak
from jcs_ct.inference.golden import self_check_network
from jcs_ct.inference.network import Network, open_network
from jcs_ct.inference.parity import check_arrays
from jcs_ct.inference.runtimes import RUNTIMES, Engine, file_engine, module_engine
from jcs_ct.models import MODELS, build_model

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

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


def convert(end: Connection, task: Task) -> None:
    """Write the file of a runtime: in a process of its own, so that it does not count as memory of the runtime."""
    assert task.file is not None  # noqa: S101  # runtimes without files are not converted
    network = build(task)
    example = [torch.from_numpy(array) for array in check_arrays(network.spec, (96, 128))]
    RUNTIMES[task.runtime].module.convert(network.module(), example, task.file)
    end.send(None)


def multiply_adds(name: str, arrays: list[NDArray[np.float32]]) -> int:
    """Return the multiplications of a network of the table on an input: convolutions and linear layers."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():  # shapes, nothing computed
        build_model(name).eval()(*(torch.empty(array.shape) for array in arrays))
    return int(counter.get_total_flops()) // 2


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
