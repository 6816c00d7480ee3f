"""Names of outputs: safe as file names on every system, told apart, and in an order people expect."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".dib", ".mat"})
"""Extensions (lower case) that promise a slice; names leave them off. Others are part of the name ("scan.001")."""

MAX_COMPONENT = 180
"""Longest part of a name between two "/", in UTF-8 bytes. File systems allow 255, of which endings take some."""
MAX_NAME = 800
"""Longest name in UTF-8 bytes."""

_FORBIDDEN = re.compile(r'[:*?"<>|\\]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])\s*(\.|$)", re.IGNORECASE)
_DIGITS = re.compile("[0-9]+")
_LITTER = frozenset({"__macosx", "thumbs.db", "desktop.ini"})


def is_litter(path: str) -> bool:
    """Return whether a "/"-separated path is hidden, or what a desktop leaves behind (`__MACOSX`, `Thumbs.db` …)."""
    return any(part.startswith(".") or part.casefold() in _LITTER for part in path.split("/"))


def leads_out(member: str) -> bool:
    """Return whether the name of an archive's member leads out of the archive, or could not be a name."""
    first, *_ = parts = member.replace("\\", "/").split("/")
    return ".." in parts or first == "" or first[1:2] == ":" or "\0" in member


def label(path: Path, member: str | None) -> str:
    """Return what messages call a file, or a member of an archive."""
    return str(path) if member is None else f"{path}!{member}"


def inner_path(member: str) -> str:
    """Return the name of an archive's member "/"-separated, without empty parts; old .NET separates by backslashes."""
    return "/".join(part for part in member.replace("\\", "/").split("/") if part not in {"", "."})


def natural_key(path: str) -> tuple[str, str]:
    """Return a sort key for "/"-separated paths: folder by folder, without case, slice2 before slice10."""
    # Each run of digits is preceded by its length, so that comparing texts compares numbers; "/" sorts before all.
    text = _DIGITS.sub(lambda m: f"{len(m[0].lstrip('0')):05d}{m[0].lstrip('0')}", path.casefold())
    return text.replace("/", "\0"), path


def split_extension(path: str) -> tuple[str, str]:
    """Return a path without its extension, and the extension without its dot; only those of `EXTENSIONS` count."""
    stem, dot, extension = path.rpartition(".")
    return (stem, extension) if stem and dot + extension.lower() in EXTENSIONS else (path, "")


VOLUME_ENDINGS = (".nii.gz", ".nii", ".mha", ".mhd", ".nrrd", ".nhdr")
"""How files end that hold a volume."""


def volume_stem(name: str) -> str | None:
    """Return a file name without the ending of a volume; None where it has none."""
    for ending in VOLUME_ENDINGS:
        if name.lower().endswith(ending) and len(name) > len(ending):
            return name[: -len(ending)]
    return None


def safe_name(path: str) -> str:
    """Return a "/"-separated path of which every part can be a file name on Linux, macOS and Windows.

    Characters that some system refuses become "_", reserved names (CON, NUL …) get a "_" in front, dots and spaces at
    the end are left off, and what is too long is cut and ends in a hash of the whole.
    """
    name = "/".join(_safe_part(part) for part in path.split("/"))
    if len(name.encode()) <= MAX_NAME:
        return name
    folders, _, last = name.rpartition("/")
    return f"{_hash(folders)}/{last}"


def tell_apart(names: Sequence[tuple[str, str]]) -> list[str]:
    """Return a distinct name for each (name, extension), as much as possible the name itself.

    Names are the same where a file system may take them for the same: without case, and however accents are encoded.
    Those that are get their extension appended where that helps ("a_jpg"), else a counter from the second on ("a_2").
    """
    keys = [_key(name) for name, _ in names]
    total = Counter(keys)
    by_extension = Counter((key, extension.lower()) for key, (_, extension) in zip(keys, names, strict=True))
    taken = {key for key, count in total.items() if count == 1}
    counters: Counter[str] = Counter()
    result = []
    for key, (name, extension) in zip(keys, names, strict=True):
        wanted = name
        if total[key] > 1:
            if extension and by_extension[key, extension.lower()] < total[key]:
                wanted = f"{name}_{extension}"
            stem, stem_key = wanted, _key(wanted)
            while _key(wanted) in taken:
                counters[stem_key] += 1
                wanted = f"{stem}_{counters[stem_key] + 1}"
            taken.add(_key(wanted))
        result.append(wanted)
    return result


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _safe_part(part: str) -> str:
    text = "".join(c if c.isprintable() else "_" for c in part)
    text = _FORBIDDEN.sub("_", text).rstrip(". ") or "_"
    if _RESERVED.match(text):
        text = f"_{text}"
    if len(text.encode()) > MAX_COMPONENT:
        text = f"{text.encode()[: MAX_COMPONENT - 20].decode(errors='ignore')}_{_hash(part)}"
    return text


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:12]
