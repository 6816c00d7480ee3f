"""What is asked of the C library's heap. Only glibc has these switches; elsewhere nothing changes.

Each holds for the whole process, and returns whether the library agreed.
"""

from __future__ import annotations

import ctypes
import os
import platform

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8  # of mallopt(3)
_LARGE = 1 << 30


def one_arena() -> bool:
    """Let all threads share one heap. A command calls it before threads start; `MALLOC_ARENA_MAX` goes before it.

    glibc gives each thread a heap of its own, and keeps what a thread has freed for this thread: memory would grow with
    the longest study that each has seen.
    """
    return "MALLOC_ARENA_MAX" not in os.environ and _set((_ARENA_MAX, 1))


def reuse_freed_blocks() -> bool:
    """Keep freed blocks of up to 1 GiB for the next step of a training.

    Otherwise glibc returns each large map to the system and gets it back page by page, zeroed: 5 to 10 % of a step on
    a processor.
    """
    return _set((_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE))


def never_return_blocks() -> bool:
    """Keep all blocks that are freed, whatever their size: memory stays at its peak.

    Blocks of more than 32 MB are mapped afresh each time otherwise, whatever the size of those freed before.
    """
    return _set((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 64 << 20))


def _set(*options: tuple[int, int]) -> bool:
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return all(library.mallopt(option, value) for option, value in options)
