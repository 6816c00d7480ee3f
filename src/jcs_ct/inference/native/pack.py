"""Weights in the order in which the kernels read them. A pair is 32 output channels; the last may be a half."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from jcs_ct.inference.native.plan import LANES, PACK, COp, CView, aligned

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    Packed = NDArray[np.float32]
    Run = Callable[[COp], None]


def places(channels: Sequence[int]) -> NDArray[np.int32]:
    """Return which output of a layer each of blocks·16 outputs is: block i holds the next `channels[i]`, then -1."""
    found = np.full(len(channels) * LANES, -1, np.int32)
    start = 0
    for i, count in enumerate(channels):
        found[i * LANES : i * LANES + count] = np.arange(start, start + count)
        start += count
    return found


def winograd(weight: Tensor, channels: Sequence[int], tile: int, run: Run) -> Packed:
    """Transform a kernel out×in×3×3 and pack it as places × pair × in × 32.

    Args:
        weight: Of a layer.
        channels: Of each block of outputs.
        tile: Outputs of a tile along a side.
        run: Executes an operation.
    """
    given = np.ascontiguousarray(weight.detach().numpy(), np.float32)
    packed, table = aligned((tile + 2) ** 2 * given.shape[1] * len(channels) * LANES), places(channels)
    op = COp(kind=PACK, tasks=-(-len(channels) // 2), channels=given.shape[1], outputs=len(channels), mode=tile)
    op.weights, op.table, op.out = given.ctypes.data, table.ctypes.data, CView(data=packed.ctypes.data)
    run(op)
    return packed


def direct(weight: Tensor, channels: Sequence[int]) -> Packed:
    """Pack a kernel out×in×k×k as pair × k × k × in × 32."""
    inner = _padded(weight, channels).permute(2, 3, 1, 0)
    return _joined([pair.reshape(-1) for pair in inner.split(2 * LANES, dim=-1)])


def vector(values: Tensor, channels: Sequence[int]) -> Packed:
    """Pack a value for each output."""
    return _joined([_padded(values, channels)])


def attention(parts: Sequence[Tensor]) -> Packed:
    """Pack weights and biases one after the other."""
    return _joined([part.detach().reshape(-1) for part in parts])


def _padded(values: Tensor, channels: Sequence[int]) -> Tensor:
    where = torch.from_numpy(places(channels)).long()
    padded = values.new_zeros((len(where), *values.shape[1:]))
    padded[where >= 0] = values.detach()
    return padded


def _joined(parts: Sequence[Tensor]) -> Packed:
    packed, start = aligned(sum(part.numel() for part in parts)), 0
    for part in parts:
        torch.from_numpy(packed[start : start + part.numel()]).copy_(part)
        start += part.numel()
    return packed
