"""Reading weight files without trusting them: tensors come out, everything else is refused or left where it is.

`.pth`/`.pt` files are pickles, and a pickle can run any program when it is read. They pass through
`torch.load(weights_only=True)` only (safe since PyTorch 2.6, the oldest this package accepts), whose long messages are
turned into one line here. What follows is checked before a tensor leaves this module: its layout, its type, and that
every value is a finite number.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from jcs_ct.core.errors import WeightsError
from jcs_ct.weights.sniff import sniff

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_TENSORS = 4 << 30  # bytes; the largest network of the release has 0.5 GB
MOST_TENSORS = 20_000
DEEPEST_WRAPPER = 3

# Where training scripts keep the weights, most telling first.
WRAPPERS = (
    "state_dict", "model_state_dict", "model_state", "model", "net", "network", "weights", "params", "module", "ema",
)  # fmt: skip
PREFIXES = ("model.", "net.", "network.", "ema.")  # put before every name by Lightning and the like
WRAPPER_PARTS = frozenset({"module", "_orig_mod"})  # (Distributed)DataParallel and torch.compile, at any depth

_ASK = "ask its author for the state dict alone: torch.save(model.state_dict(), FILE)"
_AGAIN = "fetch the file again and compare its size and checksum"
_GLOBAL = re.compile(r"GLOBAL [\"'`]?([\w.]+)")
# Modules of Python that no checkpoint needs: naming one of them is an attack, not an old checkpoint.
_DANGEROUS = frozenset({
    "os", "posix", "nt", "subprocess", "sys", "builtins", "__builtin__", "shutil", "socket", "runpy", "importlib",
    "pty", "commands", "webbrowser", "ctypes", "code", "pickle", "timeit", "asyncio", "operator",
})  # fmt: skip


@dataclass(frozen=True)
class RawWeights:
    """What a weight file holds.

    Attributes:
        tensors: float32 tensors (and integer counters) by name, wrappers of training scripts removed from the names.
        kind: "safetensors", "PyTorch zip" or "PyTorch legacy pickle".
        metadata: The text fields of a safetensors header.
        notes: What was left out or converted, a line each.
    """

    tensors: dict[str, Tensor]
    kind: str
    metadata: Mapping[str, str]
    notes: tuple[str, ...]


def read_tensors(path: Path) -> RawWeights:
    """Read every tensor of a weight file; nothing but tensors is ever unpickled.

    Args:
        path: `.pth`, `.pt`, `.safetensors` …; what it is is found from its content.

    Raises:
        WeightsError: The file is missing, damaged, something else (a web page, an archive, a whole model), would run
            code, or holds a tensor that cannot be used (sparse, quantized, NaN …).
    """
    kind = sniff(path)
    notes: list[str] = []
    metadata: Mapping[str, str] = {}
    if kind == "safetensors":
        found, metadata = _read_safetensors(path)
    else:
        found = _state_dict(_unpickle(path, mapped=kind == "PyTorch zip"), path, notes)
    if len(found) > MOST_TENSORS:
        raise WeightsError(f"holds {len(found)} tensors, more than any network here", path=path, hint=_ASK)
    if sum(tensor.numel() * tensor.element_size() for tensor in found.values()) > LARGEST_TENSORS:
        raise WeightsError(
            f"unpacks to more than {LARGEST_TENSORS >> 30} GiB", path=path, hint="it is not a network of this package"
        )
    tensors = {name: _sound(name, tensor, path, notes) for name, tensor in _plain_names(found, path, notes).items()}
    return RawWeights(tensors, kind, metadata, tuple(dict.fromkeys(notes)))


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if path.stat().st_size > LARGEST_TENSORS:  # such a file holds its tensors as they are: its size is theirs
        raise WeightsError(
            f"is larger than {LARGEST_TENSORS >> 30} GiB", path=path, hint="it is not a network of this package"
        )
    try:
        with safe_open(str(path), framework="pt", device="cpu") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError, AttributeError) as error:
        raise WeightsError("is a damaged or cut-off safetensors file", path=path, hint=_AGAIN) from error


def _unpickle(path: Path, *, mapped: bool) -> object:
    """Unpickle `path` the safe way. `mapped` leaves what is not needed (an optimizer's state …) on the disk."""
    if mapped:
        _check_archive(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old protocols, beta layouts: whatever comes out is checked below
            # By that extension, and for a path only, torch.load takes any content for safetensors.
            mapped = mapped and path.suffix != ".safetensors"
            with path.open("rb") as file:
                source: Any = str(path) if mapped else file
                content: object = torch.load(source, map_location="cpu", weights_only=True, mmap=mapped)
    except Exception as error:  # a crafted or damaged pickle raises nearly anything; every one means the same
        raise _in_our_words(error, path) from error
    return content


def _check_archive(path: Path) -> None:
    """Refuse zips that PyTorch did not write, and those that would unpack to more than they are (zip bombs)."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(
            "is damaged or cut off: the end of the archive is missing", path=path, hint=_AGAIN
        ) from error
    names = {member.filename.partition("/")[2] for member in members}
    if "data.pkl" not in names:
        raise WeightsError(
            "is a zip archive, not a PyTorch checkpoint", path=path, hint="unpack it and give the file inside"
        )
    if "constants.pkl" in names:
        raise WeightsError("is a TorchScript program, not a state dict", path=path, hint=_ASK)
    # PyTorch stores without compression, so the parts can never be larger than the whole.
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > path.stat().st_size:
        raise WeightsError(
            "is a compressed or overlapping archive (a zip bomb?); PyTorch writes none", path=path, hint=_AGAIN
        )


def _in_our_words(error: Exception, path: Path) -> WeightsError:
    """Turn whatever `torch.load` raised into one line."""
    named = _GLOBAL.search(str(error))
    if named:
        what = named[1]
        if what.partition(".")[0] in _DANGEROUS:
            return WeightsError(
                f"would run Python code when unpickled ({what}); nothing in it was run",
                path=path,
                hint="delete it, it is not safe",
            )
        if what.startswith(("numpy.", "collections.", "pathlib.", "argparse.", "datetime.", "torch._utils.")):
            return WeightsError(
                f"holds objects besides tensors ({what}), which are never unpickled", path=path, hint=_ASK
            )
        return WeightsError(
            f"is a whole pickled model or object ({what}), not its state dict; nothing in it was run",
            path=path,
            hint=_ASK,
        )
    if isinstance(error, MemoryError) or "not enough memory" in str(error):
        return WeightsError(
            "asks for more memory than there is", path=path, hint="it is damaged, or no network of this package"
        )
    if isinstance(error, OSError) and error.strerror:
        return WeightsError(f"cannot be read: {error.strerror}", path=path, hint="check the file")
    return WeightsError("is damaged, cut off, or no PyTorch checkpoint", path=path, hint=_AGAIN)


def _state_dict(content: object, path: Path, notes: list[str], depth: int = 0) -> dict[str, Tensor]:
    """Find the tensors by name in what a training script saved, and note what else was there."""
    if not isinstance(content, Mapping):
        raise WeightsError(f"holds a {type(content).__name__}, a state dict was expected", path=path, hint=_ASK)
    inner = [key for key in WRAPPERS if _holds_tensors(content.get(key), DEEPEST_WRAPPER - depth)]
    if inner:
        others = [str(key) for key in content if key != inner[0]]
        if others:
            notes.append(f"ignored beside {inner[0]!r}: {_first(others)}")
        return _state_dict(content[inner[0]], path, notes, depth + 1)
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if not tensors:
        raise WeightsError(
            f"holds no tensors by name, but {_first(map(str, content)) or 'nothing'}", path=path, hint=_ASK
        )
    others = [str(key) for key in content if key not in tensors]
    if others:
        notes.append(f"ignored, no tensors: {_first(others)}")
    return tensors


def _holds_tensors(value: object, deeper: int) -> bool:
    """Tell whether `value` is a dict of tensors, or of such dicts down to a depth that no training script exceeds."""
    if not isinstance(value, Mapping) or deeper <= 0:
        return False
    return any(isinstance(item, Tensor) or _holds_tensors(item, deeper - 1) for item in value.values())


def _plain_names(tensors: dict[str, Tensor], path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Remove from the names what wrappers put there (`module.`, `_orig_mod.`, `model.` …)."""
    plain = {
        ".".join(part for part in name.split(".") if part not in WRAPPER_PARTS): value
        for name, value in tensors.items()
    }
    while prefix := next((p for p in PREFIXES if all(name.startswith(p) for name in plain)), None):
        plain = {name.removeprefix(prefix): value for name, value in plain.items()}
    if len(plain) != len(tensors):
        raise WeightsError("holds two tensors of one name once 'module.' is removed", path=path, hint=_ASK)
    if plain.keys() != tensors.keys():
        notes.append("wrapper prefixes were removed from the names (module., model. …)")
    return plain


def _sound(name: str, tensor: Tensor, path: Path, notes: list[str]) -> Tensor:
    """Return the tensor as dense finite float32 (or an integer counter), or refuse it by its name."""

    def refuse(what: str) -> WeightsError:
        return WeightsError(f"tensor {name!r:.120} {what}", path=path, hint=_ASK)

    if tensor.is_meta:
        raise refuse("has a shape but no values")
    if tensor.is_quantized:
        raise refuse("is quantized, floating point was expected")
    if tensor.layout is not torch.strided or tensor.is_nested:
        raise refuse("is sparse or nested, a dense tensor was expected")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise refuse("claims more values than the file holds")
    tensor = tensor.detach()
    if name.endswith("num_batches_tracked") and tensor.dtype is torch.int64:
        return tensor
    if tensor.dtype not in (torch.float32, torch.float64, torch.float16, torch.bfloat16):
        raise refuse(f"is of type {str(tensor.dtype).removeprefix('torch.')}, float32 was expected")
    if tensor.dtype is not torch.float32:
        notes.append(f"converted to float32 from {str(tensor.dtype).removeprefix('torch.')}")
        tensor = tensor.to(torch.float32)
    if not bool(torch.isfinite(tensor).all()):
        raise refuse("holds NaN or infinite values")
    return tensor.contiguous()


def _first(names: Any, count: int = 5) -> str:
    """Return the first few names in a phrase."""
    listed = list(names)
    more = f" and {len(listed) - count} more" if len(listed) > count else ""
    return ", ".join(f"{name:.60}" for name in listed[:count]) + more
