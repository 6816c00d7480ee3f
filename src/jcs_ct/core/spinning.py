"""How long threads of OpenMP spin while they wait for others: briefly, however jcs-ct is used.

GNU's OpenMP, which PyTorch brings on Linux, reads its variables when it is loaded. So they are set when `jcs_ct` is
imported, and have no effect where PyTorch was loaded before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import MutableMapping


def spin_briefly(environ: MutableMapping[str, str]) -> None:
    """Ask for a short spin, unless the environment says how to wait.

    Beside other work on the machine a study took ten times longer with the usual one (docs/performance.md).
    """
    if "OMP_WAIT_POLICY" not in environ:
        environ.setdefault("GOMP_SPINCOUNT", "1000")
