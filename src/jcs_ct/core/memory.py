"""How much memory there is for this process, and what is asked of the C library's heap.

Of the heap: only glibc has these switches; elsewhere nothing changes. Each holds for the whole process, and returns
whether the library agreed.
"""

from __future__ import annotations

import ctypes
import os
import platform
from pathlib import Path
from typing import NamedTuple

from jcs_ct.core.cgroups import CGROUPS, OWN_GROUPS, folders

MEMINFO = Path("/proc/meminfo")
_NO_LIMIT = 1 << 60  # what version 1 says where there is none is near 2⁶³
_LIMITS = {2: ("memory.max", "memory.high"), 1: ("memory.limit_in_bytes",)}
_USED = {2: "memory.current", 1: "memory.usage_in_bytes"}
_RECLAIMED = {  # pages of files, which the system takes back before it kills; not those of /dev/shm
    2: ("active_file", "inactive_file", "slab_reclaimable"),
    1: ("total_active_file", "total_inactive_file"),
}

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -2, -3, -4, -8  # of mallopt(3)
_LARGE = 1 << 30


class Memory(NamedTuple):
    """Memory of this process, in bytes.

    Attributes:
        total: Of the machine, or the narrowest limit of a cgroup.
        free: What it can take more before the system kills; None where that is not known.
        limited: Whether a cgroup decides what is free, and not the machine.
    """

    total: int | None
    free: int | None
    limited: bool = False

    def words(self) -> str:
        """Return what is free in words."""
        if self.free is None:
            return "nobody knows how much is free"
        return f"{gib(self.free)} are free" + (" (the limit of the container or the job)" if self.limited else "")


def gib(count: float) -> str:
    """Return bytes in words, such as "1.5 GiB"."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:,.0f} MiB"


def available_memory(groups: Path = CGROUPS, own: Path = OWN_GROUPS, meminfo: Path = MEMINFO) -> Memory:
    """Return the memory that this process may use: the machine's, within the limits of its cgroups.

    Every group on the way counts, of both versions, with what all processes in it use already.
    """
    machine = _machine(meminfo)
    total, free, limited = machine.get("MemTotal"), machine.get("MemAvailable"), False
    swap = machine.get("SwapFree", 0)
    free = None if free is None else free + swap
    for version, folder in folders("memory", groups, own):
        limits = [n for name in _LIMITS[version] if (n := _number(folder / name)) is not None and n < _NO_LIMIT]
        if not limits:
            continue
        used = _number(folder / _USED[version]) or 0
        stated = _number(folder / "memory.swap.max") if version == 2 else None
        more = swap if stated is None else min(swap, stated)
        left = max(0, min(limits) - max(0, used - _reclaimed(folder, version)) + more)
        total = min(limits) if total is None else min(total, *limits)
        if free is None or left < free:
            free, limited = left, True
    return Memory(total, free, limited)


def _machine(meminfo: Path) -> dict[str, int]:
    """Return what the system says, in bytes."""
    try:
        lines = (line.split() for line in meminfo.read_text(encoding="ascii").splitlines())
        return {words[0].rstrip(":"): int(words[1]) * 1024 for words in lines if len(words) == 3}
    except (OSError, ValueError):
        pass
    try:  # not Linux
        return {"MemTotal": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")}
    except (AttributeError, ValueError, OSError):
        return {}


def _reclaimed(folder: Path, version: int) -> int:
    try:
        lines = (line.split() for line in (folder / "memory.stat").read_text(encoding="ascii").splitlines())
        return sum(int(words[1]) for words in lines if len(words) == 2 and words[0] in _RECLAIMED[version])
    except (OSError, ValueError):
        return 0


def _number(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such file; "max", which is no limit
        return None


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
