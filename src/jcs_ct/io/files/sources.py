"""From the INPUT arguments of a command to an ordered list of sources: slices, feature files, files of studies.

INPUT is a file, a folder (with its sub-folders), an archive (zip, tar, tar.gz), or a list: a text file called `.txt`,
`.lst` or `.list` with one path per line, relative to the list's folder, where blank lines and lines that begin with "#"
do not count. Only the heads of files are read here. What cannot be used becomes a problem, what a user should know a
note; the rest goes on.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError, printable
from jcs_ct.io.files import archive
from jcs_ct.io.files.kinds import ARCHIVES, FOR_SLICES, FOR_STUDIES, GRIDS, SLICES, Kind, Wanted
from jcs_ct.io.files.names import label, natural_key, safe_name, split_extension, tell_apart
from jcs_ct.io.files.opening import MAX_FILE_BYTES, open_regular, peek, read_file, read_text, too_large, unreadable
from jcs_ct.io.files.walk import MARK, MARKED, REPORT, count, few, result_around, results_note, walk
from jcs_ct.io.files.walk import SLICES as TABLE

if TYPE_CHECKING:
    from collections.abc import Sequence

LIST_EXTENSIONS = frozenset({".txt", ".lst", ".list"})
MAX_LIST_BYTES, SAVE_LIST = 64 * 2**20, "save the list as UTF-8"

HEADERS = {".mhd", ".nhdr", ".hdr"}
"""Extensions of headers whose values lie in a file of the same name beside them, with one of `VALUES`."""
VALUES = (".raw", ".zraw", ".img", ".raw.gz", ".img.gz")

_GIVE_STUDIES = "give the studies themselves"
_SAVE = "save the slices through the lung window as 8-bit PNG"
_HINTS = {
    **dict.fromkeys((Kind.DICOM, Kind.DICOM_GZIP, *GRIDS), _SAVE),
    Kind.ANALYZE: "convert it to NIfTI from the DICOM files that it was made of",
    Kind.GZIP: "unpack it",
    Kind.ARCHIVE: "unpack it and give the folder, or pack it as zip or tar.gz",
    **dict.fromkeys(ARCHIVES, "give it as an input itself"),
    Kind.HDF5: "save features in MATLAB with '-v7'",
    Kind.EMPTY: "copy it again",
    Kind.TEXT: f"a text file that lists paths must end in {' or '.join(sorted(LIST_EXTENSIONS))}",
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
        tar: The archive is a tar archive, packed or not.
        gzip: The file is packed with gzip.
        data: The bytes of what was never a file, but handed over by a program; `path` and `member` only name it then.
    """

    name: str
    label: str
    path: Path
    member: str | None
    kind: Kind
    tar: bool = False
    gzip: bool = False
    data: bytes | None = field(default=None, repr=False)

    @property
    def plain(self) -> bool:
        """Whether it is a file of its own that is not packed, of which any part can be read."""
        return self.member is None and not self.gzip

    def read(self, size: int | None = None) -> bytes:
        """Return the whole file, or its first `size` bytes: all where there are fewer, whatever is damaged further on.

        Raises InputError where it cannot be read, is damaged, or exceeds `MAX_FILE_BYTES`.
        """
        return archive.gunzip(self._stored(), self.label, size) if self.gzip else self._stored(size)

    def _stored(self, size: int | None = None) -> bytes:
        if self.data is not None:
            return self.data[:size]
        if self.member is not None:
            return (archive.read_tar_member if self.tar else archive.read_member)(self.path, self.member, size)
        if size is None:
            return read_file(self.path)
        with open_regular(self.path) as file:
            try:
                return file.read(size)
            except OSError as error:
                raise unreadable(self.path, error) from error


@dataclass(frozen=True)
class Found:
    """What the inputs of a command come to; problems (what cannot be used) and notes are a line each.

    Sources are in the order of the inputs; those of a folder or an archive in natural order (slice2 before slice10).
    """

    sources: tuple[Source, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]


def find_sources(inputs: Sequence[str | Path], wanted: Wanted = FOR_SLICES) -> Found:
    """Return the files of the wanted kinds that `inputs` (files, folders, archives and lists) name."""
    finder = _Finder(wanted)
    for item in inputs:
        finder.add_input(item)
    return finder.found()


def list_lines(path: Path) -> list[str]:
    """Return the paths that a list names, as they stand in it. Raises InputError where it names none."""
    wanted = [line.strip() for line in read_text(path, MAX_LIST_BYTES, SAVE_LIST).split("\n")]
    wanted = [line for line in wanted if line and not line.startswith("#")]
    if not wanted:
        raise InputError("is a list without a file", path=path, hint="write one path per line")
    return wanted


