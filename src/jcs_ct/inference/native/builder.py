"""Makes the plan of a network: one method for each kind of layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from jcs_ct.inference.native import pack
from jcs_ct.inference.native.plan import (
    ATTENTION,
    DIRECT,
    LANES,
    MEAN,
    POOL,
    RESIZE,
    SCALE,
    WINOGRAD,
    COp,
    Map,
    Plan,
    blocks_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.native.pack import Packed, Run
    from jcs_ct.models.layers import SqueezeExcitation

MAXIMUM, AVERAGE, INSIDE = range(3)  # what a pooling takes; INSIDE: the average without what is outside of the map
TILES = {4: 128, 6: 32}  # of a task of a 3×3 convolution, at most, by their size: its inputs stay in cache
WIDE, FEW = 128, 256  # from so many pixels along a side, to so many channels, tiles of 6×6 are faster than those of 4×4
LARGE = 16 << 20  # bytes of a map from which it is written past the caches: it would not stay there anyway
TASKS = 4  # for each thread, where there is enough to do: one that was held up does not hold up the others


class Builder:
    """Makes a plan for one size of input.

    Args:
        packed: Weights by layer and order, shared by the plans of an engine; new ones are added.
        threads: How many will run it.
        run: Executes an operation.
    """

    def __init__(self, packed: dict[object, Packed], threads: int, run: Run) -> None:
        self.plan = Plan()
        self._packed, self._threads, self._run = packed, threads, run

    def _pack(self, key: object, make: Callable[[], Packed]) -> int:
        """Return the address of packed weights. Each is made once: `forget` may drop what it was made of."""
        if key not in self._packed:
            self._packed[key] = make()
        return int(self._packed[key].ctypes.data)

    def conv(
        self,
        layer: nn.Conv2d,
        x: Map,
        out: Map | None = None,
        *,
        relu: bool = True,
        addend: Map | None = None,
        factors: Map | None = None,
        order: Sequence[int] | None = None,
        max_pooled: Map | None = None,
        mean_pooled: Map | None = None,
    ) -> Map:
        """Add a convolution, padded so that stride 1 keeps the size.

        Args:
            layer: Weights, stride, dilation.
            x: What it reads. A 3×3 kernel with a stride, or of 16 channels or fewer, needs padding around it; of others
                with 3×3 only the last block may be filled partially.
            out: Where it writes; None: a new map.
            relu: Whether ReLU follows.
            addend: What is added: to the input of a 3×3 kernel with stride 1, to the result of a 1×1 kernel.
            factors: Of each input channel.
            order: Which input channel of the layer each channel of `x` is; None: the same.
            max_pooled: Where the maximum of each 2×2 of the result is written, of a 3×3 kernel with stride 1 and even
                sides.
            mean_pooled: Where their mean is written, in place of the result.

        Returns:
            Where the result is, or its mean over 2×2.

        Raises:
            ValueError: The kernels would read beyond the map or the weights, or sides are odd.
        """
        kernel, stride, dilation = layer.kernel_size[0], layer.stride[0], layer.dilation[0]
        surrounded = kernel == 3 and (stride > 1 or x.channels <= LANES)
        fits = dilation == 1 and x.buffer.padding > 0 if surrounded else kernel == 1 or _dense(x)
        pools = max_pooled is not None or mean_pooled is not None
        even = kernel == 3 and not surrounded and dilation == 1 and not any(n % 2 for n in x.size)
        if x.channels != layer.in_channels or not fits or (pools and not even):
            raise ValueError(f"a map of {x.counts} channels and padding {x.buffer.padding} does not fit {layer}")
        result = mean_pooled or out or self.plan.new(blocks_of(layer.out_channels), strided(x.size, stride))
        channels = result.counts
        op = COp(kernel=kernel, stride=stride, dilation=dilation, relu=int(relu), channels=x.channels)
        op.outputs = len(channels)
        op.large = int(4 * LANES * op.outputs * result.size[0] * result.size[1] >= LARGE)

        def bias() -> Packed:
            return pack.vector(torch.zeros(layer.out_channels) if layer.bias is None else layer.bias, channels)

        def weight() -> torch.Tensor:
            return layer.weight if order is None else layer.weight[:, list(order)]

        op.bias = self._pack((id(layer), "bias"), bias)
        maps = {"source": x, "out" if mean_pooled is None else "mean_pooled": result}
        maps |= {name: given for name, given in (("addend", addend), ("max_pooled", max_pooled)) if given is not None}
        if kernel == 3 and not surrounded:
            op.kind = WINOGRAD
            op.mode = _tile(x, dilation)
            op.weights = self._pack((id(layer), op.mode), lambda: pack.winograd(weight(), channels, op.mode, self._run))
            if x.channels > FEW:  # of few, a map of another size may need tiles of another size
                forget(layer)
            self._divide_tiles(op, x)
            self.plan.add(op, maps | ({} if factors is None else {"factors": factors}))
            return result
        op.kind = DIRECT
        op.weights = self._pack(id(layer), lambda: pack.direct(weight(), channels))
        forget(layer)
        op.table = self.plan.address(np.array(x.counts, np.int32))
        flat = kernel == stride == 1 and not any(m.buffer.padding for m in maps.values())
        op.mode = int(flat)
        self._divide_pixels(op, result, flat=flat)
        if factors is not None:
            maps["weights"] = self._scaled(op, factors)
        self.plan.add(op, maps, flat=flat)
        return result

    def _divide_tiles(self, op: COp, x: Map) -> None:
        rows, columns = (_starts(n, op.dilation, op.mode) for n in x.size)
        tiles = np.array([(row, column) for row in rows for column in columns], np.int32)
        op.table, op.items = self.plan.address(tiles), len(tiles)
        wanted, most = self._threads * TASKS, TILES[op.mode]
        op.piece = min(most, op.items)
        while op.piece > most // 2 and -(-op.items // op.piece) < wanted:
            op.piece = -(-op.piece // 2)
        pieces = -(-op.items // op.piece)
        pairs = -(-op.outputs // 2)
        op.groups = 1 if pieces >= self._threads else min(pairs, -(-self._threads // pieces))
        op.tasks = pieces * op.groups
        width = len(x.counts) + 1 + 2 * -(-pairs // op.groups) + 1
        self.plan.scratch = max(
            self.plan.scratch, (op.mode + 2) ** 2 * (op.piece * width * LANES + 2 * (1024 + 5 * LANES))
        )

    def _divide_pixels(self, op: COp, out: Map, *, flat: bool) -> None:
        rows, columns = out.size
        op.items, op.groups = (rows * columns, 1) if flat else (rows, 1)
        op.piece = max(28, min(1024, (64 << 10) // op.channels)) if flat else max(1, 128 // columns)
        pieces = -(-op.items // op.piece)
        if pieces < self._threads * TASKS:
            op.groups = min(-(-op.outputs // 2), -(-self._threads * TASKS // pieces))
        op.tasks = pieces * op.groups

    def _divide_rows(self, op: COp, out: Map) -> None:
        op.piece = max(1, 4096 // out.size[1])
        op.groups = -(-out.size[0] // op.piece)
        op.tasks = len(out.counts) * op.groups

    def _scaled(self, op: COp, factors: Map) -> Map:
        """Multiply the weights of a 1×1 convolution by the factors of its input channels."""
        scaled = self.plan.new((LANES,) * op.outputs, (1, op.channels))
        pairs = -(-op.outputs // 2)
        scaling = COp(kind=SCALE, tasks=pairs, weights=op.weights, channels=op.channels, outputs=op.outputs)
        self.plan.add(scaling, {"out": scaled, "factors": factors})
        return scaled

    def pool(self, x: Map, out: Map, kernel: int, stride: int, before: int, mode: int) -> Map:
        """Add a pooling: `before` pixels of surroundings precede the map, `mode` is MAXIMUM, AVERAGE or INSIDE."""
        op = COp(kind=POOL, kernel=kernel, stride=stride, dilation=before, mode=mode)
        self._divide_rows(op, out)
        self.plan.add(op, {"source": x, "out": out})
        return out

    def resize(self, x: Map, out: Map) -> Map:
        """Add a resizing: bilinear, corners not aligned."""
        op = COp(kind=RESIZE)
        self._divide_rows(op, out)
        sides = [_sources(before, after) for before, after in zip(x.size, out.size, strict=True)]
        op.table = self.plan.address(np.concatenate([sources.ravel() for sources, _ in sides]))
        op.fractions = self.plan.address(np.concatenate([fractions for _, fractions in sides]))
        self.plan.add(op, {"source": x, "out": out})
        return out

    def attention(self, block: SqueezeExcitation, x: Map, order: Sequence[int] | None = None) -> Map:
        """Add squeeze and excitation without its product: return the factors. `order` as in `conv`."""
        hidden, channels = block.linear1.weight.shape
        if x.channels != channels or not _dense(x):
            raise ValueError(f"a map of {x.counts} channels does not fit {block}")
        means = self.plan.new(x.counts, (1, 1))
        self.plan.add(COp(kind=MEAN, tasks=len(x.counts)), {"source": x, "out": means})
        factors = self.plan.new(blocks_of(channels + hidden), (1, 1))
        op = COp(kind=ATTENTION, tasks=1, channels=channels, mode=hidden)
        where = list(range(channels) if order is None else order)

        def weights() -> Packed:
            first, second = block.linear1, block.linear2
            return pack.attention((first.weight[:, where], first.bias, second.weight[where], second.bias[where]))

        op.weights = self._pack(id(block), weights)
        self.plan.add(op, {"source": means, "out": factors})
        return factors


def forget(layer: nn.Conv2d) -> None:
    """Drop the weights of a layer that are packed for any size of input: only their shape is needed from now on."""
    if not layer.weight.is_meta:
        layer.weight = torch.nn.Parameter(torch.empty_like(layer.weight, device="meta"), requires_grad=False)


def strided(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Return the size of a map after a stride, rounded up."""
    return -(-size[0] // stride), -(-size[1] // stride)


def _dense(x: Map) -> bool:
    """Tell whether channels follow one another: only the last block may be filled partially."""
    return all(count == LANES for count in x.counts[:-1])


def _tile(x: Map, dilation: int) -> int:
    """Return how many outputs a tile has along a side."""
    return 6 if dilation == 1 and min(x.size) >= WIDE and x.channels <= FEW else 4


def _starts(n: int, dilation: int, tile: int) -> list[int]:
    """Return where tiles begin along a side: a tile has `tile` pixels that are `dilation` apart."""
    phases = range(min(dilation, n))
    return [phase + dilation * i for phase in phases for i in range(0, -(-(n - phase) // dilation), tile)]


def _sources(before: int, after: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Return both sources of each pixel, after×2, and the share of the second, as PyTorch computes them in float32."""
    scale, half = np.float32(before) / np.float32(after), np.float32(0.5)
    at = np.maximum((np.arange(after, dtype=np.float32) + half) * scale - half, np.float32(0))
    first = np.minimum(at.astype(np.int32), before - 1)
    return np.stack([first, np.minimum(first + 1, before - 1)], axis=1), (at - first).astype(np.float32)
