"""What the tests of the kernels share: a compiler or a skip, and a bench on which one operation runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

from jcs_ct.inference.native import build
from jcs_ct.inference.native.builder import Builder
from jcs_ct.inference.native.plan import Map, blocks_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.inference.native.build import Library
    from jcs_ct.inference.native.plan import Plan


def require_compiler() -> None:
    """Skip the test without a C compiler; fail it in CI, where a skipped test would go unseen."""
    if build.compiler() is None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail("needs a C compiler: tools/system.sh installs it")
        pytest.skip("needs a C compiler: see tools/system.sh")


class Bench:
    """Runs a plan in memory that is NaN where nothing was written: what reads there shows in the result.

    Args:
        kernels: Compiled.
        threads: How many share the work, and for how many it is divided.
    """

    def __init__(self, kernels: Library, threads: int = 1) -> None:
        self.b, self._kernels, self._threads = Builder({}, threads, kernels.run_one), kernels, threads
        self._given: list[tuple[Map, torch.Tensor]] = []

    def given(self, x: torch.Tensor, counts: Sequence[int] | None = None, padding: int = 0) -> Map:
        """Return an input that holds `x` (C×H×W), with so many of its channels in each block."""
        made = self.b.plan.new(counts or blocks_of(x.shape[0]), (x.shape[1], x.shape[2]), padding)
        return self.fill(made, x)

    def fill(self, where: Map, x: torch.Tensor) -> Map:
        """Let a map hold `x` before the run."""
        self._given.append((where, x))
        self.b.plan.inputs.append(where)
        return where

    def run(self, out: Map, *, rest: bool = True) -> torch.Tensor:
        """Run, and return what a map holds: C×H×W, the channels of its blocks one after the other.

        Args:
            out: The map.
            rest: Whether the rest of its blocks is to be zero.
        """
        plan = self.b.plan
        plan.outputs.append(out)
        ops = plan.place()
        for begin, end in gaps(plan):
            plan._memory[begin:end] = np.nan
        for buffer in plan._buffers:
            if buffer.last >= 0 and not buffer.padding:
                plan._memory[buffer.offset : buffer.offset + buffer.blocks * buffer.block] = np.nan
        for where, x in self._given:
            values = plan.values(where)
            values[...] = 0
            start = 0
            for i, count in enumerate(where.counts):
                values[i, :, :, :count] = x[start : start + count].permute(1, 2, 0).numpy()
                start += count
        scratch = np.full(plan.scratch * self._threads + 32, np.nan, np.float32)
        skip = -scratch.ctypes.data % 64 // 4
        used = scratch[skip : skip + plan.scratch * self._threads]
        self._kernels.run(ops, self._threads, used)
        assert all(np.isnan(plan._memory[begin:end]).all() for begin, end in gaps(plan)), "written beside a map"
        assert np.isnan(scratch[skip + used.size :]).all(), "written behind the scratch memory"
        for buffer in plan._buffers:
            assert not surroundings(plan, buffer).any(), "padding stays zero"
        values = plan.values(out)
        parts = [values[i, :, :, :count] for i, count in enumerate(out.counts)]
        fillers = [values[i, :, :, count:] for i, count in enumerate(out.counts)]
        assert not rest or not any(part.any() for part in fillers), "the rest of a block is zero"
        return torch.from_numpy(np.concatenate(parts, axis=2).transpose(2, 0, 1).copy())


def gaps(plan: Plan) -> list[tuple[int, int]]:
    """The pieces of memory that are no buffer's."""
    used = sorted((b.offset, b.offset + b.blocks * b.block) for b in plan._buffers if b.last >= 0)
    found, at = [], 0
    for begin, end in used:
        if begin > at:
            found.append((at, begin))
        at = max(at, end)
    return [*found, (at, plan._memory.size)]


def surroundings(plan: Plan, buffer: object) -> NDArray[np.float32]:
    """What lies around a map with padding."""
    from jcs_ct.inference.native.plan import Buffer

    assert isinstance(buffer, Buffer)
    p = buffer.padding
    if not p:
        return np.zeros(0, np.float32)
    whole = plan._memory[buffer.offset : buffer.offset + buffer.blocks * buffer.block]
    whole = whole.reshape(buffer.blocks, buffer.rows + 2 * p, buffer.columns + 2 * p, -1)
    around = np.ones(whole.shape, bool)
    around[:, p:-p, p:-p] = False
    return whole[around]


def layer(c_in: int, c_out: int, kernel: int, *, stride: int = 1, dilation: int = 1, bias: bool = True) -> nn.Conv2d:
    """A convolution with weights that no code of the package had a hand in."""
    made = nn.Conv2d(c_in, c_out, kernel, stride, dilation * (kernel // 2), dilation, bias=bias)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.copy_(torch.randn(parameter.shape) / (c_in * kernel * kernel) ** 0.5)
    return made.requires_grad_(False)


def exact(conv: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """The convolution of C×H×W in double precision, before any ReLU."""
    bias = None if conv.bias is None else conv.bias.double()
    found = nn.functional.conv2d(x[None].double(), conv.weight.double(), bias, conv.stride, conv.padding, conv.dilation)
    return found[0]


def error(expected: torch.Tensor, found: torch.Tensor) -> float:
    """The largest difference over the largest value."""
    assert expected.shape == found.shape
    return float((expected - found).abs().max() / expected.abs().max().clamp(min=1e-3))
