"""All files of a study's results as one zip, made while it is sent: neither memory nor disk holds it."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from jcs_ct.service.files import STUDY

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jcs_ct.service.files import ResultFile

_PIECE = 2**20


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
    """Yield a zip of the files. They are packed already, so they are stored as they are."""
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_STORED) as archive:
        for file in files:
            info = zipfile.ZipInfo.from_file(file.path, f"{STUDY}/{file.name}")
            with file.path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
                while piece := source.read(_PIECE):
                    target.write(piece)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()
