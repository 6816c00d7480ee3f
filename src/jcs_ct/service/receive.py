"""An upload from the network to the disk, in pieces, within limits. Names that were sent are never names of files."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from contextlib import closing
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from jcs_ct.core.digests import digest_of_all
from jcs_ct.service.files import STUDY, Folders, numbered

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from python_multipart.multipart import MultipartCallbacks
    from starlette.requests import Request

    from jcs_ct.service.settings import Limits

_PIECE = 2**20
MOST_HEADERS = 2**15
RETRY_SECONDS = 60


class RefusedError(Exception):
    """A request that is not served.

    Attributes:
        status: Of HTTP.
        message: What was found, and what was expected.
        retry: After how many seconds it may be tried again; None: not.
    """

    def __init__(self, status: int, message: str, retry: int | None = None) -> None:
        self.status, self.message, self.retry = status, message, retry
        super().__init__(message)


@dataclass(frozen=True)
class Received:
    """What lies in the folder of an upload: how many files, of how many bytes.

    The digest is the SHA-256 of the one file, or one over the digests of all in their order.
    """

    files: int
    size: int
    digest: str


async def pieces(request: Request, limits: Limits, most: int, check: Callable[[], None]) -> AsyncIterator[bytes]:
    """Yield the body in pieces of some size, at most `most` bytes. `check` raises where the disk is full.

    Raises RefusedError where it is too long, too slow, or was cut short.
    """
    stated = request.headers.get("content-length", "0")
    if not stated.isdecimal() or int(stated) > most:
        raise RefusedError(413, f"has {stated} bytes, at most {most} are taken")
    stream, waiting, size = request.stream(), bytearray(), 0
    try:
        while chunk := await asyncio.wait_for(anext(stream, b""), limits.idle_seconds):
            size += len(chunk)
            if size > most:
                raise RefusedError(413, f"has more than {most} bytes")
            waiting += chunk
            if len(waiting) >= _PIECE:
                await run_in_threadpool(check)
                yield bytes(waiting)
                waiting.clear()
        # An empty piece ends the body; the server gives no other.
        if waiting:
            yield bytes(waiting)
    except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
        raise RefusedError(408, f"sent nothing for {limits.idle_seconds:.0f} seconds") from error
    except ClientDisconnect as error:
        raise RefusedError(400, "was cut short") from error


class _One:
    """A body that is one file."""

    def __init__(self, folder: Path) -> None:
        self._file: IO[bytes] = (folder / STUDY).open("xb")
        self._digest, self._size = hashlib.sha256(), 0

    def write(self, piece: bytes) -> None:
        self._digest.update(piece)
        self._size += self._file.write(piece)

    def end(self) -> Received:
        if not self._size:
            raise RefusedError(400, "is empty, a study was expected")
        self.close()
        return Received(1, self._size, self._digest.hexdigest())

    def close(self) -> None:
        self._file.close()


class _Form:
    """A form, or a multipart of DICOM parts: each part with a file's name is a file."""

    def __init__(self, folder: Path, boundary: bytes, limits: Limits, named: bool, skipped: frozenset[str]) -> None:
        self._folder, self._limits, self._named, self._skipped = folder, limits, named, skipped
        self._parts = folder / "parts"
        self._parts.mkdir()
        self._names: list[str] = []
        self._digests: list[bytes] = []
        self._size, self._ended = 0, False
        self._file: IO[bytes] | None = None
        self._digest = hashlib.sha256()
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._head = b"", b"", 0
        calls: MultipartCallbacks = {
            "on_part_begin": self._on_begin,
            "on_header_field": self._on_field,
            "on_header_value": self._on_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_part,
            "on_part_data": self._on_data,
            "on_part_end": self._on_part_end,
            "on_end": self._on_end,
        }
        self._parser = MultipartParser(boundary, calls)

    def write(self, piece: bytes) -> None:
        self._parser.write(piece)

    def _on_begin(self) -> None:
        self._headers.clear()
        self._head = 0

    def _on_field(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._field += data[start:end]

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._count(end - start)
        self._value += data[start:end]

    def _count(self, size: int) -> None:
        """Count the bytes of a part's headers, which memory holds; older parsers take any number of them."""
        self._head += size
        if self._head > MOST_HEADERS:
            raise RefusedError(400, f"is a form with a part whose headers have more than {MOST_HEADERS} bytes")

    def _on_header_end(self) -> None:
        self._headers[self._field.lower()] = self._value
        self._field, self._value = b"", b""

    def _on_part(self) -> None:
        facts = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        name = facts.get(b"filename")
        if name is None and self._named:
            if facts.get(b"name", b"").decode("utf-8", "replace") in self._skipped:
                return
            raise RefusedError(400, "is a form with a field that is not a file")
        if len(self._names) >= self._limits.upload_files:
            raise RefusedError(413, f"has more than {self._limits.upload_files} files")
        number = len(self._names)
        self._names.append(f"{number:06d}" if name is None else name.decode("utf-8", "replace"))
        self._digest = hashlib.sha256()
        self._file = (self._parts / str(number)).open("xb")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._file is not None:
            self._digest.update(memoryview(data)[start:end])
            self._size += self._file.write(data[start:end])

    def _on_part_end(self) -> None:
        if self._file is not None:
            self._digests.append(self._digest.digest())
        self.close()

    def _on_end(self) -> None:
        self._ended = True

    def end(self) -> Received:
        self._parser.finalize()
        if not self._ended or len(self._digests) != len(self._names):
            raise RefusedError(400, "is a form that was cut short")
        if not self._size:
            raise RefusedError(400, "is a form without a file, a study was expected")
        if len(self._names) == 1:
            (self._parts / "0").rename(self._folder / STUDY)
            self._parts.rmdir()
            return Received(1, self._size, self._digests[0].hex())
        # Two files may have the same name, in two folders of a disc: then the place in the form tells them apart.
        twice = len(set(self._names)) < len(self._names)
        names = [f"{i:06d}/{name}" for i, name in enumerate(self._names)] if twice else self._names
        order = numbered(names)
        numbers = {name: i for i, name in enumerate(names)}
        for name, neutral in order.items():
            (self._parts / str(numbers[name])).rename(self._parts / neutral)
        self._parts.rename(self._folder / STUDY)
        digest = digest_of_all((self._digests[numbers[name]] for name in order), in_order=True)
        return Received(len(names), self._size, digest)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


async def take(
    request: Request,
    folders: Folders,
    upload: str,
    limits: Limits,
    check: Callable[[], None],
    skipped: frozenset[str] = frozenset(),
) -> Received:
    """Write the body of a request into the folder of an upload, whose name is new, as `study` or `study/<number>`.

    Nothing is left of one that is refused. `check` raises where the disk is full. `skipped` names fields of a form that
    may be there and tell nothing. Raises RefusedError.
    """
    folder = folders.incoming(upload)
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    try:
        folder.mkdir()
        sink: _One | _Form
        if kind.startswith(b"multipart/"):
            if not options.get(b"boundary"):
                raise RefusedError(415, "is a form without a boundary")
            sink = _Form(folder, options[b"boundary"], limits, kind == b"multipart/form-data", skipped)
        else:
            sink = _One(folder)
        with closing(sink):
            try:
                async for piece in pieces(request, limits, limits.upload_bytes, check):
                    await run_in_threadpool(sink.write, piece)
                return await run_in_threadpool(sink.end)
            except FormParserError as error:
                raise RefusedError(400, "is not a readable form") from error
            except OSError as error:
                raise RefusedError(503, f"cannot be written: {error.strerror}", RETRY_SECONDS) from error
    except BaseException:  # also where the server is stopped
        shutil.rmtree(folder, ignore_errors=True)
        raise
