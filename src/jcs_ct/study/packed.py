"""A map of a slice, packed: about a hundredth of its size in memory."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class PackedMap:
    """A mask, labels, or a map in steps of 1/255.

    Attributes:
        shape: Rows and columns.
        data: Packed values; None: zeros everywhere.
        bits: Whether they are booleans.
    """

    shape: tuple[int, int]
    data: bytes | None = field(default=None, repr=False)
    bits: bool = False

    @classmethod
    def of_mask(cls, mask: NDArray[np.bool_]) -> PackedMap:
        """Pack a bool mask, rows × columns."""
        shape = (mask.shape[0], mask.shape[1])
        return cls(shape, zlib.compress(np.packbits(mask).tobytes(), 1) if mask.any() else None, bits=True)

    @classmethod
    def of_labels(cls, labels: NDArray[np.uint8]) -> PackedMap:
        """Pack uint8 labels, rows × columns."""
        shape = (labels.shape[0], labels.shape[1])
        return cls(shape, zlib.compress(np.ascontiguousarray(labels, np.uint8).tobytes(), 1))

    @classmethod
    def of_shares(cls, shares: NDArray[np.floating]) -> PackedMap:
        """Pack values in [0, 1], rows × columns, in steps of 1/255."""
        return cls.of_labels(np.rint(shares * np.float32(255)).astype(np.uint8))

    def levels(self) -> NDArray[np.uint8]:
        """Return the map as uint8, rows × columns: 0 and 1 of a mask, labels, or 0 … 255."""
        if self.data is None:
            return np.zeros(self.shape, np.uint8)
        plain = np.frombuffer(zlib.decompress(self.data), np.uint8)
        if self.bits:
            plain = np.unpackbits(plain, count=self.shape[0] * self.shape[1])
        return plain.reshape(self.shape)
