"""How many processors this process may use, often fewer than the machine has, and how its threads wait for others."""

from __future__ import annotations

import math
import os
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core.cgroups import CGROUPS, OWN_GROUPS, folders
from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

VARIABLE = "OMP_NUM_THREADS"
CPUINFO = Path("/proc/cpuinfo")
MOST = 4096  # threads that a process is taken to mean


def available(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """Return how many processors this process may use: those of its affinity mask, within the quota of its cgroups."""
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    limit = quota(groups, own)
    return max(1, count if limit is None else min(count, math.ceil(limit)))


def threads(given: int = 0, processes: int = 1) -> int:
    """Return how many threads a process computes with: those given, else `OMP_NUM_THREADS`, else its share of all.

    All there are is shared by so many `processes` of this run on this machine.
    """
    return given or _stated() or max(1, available() // processes)


@contextmanager
def limited_threads(given: int = 0) -> Iterator[None]:
    """Let the libraries of this process, and of those that it starts, compute with so many threads; undone at the end.

    They know the affinity mask, and `OMP_NUM_THREADS`, but not the quota of a cgroup: in a container of one processor
    on a machine of 64 they would start 64 threads that wait for one another. Where no number is given (0),
    `OMP_NUM_THREADS` decides, then the quota; without any of them the libraries take what they always take.
    """
    count = given or _stated() or (available() if quota() is not None else 0)
    if not count:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(count)
    torch = sys.modules.get("torch")  # where it is loaded, it has looked already
    had = torch.get_num_threads() if torch is not None else 0
    if torch is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before
        if torch is not None:
            torch.set_num_threads(had)


def quota(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> float | None:
    """Return how many processors the cgroups of this process grant it, the narrowest of them; None: no limit.

    `cpu.max` is read of their second version, `cpu.cfs_quota_us` of the first.
    """
    limits = (_limit(folder, version) for version, folder in folders("cpu", groups, own))
    return min((limit for limit in limits if limit is not None), default=None)


def _stated() -> int:
    """Return what `OMP_NUM_THREADS` says; 0 where it says nothing that can be used. It may be a list, for levels."""
    return _number(os.environ.get(VARIABLE, "").partition(",")[0])


def usable_threads(environ: MutableMapping[str, str]) -> str:
    """Take an `OMP_NUM_THREADS` that no library understands out of the environment; return what it said, else "".

    They would print a line about it as they are loaded, each of them.
    """
    text = environ.get(VARIABLE)
    if text is None or all(_number(part) for part in text.split(",")):
        return ""
    del environ[VARIABLE]
    return ascii(text[:40])


def spin_briefly(environ: MutableMapping[str, str]) -> None:
    """Let threads of OpenMP spin briefly while they wait for others, unless the environment says how to wait.

    GNU's OpenMP, which PyTorch brings on Linux, reads its variables when it is loaded: later it has no effect. Beside
    other work on the machine a study took ten times longer with the usual spin (docs/performance.md).
    """
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", "1000")


def need_processors_described(described: Path = CPUINFO) -> None:
    """Raise UsageError where the system does not say what its processors are: PyTorch would print a line, and end."""
    if sys.platform.startswith("linux") and not described.exists():
        raise UsageError(
            f"{described} is not there, and PyTorch cannot compute without it",
            hint="mount /proc; containers have it unless it is hidden",
        )


def _number(text: str) -> int:
    """Return a number of threads; 0 for anything else."""
    word = text.strip()
    return int(word) if re.fullmatch("[0-9]{1,9}", word, re.ASCII) and int(word) <= MOST else 0


def _limit(folder: Path, version: int) -> float | None:
    try:
        if version == 2:
            granted, period = (folder / "cpu.max").read_text(encoding="ascii").split()[:2]
        else:
            granted, period = (
                (folder / f"cpu.cfs_{name}_us").read_text(encoding="ascii") for name in ("quota", "period")
            )
        return int(granted) / int(period) if int(granted) > 0 and int(period) > 0 else None
    except (OSError, ValueError):  # no such file; "max", which is no limit
        return None
