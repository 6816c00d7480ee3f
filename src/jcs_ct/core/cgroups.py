"""The folders of the cgroups that this process is in, of both versions: what they limit holds for all below them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CGROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def folders(controller: str, groups: Path = CGROUPS, own: Path = OWN_GROUPS) -> Iterator[tuple[int, Path]]:
    """Yield (version, folder) of each group that may limit this process, from the outermost in. None need exist.

    A container often sees its own group as the root, and still reads its whole path on the host. What is limited is the
    `controller` ("cpu", "memory"); `groups` is where the cgroups are mounted, `own` the file that names this process's.
    """
    # Of the first version several controllers may lie in one folder.
    first = [groups / controller, *(path for path in sorted(groups.glob("*,*")) if controller in path.name.split(","))]
    for version, path in _own(controller, own):
        for root in (groups,) if version == 2 else first:
            for depth in range(len(path.parts) + 1):
                yield version, root.joinpath(*path.parts[:depth])


def _own(controller: str, own: Path) -> list[tuple[int, Path]]:
    """Return (version, path below the mount) of the groups of this process; none where unknown."""
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
        elif controller in controllers.split(","):
            found.append((1, Path(path.lstrip("/"))))
    return found
