"""Zip archives, read member by member: nothing is extracted to disk, and no more unpacked than the limits allow."""

from __future__ import annotations

import stat
import threading
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from io import SEEK_SET, BytesIO
from typing import IO, TYPE_CHECKING, cast

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.kinds import HEAD, Kind, sniff
from jcs_ct.io.files.names import inner_path, is_litter, label, leads_out
from jcs_ct.io.files.opening import MAX_FILE_BYTES, open_regular, too_large, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from io import FileIO
    from pathlib import Path

MAX_MEMBERS = 100_000
MAX_DIRECTORY_BYTES = 16 * 2**20  # Python holds some 13 times as much for it
MAX_TOTAL_BYTES = 64 * 2**30  # declared, of all members together
MAX_RATIO = 200  # unpacked to packed; pictures reach 20, feature files 30
RATIO_COUNTS_FROM = 16 * 2**20  # a blank bitmap of a slice's size packs 1000 : 1 and harms nobody

MOST_ALIKE = 3  # of a study packed with a password every slice is refused, for one reason
_CHUNK = 2**20
# Their decoders hand out pieces of bounded size. Those of bzip2 and LZMA in `zipfile` do not.
_METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})


@dataclass(frozen=True)
class Member:
    """One file in an archive: what that calls it, the same as a "/"-separated path, and what it is."""

    name: str
    path: str
    kind: Kind


def told_once(problems: Sequence[InputError]) -> list[InputError]:
    """Return problems of members; of more than three that say the same, the first, with the number of the others."""
    kinds: dict[tuple[str, str | None], list[InputError]] = {}
    for problem in problems:
        kinds.setdefault((problem.message, problem.hint), []).append(problem)
    found = []
    for (message, hint), alike in kinds.items():
        text = f"{message}; {len(alike) - 1:,} more members are alike"
        found += alike if len(alike) <= MOST_ALIKE else [InputError(text, path=alike[0].path, hint=hint)]
    return found


def list_members(path: Path) -> tuple[list[Member], list[InputError]]:
    """Return the files in an archive that can be read, in its own order, and the problems of those that cannot.

    Folders, hidden files and litter (`__MACOSX` …) are in neither. Raises InputError where the archive as a whole is
    unreadable, damaged, or beyond the limits.
    """
    members, problems = [], []
    with _opened(path) as archive:
        infos = archive.infolist()
        total = sum(info.file_size for info in infos)
        if len(infos) > MAX_MEMBERS:
            raise bomb(path, f"holds {len(infos):,} members, at most {MAX_MEMBERS:,} are read")
        if total > MAX_TOTAL_BYTES:
            raise bomb(path, f"unpacks to {total / 2**30:,.0f} GiB, at most {MAX_TOTAL_BYTES >> 30} GiB are read")
        overlapping = _overlapping(infos)
        for info in infos:
            unsafe, member = leads_out(info.orig_filename), inner_path(info.orig_filename)
            if info.orig_filename.endswith(("/", "\\")) or not info.orig_filename or (not unsafe and is_litter(member)):
                continue
            name = label(path, info.orig_filename)
            try:
                _refuse(info, name, unsafe)
                if archive.getinfo(info.filename) is not info:
                    raise InputError("occurs twice in the archive", path=name, hint="the last one is read")
                if info.header_offset in overlapping:
                    raise InputError("overlaps another member, as in a zip bomb", path=name, hint="pack it again")
                with _damage(name), archive.open(info) as file:
                    members.append(Member(info.filename, member, sniff(file.read(HEAD))))
            except InputError as problem:
                problems.append(problem)
    return members, problems


