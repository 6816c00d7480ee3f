"""Where a service keeps things. No name in it comes from outside: nothing can be overwritten, and nobody is named.

FOLDER/incoming/<upload>/…            being received
FOLDER/inputs/<input>/study…          what was sent: one file, or a folder of numbered files
FOLDER/results/<input>/<attempt>/study/…   what an attempt made, in a folder of its own
FOLDER/outgoing/<version>/…           SEG and SR that go back to an archive
FOLDER/arrivals/<pseudonym>/…         images that a DICOM node has received of a study
"""

from __future__ import annotations

import hashlib
import io
import math
import os
import re
import shutil
import time
import zipfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jcs_ct.service.record import Study

STUDY = "study"  # what every input and every result is called
_EXTENSION = re.compile(  # the end of any other name may be part of what it tells
    r"(\.(png|jpe?g|tiff?|bmp|mat|dcm|ima|nii|hdr|img|mha|mhd|z?raw|nrrd|nhdr|zip|tar|tgz)(\.gz)?|\.gz)$", re.IGNORECASE
)
STALE_SECONDS = 24 * 3600.0
"""An upload that nothing was added to for so long, and an input that no row names, are removed."""
NAMED = frozenset({
    "report.html", "report.json", "slices.csv", "lesions.nii.gz", "lungs.nii.gz", "attention.nii.gz", "seg.dcm",
    "sr.dcm",
})  # fmt: skip
"""Results that may be asked for by name. Pictures carry the names they were sent with: their URLs have a number."""


@dataclass(frozen=True)
class Folders:
    """The folders of a service.

    Args:
        root: The folder they are in.
    """

    root: Path

    def prepare(self) -> None:
        """Make them, for nobody but this user. Raises OutputError."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            for name in ("incoming", "inputs", "results", "outgoing", "arrivals"):
                (self.root / name).mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                f"cannot be used: {error.strerror}", path=self.root, hint="give another folder"
            ) from error

    def incoming(self, upload: str) -> Path:
        """Where an upload is received."""
        return self.root / "incoming" / upload

    def input(self, name: str) -> Path:
        """What was sent of a study."""
        return self.root / "inputs" / name

    def outgoing(self, version: str) -> Path:
        """What goes back to an archive."""
        return self.root / "outgoing" / version

    def arrivals(self, name: str) -> Path:
        """What a DICOM node has received of a study."""
        return self.root / "arrivals" / name

    def attempt(self, study: Study) -> Path:
        """Where the results of a row's attempt are, or go."""
        return self.root / "results" / study.input / str(study.attempt)

    def accept(self, upload: str) -> Path:
        """Turn an upload into an input of the same name: from here on it is whole."""
        source, target = self.incoming(upload), self.input(upload)
        for path in (*source.rglob("*"), source):
            sync(path)
        source.rename(target)
        sync(target.parent)
        return target

    def remove(self, study: Study) -> None:
        """Remove a study's input and results."""
        for path in (self.input(study.input), self.root / "results" / study.input):
            shutil.rmtree(path, ignore_errors=True)

    def remove_input(self, name: str) -> None:
        """Remove an input that was not taken."""
        shutil.rmtree(self.input(name), ignore_errors=True)

    def keep_only(self, study: Study) -> None:
        """Remove the results of earlier attempts."""
        for path in self.attempt(study).parent.iterdir():
            if path.name != str(study.attempt):
                shutil.rmtree(path, ignore_errors=True)

    def tidy(self, known: dict[str, Study]) -> int:
        """Remove what processes that were killed have left; return how many folders that were.

        Args:
            known: The studies that have files, by input.
        """
        old = time.time() - STALE_SECONDS
        stale = [p for p in (self.root / "incoming").iterdir() if _newest(p) < old]
        stale += [p for p in (self.root / "inputs").iterdir() if p.name not in known and _changed(p) < old]
        for path in (self.root / "results").iterdir():
            study = known.get(path.name)
            if study is None:
                stale += [path] if _changed(path) < old else []
            elif study.state in {"done", "failed"}:
                keep = str(study.attempt) if study.state == "done" else None
                with suppress(FileNotFoundError):  # deleted in this moment
                    stale += [p for p in path.iterdir() if p.name != keep]
        for path in stale:
            shutil.rmtree(path, ignore_errors=True)
        return len(stale)

    def free_share(self) -> float:
        """Return which share of the disk is free."""
        usage = shutil.disk_usage(self.root)
        return usage.free / usage.total if usage.total else 0.0

    def free_bytes(self) -> int:
        """Return how much of the disk is free."""
        return shutil.disk_usage(self.root).free


