"""The command that adds an extra to this installation: jcs-ct is on no package index, where pip would look for it."""

from __future__ import annotations

import json
import re
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

DISTRIBUTION = "jcs-ct"
EXTRAS = {
    "train": "training, folds and scores: jcs train, jcs data split, jcs bench train",
    "lite": "ImageNet weights to start the training of jcs-lite from: jcs train lite",
    "pdf": "the report as a PDF file: jcs diagnose --pdf",
    "service": "studies over HTTP and from an Orthanc: jcs serve, jcs work, jcs token, jcs watch",
    "node": "studies by DICOM's network protocol: jcs node",
    "cloud": "inputs and results in object stores: s3://…",
    "ray": "studies on a cluster: jcs diagnose --engine ray",
    "openvino": "a faster runtime on Intel and AMD processors",
    "onnx": "a faster runtime on other processors, and the ONNX export",
    "native": "a C compiler, for the kernels of the runtime `native`",
}
"""Extras that users install → what each is for. Those for development are not listed."""


def install_command(extras: str) -> str:
    """Return the command that adds extras ("train,lite") to this environment, from where jcs-ct itself came."""
    origin = _origin()
    address = str(origin.get("url", ""))
    if "vcs_info" in origin:
        return f'pip install "{DISTRIBUTION}[{extras}] @ {origin["vcs_info"].get("vcs", "git")}+{address}"'
    if "dir_info" in origin and address.startswith("file:"):
        folder = Path(url2pathname(urlsplit(address).path))
        if (folder / "pyproject.toml").is_file():
            editable = "-e " if origin["dir_info"].get("editable") else ""
            return f'pip install {editable}"{folder}[{extras}]"'
    return f'pip install ".[{extras}]" in a clone of jcs-ct'


def missing_of(extra: str) -> list[str]:
    """Return the distributions of an extra that are not installed; of jcs-ct that is not installed itself, none."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return []
    wanted = [text for text in requirements if f"extra == '{extra}'" in text.replace('"', "'")]
    names = [re.split(r"[^\w.-]", text, maxsplit=1)[0] for text in wanted]
    return [name for name in names if version_of(name) is None]


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _origin() -> dict[str, Any]:
    """Return what pip wrote about where jcs-ct came from (PEP 610); nothing where it wrote nothing."""
    try:
        text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
        origin = json.loads(text) if text else {}
    except (metadata.PackageNotFoundError, ValueError):
        return {}
    return origin if isinstance(origin, dict) else {}
