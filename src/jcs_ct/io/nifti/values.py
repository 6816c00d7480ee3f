"""The voxels of a volume as Hounsfield units, and whether they are such.

An uncompressed file on disk is mapped and read slice by slice. Any other is unpacked once, piece by piece, into an
int16 array (600 slices of 512 × 512 are 300 MiB); only that of the file used last is kept, however many are open.
"""

from __future__ import annotations

import gzip
import threading
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedIOBase, BufferedReader, BytesIO
from typing import IO, TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.geometry import HIGHEST, LOWEST
from jcs_ct.core.memory import available_memory, gib
from jcs_ct.io.files.opening import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from jcs_ct.io.files.sources import Source

MAX_RATIO, RATIO_COUNTS_FROM = 200, 2**26  # unpacked to packed; CT packs 2 : 1 to 20 : 1
FEW_VALUES = 64  # distinct values, up to which a volume is a label map
LEAST_AIR, LEAST_TISSUE = 0.005, 0.01  # shares of the voxels
_GZIP = b"\x1f\x8b"


Packing = Literal["gzip or none", "none", "gzip", "zlib"]
"""How values are packed; the first is told from the file's first bytes."""


def broken(what: str, label: str | None = None, form: str = "NIfTI") -> InputError:
    """Return the problem of a damaged file."""
    return InputError(f"is a damaged {form} file: {what}", path=label, hint="copy or convert it again")