@dataclass(frozen=True)
class ResultFile:
    """A file of a study's results.

    Attributes:
        key: What a URL calls it: its name where that is one of `NAMED`, else its number.
        name: "/"-separated.
        path: Where it lies.
        size: Bytes.
    """

    key: str
    name: str
    path: Path
    size: int


def results(folder: Path) -> list[ResultFile]:
    """Return the files of a folder of results, in the order of their names."""
    paths = sorted(p for p in (folder / STUDY).rglob("*") if p.is_file() and not p.is_symlink())
    found = []
    for number, path in enumerate(paths, 1):
        name = str(PurePosixPath(path.relative_to(folder / STUDY)))
        found.append(ResultFile(name if name in NAMED else str(number), name, path, path.stat().st_size))
    return found


class _Pipe(io.RawIOBase):
    """Keeps what was written until it is taken; zipfile sees that it cannot seek, and writes sizes behind the data."""

    def __init__(self) -> None:
        self._held = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        self._held += data
        return len(data)

    def take(self) -> bytes:
        data = bytes(self._held)
        self._held.clear()
        return data


def zipped(files: Sequence[ResultFile]) -> Iterator[bytes]:
    """Yield a zip of the files, made while it is sent: neither memory nor disk holds it. They are packed already."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            info = zipfile.ZipInfo.from_file(file.path, f"{STUDY}/{file.name}")
            with archive.open(info, "w", force_zip64=True) as target:
                for piece in pieces_of(file.path):
                    target.write(piece)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()


def numbered(names: Iterable[str]) -> dict[str, str]:
    """Return a neutral name for each name of a form's files: numbers in the natural order of the names.

    The extension stays, and files that differ in nothing but it get the same number: pairs belong together.
    """
    from jcs_ct.io.files.names import natural_key

    stems: dict[str, int] = {}
    renamed: dict[str, str] = {}
    taken: set[str] = set()
    for name in sorted(names, key=natural_key):
        found = _EXTENSION.search(name)
        stem, extension = (name[: found.start()], found[0].lower()) if found else (name, "")
        number = stems.setdefault(stem, len(stems) + 1)
        neutral = f"{number:06d}{extension}"
        if neutral in taken:  # a.dcm and a.DCM
            neutral = f"{number:06d}_{len(renamed)}{extension}"
        renamed[name] = neutral
        taken.add(neutral)
    return renamed


def _newest(folder: Path) -> float:
    return max(map(_changed, (folder, *folder.rglob("*"))))


def _changed(path: Path) -> float:
    """Return when something was last changed; never, where another process has just removed or renamed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return math.inf


def pieces_of(path: Path) -> Iterator[bytes]:
    """Yield what a file holds, a MiB at a time."""
    with path.open("rb") as file:
        while piece := file.read(2**20):
            yield piece


def sha256_of(path: Path) -> bytes:
    """Return the SHA-256 of a file. Raises OSError where the disk refuses to give it."""
    digest = hashlib.sha256()
    for piece in pieces_of(path):
        digest.update(piece)
    return digest.digest()


def sync(path: Path) -> None:
    """Have the disk hold what was written: a study that was answered for must survive a loss of power."""
    if os.name == "nt" and path.is_dir():
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
