"""A list of operations for the kernels: maps, where they lie in memory, and which memory is used again.

The structures are those of `source/kernels.h`. A plan is made for one size of input; plans share the packed weights.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

LANES = 16
WINOGRAD, DIRECT, POOL, RESIZE, MEAN, ATTENTION, SCALE, PACK = range(1, 9)


class CView(ctypes.Structure):
    """`View` of the kernels."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("block", ctypes.c_int64),
        ("line", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("rows", "columns", "blocks")),
    )


class COp(ctypes.Structure):
    """`Op` of the kernels."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("tasks", ctypes.c_int32),
        *((name, CView) for name in ("source", "addend", "out", "max_pooled", "mean_pooled")),
        *((name, ctypes.c_void_p) for name in ("weights", "bias", "factors", "table", "fractions")),
        *((name, ctypes.c_int32) for name in ("channels", "outputs", "kernel", "stride", "dilation", "relu")),
        *((name, ctypes.c_int32) for name in ("items", "piece", "groups", "mode", "large")),
    )


@dataclass(eq=False)
class Buffer:
    """A piece of memory of a plan.

    Attributes:
        blocks: Blocks of 16 channels.
        rows: Without padding.
        columns: Without padding.
        padding: Rows and columns of zeros around; such memory is never used for something else.
        first: The operation that writes it first.
        last: The operation that reads it last.
        offset: In floats, once it is placed.
    """

    blocks: int
    rows: int
    columns: int
    padding: int = 0
    first: int = -1
    last: int = -1
    offset: int = 0

    @property
    def line(self) -> int:
        """Floats from a row to the next."""
        return (self.columns + 2 * self.padding) * LANES

    @property
    def block(self) -> int:
        """Floats from a channel block to the next."""
        return (self.rows + 2 * self.padding) * self.line

    @property
    def footprint(self) -> int:
        """Floats that are kept for it: maps that begin at round addresses would share sets of the cache."""
        return -(-self.blocks * self.block // 1024) * 1024 + 5 * LANES


@dataclass(frozen=True, eq=False)
class Map:
    """Some channel blocks of a buffer.

    Attributes:
        buffer: Where it lies.
        counts: Channels of each block, 16 or fewer; the rest of a block is zero.
        begin: Its first block in the buffer.
    """

    buffer: Buffer
    counts: tuple[int, ...]
    begin: int = 0

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.buffer.rows, self.buffer.columns

    @property
    def channels(self) -> int:
        """Channels, without those that fill blocks."""
        return sum(self.counts)

    def part(self, begin: int, blocks: int) -> Map:
        """Return some of its blocks."""
        return Map(self.buffer, self.counts[begin : begin + blocks], self.begin + begin)


def blocks_of(channels: int) -> tuple[int, ...]:
    """Return the channels of each block of a map."""
    return tuple(min(LANES, channels - i) for i in range(0, channels, LANES))


@dataclass
class Plan:
    """Operations on maps, in their order, and their memory.

    Attributes:
        inputs: Maps that are filled before a run.
        outputs: Maps that are read after it.
        scratch: Floats that each thread needs for itself.
    """

    inputs: list[Map] = field(default_factory=list)
    outputs: list[Map] = field(default_factory=list)
    scratch: int = LANES
    _steps: list[tuple[COp, dict[str, Map], bool]] = field(default_factory=list)
    _buffers: list[Buffer] = field(default_factory=list)
    _arrays: list[NDArray[Any]] = field(default_factory=list)
    _memory: NDArray[np.float32] = field(default_factory=lambda: aligned(0))

    def new(self, channels: Sequence[int], size: tuple[int, int], padding: int = 0) -> Map:
        """Return a new map, with so many channels in its blocks."""
        buffer = Buffer(len(channels), *size, padding)
        self._buffers.append(buffer)
        return Map(buffer, tuple(channels))

    def add(self, op: COp, maps: dict[str, Map], *, flat: bool = False) -> None:
        """Append an operation.

        Args:
            op: Without its maps.
            maps: By their names in `COp`; of `weights` and `factors` only the address is used.
            flat: The rows of its maps are one long row to it.
        """
        for found in maps.values():
            buffer = found.buffer
            buffer.first, buffer.last = (len(self._steps) if buffer.first < 0 else buffer.first), len(self._steps)
        self._steps.append((op, maps, flat))

    def address(self, values: NDArray[Any]) -> int:
        """Return the address of an array that lives as long as the plan."""
        self._arrays.append(values)
        return int(values.ctypes.data)

    def place(self) -> ctypes.Array[COp]:
        """Give the maps their memory and return the operations."""
        for found in self.inputs:  # nothing may lie there before, and a second run reads them again
            found.buffer.first, found.buffer.last = -1, len(self._steps)
        for found in self.outputs:
            found.buffer.last = len(self._steps)
        used = [b for b in self._buffers if b.last >= 0]
        start = total = 0
        for buffer in [b for b in used if b.padding]:
            buffer.offset, start = start, start + buffer.footprint
        placed: list[Buffer] = []
        for buffer in sorted((b for b in used if not b.padding), key=lambda b: -b.footprint):
            at = start
            for other in sorted((b for b in placed if _meet(b, buffer)), key=lambda b: b.offset):
                if at + buffer.footprint <= other.offset:
                    break
                at = max(at, other.offset + other.footprint)
            buffer.offset = at
            placed.append(buffer)
        total = max((b.offset + b.footprint for b in used), default=0)
        self._memory = aligned(total)
        return (COp * len(self._steps))(*(self._bound(*step) for step in self._steps))

    def _bound(self, op: COp, maps: dict[str, Map], flat: bool) -> COp:
        for name, found in maps.items():
            b = found.buffer
            address = self._memory.ctypes.data + 4 * (b.offset + found.begin * b.block + b.padding * (b.line + LANES))
            rows, columns = (1, b.rows * b.columns) if flat else found.size
            view = CView(address, b.block, b.line, rows, columns, len(found.counts))
            setattr(op, name, address if name in ("factors", "weights") else view)
        return op

    def values(self, found: Map) -> NDArray[np.float32]:
        """Return the memory of a map, once it is placed: blocks × rows × columns × 16, without its padding."""
        b, p = found.buffer, found.buffer.padding
        whole = self._memory[b.offset : b.offset + b.blocks * b.block].reshape(b.blocks, b.rows + 2 * p, -1, LANES)
        return whole[found.begin : found.begin + len(found.counts), p : p + b.rows, p : p + b.columns]


def _meet(a: Buffer, b: Buffer) -> bool:
    """Tell whether both hold something at the same time."""
    return a.first <= b.last and b.first <= a.last


def aligned(size: int) -> NDArray[np.float32]:
    """Return zeros that begin at a multiple of 64 bytes."""
    memory = np.zeros(size + LANES, np.float32)
    skip = -memory.ctypes.data % 64 // 4
    return memory[skip : skip + size]
