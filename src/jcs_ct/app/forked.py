"""Forked processes: the threads of a network do not survive a fork, and waiting for them has no end.

A process that was forked from one in which a network had run is told so at once. One that was forked from a process
that had merely loaded PyTorch works in a fresh thread: the threads that PyTorch keeps for the old one are gone.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class _State:
    used = False  # a network was opened in this process
    lost = False  # … and this is another process by now
    torch_lost = False  # PyTorch was loaded before the fork


_state = _State()


def _after_fork() -> None:
    _state.lost |= _state.used
    _state.torch_lost |= "torch" in sys.modules
    _state.used = False


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)


def refuse_after_fork() -> None:
    """Raise UsageError where networks were used in the process that this one was forked from."""
    if _state.lost:
        raise UsageError(
            "this process was forked from one that had used jcs-ct already; a network's threads do not survive that",
            hint="start processes with multiprocessing.get_context('spawn'), or fork before jcs-ct is first used",
        )


def note_use() -> None:
    """Note that networks are used in this process."""
    _state.used = True


def in_fit_thread(work: Callable[[], T]) -> T:
    """Return what `work` returns, done in a thread whose helpers are alive."""
    if not _state.torch_lost:
        return work()
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()
