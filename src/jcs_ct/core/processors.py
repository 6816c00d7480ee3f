"""How many processors this process may use, which is often fewer than the machine has."""

from __future__ import annotations

import math
import os
from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def available(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> int:
    """Return how many processors this process may use: those of its affinity mask, within the quota of its cgroups.

    Args:
        groups: Where the cgroups are mounted.
        own: The file that names those of this process.
    """
    affinity = getattr(os, "sched_getaffinity", None)
    count = len(affinity(0)) if affinity is not None else os.cpu_count() or 1
    limit = quota(groups, own)
    return max(1, count if limit is None else min(count, math.ceil(limit)))


def threads(given: int = 0, processes: int = 1) -> int:
    """Return how many threads a process computes with: those given, else `OMP_NUM_THREADS`, else its share of all.

    Args:
        given: What was asked for; 0: nothing.
        processes: Processes of this run on this machine, which share what there is.
    """
    return given or _stated() or max(1, available() // processes)


def quota(groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> float | None:
    """Return how many processors the cgroups of this process grant it, the narrowest of them; None: no limit.

    Both versions are read: `cpu.max` of the second, `cpu.cfs_quota_us` of the first. A container often sees its own
    group as the root.
    """
    found = []
    for version, path in _groups(own):
        roots = (groups,) if version == 2 else (groups / "cpu", groups / "cpu,cpuacct")
        for root in roots:
            # A limit of a group holds for all below it.
            inner = [root.joinpath(*path.parts[:i]) for i in range(len(path.parts) + 1)]
            found += [limit for folder in inner if (limit := _limit(folder, version)) is not None]
    return min(found, default=None)


def _stated() -> int:
    """Return what `OMP_NUM_THREADS` says; 0 where it says nothing that can be used. It may be a list, for levels."""
    first = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return int(first) if first.isascii() and first.isdigit() else 0


def _groups(own: Path) -> list[tuple[int, Path]]:
    """Return (version, path below the mount) of the groups that may limit processors; none where unknown."""
    try:
        lines = own.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return []
    found = []
    for line in lines:  # "0::/path" of version 2, "4:cpu,cpuacct:/path" of version 1
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found.append((2, Path(path.lstrip("/"))))
        elif "cpu" in controllers.split(","):
            found.append((1, Path(path.lstrip("/"))))
    return found


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
