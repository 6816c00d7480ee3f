"""From the INPUT arguments of a command to an ordered list of sources: slices, feature files, files of studies.

INPUT is a file, a folder (with its sub-folders), a zip archive, or a list: a text file called `.txt`, `.lst` or `.list`
with one path per line, relative to the list's folder, where blank lines and lines that begin with "#" do not count.
Only the heads of files are read here. What cannot be used becomes a problem, what a user should know a note; the rest
goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.io.files import archive
from jcs_ct.io.files.kinds import FOR_SLICES, SLICES, Kind, Wanted, decode_text
from jcs_ct.io.files.names import natural_key, printable, safe_name, split_extension, tell_apart
from jcs_ct.io.files.opening import MAX_FILE_BYTES, open_regular, peek, read_file, too_large, unreadable
from jcs_ct.io.files.walk import count, few, walk

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
    """One file that is still to be read: a slice, stage-1 features, an image of a study, a volume.

    Attributes:
        name: Stem of everything written for it: "/"-separated, relative, without extension, distinct in `Found`, and
            safe as a file name on every system. Below a folder, an archive or a list, sub-folders are kept.
        label: What a message calls it: the path, or "archive.zip!member"; one line.
        path: The file, or the archive it is in.
        member: Its name in the archive; None for a file of its own.
        kind: What it is: one of those that were wanted.
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

    def start(self, size: int) -> bytes:
        """Return the first `size` bytes, or all where there are fewer. Raises as `read`, but for damage further on."""
        if self.member is not None:
            return archive.read_start(self.path, self.member, size)
        with open_regular(self.path) as file:
            try:
                return file.read(size)
            except OSError as error:
                raise unreadable(self.path, error) from error


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


def find_sources(inputs: Sequence[str | Path], wanted: Wanted = FOR_SLICES) -> Found:
    """Return the files of the wanted kinds that `inputs` name: slices and feature files unless told otherwise.

    Args:
        inputs: Files, folders, zip archives and lists.
        wanted: What the command reads (`jcs_ct.io.files.kinds`).
    """
    finder = _Finder(wanted)
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
    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
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
            notes.append(f"{count(self._repeated, 'path')} named more than once, read once")
        # Nothing is named after a file of a study, so nobody needs to know what became of its name.
        unsafe = [
            f"{stem} → {name}"
            for (stem, _), name, e in zip(stems, safe, self._entries, strict=True)
            if stem != name and e.kind in SLICES
        ]
        if unsafe:
            notes.append(f"{count(len(unsafe), 'name')} changed to be safe as file names: {few(unsafe)}")
        same = [
            f"{s.label} → {s.name}"
            for s, name in zip(sources, safe, strict=True)
            if s.name != name and s.kind in SLICES
        ]
        if same:
            notes.append(f"{count(len(same), 'name')} changed to be told apart: {few(same)}")
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
        elif kind not in self._wanted.kinds:
            raise self._wrong_kind(str(path), kind)
        elif size > MAX_FILE_BYTES and kind is not Kind.NIFTI:  # volumes are read piece by piece
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
        files, problems, notes = walk(folder)
        self._problems += problems
        self._notes += notes
        files.sort(key=lambda file: natural_key(file[0]))
        entries = []
        for relative, path in files:
            try:
                kind, size = peek(path)
                if kind in self._wanted.kinds and size > MAX_FILE_BYTES and kind is not Kind.NIFTI:
                    raise too_large(str(path), size, MAX_FILE_BYTES)
            except InputError as problem:
                self._problems.append(problem)
            else:
                entries.append(_Entry(prefix + relative, path, None, kind))
        self._add_contents(folder, entries, nothing=not files and len(self._problems) == before)

    def _add_contents(self, where: Path, entries: Iterable[_Entry], *, nothing: bool) -> None:
        """Add what is in a folder or an archive: slices, problems for what only pretends to be, a note for the rest."""
        if nothing:
            raise InputError(f"is empty; {self._wanted.expected}", path=where, hint="check that it is the right one")
        skipped: list[_Entry] = []
        useful = False
        for entry in entries:
            if entry.kind in self._wanted.kinds:
                self._add_entry(entry)
                useful = True
            elif self._wanted.promised(entry.relative):
                self._problems.append(self._wrong_kind(_label(entry.path, entry.member), entry.kind))
                useful = True
            else:
                skipped.append(entry)
        if not skipped:
            return
        kinds = Counter(entry.kind for entry in skipped).most_common()
        counts = ", ".join(f"{number} {kind.name.replace('_', ' ')}" for kind, number in kinds)
        text = f"{count(len(skipped), 'other file')} ({counts}): {few([entry.relative for entry in skipped])}"
        if useful:
            self._notes.append(f"{where}: skipped {text}")
        else:
            hint = _HINTS.get(kinds[0][0], "check that it is the right one")
            message = f"holds no {self._wanted.what}, only {text}; {self._wanted.expected}"
            raise InputError(message, path=where, hint=hint)

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

    def _wrong_kind(self, label: str, kind: Kind) -> InputError:
        hint = _HINTS.get(kind, self._wanted.hint)
        return InputError(f"is {kind.value}; {self._wanted.expected}", path=label, hint=hint)


def _label(path: Path, member: str | None) -> str:
    return str(path) if member is None else archive.label(path, member)