def read_member(path: Path, name: str, size: int | None = None, *, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return a whole member, checked against its CRC, or its first `size` bytes, unchecked.

    Raises:
        InputError: The archive or the member is missing, damaged, refused as by `list_members`, or unpacks to more than
            `limit` bytes (as they come: declared sizes may lie) or to more than `MAX_RATIO` times its packed size.
    """
    title = label(path, name)
    with _opened(path) as archive, _damage(title):
        info = _member(archive, name, title)
        with archive.open(info) as file:
            if size is not None:
                return file.read(size)
            data = BytesIO()
            copy_counted(file, data, info.compress_size, title, limit)
        return data.getvalue()


class _Reopened:
    """A file for `zipfile` that is open only while it is used.

    So a cached archive keeps no file descriptor: it can be deleted on Windows, and no position is shared with a fork.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def _open(self) -> FileIO:
        if self._file is None:
            self._file = open_regular(self._path)
        return self._file

    def read(self, size: int = -1) -> bytes:
        if size > MAX_DIRECTORY_BYTES:  # members are read in smaller pieces, so this is the directory
            raise bomb(self._path, f"has a directory of {size:,} bytes, at most {MAX_DIRECTORY_BYTES:,} are read")
        return self._open().read(size)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        return self._open().seek(offset, whence)

    def tell(self) -> int:
        return self._open().tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


class _Latest(threading.local):
    """The archive that this thread read last, so that its directory is parsed once and not for every member."""

    key: tuple[object, ...] = ()
    file: _Reopened
    archive: zipfile.ZipFile


_latest = _Latest()


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    key = (str(path.absolute()), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    if _latest.key != key:
        file = _Reopened(path)
        try:
            with _damage(str(path)):
                archive = zipfile.ZipFile(cast("IO[bytes]", file))
        finally:
            file.close()
        _latest.key, _latest.file, _latest.archive = key, file, archive
    try:
        yield _latest.archive
    finally:
        _latest.file.close()


@contextmanager
def _damage(name: str) -> Iterator[None]:
    """Turn whatever `zipfile` raises on hostile bytes into a problem of `name`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # zlib, struct, zipfile, codec and other errors, and more with each Python
        reason = str(error) or type(error).__name__
        raise InputError(f"cannot be unzipped: {reason}", path=name, hint="copy or pack it again") from error


def bomb(name: str | Path, message: str) -> InputError:
    """Return the problem of an archive that unpacks to more than it should."""
    return InputError(message, path=name, hint="unpack it and give the folder, if you trust it")


def copy_counted(source: IO[bytes], target: IO[bytes], packed: int, title: str, limit: int = MAX_FILE_BYTES) -> None:
    """Copy what is unpacked from `packed` bytes, counted as it comes; messages call it `title`.

    Raises InputError where it is more than `limit` bytes, or more than `MAX_RATIO` times its packed size.
    """
    size = 0
    while chunk := source.read(_CHUNK):
        size += target.write(chunk)
        if size > limit:
            whole = limit > MAX_FILE_BYTES
            raise bomb(title, f"unpacks to more than {limit >> 30} GiB") if whole else too_large(title, size, limit)
        if size > RATIO_COUNTS_FROM and size > MAX_RATIO * packed:
            raise bomb(title, f"unpacks to more than {MAX_RATIO} times its size")


def _member(archive: zipfile.ZipFile, name: str, title: str) -> zipfile.ZipInfo:
    """Return the entry of a member. Raises InputError if it is gone, or must not be read."""
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise InputError("is not in the archive any more", path=title, hint="run again") from None
    _refuse(info, title, leads_out(info.orig_filename))
    return info


def _refuse(info: zipfile.ZipInfo, name: str, unsafe: bool) -> None:
    """Raise for a member that is not even opened."""
    if unsafe:
        raise InputError("has a name that leads out of the archive", path=name, hint="pack it under a relative name")
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise InputError("is a symbolic link in the archive", path=name, hint="pack the file it points to")
    if info.flag_bits & 0x41:
        raise InputError("is encrypted", path=name, hint="pack it without a password")
    if info.compress_type not in _METHODS:
        message = f"is packed by zip method {info.compress_type}; stored (0) or deflated (8) is expected"
        raise InputError(message, path=name, hint="pack it as an ordinary zip")
    if info.file_size > MAX_FILE_BYTES:
        raise too_large(name, info.file_size, MAX_FILE_BYTES)


def _overlapping(infos: Sequence[zipfile.ZipInfo]) -> set[int]:
    """Return where members begin that share bytes with an earlier one, or that a later one shares bytes with."""
    found: set[int] = set()
    end, owner = -1, -1
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            found |= {info.header_offset, owner}
        # 30 bytes of local header and the name; what else is there only makes it longer
        here = info.header_offset + 30 + len(info.orig_filename) + info.compress_size
        if here > end:
            end, owner = here, info.header_offset
    return found
