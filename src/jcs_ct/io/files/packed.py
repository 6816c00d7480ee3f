"""Files packed with gzip, and tar archives: unpacked under the limits of zip archives, and under no name of their own.

A tar archive has no directory: it is walked through once, and the places of its members are kept. One that is packed
as a whole cannot be read from the middle, so it is unpacked once into a temporary file without a name.
"""

from __future__ import annotations

import gzip
import os
import tarfile
import tempfile
import threading
import weakref
import zlib
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import SEEK_SET, BufferedReader, BytesIO
from typing import IO, TYPE_CHECKING, cast

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.archive import MAX_MEMBERS, MAX_TOTAL_BYTES, Member, bomb, copy_counted
from jcs_ct.io.files.kinds import HEAD, sniff
from jcs_ct.io.files.names import inner_path, is_litter, label, leads_out
from jcs_ct.io.files.opening import MAX_FILE_BYTES, open_regular, too_large, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_HEADER_BYTES = 16 * 2**20  # of what a tar archive says of one member
_GZIP = b"\x1f\x8b"


def gunzip(data: bytes, title: str) -> bytes:
    """Return what a gzip file holds, of which `data` is the whole; messages call it `title`.

    Raises InputError where it is damaged or cut short, or holds more than the limits allow.
    """
    unpacked = BytesIO()
    with _damage(title), gzip.GzipFile(fileobj=BytesIO(data)) as file:
        copy_counted(cast("IO[bytes]", file), unpacked, len(data), title)
    return unpacked.getvalue()


def gunzip_start(data: bytes, size: int, title: str) -> bytes:
    """Return the first `size` bytes of what a gzip file holds, or all. Raises as `gunzip`, but for later damage."""
    with _damage(title), gzip.GzipFile(fileobj=BytesIO(data)) as file:
        return file.read(size)


def list_tar(path: Path) -> tuple[list[Member], list[InputError]]:
    """Return the files in a tar archive that can be read, in its own order, and the problems of those that cannot.

    Folders, hidden files and litter are in neither. Raises InputError where the archive as a whole is unreadable,
    damaged, or beyond the limits.
    """
    unpacked = _opened(path)
    members = [
        Member(name, inner_path(name), sniff(unpacked.read(path, place, min(size, HEAD))))
        for name, (place, size) in unpacked.places.items()
    ]
    return members, list(unpacked.problems)


def read_tar_member(path: Path, name: str, size: int | None = None) -> bytes:
    """Return a member of a tar archive, or its first `size` bytes.

    Raises InputError where the archive is unreadable, damaged, or beyond the limits, or has no such member any more.
    """
    unpacked = _opened(path)
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
        with _damage(str(path)):
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


_latest: list[tuple[tuple[object, ...], _Unpacked]] = []  # the archive read last
_lock = threading.Lock()


def _opened(path: Path) -> _Unpacked:
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from error
    key = (str(path.absolute()), status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
    with _lock:
        if not _latest or _latest[0][0] != key:
            _latest.clear()
            _latest.append((key, _unpack(path)))
        return _latest[0][1]


def _unpack(path: Path) -> _Unpacked:
    title = str(path)
    with _damage(title), BufferedReader(open_regular(path)) as raw:
        packed = raw.peek(2)[:2] == _GZIP
        if not packed:
            unpacked = _Unpacked(None)
            _walk(path, cast("IO[bytes]", raw), unpacked)
            return unpacked
        file = cast("IO[bytes]", tempfile.TemporaryFile())  # noqa: SIM115  # open as long as somebody may read it
        try:
            with gzip.GzipFile(fileobj=raw) as stream:
                copy_counted(cast("IO[bytes]", stream), file, os.fstat(raw.fileno()).st_size, title, MAX_TOTAL_BYTES)
            file.flush()
            unpacked = _Unpacked(file)
            _walk(path, file, unpacked)
        except BaseException:
            file.close()
            raise
        weakref.finalize(unpacked, file.close)
        return unpacked


def _walk(path: Path, file: IO[bytes], unpacked: _Unpacked) -> None:
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
                _refuse(info, label(path, info.name), end, unsafe=unsafe)
            except InputError as problem:
                unpacked.problems.append(problem)
                continue
            if info.name in unpacked.places:
                title = label(path, info.name)
                unpacked.problems.append(
                    InputError("occurs twice in the archive", path=title, hint="the last one is read")
                )
            unpacked.places[info.name] = (info.offset_data, info.size)


def _refuse(info: tarfile.TarInfo, name: str, end: int, *, unsafe: bool) -> None:
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
def _damage(name: str) -> Iterator[None]:
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
