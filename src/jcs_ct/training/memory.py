"""Is there enough memory for a run: shared memory for what its processes hand over, and memory for a step?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import UsageError
from jcs_ct.core.memory import available_memory, gib
from jcs_ct.models import build_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from jcs_ct.core.memory import Memory
    from jcs_ct.training.config import TrainConfig

SHARED = Path("/dev/shm")  # noqa: S108  # where Linux keeps it; nothing is written there by name
AHEAD = 2  # batches that a process of PyTorch's loader reads ahead; two more are on their way or in use
PAGE = 4096
COPIES = 4  # of a parameter that is trained: itself, its gradient, two moments of Adam
WAY_OUT = "--workers 0 reads in the process itself; in a container, --shm-size 1g makes it larger"


def check_shared_memory(item: Mapping[str, Any], batch: int, workers: int, processes: int = 1) -> None:
    """Raise UsageError for a run whose batches do not fit into shared memory, which would be killed at some step.

    `item` is one sample as tensors, `batch` how many a step has; `workers` read ahead for each of its `processes`.
    """
    free = room()
    if not workers or free is None:
        return
    sizes = (value.element_size() * value.nelement() * batch for value in item.values())
    needed = sum(-(-size // PAGE) * PAGE for size in sizes) * (workers * AHEAD + 2) * processes
    if needed > free:
        count = workers * processes
        raise UsageError(
            f"{SHARED} has room for {_size(free)}, and {count} process{'es' * (count != 1)} that read"
            f"{'s' * (count == 1)} ahead need{'s' * (count == 1)} {_size(needed)}",
            hint=WAY_OUT,
        )


def room() -> int | None:
    """Return how many bytes are free in shared memory; None where that is not known."""
    try:
        held = os.statvfs(SHARED)
    except (OSError, AttributeError):  # no such folder; Windows
        return None
    return held.f_bavail * held.f_frsize


def _size(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB" if count >= 2**20 else f"{count / 2**10:,.0f} KiB"


def memory_warning(config: TrainConfig, item: Mapping[str, Tensor], memory: Memory | None = None) -> str:
    """Return a warning where a step needs more memory than there is, which the system would kill it for; else "".

    `item` is one sample as tensors, `memory` what there is (None: looked up).
    """
    if config.accelerator not in ("auto", "cpu") or (config.accelerator == "auto" and torch.cuda.is_available()):
        return ""
    found = available_memory() if memory is None else memory
    needed = step_bytes(config, item) * config.devices
    if found.free is None or needed <= found.free:
        return ""
    return (
        f"warning: a step needs {gib(needed)} of memory or more, and {found.words()}: the run is likely to be killed "
        "(a smaller --batch or --size needs less)"
    )


def step_bytes(config: TrainConfig, item: Mapping[str, Tensor]) -> int:
    """Return the bytes of parameters, gradients and moments, and of all maps that the backward pass reads again.

    Counted on PyTorch's meta device, without computing anything. A step takes more in the end: libraries work in memory
    of their own. 0 where a network cannot be looked at.
    """
    with torch.device("meta"):
        network: Any = build_model(config.network, config.inputs)
        inputs = [torch.empty(config.batch, *v.shape) for k, v in sorted(item.items()) if k.startswith("input")]
    own = {p.untyped_storage()._cdata for p in (*network.parameters(), *network.buffers())}
    kept: dict[int, Tensor] = {}  # by their storage, since views share one

    def keep(tensor: Tensor) -> Tensor:
        kept.setdefault(tensor.untyped_storage()._cdata, tensor)
        return tensor

    try:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(*inputs)
    except (RuntimeError, NotImplementedError):  # an operation that has no such form
        return 0
    parameters = sum(int(p.nbytes) * COPIES for p in network.parameters())
    return parameters + sum(int(t.untyped_storage().nbytes()) for at, t in kept.items() if at not in own)
