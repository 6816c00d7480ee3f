"""What a file that should hold weights really is, from its first bytes. No torch here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.errors import WeightsError

if TYPE_CHECKING:
    from pathlib import Path

_HEAD = 1024
_HTML = (b"<!doctype html", b"<html", b"<head", b"<body", b"<!--")
_ARCHIVES = {
    b"\x1f\x8b": "gzip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "7-Zip",
    b"Rar!": "RAR",
    b"\x28\xb5\x2f\xfd": "Zstandard",
}


def sniff(path: Path) -> str:
    """Return "safetensors", "PyTorch zip" or "PyTorch legacy pickle".

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
        raise WeightsError("is empty (0 bytes)", path=path, hint="the download failed, fetch it again")
    _refuse_others(head, path)
    if head.startswith(b"PK\x03\x04"):
        return "PyTorch zip"
    if len(head) > 8 and head[8:9] == b"{" and head[4:8] == b"\0\0\0\0":
        return "safetensors"  # eight bytes of header length (always below 4 GiB), then JSON
    if head[:1] == b"\x80" and head[1:2] in (b"\2", b"\3", b"\4", b"\5"):  # PROTO, then its number
        return "PyTorch legacy pickle"
    if _is_text(head):
        raise WeightsError(
            f"is a text file ({_start(head)}), not weights", path=path, hint="open it in an editor to see what it is"
        )
    raise WeightsError(
        "is not a file of weights: neither PyTorch nor safetensors",
        path=path,
        hint="give a .pth, .pt or .safetensors file",
    )


def _refuse_others(head: bytes, path: Path) -> None:
    """Name the things that are often found in place of weights."""
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith(_HTML) or (text.startswith(b"<?xml") and b"<html" in text):
        raise WeightsError(
            "is a web page (HTML), not weights: the download failed, as Google Drive's does when it asks for a "
            "confirmation or is over its quota",
            path=path,
            hint="open the link in a browser and save the file itself",
        )
    if head.startswith(b"version https://git-lfs"):
        raise WeightsError("is a Git LFS pointer, not the file itself", path=path, hint="run: git lfs pull")
    for magic, name in _ARCHIVES.items():
        if head.startswith(magic):
            raise WeightsError(f"is a {name} archive", path=path, hint="unpack it and give the file inside")
    if head[257:262] == b"ustar":
        raise WeightsError("is a tar archive", path=path, hint="unpack it and give the file inside")
    if head.startswith(b"PK\x05\x06"):
        raise WeightsError("is an empty zip archive", path=path, hint="the download failed, fetch it again")


def _is_text(head: bytes) -> bool:
    """Tell whether the bytes are UTF-8 text (a character cut at the end does not count)."""
    for cut in range(4):
        try:
            text = head[: len(head) - cut].decode()
        except UnicodeDecodeError:
            continue
        return bool(text) and all(c.isprintable() or c in "\t\r\n\f" for c in text)
    return False


def _start(head: bytes) -> str:
    return repr(head.decode(errors="replace").strip().split("\n")[0][:40])
