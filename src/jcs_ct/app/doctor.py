"""What is installed here, what it can do, what is missing, and how to get it: the facts behind `jcs doctor`."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from jcs_ct.core.errors import JcsError
from jcs_ct.core.installing import EXTRAS, install_command, missing_of, version_of
from jcs_ct.core.memory import available_memory, gib
from jcs_ct.core.processors import available
from jcs_ct.core.version import __version__
from jcs_ct.inference.runtimes import RUNTIMES
from jcs_ct.weights.store import SHIPPED, find_stored, home, list_stored, sha256_of

LITTLE_MEMORY = 2 * 2**30  # bytes; a study with jcs-lite peaks at 0.7 GB, PyTorch included
LITTLE_SPACE = 500 * 2**20  # bytes, for converted and compiled networks


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        what: "python", "weights", "runtime openvino" …
        state: "ok"; "missing", which only takes something away; or "fault", with which jcs-ct does not work.
        text: What was found.
        remedy: How to get or mend it, or "".
    """

    what: str
    state: str
    text: str
    remedy: str = ""


def examine_installation() -> list[Finding]:
    """Look at this installation. Nothing is written, and no network is run."""
    return [_python(), _machine(), _torch(), _shipped(), _stored(), *_runtimes(), *_extras(), _folder()]


def _python() -> Finding:
    text = f"jcs-ct {__version__}, Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    return Finding("jcs-ct", "ok", f"{text}, in {Path(sys.prefix)}")


def _machine() -> Finding:
    memory, free, limited = available_memory()
    size = "memory unknown" if memory is None else f"{memory / 2**30:.1f} GiB of memory"
    size += "" if free is None else f", {gib(free)} free" + (" within the limit of a cgroup" if limited else "")
    text = f"{available()} processors for this process, {size}"
    if memory is not None and memory < LITTLE_MEMORY:
        return Finding("machine", "missing", text, "2 GiB are needed for a study, 4 GiB with jcs-joint")
    return Finding("machine", "ok", text)


def _torch() -> Finding:
    import torch

    devices = ["cpu"]
    if torch.cuda.is_available():
        devices.append(f"cuda ({torch.cuda.get_device_name(0)})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return Finding("PyTorch", "ok", f"{torch.__version__}; devices: {', '.join(devices)}")


def _shipped() -> Finding:
    again = "install jcs-ct again"
    try:
        stored = find_stored(SHIPPED)
    except JcsError as error:
        return Finding("weights", "fault", error.line(), again)
    if stored is None or stored.card is None:
        return Finding("weights", "fault", f"the shipped {SHIPPED} is not there or has no card", again)
    if sha256_of(stored.path) != stored.card.weights_sha256:
        return Finding("weights", "fault", f"the shipped {SHIPPED} is damaged: another checksum than its card", again)
    return Finding(
        "weights", "ok", f"{SHIPPED}, {stored.size / 1e6:.1f} MB, checksum {stored.card.weights_sha256[:12]}"
    )


def _stored() -> Finding:
    others = [one for one in list_stored() if one.name != SHIPPED]
    damaged = [one.name for one in others if one.card is None]
    if damaged:
        return Finding(
            "imported", "missing", f"damaged: {', '.join(damaged)}", "import them again: jcs models import FILE"
        )
    names = ", ".join(one.name for one in others)
    return Finding("imported", "ok", names or "no other weights; what can be had: jcs models list")


def _runtimes() -> list[Finding]:
    return [
        Finding(f"runtime {name}", "missing", f"needs {runtime.missing}", install_command(runtime.extra))
        if runtime.missing
        else Finding(f"runtime {name}", "ok", f"{runtime.library} {runtime.version}: {runtime.summary}")
        for name, runtime in RUNTIMES.items()
    ]


def _extras() -> list[Finding]:
    findings = []
    runtimes = {runtime.extra for runtime in RUNTIMES.values()}
    for extra in (name for name in EXTRAS if name not in runtimes):
        missing = missing_of(extra)
        if missing:
            text = f"{EXTRAS[extra]}; not installed: {', '.join(missing)}"
            findings.append(Finding(f"extra {extra}", "missing", text, install_command(extra)))
        elif version_of("jcs-ct") is None:
            findings.append(Finding(f"extra {extra}", "missing", "unknown: jcs-ct runs without being installed"))
        else:
            findings.append(Finding(f"extra {extra}", "ok", EXTRAS[extra]))
    return findings


def _folder() -> Finding:
    """Look at JCS_HOME, or at the folder that it would be made in."""
    folder = home()
    there = next(path for path in (folder, *folder.parents) if path.exists())
    other = "set JCS_HOME to another folder"
    if not there.is_dir() or not os.access(there, os.W_OK):
        return Finding("folder", "missing", f"{folder} cannot be written: networks are prepared anew each time", other)
    free = shutil.disk_usage(there).free
    text = f"{folder}, {free / 1e9:.1f} GB free"
    return Finding("folder", "ok", text) if free >= LITTLE_SPACE else Finding("folder", "missing", text, other)
