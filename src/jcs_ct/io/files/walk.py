"""Walking through folders: every file once, no loop of links without end, litter left out."""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.names import is_litter
from jcs_ct.io.files.opening import special, unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


REPORT, SLICES = "report.json", "slices.csv"
"""Files that every result of a study has."""
MARK, MARKED = b'"jcs-ct/report/', 200
"""What stands within so many bytes of the first."""


def walk(folder: Path) -> tuple[list[tuple[str, Path]], list[InputError], list[str], list[str]]:
    """Return the files below a folder, what cannot be read, what a user should know, and folders with results.

    Links to folders are followed last, and only where their folder was not read yet: it keeps its own name, and there
    is no loop without end. The files are in no order, with their "/"-separated paths relative to the folder. Folders
    with results of this program are not read (`results_note` says so).
    """
    files: list[tuple[str, Path]] = []
    problems: list[InputError] = []
    pending, links = deque([(folder, "")]), deque[tuple["Path", str]]()
    known: set[tuple[int, int]] = set()
    again, results = [], []
    while pending or links:
        where, prefix = (pending or links).popleft()
        try:
            status = where.stat()
            if (status.st_dev, status.st_ino) in known:
                again.append(prefix.rstrip("/"))
                continue
            known.add((status.st_dev, status.st_ino))
            with os.scandir(where) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(unreadable(where, error))
            continue
        if is_result(where, {entry.name for entry in entries}):
            results.append(prefix.rstrip("/") or str(folder))
            continue
        for entry in entries:
            if is_litter(entry.name):
                continue
            path = where / entry.name
            try:
                if entry.is_dir():
                    (links if entry.is_symlink() else pending).append((path, f"{prefix}{entry.name}/"))
                elif entry.is_file():
                    files.append((prefix + entry.name, path))
                else:
                    what = special(entry.stat().st_mode)
                    problems.append(InputError(f"is {what}, a file is expected", path=path, hint="remove it"))
            except OSError as error:
                problems.append(unreadable(path, error))
    notes = []
    if again:
        links_text = f"{count(len(again), 'link')} to folders that are read already, not followed"
        notes.append(f"{folder}: {links_text}: {few(again)}")
    return files, problems, notes, results


def results_note(where: Path | str, results: Sequence[str]) -> str:
    """Return the line for folders with results that are not read."""
    return f"{where}: {count(len(results), 'folder')} with results of this program, not read: {few(results)}"


def result_around(path: Path) -> Path | None:
    """Return the folder of a result that a file or folder lies in; None where it lies in none."""
    for folder in path.resolve().parents:
        if (folder / SLICES).is_file() and is_result(folder, {REPORT, SLICES}):
            return folder
    return None


def is_result(folder: Path, names: set[str]) -> bool:
    """Return whether a folder with these files holds the result of a study: none is ever an input."""
    if not {REPORT, SLICES} <= names:
        return False
    try:
        with (folder / REPORT).open("rb") as file:
            return MARK in file.read(MARKED)
    except OSError:
        return False


def count(number: int, what: str) -> str:
    """Return "1 file", "2 files"."""
    return f"{number:,} {what}{'s' * (number != 1)}"


def few(items: Sequence[str]) -> str:
    """Return the first few of many, for a line."""
    return ", ".join(items[:3]) + (", …" if len(items) > 3 else "")
