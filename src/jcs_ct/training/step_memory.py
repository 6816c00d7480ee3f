"""What a step of a training run needs at the least, computed without computing it: on PyTorch's meta device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.memory import available_memory, gib
from jcs_ct.models import build_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from jcs_ct.core.memory import Memory
    from jcs_ct.training.config import TrainConfig

COPIES = 4  # of a parameter that is trained: itself, its gradient, two moments of Adam


def memory_warning(config: TrainConfig, item: Mapping[str, Tensor], memory: Memory | None = None) -> str:
    """Return a warning where a step needs more memory than there is, which the system would kill it for; else "".

    Args:
        config: Of the run.
        item: One sample as tensors.
        memory: What there is; None: looked up.
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

    Less than a step takes in the end: libraries work in memory of their own. 0 where a network cannot be looked at.
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
