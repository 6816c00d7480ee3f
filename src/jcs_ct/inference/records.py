"""What a machine knows about a runtime and a network: the converted file and the outcome of the check, kept once.

`JCS_HOME/runtimes/NAME/` holds the file that a runtime opens (none for PyTorch) and `record.json`, which is written
last. The record names weights, versions and processor: when one of them changes, the check is made again.
"""

from __future__ import annotations

import json
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import write_whole
from jcs_ct.inference.runtimes import RUNTIMES, RuntimeFailedError
from jcs_ct.weights.store import home, sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from jcs_ct.inference.runtimes import Runtime
    from jcs_ct.models import ModelSpec

SCHEMA = "jcs-ct/runtime/1"


@dataclass(frozen=True)
class Workload:
    """A network to execute: which weights, on what, in which form.

    Attributes:
        name: Of the weights.
        spec: The network.
        weights: SHA-256 that stands for them.
        recipe: Their preprocessing.
        inputs: "image" or "features".
        device: "cpu", "cuda" or "mps".
        network: Makes the plain network, in evaluation mode, on the device.
    """

    name: str
    spec: ModelSpec
    weights: str
    recipe: str
    inputs: str
    device: str
    network: Callable[[], nn.Module]


@dataclass(frozen=True)
class ParityRecord:
    """The outcome of a check.

    Attributes:
        runtime: Its name.
        versions: Of the runtime's library, PyTorch and this package.
        machine: The processor, or the GPU.
        weights_sha256: The weights it is about.
        inputs: "image" or "features".
        file: Name of the converted file beside the record; empty for PyTorch.
        file_sha256: Of that file; empty for PyTorch.
        ok: Whether the check was passed.
        text: The differences, or the problem, on one line.
        seconds: What a slice took in the check; 0 where it failed.
        plain_seconds: What it took the plain network in the same minute.
        schema: Layout of this record.
    """

    runtime: str
    versions: dict[str, str]
    machine: str
    weights_sha256: str
    inputs: str
    file: str
    file_sha256: str
    ok: bool
    text: str
    seconds: float
    plain_seconds: float
    schema: str = SCHEMA


def machine(device: str = "cpu") -> str:
    """Return what kind of processor, or of GPU, a device is."""
    if device == "cuda":
        import torch

        return f"cuda {torch.cuda.get_device_name()}"
    return _processor() if device == "cpu" else f"{device} {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}".strip()
    facts = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in facts.items()}
    model = " ".join(facts[key] for key in ("model name", "cpu family", "model", "stepping") if key in facts)
    return f"{platform.machine()} {model}".strip()


def versions(runtime: Runtime) -> dict[str, str]:
    """Return the versions on which the outcome of a check depends."""
    return {"jcs-ct": __version__, "torch": RUNTIMES["torch"].version, runtime.library: runtime.version}


def identity(workload: Workload, runtime: Runtime) -> dict[str, Any]:
    """Return the fields of a record that say what its check was of; when one changes, the check is made again."""
    return {
        "runtime": runtime.name,
        "versions": versions(runtime),
        "machine": machine(workload.device),
        "weights_sha256": workload.weights,
        "inputs": workload.inputs,
        "schema": SCHEMA,
    }


def folder(workload: Workload, runtime: Runtime) -> Path:
    """Return the folder of a runtime's file and record."""
    device = "" if workload.device == "cpu" else f"-{workload.device}"
    name = f"{workload.spec.name}-{workload.inputs}-{workload.weights[:16]}-{runtime.name}{device}"
    return home() / "runtimes" / name


def known_record(workload: Workload, runtime: Runtime) -> ParityRecord | None:
    """Return the record of an earlier check that still counts: of these weights and versions, on this machine."""
    record = read(folder(workload, runtime))
    return record if record is not None and asdict(record).items() >= identity(workload, runtime).items() else None


def read(where: Path) -> ParityRecord | None:
    """Return the record in a folder; None when there is none, or none that can be used."""
    try:
        values: Any = json.loads((where / "record.json").read_bytes())
        return ParityRecord(**values)
    except (OSError, ValueError, TypeError):
        return None


def write(where: Path, record: ParityRecord) -> None:
    """Write a record. Raises OutputError when the disk refuses it."""
    text = json.dumps(asdict(record), indent=2, ensure_ascii=False) + "\n"
    write_whole(where / "record.json", text.encode(), overwrite=True)


def checked_file(where: Path, record: ParityRecord) -> Path:
    """Return the converted file of a record.

    Raises:
        RuntimeFailedError: It is gone, or is not what was checked.
    """
    path = where / record.file
    if not path.is_file():
        raise RuntimeFailedError("is gone, but its record is still there", path=path, hint=f"remove the folder {where}")
    found = sha256_of(path)
    if found != record.file_sha256:
        raise RuntimeFailedError(
            f"was changed since it was checked: SHA-256 {found[:12]}…, {record.file_sha256[:12]}… was expected",
            path=path,
            hint=f"remove the folder {where}; it is made again from the weights",
        )
    return path
