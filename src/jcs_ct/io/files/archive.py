"""Archives, read member by member, and files packed with gzip: no more is unpacked than the limits allow.

Nothing is extracted under a name. A tar archive has no directory: it is walked through once, and the places of its
members are kept. One that is packed as a whole cannot be read from the middle, so it is unpacked once into a temporary
file without a name.
"""

from __future__ import annotations

import gzip
import os
import stat
import tarfile
import tempfile
import threading
import weakref
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import SEEK_SET, BufferedReader, BytesIO
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
MAX_HEADER_BYTES = 16 * 2**20  # of what a tar archive says of one member
MAX_TOTAL_BYTES = 64 * 2**30  # declared, of all members together
MAX_RATIO = 200  # unpacked to packed; pictures reach 20, feature files 30
RATIO_COUNTS_FROM = 16 * 2**20  # a blank bitmap of a slice's size packs 1000 : 1 and harms nobody

MOST_ALIKE = 3  # of a study packed with a password every slice is refused, for one reason
_CHUNK = 2**20
_GZIP = b"\x1f\x8b"
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
        try:
            info = archive.getinfo(name)
        except KeyError:
            raise InputError("is not in the archive any more", path=title, hint="run again") from None
        _refuse(info, title, leads_out(info.orig_filename))
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


