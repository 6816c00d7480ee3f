"""What is half-written just now, so that a process that is told to stop leaves nothing of it, whatever it was doing.

A stop may come between any two instructions: within the `finally` that would clean up as well. So every temporary file
or folder is noted before it is made, and what is still noted when the interpreter ends is removed. By then all threads
that write have ended, for Python waits for them first.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

STOPS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_noted: dict[Path, int] = {}


def register(path: Path) -> None:
    """Note a temporary file or folder that is about to be made by this process."""
    _noted[path] = os.getpid()


def unregister(path: Path) -> None:
    """Forget one that is in its place, or removed."""
    _noted.pop(path, None)


def remove_all() -> None:
    """Remove what is still noted."""
    for path, pid in list(_noted.items()):
        if pid == os.getpid():  # a forked child ends without the files of its parent
            with contextlib.suppress(OSError):
                path.unlink() if path.is_file() else shutil.rmtree(path, ignore_errors=True)
        unregister(path)


def _at_exit() -> None:
    with contextlib.suppress(ValueError):  # not in the main thread
        for stop in STOPS:  # it is ending already
            signal.signal(stop, signal.SIG_IGN)
    remove_all()


atexit.register(_at_exit)
