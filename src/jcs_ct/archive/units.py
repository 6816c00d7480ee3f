"""Units: what is fetched and diagnosed at once, and what shares of the work are made of where inputs are URLs.

A file is one unit. A folder is its sub-folders, archives and volumes, a unit each; where slices lie in it directly, it
is one unit. A unit holds whole studies. What lies behind a name is not known before it is fetched, so names decide.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.app.identity import digest_key
from jcs_ct.archive.places import Place, Stored, is_url, open_place
from jcs_ct.core.errors import InputError
from jcs_ct.io.files.archive import MAX_TOTAL_BYTES
from jcs_ct.io.files.kinds import FOR_STUDIES
from jcs_ct.io.files.names import is_litter, leads_out, natural_key, safe_name, volume_stem
from jcs_ct.io.files.walk import MARK, MARKED, REPORT, SLICES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.app.shares import Share

ARCHIVE_ENDINGS = (".zip", ".tar", ".tar.gz", ".tgz")
DEEPEST = 2
"""Folders that a file of a result may lie below it."""
SPARE_BYTES = 2**30  # of the disk that units are fetched to, left to others


@dataclass(frozen=True)
class Unit:
    """What is fetched and diagnosed at once: where it lies, and all its files."""

    place: Place
    files: tuple[Stored, ...]

    @property
    def name(self) -> str:
        """What its record is called: its own name, and a digest of its whole URL."""
        last = self.place.url.rpartition("/")[2]
        return f"{safe_name(last)[:60]}-{digest_key(self.place.url)}"

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def listing(self) -> str:
        """A digest of names, sizes and marks: while it is the same, so is the content."""
        lines = [f"{file.path}|{file.size}|{file.mark}" for file in self.files]
        return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()

    def fetch(self, folder: Path) -> Path:
        """Copy it to an empty folder, and return where it lies then. One on a disk of this machine is read where it is.

        Raises:
            InputError: It is too large, does not fit on the disk, has names that lead out of the folder, changes
                meanwhile, or cannot be read.
        """
        if self.place.local:
            return Path(self.place.path)
        free = shutil.disk_usage(folder).free - SPARE_BYTES
        if self.size > min(free, MAX_TOTAL_BYTES):
            most = "the disk takes" if free < MAX_TOTAL_BYTES else "is read at once:"
            message = f"holds {self.size / 2**30:.1f} GiB, {most} {min(free, MAX_TOTAL_BYTES) / 2**30:.1f} GiB"
            raise InputError(message, path=self.place.url, hint="set TMPDIR to a folder on a larger disk")
        above = self.place.path.rpartition("/")[0]
        targets = []
        for file in self.files:
            relative = file.path[len(above) :].lstrip("/") if above else file.path
            if leads_out(relative):
                raise InputError(f"holds a name that leads out of it: {file.path}", path=self.place.url)
            targets.append(folder / relative)
        for parent in {target.parent for target in targets}:
            try:
                parent.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InputError("holds a file and a folder of one name", path=self.place.url) from error
        self.place.fetch([file.path for file in self.files], targets)
        for file, target in zip(self.files, targets, strict=True):
            if not target.is_file() or target.stat().st_size != file.size:
                raise InputError(f"changes while it is read ({file.path})", path=self.place.url, hint="run again")
        return folder / self.place.path.rpartition("/")[2]


@dataclass(frozen=True)
class FoundPlaces:
    """What inputs come to, before anything is fetched.

    Attributes:
        places: Of the units.
        others: How many other files lie beside them.
        problems: Inputs that cannot be used, a line each.
    """

    places: tuple[Place, ...]
    others: int
    problems: tuple[InputError, ...]


def find_places(inputs: Sequence[str]) -> FoundPlaces:
    """Return the units' places of inputs. Raises UsageError as `jcs_ct.archive.places.open_place` does."""
    places: list[Place] = []
    problems: list[InputError] = []
    others = 0
    for item in inputs:
        place = open_place(item if is_url(item) else str(Path(item).absolute()))
        try:
            found, more = _places_of(place)
        except InputError as problem:
            problems.append(problem)
        else:
            places += found
            others += more
    return FoundPlaces(tuple({place.url: place for place in places}.values()), others, tuple(problems))


def _places_of(place: Place) -> tuple[list[Place], int]:
    """Return the units' places of an input, and how many other files lie beside them. Raises InputError."""
    alone = place.is_file()  # raises where nothing is there
    above = place
    for _ in range(DEEPEST):
        above = above.above
        if above.url.rstrip("/").endswith(":") or not above.url:
            break
        if is_result(above):
            message = f"lies in {above.url}, a result of this program; results are never read as input"
            raise InputError(message, path=place.url, hint="give the studies themselves")
    if alone:
        return [place], 0
    folders, files = place.entries()
    folders, files = ([name for name in names if not is_litter(name)] for names in (folders, files))
    whole = [name for name in files if _is_whole(name)]
    if {REPORT, SLICES} <= set(files) or any(_is_slice(name) for name in files if name not in whole):
        return [place], 0
    named = [place / name for name in sorted((*folders, *whole), key=natural_key)]
    return named, len(files) - len(whole)


def is_result(place: Place) -> bool:
    """Return whether a folder holds the result of a study. Raises InputError where the store cannot be asked."""
    report = place / REPORT
    return (place / SLICES).exists() and report.exists() and MARK in (report.read() or b"")[:MARKED]


def list_units(places: Sequence[Place], share: Share | None) -> tuple[list[Unit], list[str]]:
    """Return the units of a share with their files, the largest first, and the URLs of results, which are no units.

    Raises:
        InputError: One cannot be listed.
    """
    mine = [place for place in places if share is None or share.has(digest_key(place.url))]
    units, results = [], []
    for place in mine:
        files = tuple(file for file in place.files() if not is_litter(file.path[len(place.path) :].lstrip("/")))
        if {(place / name).path for name in (REPORT, SLICES)} <= {file.path for file in files} and is_result(place):
            results.append(place.url)
        else:
            units.append(Unit(place, files))
    return sorted(units, key=lambda unit: (-unit.size, unit.place.url)), results


def _is_whole(name: str) -> bool:
    return name.lower().endswith(ARCHIVE_ENDINGS) or volume_stem(name) is not None


def _is_slice(name: str) -> bool:
    """Return whether a file may be a slice: by its ending, or because it has none, as exports of archives do."""
    return FOR_STUDIES.promised(name) or "." not in name or name.rpartition(".")[2].isdigit()
