"""Networks for other programs: ONNX, OpenVINO, TorchScript, MONAI bundle; each with a manifest and a check.

What is exported is `FusedNetwork`: norms fused, one lesion map, logits. Batch, height and width stay open. The files
are checked with the library that will read them, at several sizes, before they appear at their destination.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import OutputError, UsageError, WeightsError
from jcs_ct.inference import records
from jcs_ct.inference.bundle import MainOutput, main_output, write_bundle
from jcs_ct.inference.exported import FORMATS, open_file
from jcs_ct.inference.fused import FusedNetwork
from jcs_ct.inference.manifest import Manifest, must_agree, read_manifest
from jcs_ct.inference.onnx_engine import input_names, write_onnx
from jcs_ct.inference.parity import check_arrays, check_shape, compare
from jcs_ct.inference.runtimes import RUNTIMES, find_runtime, module_engine
from jcs_ct.inference.script_engine import write_script
from jcs_ct.models import OUTPUTS
from jcs_ct.weights.store import sha256_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.inference.network import Network

EXAMPLE = 96, 128  # rows and columns for tracing: no two levels of a network share a size there by accident


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        path: The file, or the folder of a bundle.
        manifest_path: The manifest.
        manifest: What it says.
    """

    path: Path
    manifest_path: Path
    manifest: Manifest


def destination(name: str, kind: str, out: Path | None) -> tuple[Path, Path]:
    """Return (file or folder, manifest) of an export. Raises UsageError for a suffix of another format."""
    suffix = FORMATS[kind].suffix
    path = Path(f"{name}{suffix}") if out is None else out
    if kind == "monai-bundle":
        return path, path / "manifest.json"
    if path.suffix != suffix:
        raise UsageError(f"an export as {kind} ends in {suffix}", hint=f"-o {path.stem}{suffix}, for example")
    return path, path.with_name(f"{path.name}.json")


def export(
    network: Network,
    kind: str,
    out: Path | None = None,
    *,
    overwrite: bool = False,
    shapes: Sequence[tuple[int, int, int]] = (),
) -> Exported:
    """Write a network for other programs.

    Args:
        network: The weights.
        kind: One of `jcs_ct.inference.exported.FORMATS`.
        out: The file, or the folder of a bundle; default: the name of the weights in the current folder.
        overwrite: Replace what is there.
        shapes: (batch, rows, columns) of the checks; default: the size of the recipe, then two odd ones.

    Raises:
        UsageError: An unknown format, a backbone, or a library that is not installed.
        OutputError: Something is there already, or the disk refuses it.
        JcsError: The result does not compute what the network computes; nothing was written.
    """
    if kind not in FORMATS:
        raise UsageError(f"no format is called {kind!r}", hint=f"known: {', '.join(FORMATS)}")
    if not network.spec.outputs:
        raise UsageError(f"{network.card.name} is a backbone, which has no result", hint="export a whole network")
    if kind in ("onnx", "openvino"):
        find_runtime(FORMATS[kind].reader).need()
    path, manifest_path = destination(network.card.name, kind, out)
    for taken in (path, manifest_path, *([path.with_suffix(".bin")] if kind == "openvino" else [])):
        if taken.exists() and not overwrite:
            raise OutputError("exists already", path=taken, hint="use --overwrite, or another -o")
    bundle = kind == "monai-bundle"
    if bundle and path.exists():
        _must_be_bundle(path)
    rows, columns = check_shape(network.card.recipe)
    shapes = shapes or ((1, rows, columns), (2, 75, 101), (3, 130, 94))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name[:40]}.")
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path, hint="check the folder") from error
    with scratch as folder:
        made = _write(network, kind, Path(folder) / path.name)
        names = (main_output(network.spec.outputs),) if bundle else network.spec.outputs
        parity = _check(network, kind, made / "models/model.ts" if bundle else made, shapes, names)
        must_agree(parity, f"{network.card.name} as {kind}")
        manifest = _manifest(network, kind, made, names, parity)
        if bundle:
            manifest.write(made / "manifest.json")
        _move(made, path)
    if not bundle:
        manifest.write(manifest_path, overwrite=True)
    return Exported(path, manifest_path, manifest)


def _write(network: Network, kind: str, path: Path) -> Path:
    """Write the files in a scratch folder; return the main one, or the bundle."""
    fused = FusedNetwork(network.module())
    example = [torch.from_numpy(array) for array in check_arrays(network.spec, EXAMPLE)]
    if kind == "onnx":
        write_onnx(fused, example, path)
    elif kind == "openvino":
        between = path.with_suffix(".onnx")
        write_onnx(fused, example, between)
        ov = RUNTIMES["openvino"].module.library()
        ov.save_model(ov.Core().read_model(str(between)), str(path), compress_to_fp16=False)
        between.unlink()
    elif kind == "torchscript":
        write_script(fused, example, path)
    else:
        path.mkdir()
        write_bundle(path, network.card, check_shape(network.card.recipe), MainOutput(fused), example)
    return path


def _check(
    network: Network, kind: str, file: Path, shapes: Sequence[tuple[int, int, int]], names: Sequence[str]
) -> list[dict[str, Any]]:
    reader = FORMATS[kind].reader
    engine = open_file(reader, file)
    plain = module_engine(RUNTIMES["torch"], network.module(), network.device.type)
    held = network.spec.outputs
    checks = []
    for batch, rows, columns in shapes:
        arrays = check_arrays(network.spec, (rows, columns), batch=batch)
        expected: list[NDArray[np.float32]] = plain.run(arrays)
        found = compare(names, [expected[held.index(name)] for name in names], engine.run(arrays))
        checks.append({"batch": batch, "rows": rows, "columns": columns, "checked_with": reader, **found.to_dict()})
    return checks


def _manifest(network: Network, kind: str, made: Path, names: Sequence[str], parity: list[dict[str, Any]]) -> Manifest:
    files = [made] if made.is_file() else sorted(made.glob("models/*"))
    if kind == "openvino":
        files.append(made.with_suffix(".bin"))
    root = made if made.is_dir() else made.parent
    runtime = RUNTIMES.get(FORMATS[kind].reader, RUNTIMES["torch"])
    (name,) = input_names(1)
    image = {
        "name": name,
        "type": "float32",
        "recipe": network.card.recipe,
        "shape": ["batch", network.spec.channels, "height", "width"],
        "trained_at": list(check_shape(network.card.recipe)),
    }
    return Manifest(
        kind,
        {file.relative_to(root).as_posix(): sha256_of(file) for file in files},
        network.card,
        [image],
        [{"name": name, "type": "float32", "meaning": OUTPUTS[name]} for name in names],
        parity,
        records.versions(runtime),
        records.machine(),
    )


def _must_be_bundle(path: Path) -> None:
    """Raise OutputError unless a folder is an exported bundle: whatever else a folder holds is not removed."""
    try:
        found = read_manifest(path / "manifest.json").format == "monai-bundle"
    except WeightsError:
        found = False
    if not found:
        raise OutputError("exists and is not a bundle of jcs-ct", path=path, hint="use another -o")


def _move(made: Path, path: Path) -> None:
    """Bring what was made to its destination: beside it already, so that a rename is enough."""
    try:
        if made.is_dir():
            if path.exists():
                shutil.rmtree(path)
            made.rename(path)
            return
        weights = made.with_suffix(".bin")
        if made.suffix == ".xml" and weights.exists():
            weights.replace(path.with_suffix(".bin"))
        made.replace(path)
    except OSError as error:
        raise OutputError(f"cannot be written: {error.strerror}", path=path, hint="check the folder") from error
