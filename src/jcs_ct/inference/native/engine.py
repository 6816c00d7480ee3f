"""A published network on the kernels of this package."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from weakref import WeakSet

import numpy as np
import torch

from jcs_ct.inference.fused import FusedNetwork
from jcs_ct.inference.native.build import library
from jcs_ct.inference.native.builder import Builder
from jcs_ct.inference.native.networks import PLANS
from jcs_ct.inference.native.plan import LANES, Plan, aligned, blocks_of

if TYPE_CHECKING:
    import ctypes

    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.native.build import Library
    from jcs_ct.inference.native.pack import Packed
    from jcs_ct.inference.native.plan import COp
    from jcs_ct.inference.runtimes import Arrays
    from jcs_ct.models import InferenceNetwork

SIZES = 2  # of input whose plans are kept: each plan has the memory of its maps
CONCURRENT = 2  # calls at once, at most: each has a plan of its own


class _PlacedPlan(NamedTuple):
    plan: Plan
    ops: ctypes.Array[COp]
    scratch: NDArray[np.float32]
    threads: int


class NativeEngine:
    """A network with a plan, float32. Slices of a batch run one after the other.

    It may be called from several threads, which take turns unless `share` has divided the processors among them.

    Args:
        network: In evaluation mode.
        compiled: The kernels.
        threads: How many share the work.
    """

    def __init__(self, network: nn.Module, compiled: Library, threads: int) -> None:
        with torch.inference_mode(False), torch.no_grad():
            fused = FusedNetwork(network)
        self._network: InferenceNetwork | Any = fused.network
        self._layout = PLANS[fused.spec.native_plan]
        self._library, self._threads = compiled, threads
        self._packed: dict[object, Packed] = {}
        self._plans: OrderedDict[tuple[int, ...], list[_PlacedPlan]] = OrderedDict()  # by threads and size: not in use
        self._lock = threading.Lock()
        self.share(1)
        _ENGINES.add(self)
        self.facts = {
            "library": "kernels of this package",
            "compiler": compiled.compiler,
            "threads": str(threads),
            "precision": "float32",
            "convolutions": "Winograd",
        }

    def share(self, calls: int) -> int:
        """Divide the threads among calls that come at the same time. No call may be under way.

        Args:
            calls: How many come.

        Returns:
            How many may come; others wait.
        """
        self._calls = max(1, min(calls, self._threads, CONCURRENT))
        self._turns = threading.Semaphore(self._calls)
        return self._calls

    def forked(self) -> None:
        """Make new locks: a thread of the parent process that holds the old ones does not exist in this one."""
        self._lock = threading.Lock()
        self.share(self._calls)

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """See `jcs_ct.inference.runtimes.Engine`. Raises ShapeError where the network does."""
        with torch.device("meta"):
            self._network.check(*(torch.empty(array.shape) for array in arrays))
        with self._turns:
            key = (self._threads // self._calls, *(n for array in arrays for n in array.shape[1:]))
            ready = self._take(key)
            slices = [self._one(ready, [array[i] for array in arrays]) for i in range(len(arrays[0]))]
            self._give(key, ready)
        return [np.stack(parts) for parts in zip(*slices, strict=True)]

    def _one(self, ready: _PlacedPlan, arrays: Arrays) -> list[NDArray[np.float32]]:
        for given, array in zip(ready.plan.inputs, arrays, strict=True):
            values = ready.plan.values(given)
            for i in range(len(given.counts)):
                block = array[LANES * i : LANES * (i + 1)]
                values[i, :, :, : len(block)] = block.transpose(1, 2, 0)
        self._library.run(ready.ops, ready.threads, ready.scratch)
        return self._layout.read(self._network, ready.plan.values(ready.plan.outputs[0]))

    def _take(self, key: tuple[int, ...]) -> _PlacedPlan:
        with self._lock:  # also while a plan is made: each weight is packed once
            free = self._plans.get(key)
            return free.pop() if free else self._plan(key[0], key[1:])

    def _give(self, key: tuple[int, ...], ready: _PlacedPlan) -> None:
        with self._lock:
            self._plans.setdefault(key, []).append(ready)
            self._plans.move_to_end(key)
            while len(self._plans) > SIZES:
                self._plans.popitem(last=False)

    def _plan(self, threads: int, shape: tuple[int, ...]) -> _PlacedPlan:
        b = Builder(self._packed, threads, partial(self._library.run_one, threads=self._threads))
        for i in range(0, len(shape), 3):
            channels, rows, columns = shape[i : i + 3]
            padding = 1 if channels == 3 else 0  # what reads an image reads its surroundings
            b.plan.inputs.append(b.plan.new(blocks_of(channels), (rows, columns), padding))
        with torch.inference_mode():
            out = self._layout.add(b, self._network, b.plan.inputs, (shape[1], shape[2]))
        b.plan.outputs.append(out)
        return _PlacedPlan(b.plan, b.plan.place(), aligned(b.plan.scratch * threads), threads)


_ENGINES: WeakSet[NativeEngine] = WeakSet()


def _forked() -> None:
    for known in _ENGINES:
        known.forked()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)


def engine(_name: str, network: nn.Module, _device: str) -> NativeEngine:
    """Return an engine of a network.

    Raises:
        RuntimeFailedError: The kernels cannot be compiled here.
        UsageError: Another network.
    """
    return NativeEngine(network, library(), torch.get_num_threads())