class _Inflated(BufferedIOBase):
    """What a zlib stream unpacks to, piece by piece; `gzip.GzipFile` reads only those with a header of gzip."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw, self._inflate, self._rest = raw, zlib.decompressobj(), b""

    def readable(self) -> bool:
        """Whether it can be read: yes."""
        return True

    def read(self, size: int | None = -1, /) -> bytes:
        """Return `size` bytes, fewer only at the end."""
        assert size is not None  # noqa: S101  # nobody asks for all of it
        assert size >= 0  # noqa: S101
        parts, got = [], 0
        while got < size and not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._raw.read(2**16)
            if not packed:
                raise EOFError
            parts.append(self._inflate.decompress(packed, size - got))
            got += len(parts[-1])
        return b"".join(parts)


@contextmanager
def opened(
    source: Source, packing: Packing = "gzip or none", start: int = 0, form: str = "NIfTI"
) -> Iterator[tuple[IO[bytes], int, bool]]:
    """Yield the unpacked bytes of a file as a stream, its size before (out of an archive), and whether it was packed.

    The first `start` bytes of the file are no part of it; messages call the format `form`. Raises InputError where it
    cannot be opened, or (also from reading within the block) unpacked.
    """
    raw: IO[bytes] = BytesIO(source.read()) if source.member is not None else BufferedReader(open_regular(source.path))
    with raw:
        size = raw.seek(0, 2)
        raw.seek(start)
        how = packing
        if packing == "gzip or none":
            how = "gzip" if raw.read(2) == _GZIP else "none"
            raw.seek(start)
        stream = raw
        if how != "none":
            stream = cast("IO[bytes]", gzip.GzipFile(fileobj=raw) if how == "gzip" else _Inflated(raw))
        try:
            yield stream, size - start, how != "none"
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            what = "it ends too early" if isinstance(error, EOFError) else f"it cannot be unpacked: {error}"
            raise broken(what, source.label, form) from error
        except OSError as error:
            raise InputError(f"cannot be read: {error.strerror or error}", path=source.label) from error


@dataclass(frozen=True, eq=False)
class Voxels:
    """The values of one file.

    Attributes:
        source: The file that holds them.
        dtype: As they are stored.
        shape: Of the stored array, whose first axis runs fastest.
        offset: Bytes before the first voxel, unpacked.
        slope: HU per stored unit.
        inter: HU of a stored 0.
        packing: How they are packed.
        start: Bytes of the file before what is packed; of values that are not packed, `offset` counts from there.
        form: What a message calls the format.
    """

    source: Source
    dtype: np.dtype[Any]
    shape: tuple[int, int, int]
    offset: int
    slope: float
    inter: float
    packing: Packing = "gzip or none"
    start: int = 0
    form: str = "NIfTI"

    _lock: ClassVar[threading.RLock] = threading.RLock()
    _kept: ClassVar[list[tuple[Voxels, NDArray[Any]]]] = []

    def check(self) -> None:
        """Look at every value once.

        Raises InputError where the file is truncated, damaged or packed beyond reason, or holds no Hounsfield units.
        """
        seen = ValueSummary()
        self._stored(seen)
        seen.verdict()

    def plane(self, index: tuple[int | slice, ...]) -> NDArray[np.int16]:
        """Return a piece of the stored array as HU, clipped to [−1024, 3071]."""
        stored = self._stored()
        piece = stored[index]
        return hounsfield(self._scaled(piece)) if isinstance(stored, np.memmap) else piece

    def _stored(self, seen: ValueSummary | None = None) -> NDArray[Any]:
        with self._lock:
            if seen is not None or not self._kept or self._kept[0][0] is not self:
                self._kept.clear()
                self._kept.append((self, self._load(seen)))
            return self._kept[0][1]

    def _load(self, seen: ValueSummary | None) -> NDArray[Any]:
        """Return the mapped file, or a new array of HU; show all values to `seen`."""
        count, plane = int(np.prod(self.shape)), self.shape[0] * self.shape[1]
        needed = self.offset + count * self.dtype.itemsize
        with opened(self.source, self.packing, self.start, self.form) as (file, size, packed):
            if packed and needed > max(MAX_RATIO * size, RATIO_COUNTS_FROM):
                message = f"unpacks to {needed / 2**20:,.0f} MiB, more than {MAX_RATIO} times its size"
                raise InputError(message, path=self.source.label, hint="unpack it yourself, if you trust it")
            if not packed and size < needed:
                raise broken(f"it has {size:,} bytes of {needed:,}", self.source.label, self.form)
            if not packed and self.source.member is None:
                mapped = np.memmap(file, self.dtype, "r", self.start + self.offset, self.shape, order="F")
                if seen is not None:
                    for index in range(self.shape[2]):
                        seen.add(self._scaled(mapped[:, :, index]))
                return mapped
            memory = available_memory()
            if memory.free is not None and 2 * count > memory.free:
                message = f"needs {gib(2 * count)} of memory, and {memory.words()}"
                hint = "give it as a file of its own that is not packed, which is read piece by piece; or more memory"
                raise InputError(message, path=self.source.label, hint=hint)
            values = np.empty(self.shape, np.int16, order="F")
            file.read(self.offset)
            for index in range(self.shape[2]):
                raw = file.read(plane * self.dtype.itemsize)
                if len(raw) < plane * self.dtype.itemsize:
                    what = f"it ends in slice {index + 1} of {self.shape[2]}"
                    raise broken(what, self.source.label, self.form)
                piece = np.frombuffer(raw, self.dtype).reshape(self.shape[:2], order="F")
                if seen is not None:
                    seen.add(self._scaled(piece))
                values[:, :, index] = hounsfield(self._scaled(piece))
            file.read(1)  # the checksum of a packed file comes last
        return values

    def _scaled(self, piece: NDArray[Any]) -> NDArray[Any]:
        return scaled(piece, self.slope, self.inter)


@dataclass(frozen=True, eq=False)
class HeldVoxels:
    """The values of a volume that a program handed over: HU, clipped to [−1024, 3071], with the stored axes.

    `seen` is what they were like before they were clipped.
    """

    values: NDArray[np.int16]
    seen: ValueSummary

    @classmethod
    def of(cls, stored: NDArray[Any], slope: float = 1.0, inter: float = 0.0) -> HeldVoxels:
        """Return the values of an array of three axes; it may change afterwards."""
        seen, values = ValueSummary(), np.empty(stored.shape, np.int16, order="F" if stored.flags.f_contiguous else "C")
        axis = 2 if stored.flags.f_contiguous else 0
        for source, target in zip(np.moveaxis(stored, axis, 0), np.moveaxis(values, axis, 0), strict=True):
            piece = scaled(source, slope, inter)
            seen.add(piece)
            target[...] = hounsfield(piece)
        return cls(values, seen)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of the stored array."""
        first, second, third = self.values.shape
        return first, second, third

    def check(self) -> None:
        """Raise InputError where the values are no Hounsfield units."""
        self.seen.verdict()

    def plane(self, index: tuple[int | slice, ...]) -> NDArray[np.int16]:
        """Return a piece of the stored array."""
        return self.values[index]


