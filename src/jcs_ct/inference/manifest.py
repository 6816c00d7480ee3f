"""The manifest beside an exported network: what it is, which bytes were checked, and how far it is from the original.

`NAME.onnx.json` stands beside `NAME.onnx` (and so for `.xml`, `.ts`), or as `manifest.json` in a MONAI bundle. Whoever
opens an exported file through this package gets it only when its bytes are those of the manifest.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import JcsError, WeightsError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.weights import WeightsCard
from jcs_ct.weights.store import sha256_of

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = "jcs-ct/export/1"
_AGAIN = "export it again: jcs models export"


@dataclass(frozen=True)
class Manifest:
    """What is written beside an exported network.

    Attributes:
        format: "onnx", "openvino", "torchscript" or "monai-bundle".
        files: SHA-256 by name, relative to the manifest.
        weights: Their card.
        inputs: Name, axes and sizes of each input.
        outputs: Name and meaning of each output.
        parity: A list of checks: batch, rows, columns, and `jcs_ct.inference.parity.Parity.to_dict`.
        versions: Of the libraries that wrote and checked it.
        machine: The processor of the check.
    """

    format: str
    files: dict[str, str]
    weights: WeightsCard
    inputs: list[dict[str, Any]]
    outputs: list[dict[str, Any]]
    parity: list[dict[str, Any]]
    versions: dict[str, str]
    machine: str

    def write(self, path: Path, *, overwrite: bool = False) -> None:
        """Write it. Raises OutputError."""
        values = {"schema": SCHEMA} | vars(self) | {"weights": self.weights.to_dict()}
        text = json.dumps(values, indent=2, ensure_ascii=False) + "\n"
        write_whole(path, text.encode(), overwrite=overwrite)


def read_manifest(path: Path) -> Manifest:
    """Read a manifest. Raises WeightsError when there is none, or none that can be used."""
    try:
        values: Any = json.loads(path.read_bytes())
    except OSError as error:
        raise WeightsError("an exported network needs the manifest beside it", path=path, hint=_AGAIN) from error
    except (ValueError, RecursionError) as error:
        raise WeightsError("is not valid JSON", path=path, hint=_AGAIN) from error
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise WeightsError(f"is not the manifest of an exported network ({SCHEMA})", path=path, hint=_AGAIN)
    try:
        found = Manifest(**{field.name: values[field.name] for field in fields(Manifest)})
    except KeyError as error:
        raise WeightsError(f"lacks {error.args[0]!r:.60}", path=path, hint=_AGAIN) from error
    if not isinstance(found.files, dict) or any("/" in name.removeprefix("models/") for name in found.files):
        raise WeightsError("names files that are not beside it", path=path, hint=_AGAIN)
    return replace(found, weights=WeightsCard.from_json(json.dumps(values["weights"]), path=path))


def verify(path: Path, manifest: Manifest) -> None:
    """Check the bytes of an exported network. Raises WeightsError that names the first file that was changed.

    Args:
        path: The manifest.
        manifest: What it says.
    """
    for name, expected in manifest.files.items():
        file = path.parent / name
        if not file.is_file():
            raise WeightsError("is missing from the exported network", path=file, hint=_AGAIN)
        found = sha256_of(file)
        if found != expected:
            raise WeightsError(
                f"was changed since it was exported: SHA-256 {found[:12]}…, {expected[:12]}… was written",
                path=file,
                hint=_AGAIN,
            )


def must_agree(parity: list[dict[str, Any]], what: str) -> None:
    """Raise JcsError when one of the checks of an export was not passed."""
    failed = next((check for check in parity if not check["ok"]), None)
    if failed is not None:
        size = f"{failed['batch']}×{failed['rows']}×{failed['columns']}"
        raise JcsError(
            f"{what} does not compute what the network computes (at {size}: {failed['differences']})",
            hint="nothing was written; please report it",
        )
