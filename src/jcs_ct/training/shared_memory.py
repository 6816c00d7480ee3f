"""Processes that read ahead hand over what they read in shared memory. Is there enough of it?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARED = Path("/dev/shm")  # noqa: S108  # where Linux keeps it; nothing is written there by name
AHEAD = 2  # batches that a process of PyTorch's loader reads ahead; two more are on their way or in use
PAGE = 4096
WAY_OUT = "--workers 0 reads in the process itself; in a container, --shm-size 1g makes it larger"


def check_shared_memory(item: Mapping[str, Any], batch: int, workers: int, processes: int = 1) -> None:
    """Refuse a run whose batches do not fit into shared memory, which would be killed at some step.

    Args:
        item: One sample as tensors.
        batch: Samples of a step.
        workers: Processes that read ahead, for each process of the run.
        processes: Of the run.

    Raises:
        UsageError: There is less room than they need.
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
