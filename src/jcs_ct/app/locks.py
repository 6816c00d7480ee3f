"""Locks of cases: runs that share a folder of results compute each case once, and none clears up behind another.

A lock lives as long as the process that holds it. Its file stays where it is: whoever unlinks one while another run
waits for it leaves two runs with a lock each, on two files of one name.
"""

from __future__ import annotations

import contextlib
import re
import shutil
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from jcs_ct.outputs.case_folder import OLD, PART

if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ".locks"  # hidden, so that it is never read as an input
_STAGING = re.compile(rf"\.(?P<case>.+)\.\d+(?:(?P<old>{re.escape(OLD)})|{re.escape(PART)})")  # as `save_case` names it


def case_lock(out: Path, name: str) -> FileLock:
    """Return the lock of a case: held by the process that computes it, and gone with that process."""
    folder = out / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(str(folder / f"{name}.lock"))


def remove_debris(out: Path) -> int:
    """Remove what killed runs left half-written in `out`, and nothing of a run at work; return how many folders.

    A result that was about to be replaced, and was not, gets its place back.
    """
    removed = 0
    for folder in sorted(out.glob(f".*{PART}")) if out.is_dir() else []:
        named = _STAGING.fullmatch(folder.name)
        if named is None or not folder.is_dir():
            continue
        with contextlib.suppress(Timeout), case_lock(out, named["case"]).acquire(blocking=False):
            if named["old"] and not (out / named["case"]).exists():
                folder.rename(out / named["case"])
                continue
            shutil.rmtree(folder, ignore_errors=True)
            removed += 1
    return removed
