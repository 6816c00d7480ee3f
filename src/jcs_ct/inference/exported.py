"""Exported networks that come back: an ONNX, OpenVINO or TorchScript file with its manifest, as `--model`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import WeightsError
from jcs_ct.inference.choice import Choice
from jcs_ct.inference.manifest import read_manifest, verify
from jcs_ct.inference.runtimes import file_engine, find_runtime
from jcs_ct.inference.script_engine import ScriptEngine

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.weights import WeightsCard

READERS = {".onnx": "onnxruntime", ".xml": "openvino", ".ts": "torchscript"}


@dataclass(frozen=True)
class ExportedNetwork:
    """An exported network, ready to run: its card, and what runs it."""

    card: WeightsCard
    choice: Choice


def open_exported(path: Path) -> ExportedNetwork | None:
    """Open an exported network; None when the name is none of one.

    Raises:
        WeightsError: The manifest is missing, or a file is not the one that was exported.
        UsageError: The runtime that reads it is not installed.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        return None
    if not path.is_file():
        raise WeightsError("no such file", path=path, hint="give a stored name or a file")
    manifest_path = path.with_name(f"{path.name}.json")
    manifest = read_manifest(manifest_path)
    if path.name not in manifest.files:
        raise WeightsError(f"is the manifest of {', '.join(manifest.files)}", path=manifest_path, hint="rename it")
    verify(manifest_path, manifest)
    engine: Any
    if reader == "torchscript":
        engine = ScriptEngine(path)
    else:
        runtime = find_runtime(reader)
        runtime.need()
        engine = file_engine(runtime, path, torch.get_num_threads())
    return ExportedNetwork(manifest.card, Choice(reader, engine, "the exported file as it was checked"))
