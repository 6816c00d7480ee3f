"""Opening files that a user named: none that blocks or never ends, and no more than a stated number of bytes."""

from __future__ import annotations

import errno
import os
import stat
from difflib import get_close_matches
from io import BufferedReader
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.kinds import HEAD, Kind, decode_text, sniff

if TYPE_CHECKING:
    from io import FileIO
    from pathlib import Path

MAX_FILE_BYTES = 512 * 2**20
"""The largest file, or archive member when unpacked, that is read. A slice of 8192×8192 RGBA is half of it."""

# A named pipe without a writer blocks an ordinary open for ever. Windows has neither the flag nor the pipes.
_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
_SPECIAL = ((stat.S_ISFIFO, "a named pipe"), (stat.S_ISSOCK, "a socket"), (stat.S_ISDIR, "a folder"))


def open_regular(path: Path) -> FileIO:
    """Open a regular file for reading, unbuffered. Raises InputError where it is none, or cannot be opened."""
    try:
        # Looked at before it is opened, since opening alone makes some devices act, and again after, since another
        # process may have put a pipe in its place.
        _refuse_special(path, path.stat().st_mode)
        number = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    file = os.fdopen(number, "rb", buffering=0)
    try:
        _refuse_special(path, os.fstat(number).st_mode)
    except InputError:
        file.close()
        raise
    return file


def peek(path: Path) -> tuple[Kind, int]:
    """Return what a file is and its size in bytes, reading no more than its head. Raises as `open_regular` does."""
    with open_regular(path) as file:
        try:
            return sniff(file.read(HEAD)), os.fstat(file.fileno()).st_size
        except OSError as error:
            raise unreadable(path, error) from error


def read_file(path: Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return a whole file of `limit` bytes at most.

    Raises InputError as `open_regular`, and where it is larger, or its size changes while it is read.
    """
    with BufferedReader(open_regular(path)) as file:
        try:
            size = os.fstat(file.fileno()).st_size
            if size > limit:
                raise too_large(str(path), size, limit)
            data = file.read(size + 1)  # one byte more than there should be
        except OSError as error:
            raise unreadable(path, error) from error
    if len(data) != size:
        raise InputError("changes while it is read", path=path, hint="wait until it is copied whole")
    return data


def read_text(path: Path, limit: int, hint: str) -> str:
    """Return a whole text file: UTF-8, or UTF-16 with a byte order mark; `hint` is for one that is neither.

    Raises InputError as `read_file`, and for no such text.
    """
    try:
        return decode_text(read_file(path, limit))
    except UnicodeDecodeError as error:
        raise InputError("is neither UTF-8 nor UTF-16 text", path=path, hint=hint) from error


def special(mode: int) -> str:
    """Return what a file that is not regular is, for a message."""
    return next((text for test, text in _SPECIAL if test(mode)), "a device")


def unreadable(path: Path, error: OSError | ValueError | RuntimeError) -> InputError:
    """Return the problem that `error` is for `path`."""
    if isinstance(error, FileNotFoundError):
        if path.is_symlink():
            return InputError(f"is a broken link to {path.readlink()}", path=path, hint="give the file itself")
        hint = "patterns are not expanded here; give the folder" if any(c in str(path) for c in "*?") else None
        return InputError("does not exist", path=path, hint=hint or _similar(path) or "check the name")
    if isinstance(error, RuntimeError) or getattr(error, "errno", None) == errno.ELOOP:
        return InputError("is a link that leads back to itself", path=path, hint="give the file or folder itself")
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return InputError(f"cannot be read: {reason}", path=path, hint="check its name and permissions")


def _similar(path: Path) -> str:
    """Return a question after what is called most like the first part of a path that is not there; or ""."""
    try:
        missing = next((one for one in (path, *path.parents) if one.parent.is_dir()), path)
        names = sorted(entry.name for entry in missing.parent.iterdir())
    except OSError:  # it may not be looked into
        return ""
    near = get_close_matches(missing.name, names, n=1, cutoff=0.75)
    return f"did you mean {missing.with_name(near[0])}?" if near else ""


def too_large(label: str, size: int, limit: int) -> InputError:
    """Return the problem of a file of `size` bytes where at most `limit` are read."""
    return InputError(
        f"holds {size / 2**20:,.0f} MiB, at most {limit / 2**20:,.0f} MiB are read",
        path=label,
        hint="a file holds one slice",
    )


def _refuse_special(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise InputError(f"is {special(mode)}, a file is expected", path=path, hint="copy the data to a file")
