"""From the INPUT arguments of a command to an ordered list of sources, each one slice or one feature file.

INPUT is a file, a folder (with its sub-folders), a zip archive, or a list: a text file called `.txt`, `.lst` or `.list`
with one path per line, relative to the list's folder, where blank lines and lines that begin with "#" do not count.
Only the heads of files are read here. What cannot be used becomes a problem, what a user should know a note; the rest
goes on.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from jcs_ct.errors import InputError
from jcs_ct.io import archive
from jcs_ct.io.kinds import EXPECTED, SLICES, Kind, decode_text
from jcs_ct.io.names import is_litter, natural_key, printable, safe_name, split_extension, tell_apart
from jcs_ct.io.opening import MAX_FILE_BYTES, peek, read_file, special, too_large, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

LIST_EXTENSIONS = frozenset({".txt", ".lst", ".list"})
MAX_LIST_BYTES = 64 * 2**20

_HINTS = {
    Kind.DICOM: "save the slices through the lung window as 8-bit PNG",
    Kind.NIFTI: "save the slices through the lung window as 8-bit PNG",
    Kind.HDF5: "save features in MATLAB with '-v7'",
    Kind.EMPTY: "copy it again",
    Kind.TEXT: f"a list of files is called {', '.join(sorted(LIST_EXTENSIONS))}",
}


@dataclass(frozen=True)
class Source:
    """One slice, or one file of stage-1 features, that is still to be read.

    Attributes:
        name: Stem of everything written for it: "/"-separated, relative, without extension, distinct in `Found`, and
            safe as a file name on every system. Below a folder, an archive or a list, sub-folders are kept.
        label: What a message calls it: the path, or "archive.zip!member"; one line.
        path: The file, or the archive it is in.
        member: Its name in the archive; None for a file of its own.
        kind: What it is: one of `jcs_ct.io.kinds.SLICES`.
    """

    name: str
    label: str
    path: Path
    member: str | None
    kind: Kind

    def read(self) -> bytes:
        """Return the whole file.

        Raises:
            InputError: It cannot be read, is damaged (archive members), or exceeds `MAX_FILE_BYTES`.
        """
        return read_file(self.path) if self.member is None else archive.read_member(self.path, self.member)


@dataclass(frozen=True)
class Found:
    """What the inputs of a command come to.

    Attributes:
        sources: In the order of the inputs; those of a folder or an archive in natural order (slice2 before slice10).
        problems: What cannot be used, one line each.
        notes: What a user should know, a line each.
    """

    sources: tuple[Source, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]


def find_sources(inputs: Sequence[str | Path]) -> Found:
    """Return the slices and feature files that `inputs` name.

    Args:
        inputs: Files, folders, zip archives and lists.
    """
    finder = _Finder()
    for item in inputs:
        finder.add_input(item)
    return finder.found()


@dataclass(frozen=True)
class _Entry:
    relative: str  # "/"-separated, with extension; the name is made of it
    path: Path
    member: str | None
    kind: Kind


class _Finder:
    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._problems: list[InputError] = []
        self._notes: list[str] = []
        self._parents: dict[Path, str] = {}
        self._known: set[tuple[str, str, str | None]] = set()
        self._repeated = 0

    def found(self) -> Found:
        """Name the entries and return the whole."""
        stems = [split_extension(entry.relative) for entry in self._entries]
        safe = [safe_name(stem) for stem, _ in stems]
        names = tell_apart([(name, extension) for name, (_, extension) in zip(safe, stems, strict=True)])
        sources = [
            Source(name, printable(_label(e.path, e.member)), e.path, e.member, e.kind)
            for name, e in zip(names, self._entries, strict=True)
        ]
        notes = list(self._notes)
        if self._repeated:
            notes.append(f"{_count(self._repeated, 'path')} named more than once, read once")
        unsafe = [f"{stem} → {name}" for (stem, _), name in zip(stems, safe, strict=True) if stem != name]
        if unsafe:
            notes.append(f"{_count(len(unsafe), 'name')} changed to be safe as file names: {_few(unsafe)}")
        same = [f"{s.label} → {s.name}" for s, name in zip(sources, safe, strict=True) if s.name != name]
        if same:
            notes.append(f"{_count(len(same), 'name')} changed to be told apart: {_few(same)}")
        return Found(tuple(sources), tuple(self._problems), tuple(printable(note) for note in notes))

    def add_input(self, item: str | Path, relative: str | None = None) -> None:
        """Add one INPUT. `relative` is its path in a list, which is where it comes from then."""
        if not os.fspath(item):
            self._problems.append(InputError("an input is empty; a file, a folder or a zip archive is expected"))
            return
        path = Path(item)
        try:
            if path.is_dir():
                self._add_folder(path, prefix=f"{relative}/" if relative else "")
            else:
                self._add_file(path, relative)
        except (OSError, ValueError) as error:
            self._problems.append(unreadable(path, error))
        except InputError as problem:
            self._problems.append(problem)

    def _add_file(self, path: Path, relative: str | None) -> None:
        kind, size = peek(path)
        if kind is Kind.ZIP:
            self._add_archive(path, prefix=f"{PurePath(relative).with_suffix('').as_posix()}/" if relative else "")
        elif kind is Kind.TEXT and path.suffix.lower() in LIST_EXTENSIONS:
            if relative is not None:
                raise InputError("is a list within a list", path=path, hint="give it as an input of its own")
            self._add_list(path)
        elif kind not in SLICES:
            raise _wrong_kind(str(path), kind)
        elif size > MAX_FILE_BYTES:
            raise too_large(str(path), size, MAX_FILE_BYTES)
        else:
            self._add_entry(_Entry(relative or path.name, path, None, kind))

    def _add_list(self, path: Path) -> None:
        try:
            lines = decode_text(read_file(path, MAX_LIST_BYTES)).split("\n")
        except UnicodeDecodeError as error:
            raise InputError("is neither UTF-8 nor UTF-16 text", path=path, hint="save the list as UTF-8") from error
        wanted = [line.strip() for line in lines]
        wanted = [line for line in wanted if line and not line.startswith("#")]
        if not wanted:
            raise InputError("is a list that names no file", path=path, hint="write one path per line")
        for line in wanted:
            pure = PurePath(line)
            inside = not pure.is_absolute() and ".." not in pure.parts
            relative = pure.as_posix() if inside else pure.name
            self.add_input(path.parent / line, relative="" if relative == "." else relative)

    def _add_archive(self, path: Path, prefix: str) -> None:
        members, problems = archive.list_members(path)
        members.sort(key=lambda member: natural_key(member.path))
        self._problems += problems
        chosen = []
        for member in members:
            if member.kind is Kind.ZIP:
                title = _label(path, member.name)
                problem = InputError("is a zip archive within another", path=title, hint="give it as an input itself")
                self._problems.append(problem)
            else:
                chosen.append(_Entry(prefix + member.path, path, member.name, member.kind))
        self._add_contents(path, chosen, nothing=not members and not problems)

    def _add_folder(self, folder: Path, prefix: str) -> None:
        before = len(self._problems)
        files = sorted(self._walk(folder), key=lambda file: natural_key(file[0]))
        entries = []
        for relative, path in files:
            try:
                kind, size = peek(path)
                if kind in SLICES and size > MAX_FILE_BYTES:
                    raise too_large(str(path), size, MAX_FILE_BYTES)
            except InputError as problem:
                self._problems.append(problem)
            else:
                entries.append(_Entry(prefix + relative, path, None, kind))
        self._add_contents(folder, entries, nothing=not files and len(self._problems) == before)

    def _add_contents(self, where: Path, entries: Iterable[_Entry], *, nothing: bool) -> None:
        """Add what is in a folder or an archive: slices, problems for what only pretends to be, a note for the rest."""
        if nothing:
            raise InputError(f"is empty; {EXPECTED}", path=where, hint="check that it is the right one")
        skipped: list[_Entry] = []
        useful = False
        for entry in entries:
            if entry.kind in SLICES:
                self._add_entry(entry)
                useful = True
            elif split_extension(entry.relative)[1]:
                self._problems.append(_wrong_kind(_label(entry.path, entry.member), entry.kind))
                useful = True
            else:
                skipped.append(entry)
        if not skipped:
            return
        kinds = Counter(entry.kind for entry in skipped).most_common()
        counts = ", ".join(f"{count} {kind.name.replace('_', ' ')}" for kind, count in kinds)
        text = f"{_count(len(skipped), 'other file')} ({counts}): {_few([entry.relative for entry in skipped])}"
        if useful:
            self._notes.append(f"{where}: skipped {text}")
        else:
            hint = _HINTS.get(kinds[0][0], "check that it is the right one")
            raise InputError(f"holds no slice, only {text}; {EXPECTED}", path=where, hint=hint)

    def _add_entry(self, entry: _Entry) -> None:
        parent = entry.path.parent
        if parent not in self._parents:  # resolving asks the disk for every folder on the way
            self._parents[parent] = os.path.normcase(parent.resolve())
        key = self._parents[parent], os.path.normcase(entry.path.name), entry.member
        if key in self._known:
            self._repeated += 1
            return
        self._known.add(key)
        self._entries.append(entry)

    def _walk(self, folder: Path) -> list[tuple[str, Path]]:
        """Return the files below a folder, in no order, with their "/"-separated paths relative to it.

        Links to folders are followed last, and only where their folder was not read yet: it keeps its own name, and
        there is no end of a loop.
        """
        files: list[tuple[str, Path]] = []
        pending, links = deque([(folder, "")]), deque[tuple[Path, str]]()
        known: set[tuple[int, int]] = set()
        again = []
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
                self._problems.append(unreadable(where, error))
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
                        self._problems.append(InputError(f"is {what}, a file is expected", path=path, hint="remove it"))
                except OSError as error:
                    self._problems.append(unreadable(path, error))
        if again:
            links_text = f"{_count(len(again), 'link')} to folders that are read already, not followed"
            self._notes.append(f"{folder}: {links_text}: {_few(again)}")
        return files


def _label(path: Path, member: str | None) -> str:
    return str(path) if member is None else archive.label(path, member)


def _wrong_kind(label: str, kind: Kind) -> InputError:
    return InputError(f"is {kind.value}; {EXPECTED}", path=label, hint=_HINTS.get(kind, "convert it to PNG"))


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'s' * (number != 1)}"


def _few(items: Sequence[str]) -> str:
    """Return the first few of many, for a line."""
    return ", ".join(items[:3]) + (", …" if len(items) > 3 else "")
