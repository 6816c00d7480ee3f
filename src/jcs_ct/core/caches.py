"""Where Matplotlib keeps its cache when the user has no home folder: without one it warns, or fails, on import."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from jcs_ct.core.errors import OutputError

SHARED = "/dev/shm"  # noqa: S108  # the last resort of a read-only container


@lru_cache(maxsize=1)
def cache_for_figures() -> None:
    """Point Matplotlib to a folder of this process where it cannot write in the usual one. Call before it is imported.

    The folder is removed at the end. Where `MPLCONFIGDIR` is set, nothing is done. Raises OutputError where nothing can
    be written anywhere.
    """
    if (
        os.environ.get("MPLCONFIGDIR")
        or "matplotlib" in sys.modules
        or not sys.platform.startswith(("linux", "freebsd"))
    ):
        return
    if all(_writable(folder) for folder in _usual()):
        return
    os.environ["MPLCONFIGDIR"] = _temporary()


def place_for_temporary_files() -> None:
    """Choose a folder for temporary files where none of the usual ones can be written; libraries ask for it on import.

    Raises OutputError where nothing can be written anywhere.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        os.environ["TMPDIR"] = tempfile.tempdir = _temporary()


def _usual() -> list[Path]:
    """Return the folders that Matplotlib would take; one that cannot be where there is no home."""
    found = []
    for variable, below in (("XDG_CONFIG_HOME", ".config"), ("XDG_CACHE_HOME", ".cache")):
        try:
            given = os.environ.get(variable)
            found.append((Path(given) if given else Path.home() / below) / "matplotlib")
        except RuntimeError:  # neither HOME nor a line in /etc/passwd
            found.append(Path(os.devnull) / "matplotlib")
    return found


def _writable(folder: Path) -> bool:
    """Return whether a folder can be written into, or made."""
    try:
        there = next(path for path in (folder, *folder.parents) if path.exists())
    except OSError:  # a folder on the way that may not be looked into
        return False
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)


def _temporary() -> str:
    """Return a new folder that is removed at the end of the process."""
    for where in (None, SHARED):
        with suppress(OSError):  # no such folder that can be written
            folder = tempfile.mkdtemp(prefix="jcs-ct-", dir=where)
            atexit.register(shutil.rmtree, folder, ignore_errors=True)
            return folder
    raise OutputError("there is no writable folder for temporary files", hint="set TMPDIR to a writable folder")
