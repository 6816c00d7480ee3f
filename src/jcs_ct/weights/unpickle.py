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

_HEAD = 1024  # bytes that tell what a file is
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")
_UNPACK, _FETCH = "unpack it and give the file inside", "the download failed, fetch it again"
# What is often found in place of weights: where a mark stands, the mark, what the file is, what to do.
_OTHERS = (
    (0, b"version https://git-lfs", "is a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (0, b"\x1f\x8b", "is a gzip archive", _UNPACK),
    (0, b"BZh", "is a bzip2 archive", _UNPACK),
    (0, b"\xfd7zXZ", "is a xz archive", _UNPACK),
    (0, b"7z\xbc\xaf", "is a 7-Zip archive", _UNPACK),
    (0, b"Rar!", "is a RAR archive", _UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "is a Zstandard archive", _UNPACK),
    (257, b"ustar", "is a tar archive", _UNPACK),
    (0, b"PK\x05\x06", "is an empty zip archive", _FETCH),
)
_ASK = "ask its author for the state dict alone: torch.save(model.state_dict(), FILE)"
_NOT_OURS = "it is not a network of this package"
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
    """Read every tensor of a weight file, whose content says what it is; nothing but tensors is ever unpickled.

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
        raise WeightsError(f"unpacks to more than {LARGEST_TENSORS >> 30} GiB", path=path, hint=_NOT_OURS)
    tensors = {name: _sound(name, tensor, path, notes) for name, tensor in _plain_names(found, path, notes).items()}
    return RawWeights(tensors, kind, metadata, tuple(dict.fromkeys(notes)))


def sniff(path: Path) -> str:
    """Return from the first bytes "safetensors", "PyTorch zip" or "PyTorch legacy pickle".

    Raises:
        WeightsError: The file is missing, empty, or something that holds no weights, which is named.
    """
    try:
        if path.is_dir():
            raise WeightsError("is a folder, a weight file was expected", path=path, hint="give the file inside")
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except FileNotFoundError as error:
        raise WeightsError("does not exist", path=path, hint="check the path") from error
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror}", path=path, hint="check the file") from error
    if not head:
        raise WeightsError("is empty (0 bytes)", path=path, hint=_FETCH)
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_HTML) or (text.startswith(b"<?xml") and b"<html" in text):
        raise WeightsError(
            "is a web page (HTML), not weights: the download failed, as Google Drive's does when it asks for a "
            "confirmation or is over its quota",
            path=path,
            hint="open the link in a browser and save the file itself",
        )
    for at, mark, what, hint in _OTHERS:
        if head.startswith(mark, at):
            raise WeightsError(what, path=path, hint=hint)
    if head.startswith(b"PK\x03\x04"):
        return "PyTorch zip"
    if len(head) > 8 and head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":
        return "safetensors"  # eight bytes of header length (always below 4 GiB), then JSON
    if head.startswith((b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5")):  # PROTO, then its number
        return "PyTorch legacy pickle"
    if _is_text(head):
        start = repr(head.decode(errors="replace").strip().split("\n")[0][:40])
        raise WeightsError(
            f"is a text file ({start}), not weights", path=path, hint="open it in an editor to see what it is"
        )
    raise WeightsError(
        "is not a file of weights: neither PyTorch nor safetensors",
        path=path,
        hint="give a .pth, .pt or .safetensors file",
    )


def _is_text(head: bytes) -> bool:
    """Tell whether the bytes are UTF-8 text (a character cut at the end does not count)."""
    for cut in range(4):
        try:
            text = head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return bool(text) and all(c.isprintable() or c in "\t\r\n\f" for c in text)
    return False


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], Mapping[str, str]]:
    if path.stat().st_size > LARGEST_TENSORS:  # such a file holds its tensors as they are: its size is theirs
        raise WeightsError(f"is larger than {LARGEST_TENSORS >> 30} GiB", path=path, hint=_NOT_OURS)
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
        raise WeightsError("is a zip archive, not a PyTorch checkpoint", path=path, hint=_UNPACK)
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
        what, hint = named[1], _ASK
        if what.partition(".")[0] in _DANGEROUS:
            message = f"would run Python code when unpickled ({what}); nothing in it was run"
            hint = "delete it, it is not safe"
        elif what.startswith(("numpy.", "collections.", "pathlib.", "argparse.", "datetime.", "torch._utils.")):
            message = f"holds objects besides tensors ({what}), which are never unpickled"
        else:
            message = f"is a whole pickled model or object ({what}), not its state dict; nothing in it was run"
    elif isinstance(error, MemoryError) or "not enough memory" in str(error):
        message, hint = "asks for more memory than there is", "it is damaged, or no network of this package"
    elif isinstance(error, OSError) and error.strerror:
        message, hint = f"cannot be read: {error.strerror}", "check the file"
    else:
        message, hint = "is damaged, cut off, or no PyTorch checkpoint", _AGAIN
    return WeightsError(message, path=path, hint=hint)


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
