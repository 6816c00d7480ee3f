"""One process at a time trains into a folder: schedulers and scripts start a command twice now and then."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, which the system takes back when the process ends, however it ends.

    Where the file system knows no locks, nothing is held.

    Raises:
        OutputError: Another process holds it, or the folder cannot be written into.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    path = folder / NAME
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        message = f"cannot be written into: {error.strerror}"
        raise OutputError(message, path=folder, hint="give another folder with -o") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                hint = "wait for it; or give each run a folder of its own with -o"
                raise OutputError("is being trained into by another process", path=folder, hint=hint) from error
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
                if made:
                    folder.rmdir()  # a run that was refused leaves nothing
    finally:
        os.close(handle)
