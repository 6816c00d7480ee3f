"""CUDA graphs: the kernels of a forward pass, recorded once for each input shape and started again with one call.

What is recorded reads its inputs from fixed memory and writes its outputs to fixed memory, so that inputs are copied in
and outputs are copied out. Recording costs more than several passes and keeps the memory of a pass: it is done the
second time that a shape comes, and for a few shapes at a time.

`Graphs` decides; what touches CUDA is in `capture`, for which tests put something that needs no GPU.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    Forward = Callable[..., tuple[Tensor, ...]]
    Key = tuple[tuple[tuple[int, ...], tuple[int, ...], torch.dtype], ...]

KEPT = 4  # shapes whose graphs are kept: a study has one, or one for each series
NOTED = 64  # shapes that are remembered as seen once
WARM_UP = 3  # passes before recording, as PyTorch's documentation has it: libraries allocate and choose in the first


@dataclass(frozen=True)
class Captured:
    """A recorded pass.

    Attributes:
        inputs: What it reads; the caller writes here.
        outputs: What it writes; overwritten by the next replay.
        replay: Runs it.
    """

    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]
    replay: Callable[[], None]


def capture(forward: Forward, inputs: Sequence[Tensor]) -> Captured:
    """Record `forward` for inputs like these.

    Args:
        forward: Maps tensors to a tuple of tensors, all on the current CUDA device, without waiting for a value.
        inputs: An example; shapes, types and memory formats are kept, the memory is not.

    Raises:
        RuntimeError: CUDA refused: out of memory, or something in `forward` cannot be recorded.
    """
    before = torch.cuda.current_stream()
    static = [tensor.clone() for tensor in inputs]
    side = torch.cuda.Stream()
    try:
        side.wait_stream(before)
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                forward(*static)
        before.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        # "thread_local": a thread that reads the next slice must not spoil the recording
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = forward(*static)
    finally:
        torch.cuda.set_stream(before)  # a recording that fails leaves PyTorch on the stream it recorded on
    return Captured(static, outputs, graph.replay)


class Graphs:
    """A forward pass that replays what it recorded for a shape. Not for several threads at once.

    Args:
        forward: What runs.
        record: `capture`, or what stands for it in a test.
        kept: Shapes whose graphs are kept; the one that was not used for longest goes.

    Attributes:
        trouble: Why nothing is recorded any more; empty as long as all is well. `forward` itself runs then.
    """

    def __init__(
        self, forward: Forward, record: Callable[[Forward, Sequence[Tensor]], Captured] = capture, kept: int = KEPT
    ) -> None:
        self.trouble = ""
        self._forward, self._record, self._limit = forward, record, kept
        self._graphs: OrderedDict[Key, Captured] = OrderedDict()  # the last used comes last
        self._seen: OrderedDict[Key, None] = OrderedDict()

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return what `forward` returns, in memory that no later call writes to."""
        graph = None if self.trouble else self._graph(inputs)
        if graph is None:
            return self._forward(*inputs)
        for static, tensor in zip(graph.inputs, inputs, strict=True):
            static.copy_(tensor, non_blocking=True)
        graph.replay()
        return tuple(tensor.clone() for tensor in graph.outputs)

    def _graph(self, inputs: Sequence[Tensor]) -> Captured | None:
        key = tuple((tuple(t.shape), t.stride(), t.dtype) for t in inputs)
        if key in self._graphs:
            self._graphs.move_to_end(key)
            return self._graphs[key]
        if key not in self._seen:
            self._seen[key] = None
            while len(self._seen) > NOTED:
                self._seen.popitem(last=False)
            return None
        while len(self._graphs) >= self._limit:  # before the recording, which needs the memory
            gone, _ = self._graphs.popitem(last=False)
            self._seen.pop(gone, None)  # so that shapes that take turns are not recorded every time
        try:
            self._graphs[key] = self._record(self._forward, inputs)
        except RuntimeError as error:  # of CUDA; a pass without recording may still fit into memory
            self.trouble = f"{(str(error).splitlines() or [type(error).__name__])[0]:.200}"
            self._graphs.clear()
            return None
        return self._graphs[key]
