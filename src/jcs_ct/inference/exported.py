"""The formats that networks are exported as, and exported files that come back as `--model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

from jcs_ct.core.errors import WeightsError
from jcs_ct.inference.choice import Choice
from jcs_ct.inference.manifest import read_manifest, verify
from jcs_ct.inference.runtimes import file_engine, find_runtime
from jcs_ct.inference.script_engine import ScriptEngine

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.inference.runtimes import Engine
    from jcs_ct.weights import WeightsCard


class Format(NamedTuple):
    """How a network is exported.

    Attributes:
        suffix: Of its file, or of the folder of a bundle.
        reader: What runs it: a runtime, or "torchscript".
    """

    suffix: str
    reader: str


FORMATS = {
    "onnx": Format(".onnx", "onnxruntime"),
    "openvino": Format(".xml", "openvino"),
    "torchscript": Format(".ts", "torchscript"),
    "monai-bundle": Format("-bundle", "torchscript"),
}


def open_file(reader: str, path: Path) -> Engine:
    """Open an exported file with what reads it.

    Raises:
        UsageError: The runtime that reads it is not installed.
        RuntimeFailedError: The runtime cannot open it.
    """
    if reader == "torchscript":
        return ScriptEngine(path)
    runtime = find_runtime(reader)
    runtime.need()
    return file_engine(runtime, path, torch.get_num_threads())


def open_exported(path: Path) -> tuple[WeightsCard, Choice] | None:
    """Return the card of an exported network and what runs it; None for a file of another kind.

    Raises:
        WeightsError: The manifest is missing, or a file is not the one that was exported.
        UsageError, RuntimeFailedError: As `open_file`.
    """
    reader = next((kind.reader for kind in FORMATS.values() if kind.suffix == path.suffix.lower()), None)
    if reader is None:
        return None
    if not path.is_file():
        raise WeightsError("no such file", path=path, hint="give a stored name or a file")
    manifest_path = path.with_name(f"{path.name}.json")
    manifest = read_manifest(manifest_path)
    if path.name not in manifest.files:
        raise WeightsError(f"is the manifest of {', '.join(manifest.files)}", path=manifest_path, hint="rename it")
    verify(manifest_path, manifest)
    return manifest.weights, Choice(reader, open_file(reader, path), "the exported file as it was checked")
