"""Arrays that wait in an anonymous temporary file: decoded slices that are needed once more, without their memory."""

from __future__ import annotations

import tempfile
import threading
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

IN_MEMORY = 8 * 2**20  # bytes; what is smaller never becomes a file


class Spool:
    """Arrays by number, which pickling carries along. The file has no name and is gone with this object.

    Several threads may use it.
    """

    def __init__(self, arrays: Mapping[int, NDArray[Any]] | None = None) -> None:
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115  # closed when this object goes
        weakref.finalize(self, self._file.close)
        self._places: dict[int, tuple[int, tuple[int, ...], str]] = {}
        self._lock = threading.Lock()
        for number, array in (arrays or {}).items():
            self.put(number, array)

    def __contains__(self, number: int) -> bool:
        return number in self._places

    def __reduce__(self) -> tuple[Any, ...]:
        return Spool, ({number: self.get(number) for number in self._places},)

    def put(self, number: int, array: NDArray[Any]) -> None:
        """Keep an array under a number. Raises OutputError where the disk refuses it."""
        with self._lock:
            try:
                start = self._file.seek(0, 2)
                self._file.write(np.ascontiguousarray(array).data)
            except OSError as error:
                raise OutputError(
                    f"decoded slices cannot be kept in {tempfile.gettempdir()}: {error.strerror or error}",
                    hint="free some space there, or set TMPDIR to another folder",
                ) from error
            self._places[number] = (start, array.shape, array.dtype.str)

    def get(self, number: int) -> NDArray[Any]:
        """Return the array of a number. Raises KeyError for one that was not put here."""
        start, shape, kind = self._places[number]
        with self._lock:
            self._file.seek(start)
            data = self._file.read(int(np.prod(shape)) * np.dtype(kind).itemsize)
        return np.frombuffer(data, kind).reshape(shape)
