"""Which bits of a stored value are the value (PS3.5 8.1.1), and where a header says so wrongly. No pydicom here.

A header that is wrong makes values wrap around: 1030 becomes 6, or −1000 becomes 64536. What wraps is torn from its
neighbours by a whole range of values; read as it was meant, it is not. So where another reading of the bits joins those
pixels to their neighbours far better than the header's, the header is wrong and the image is refused. Bits above the
value are left alone where they are an overlay of the old kind, a sign that is carried on, or few and better so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.io.dicom.padding import touching_edge

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE = (16, 32)
"""Bits that a value may have been given (BitsAllocated) to be taken apart here."""
TORN = 0.5  # of the differences to the neighbours: at most so much must be left in another reading
MANY = 0.05  # of a slice: more than lines and letters have, less than air or tissue
_AGAIN = "export it again, or correct the header"


@dataclass(frozen=True)
class Bits:
    """What a header says of a stored value: BitsAllocated, BitsStored, HighBit, and whether PixelRepresentation is 1.

    `overlays` are bits of the same word that are overlays (groups 60xx), from 0.
    """

    allocated: int
    stored: int
    high: int
    signed: bool
    overlays: tuple[int, ...] = ()

    @property
    def low(self) -> int:
        """The lowest bit of the value."""
        return self.high + 1 - self.stored


def overlay_bits(dataset: Any) -> tuple[int, ...]:
    """Return the bits of the pixels that a data set says are overlays, as ACR-NEMA and DICOM up to 2004 had them."""
    found = []
    for group in range(0x6000, 0x6020, 2):
        size, place = (dataset.get((group, element)) for element in (0x0100, 0x0102))
        if size is None or place is None or (group, 0x3000) in dataset:
            continue
        if size.value == dataset.BitsAllocated and isinstance(place.value, int):
            found.append(place.value)
    return tuple(found)


def values_of(raw: NDArray[Any], bits: Bits, label: str) -> NDArray[Any]:
    """Return the values in stored words, rows × columns: integers of the same size, signed where the header says so.

    `raw` are unsigned words of `bits.allocated` bits. Raises InputError where they contradict the header.
    """
    inside = [bit for bit in bits.overlays if bits.low <= bit <= bits.high]
    if inside:
        message = f"says that bit {inside[0]} of its pixels is an overlay, and a value too ({_said(bits)})"
        raise InputError(message, path=label, hint=_AGAIN)
    if bits.low and not (raw >> bits.stored).any():
        message = f"says that its values end at bit {bits.high} ({_said(bits)}), and they end at {bits.stored - 1}"
        raise InputError(message, path=label, hint=_AGAIN)
    values = raw << (bits.allocated - 1 - bits.high)
    if bits.signed:
        values = values.view(f"i{bits.allocated // 8}")
    values = values >> (bits.allocated - bits.stored)
    if bits.high + 1 < bits.allocated:
        _check_above(raw, values, bits, label)
    return values


def check_sign(values: NDArray[Any], stored: int, signed: bool, padding: tuple[int, int] | None, label: str) -> None:
    """Raise InputError where the values of a slice were read without the sign that they have.

    `stored` is BitsStored, `signed` as in `Bits`; values within `padding` stand for nothing.
    """
    half = 1 << (stored - 1)
    if signed or stored < 9 or values.max() < half:
        return
    torn = values >= half
    if padding is not None:
        torn &= (values < padding[0]) | (values > padding[1])
    wide = values.astype(np.int64)
    if torn.mean() >= MANY and _joins(np.where(torn, wide - 2 * half, wide), wide, torn):
        raise _wrong_sign(signed, label)


def _check_above(raw: NDArray[Any], values: NDArray[Any], bits: Bits, label: str) -> None:
    """Raise where bits above the value belong to it."""
    spare = bits.allocated - 1 - bits.high
    overlays = sum(1 << (bit - bits.high - 1) for bit in bits.overlays if bit > bits.high)
    free = ((1 << spare) - 1) & ~overlays
    above = (raw >> (bits.high + 1)) & raw.dtype.type(free)
    if int(above.min()):  # what every pixel has is no value
        free &= ~int(np.bitwise_and.reduce(above, axis=None))
        above &= raw.dtype.type(free)
    negative = values < 0 if bits.signed else np.zeros(values.shape, bool)
    stray = (above != 0) & ~(negative & (above == free))
    unsaid = negative & (above == 0)  # a sign that is carried on was written by somebody who meant it
    if not (stray.any() or unsaid.any()):
        return
    wide = values.astype(np.int64)
    if stray.any():
        size = 1 << bits.stored
        more = (wide & (size - 1)) + above.astype(np.int64) * size
        if bits.signed:
            whole = size << spare
            more = np.where(more >= whole // 2, more - whole, more)
        next_one = stray & (above & 1 == 1)  # letters and lines are few, or lie higher
        if next_one.mean() >= MANY or _joins(np.where(stray, more, wide), wide, stray):
            raise InputError(f"has values of more bits than its header says ({_said(bits)})", path=label, hint=_AGAIN)
    if free and unsaid.any():
        unsaid &= ~touching_edge(unsaid)  # padding
        if _joins(np.where(unsaid, wide + (1 << bits.stored), wide), wide, unsaid, left_over=1.0):
            raise _wrong_sign(bits.signed, label)


def _joins(
    other: NDArray[np.int64], said: NDArray[np.int64], where: NDArray[np.bool_], left_over: float = TORN
) -> bool:
    """Return whether pixels are far nearer to their neighbours in another reading than in the one that is said."""
    if not where.any():
        return False
    left = right = 0
    for axis in (0, 1):
        edge = np.diff(where, axis=axis)
        left += int(np.abs(np.diff(other, axis=axis)[edge]).sum())
        right += int(np.abs(np.diff(said, axis=axis)[edge]).sum())
    return left < left_over * right


def _wrong_sign(signed: bool, label: str) -> InputError:
    message = f"has values with{'out' * signed} a sign, and its header says otherwise (PixelRepresentation {signed:d})"
    return InputError(message, path=label, hint=_AGAIN)


def _said(bits: Bits) -> str:
    return f"BitsStored {bits.stored}, HighBit {bits.high}"