def scaled(piece: NDArray[Any], slope: float, inter: float) -> NDArray[Any]:
    """Return stored values as `slope · stored + inter`, as they are where that changes nothing."""
    if (slope, inter) == (1.0, 0.0):
        return piece
    wide: NDArray[Any] = piece.astype(np.float64 if piece.dtype.itemsize > 4 else np.float32)
    wide *= slope
    wide += inter
    return wide


def hounsfield(values: NDArray[Any]) -> NDArray[np.int16]:
    """Return scaled values as whole HU, clipped to [−1024, 3071]."""
    if values.dtype.kind == "f":
        values = np.nan_to_num(np.rint(values), copy=False)  # in a volume that is refused when all is seen
    elif values.dtype.itemsize < 2:  # has no room for the limits
        values = values.astype(np.int16)
    elif values.dtype.kind == "u":
        values = np.minimum(values, HIGHEST).astype(np.int16)
    return values.clip(LOWEST, HIGHEST).astype(np.int16)


class ValueSummary:
    """What the values of a volume are like, gathered piece by piece."""

    def __init__(self) -> None:
        self.count = self.odd = self.air = self.tissue = 0
        self.low, self.high = np.inf, -np.inf
        self.values: set[float] = set()

    def add(self, values: NDArray[Any]) -> None:
        """Look at a piece."""
        self.count += values.size
        if values.dtype.kind == "f":
            finite = np.isfinite(values)
            self.odd += values.size - int(np.count_nonzero(finite))
            values = values if finite.all() else values[finite]
        if not values.size:
            return
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        self.air += int(np.count_nonzero(values < -500))
        self.tissue += int(np.count_nonzero((values > -200) & (values < 300)))
        if len(self.values) <= FEW_VALUES:
            self.values.update(np.unique(values)[: FEW_VALUES + 1].tolist())

    def verdict(self) -> None:
        """Raise InputError where the values are no Hounsfield units."""
        found = f"values from {self.low:.4g} to {self.high:.4g}"
        expected = "Hounsfield units (air −1000, soft tissue 0 to 100) are expected"
        if self.odd:
            what = f"{self.odd:,} of {self.count:,} values are not numbers (NaN) or infinite"
            hint = "replace them by −1024"
        elif len(self.values) <= FEW_VALUES:
            what, hint = f"has {len(self.values)} distinct {found}, as a mask or a label map", "give the CT itself"
        elif self.low >= 0 and self.high <= 1:
            what, hint = f"has {found}: it was rescaled to [0, 1]", "give the CT before it was rescaled"
        elif self.low >= 0 and self.high <= 255:
            what, hint = f"has {found}: it was windowed to 8 bits", "give the CT before it was windowed"
        elif self.low >= 0:
            what = f"has {found}: CT stored without its intercept, or no CT"
            hint = "convert it again from DICOM, or add the intercept, mostly −1024"
        elif self.air < LEAST_AIR * self.count or self.tissue < LEAST_TISSUE * self.count:
            missing = "air" if self.air < LEAST_AIR * self.count else "soft tissue"
            what, hint = f"has {found}, hardly any of {missing}", "give a chest CT in Hounsfield units"
        else:
            return
        raise InputError(f"{what}; {expected}", hint=hint)