def _entry(relative: str, path: Path, member: str | None, kind: Kind, *, tar: bool = False) -> Source:
    """Return a source whose name is still its path with extension; what is packed by itself counts as what it holds."""
    gzip = kind is Kind.DICOM_GZIP
    stem = relative[:-3] if gzip and relative.lower().endswith(".gz") else relative
    return Source(stem, printable(label(path, member)), path, member, Kind.DICOM if gzip else kind, tar, gzip)


class _Finder:
    def __init__(self, wanted: Wanted) -> None:
        self._wanted = wanted
        self._entries: list[Source] = []
        self._problems: list[InputError] = []
        self._notes: list[str] = []
        self._parents: dict[Path, str] = {}
        self._known: set[tuple[str, str, str | None]] = set()
        self._repeated = 0

    def found(self) -> Found:
        """Name the entries and return the whole."""
        stems = [split_extension(entry.name) for entry in self._entries]
        safe = [safe_name(stem) for stem, _ in stems]
        names = tell_apart([(name, extension) for name, (_, extension) in zip(safe, stems, strict=True)])
        sources = [replace(entry, name=name) for name, entry in zip(names, self._entries, strict=True)]
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
            if self._wanted is FOR_STUDIES and (around := result_around(path)) is not None:
                message = f"lies in {around}, a result of this program; results are never read as input"
                raise InputError(message, path=path, hint=_GIVE_STUDIES)
            if path.is_dir():
                self._add_folder(path, prefix=f"{relative}/" if relative else "")
            else:
                self._add_file(path, relative)
        except (OSError, ValueError, RuntimeError) as error:  # before 3.13 a loop of links is a RuntimeError
            self._problems.append(unreadable(path, error))
        except InputError as problem:
            self._problems.append(problem)

    def _add_file(self, path: Path, relative: str | None) -> None:
        kind, size = peek(path)
        if kind in ARCHIVES:
            self._add_archive(path, kind, prefix=f"{_archive_stem(relative)}/" if relative else "")
        elif kind is Kind.TEXT and path.suffix.lower() in LIST_EXTENSIONS:
            if relative is not None:
                raise InputError("is a list within a list", path=path, hint="give it as an input of its own")
            self._add_list(path)
        elif (header := self._header_of(path, kind)) is not None:
            self._add_file(header, None if relative is None else str(PurePath(relative).with_name(header.name)))
        elif not self._reads(kind):
            raise self._wrong_kind(str(path), kind)
        elif size > MAX_FILE_BYTES and kind not in GRIDS:  # volumes are read piece by piece
            raise too_large(str(path), size, MAX_FILE_BYTES)
        else:
            self._add_entry(_entry(relative or path.name, path, None, kind))

    def _reads(self, kind: Kind) -> bool:
        return kind in self._wanted.kinds or (kind is Kind.DICOM_GZIP and Kind.DICOM in self._wanted.kinds)

    def _header_of(self, path: Path, kind: Kind) -> Path | None:
        """Return the header of a volume whose values a file holds, where volumes are wanted and there is one."""
        stem = _values_stem(path.name)
        if stem is None or self._reads(kind) or not GRIDS & self._wanted.kinds:
            return None
        for extension in (*sorted(HEADERS), ".hdr.gz"):
            for name in (stem + extension, stem + extension.upper()):
                header = path.with_name(name)
                if header.is_file() and (self._reads(found := peek(header)[0]) or found is Kind.ANALYZE):
                    return header
        return None

    def _add_list(self, path: Path) -> None:
        for line in list_lines(path):
            pure = PurePath(line)
            inside = not pure.is_absolute() and ".." not in pure.parts
            relative = pure.as_posix() if inside else pure.name
            self.add_input(path.parent / line, relative="" if relative == "." else relative)

    def _add_archive(self, path: Path, kind: Kind, prefix: str) -> None:
        tar = kind is not Kind.ZIP
        members, problems = (archive.list_tar if tar else archive.list_members)(path)
        members.sort(key=lambda member: natural_key(member.path))
        self._problems += archive.told_once(problems)
        chosen = []
        results = self._results_in(path, members, tar=tar)
        within = tuple(f"{folder}/" if folder else "" for folder in results)
        members = [member for member in members if not member.path.startswith(within)]
        for member in members:
            if member.kind in ARCHIVES:
                title, what = label(path, member.name), f"{member.kind.value} within another"
                self._problems.append(InputError(f"is {what}", path=title, hint="give it as an input itself"))
            else:
                chosen.append(_entry(prefix + member.path, path, member.name, member.kind, tar=tar))
        self._add_contents(path, chosen, results, nothing=not members and not problems)

    def _results_in(self, path: Path, members: Sequence[archive.Member], *, tar: bool) -> list[str]:
        """Return the folders within an archive that hold results of this program; "" is the archive itself."""
        tables = {PurePath(member.path).parent for member in members if PurePath(member.path).name == TABLE}
        found = []
        for member in members:
            pure = PurePath(member.path)
            if pure.name == REPORT and pure.parent in tables:
                read = archive.read_tar_member if tar else archive.read_member
                if MARK in read(path, member.name, MARKED):
                    found.append("" if pure.parent == PurePath() else pure.parent.as_posix())
        return found

    def _add_folder(self, folder: Path, prefix: str) -> None:
        before = len(self._problems)
        files, problems, notes, results = walk(folder)
        self._problems += problems
        self._notes += notes
        files.sort(key=lambda file: natural_key(file[0]))
        entries = []
        for relative, path in files:
            try:
                kind, size = peek(path)
                if self._reads(kind) and size > MAX_FILE_BYTES and kind not in GRIDS:
                    raise too_large(str(path), size, MAX_FILE_BYTES)
            except InputError as problem:
                self._problems.append(problem)
            else:
                entries.append(_entry(prefix + relative, path, None, kind))
        self._add_contents(folder, entries, results, nothing=not files and len(self._problems) == before)

    def _add_contents(self, where: Path, entries: Sequence[Source], results: Sequence[str], *, nothing: bool) -> None:
        """Add what is in a folder or an archive: slices, problems for what only pretends to be, a note for the rest.

        `results` are the folders in it with results of this program, which are left out already.
        """
        if results and not any(self._wanted.promised(e.name) or self._reads(e.kind) for e in entries):
            message = "holds results of this program and nothing else to read; results are never read as input"
            raise InputError(message, path=where, hint=_GIVE_STUDIES)
        if results:
            self._notes.append(results_note(where, [name or where.name for name in results]))
        if nothing:
            raise InputError(f"is empty; {self._wanted.expected}", path=where, hint="check that it is the right one")
        skipped: list[Source] = []
        useful = False
        headed = {_header_stem(entry.name) for entry in entries if entry.kind in GRIDS & self._wanted.kinds}
        for entry in entries:
            if entry.kind not in self._wanted.kinds and _values_stem(entry.name) in headed - {None}:
                continue  # is read with its header
            if entry.kind in self._wanted.kinds:
                self._add_entry(entry)
                useful = True
            elif self._wanted.promised(entry.name) or (entry.kind is Kind.ANALYZE and GRIDS & self._wanted.kinds):
                self._problems.append(self._wrong_kind(label(entry.path, entry.member), entry.kind))
                useful = True
            else:
                skipped.append(entry)
        if not skipped:
            return
        kinds = Counter(entry.kind for entry in skipped).most_common()
        counts = ", ".join(f"{number} {kind.name.replace('_', ' ')}" for kind, number in kinds)
        text = f"{count(len(skipped), 'other file')} ({counts}): {few([entry.name for entry in skipped])}"
        if useful:
            self._notes.append(f"{where}: skipped {text}")
        else:
            hint = _HINTS.get(kinds[0][0], "check that it is the right one")
            message = f"holds no {self._wanted.what}, only {text}; {self._wanted.expected}"
            raise InputError(message, path=where, hint=hint)

    def _add_entry(self, entry: Source) -> None:
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


def _header_stem(relative: str) -> str | None:
    """Return the name of a header without its extension, or None where it is no header of values beside it."""
    name = relative[:-3] if relative.lower().endswith(".hdr.gz") else relative
    stem, dot, extension = name.rpartition(".")
    return stem if dot + extension.lower() in HEADERS else None


def _values_stem(relative: str) -> str | None:
    """Return the name of a file of values without its extension, or None where it is not called so."""
    ending = next((ending for ending in reversed(VALUES) if relative.lower().endswith(ending)), None)
    return None if ending is None else relative[: -len(ending)]


def _archive_stem(relative: str) -> str:
    pure = PurePath(relative)
    if pure.suffix.lower() == ".gz" and pure.stem.lower().endswith(".tar"):
        pure = pure.with_suffix("")
    return pure.with_suffix("").as_posix()