def _as_it_is(path: Path) -> tuple[object, ...]:
    """Return what a file is known by as long as nobody changes it. Raises InputError where it is not there."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    return str(path.absolute()), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    key = _as_it_is(path)
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


def gunzip(data: bytes, title: str, size: int | None = None) -> bytes:
    """Return what a gzip file holds, of which `data` is the whole, or its first `size` bytes, whatever follows.

    Raises InputError where it is damaged or cut short, or holds more than the limits allow.
    """
    unpacked = BytesIO()
    with _tar_damage(title), gzip.GzipFile(fileobj=BytesIO(data)) as file:
        if size is not None:
            return file.read(size)
        copy_counted(cast("IO[bytes]", file), unpacked, len(data), title)
    return unpacked.getvalue()


def list_tar(path: Path) -> tuple[list[Member], list[InputError]]:
    """Return the files in a tar archive that can be read, in its own order, and the problems of those that cannot.

    Folders, hidden files and litter are in neither. Raises InputError where the archive as a whole is unreadable,
    damaged, or beyond the limits.
    """
    unpacked = _opened_tar(path)
    members = [
        Member(name, inner_path(name), sniff(unpacked.read(path, place, min(size, HEAD))))
        for name, (place, size) in unpacked.places.items()
    ]
    return members, list(unpacked.problems)


def read_tar_member(path: Path, name: str, size: int | None = None) -> bytes:
    """Return a member of a tar archive, or its first `size` bytes.

    Raises InputError where the archive is unreadable, damaged, or beyond the limits, or has no such member any more.
    """
    unpacked = _opened_tar(path)
    if name not in unpacked.places:
        raise InputError("is not in the archive any more", path=label(path, name), hint="run again")
    place, whole = unpacked.places[name]
    return unpacked.read(path, place, whole if size is None else min(size, whole))


@dataclass
class _Unpacked:
    """Where the members of an archive lie, and the temporary file that holds them; None for a plain archive."""

    file: IO[bytes] | None
    places: dict[str, tuple[int, int]] = field(default_factory=dict)
    problems: list[InputError] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def read(self, path: Path, place: int, size: int) -> bytes:
        """Return bytes of the unpacked archive."""
        with _tar_damage(str(path)):
            if self.file is None:
                with BufferedReader(open_regular(path)) as file:
                    file.seek(place)
                    data = file.read(size)
            elif hasattr(os, "pread"):  # moves no position, which a forked process would share
                parts, got = [], 0
                while got < size and (part := os.pread(self.file.fileno(), size - got, place + got)):
                    parts.append(part)
                    got += len(part)
                data = b"".join(parts)
            else:
                with self.lock:
                    self.file.seek(place)
                    data = self.file.read(size)
            if len(data) < size:
                raise EOFError
        return data


_latest_tar: list[tuple[tuple[object, ...], _Unpacked]] = []  # the archive read last
_tar_lock = threading.Lock()


def _opened_tar(path: Path) -> _Unpacked:
    key = _as_it_is(path)
    with _tar_lock:
        if not _latest_tar or _latest_tar[0][0] != key:
            _latest_tar.clear()
            _latest_tar.append((key, _unpack_tar(path)))
        return _latest_tar[0][1]


def _unpack_tar(path: Path) -> _Unpacked:
    title = str(path)
    with _tar_damage(title), BufferedReader(open_regular(path)) as raw:
        packed = raw.peek(2)[:2] == _GZIP
        if not packed:
            unpacked = _Unpacked(None)
            _walk_tar(path, cast("IO[bytes]", raw), unpacked)
            return unpacked
        file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  # open as long as somebody may read it
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                copy_counted(cast("IO[bytes]", stream), file, os.fstat(raw.fileno()).st_size, title, MAX_TOTAL_BYTES)
            file.flush()
            unpacked = _Unpacked(file)
            _walk_tar(path, file, unpacked)
        except BaseException:
            file.close()
            raise
        weakref.finalize(unpacked, file.close)
        return unpacked


def _walk_tar(path: Path, file: IO[bytes], unpacked: _Unpacked) -> None:
    """Note where the members lie."""
    end = file.seek(0, os.SEEK_END)
    file.seek(0)
    total = count = 0
    with tarfile.open(fileobj=cast("IO[bytes]", _BoundedHeaders(path, file)), mode="r:") as archive:
        while (info := archive.next()) is not None:
            vars(archive)["members"] = []  # it would keep all
            count += 1
            total += max(0, info.size)
            if count > MAX_MEMBERS:
                raise bomb(path, f"holds more than {MAX_MEMBERS:,} members, at most these are read")
            if total > MAX_TOTAL_BYTES:
                raise bomb(path, f"unpacks to more than {MAX_TOTAL_BYTES >> 30} GiB")
            unsafe = leads_out(info.name)
            if info.isdir() or (not unsafe and is_litter(inner_path(info.name))):
                continue
            try:
                _refuse_tar(info, label(path, info.name), end, unsafe=unsafe)
            except InputError as problem:
                unpacked.problems.append(problem)
                continue
            if info.name in unpacked.places:
                title = label(path, info.name)
                unpacked.problems.append(
                    InputError("occurs twice in the archive", path=title, hint="the last one is read")
                )
            unpacked.places[info.name] = (info.offset_data, info.size)


def _refuse_tar(info: tarfile.TarInfo, name: str, end: int, *, unsafe: bool) -> None:
    """Raise for a member that is not read."""
    if unsafe:
        raise InputError("has a name that leads out of the archive", path=name, hint="pack it under a relative name")
    if info.issym() or info.islnk():
        raise InputError("is a link in the archive", path=name, hint="pack the file it points to")
    if not info.isreg() or info.issparse():
        raise InputError("is not an ordinary file in the archive", path=name, hint="pack ordinary files")
    if info.size > MAX_FILE_BYTES:
        raise too_large(name, info.size, MAX_FILE_BYTES)
    if info.size < 0 or info.offset_data + info.size > end:
        raise InputError("is cut short: the archive ends before it does", path=name, hint="copy or pack it again")


class _BoundedHeaders:
    """A file for `tarfile`, which reads as much as a member says its header has."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._path, self._file = path, file

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > MAX_HEADER_BYTES:
            raise bomb(self._path, f"has a header of {size:,} bytes, at most {MAX_HEADER_BYTES:,} are read")
        return self._file.read(size)

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


@contextmanager
def _tar_damage(name: str) -> Iterator[None]:
    """Turn whatever is raised on hostile bytes into a problem of `name`."""
    try:
        yield
    except InputError:
        raise
    except (EOFError, gzip.BadGzipFile, zlib.error, tarfile.TarError) as error:
        reason = "it ends too early" if isinstance(error, EOFError) else str(error) or type(error).__name__
        raise InputError(f"cannot be unpacked: {reason}", path=name, hint="copy or pack it again") from error
    except OSError as error:
        raise InputError(f"cannot be unpacked: {error.strerror or error}", path=name, hint="check the disk") from error
    except Exception as error:  # tarfile raises more kinds on hostile headers
        raise InputError(f"cannot be unpacked: {type(error).__name__}", path=name, hint="copy it again") from error
