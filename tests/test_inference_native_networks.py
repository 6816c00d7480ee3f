"""The published networks on the runtime `native`, and the memory of their plans."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.inference.native import builder
from jcs_ct.inference.native import engine as native
from jcs_ct.inference.native.builder import Builder
from jcs_ct.inference.native.engine import NativeEngine
from jcs_ct.inference.native.plan import Plan
from native_help import gaps, surroundings
from runtime_help import expected, far, noise

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.native.build import Library

SIZES = [(16, 16), (17, 16), (16, 80), (49, 35), (64, 80)]  # with 16 rows the deepest maps have one
LIMIT = 2e-5


def features(name: str, count: int, rows: int, columns: int) -> list[NDArray[np.float32]]:
    """Stage-1 features, which come from a ReLU."""
    found = [np.abs(noise(64, count, rows, columns))]
    return [*found, np.abs(noise(64, count, -(-rows // 2), -(-columns // 2)))] if name == "jcs-joint" else found


def plain(network: nn.Module, arrays: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
    if len(arrays) == 1:
        return expected(network, arrays[0])
    with torch.inference_mode():
        return [network(*map(torch.from_numpy, arrays)).numpy()[:, :1]]


@pytest.fixture(scope="module")
def single(kernels: Library, filled: Callable[..., nn.Module]) -> NativeEngine:
    return NativeEngine(filled("jcs-single"), kernels, 1)


@pytest.mark.parametrize("inputs", ["image", "features"])
@pytest.mark.parametrize("name", ["jcs-single", "jcs-joint", "jcs-classifier"])
def test_networks_agree_at_any_size(
    name: str, inputs: str, kernels: Library, filled: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "WIDE", 40)  # tiles of both sizes, also of one layer
    network = filled(name, inputs)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    engine = NativeEngine(network, kernels, 2)
    sizes = SIZES if inputs == "image" else SIZES[2:4]
    for i, size in enumerate([*sizes, sizes[-2]]):
        count = 2 if i == 1 else 1
        arrays = [noise(3, count, *size)] if inputs == "image" else features(name, count, *size)
        found = engine.run(arrays)
        assert far(plain(network, arrays), found) < LIMIT, size
        assert all(values.dtype == np.float32 for values in found)
    assert len(engine._plans) == native.SIZES, "each plan has its own memory"
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before), "only the engine's own weights are dropped"
    assert not any(p.is_meta for p in network.parameters())


def test_results_are_copies_and_plans_are_kept(
    single: NativeEngine, filled: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, other = noise(3, 1, 32, 48), noise(3, 1, 32, 48)[:, ::-1, :, ::-1], noise(3, 1, 48, 32)
    (first,) = single.run([one])
    kept = first.copy()
    (second,) = single.run([two])
    assert np.array_equal(first, kept)
    assert not np.allclose(first, second)
    single.run([other])
    monkeypatch.setattr(native, "Builder", lambda *_: pytest.fail("a plan is made again"))
    assert np.array_equal(single.run([one])[0], kept)
    (both,) = single.run([np.concatenate([one, two])])
    assert np.array_equal(both, np.concatenate([first, second])), "slices of a batch know nothing of each other"
    assert far(expected(filled("jcs-single"), np.ascontiguousarray(two)), [second]) < LIMIT


def test_threads_change_no_bit(single: NativeEngine, kernels: Library, filled: Callable[..., nn.Module]) -> None:
    arrays = [noise(3, 1, 49, 67)]
    found = single.run(arrays)
    for threads in (2, 3):
        engine = NativeEngine(filled("jcs-single"), kernels, threads)
        for _ in range(3):
            assert np.array_equal(engine.run(arrays)[0], found[0])


def test_callers_in_several_threads_wait_for_each_other(single: NativeEngine) -> None:
    arrays = [noise(3, 1, 96, 96) * np.float32(i + 1) for i in range(4)]  # of one size: they share a plan
    alone = [single.run([array])[0] for array in arrays]
    together: list[list[NDArray[np.float32]]] = [[] for _ in arrays]

    def call(i: int) -> None:
        for _ in range(4):
            together[i].append(single.run([arrays[i]])[0])

    callers = [threading.Thread(target=call, args=(i,)) for i in range(len(arrays))]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert all(len(found) == 4 for found in together)
    assert all(np.array_equal(values, alone[i]) for i, found in enumerate(together) for values in found)


def test_two_slices_at_once_change_no_bit(kernels: Library, filled: Callable[..., nn.Module]) -> None:
    engine = NativeEngine(filled("jcs-single"), kernels, 3)
    arrays = [noise(3, 1, 64, 80) * np.float32(i + 1) for i in range(6)]
    alone = [engine.run([array])[0] for array in arrays]
    assert engine.share(1) == 1
    assert engine.share(100) == native.CONCURRENT == 2
    with ThreadPoolExecutor(4) as pool:  # of four callers, two wait
        together = list(pool.map(lambda array: engine.run([array])[0], arrays * 3))
    assert all(np.array_equal(found, alone[i % 6]) for i, found in enumerate(together))
    assert 1 <= len(engine._plans[(1, 3, 64, 80)]) <= 2, "each call has a plan of its own"
    with pytest.raises(ShapeError):
        engine.run([noise(3, 1, 8, 8)])
    assert engine.share(1) == 1
    assert np.array_equal(engine.run([arrays[0]])[0], alone[0])
    assert NativeEngine(filled("jcs-single"), kernels, 1).share(2) == 1, "one processor is not divided"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_fork_during_a_run_leaves_no_lock_behind(single: NativeEngine) -> None:
    array = noise(3, 1, 32, 32)
    (wanted,) = single.run([array])
    held, free = threading.Event(), threading.Event()

    def busy() -> None:
        with single._lock, single._turns:
            held.set()
            free.wait(60)

    other = threading.Thread(target=busy)
    other.start()
    assert held.wait(60)
    child = os.fork()
    if not child:
        signal.alarm(60)  # ends a process that waits for a thread which it does not have
        os._exit(0 if np.array_equal(single.run([array])[0], wanted) else 1)
    free.set()
    other.join()
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert np.array_equal(single.run([array])[0], wanted)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_comes_out(
    value: float, single: NativeEngine, kernels: Library, filled: Callable[..., nn.Module]
) -> None:
    image = noise(3, 1, 32, 48)
    fine = single.run([image])
    image[0, 1, 20, 30] = value
    assert not np.isfinite(single.run([image])[0]).all()
    if np.isnan(value):
        for found in NativeEngine(filled("jcs-classifier"), kernels, 1).run([image]):
            assert np.isnan(found).any()
    again = single.run([noise(3, 1, 32, 48)])
    assert np.array_equal(fine[0], again[0]), "nothing of it stays in the memory of the plan"


def test_what_the_network_refuses_is_refused(
    single: NativeEngine, kernels: Library, filled: Callable[..., nn.Module]
) -> None:
    for shape in ((1, 3, 15, 40), (1, 3, 40, 15), (1, 3, 0, 40), (1, 64, 32, 32), (0, 3, 32, 32), (3, 32, 32)):
        with pytest.raises(ShapeError):
            single.run([np.zeros(shape, np.float32)])
    with pytest.raises(ShapeError):
        single.run([np.zeros((1, 3, 32, 32), np.float32)] * 2)
    joint = NativeEngine(filled("jcs-joint", "features"), kernels, 1)
    for second in ((1, 64, 32, 32), (1, 32, 16, 16), (2, 64, 16, 16)):
        with pytest.raises(ShapeError):
            joint.run([np.zeros((1, 64, 32, 32), np.float32), np.zeros(second, np.float32)])
    with pytest.raises(ShapeError):
        joint.run([np.zeros((1, 64, 32, 32), np.float32)])
    with pytest.raises(UsageError):
        NativeEngine(filled("jcs-single").get_submodule("vgg16"), kernels, 1)


def test_a_plan_that_fails_half_way_leaves_the_engine_usable(
    kernels: Library, filled: Callable[..., nn.Module], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory may run out while weights are packed and dropped."""
    engine, array, packed, left = (
        NativeEngine(filled("jcs-single"), kernels, 1),
        noise(3, 1, 32, 32),
        Builder._pack,
        [0],
    )

    def some(*args: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise MemoryError
        return packed(*args)

    def none(_plan: Plan) -> Any:
        raise MemoryError

    for left[0] in (5, 20):
        with monkeypatch.context() as patch:
            patch.setattr(Builder, "_pack", some)
            with pytest.raises(MemoryError):
                engine.run([array])
    with monkeypatch.context() as patch:
        patch.setattr(Plan, "place", none)
        with pytest.raises(MemoryError):
            engine.run([array])
    assert far(expected(filled("jcs-single"), array), engine.run([array])) < LIMIT


@pytest.mark.parametrize("name", ["jcs-single", "jcs-classifier"])
def test_no_two_maps_share_memory_while_both_are_needed(
    name: str, kernels: Library, filled: Callable[..., nn.Module]
) -> None:
    engine, total = NativeEngine(filled(name), kernels, 1), []
    for size in ((48, 64), (96, 128)):
        engine.run([noise(3, 1, *size)])
        plan = engine._plans[(1, 3, *size)][0].plan
        lives: dict[Any, list[int]] = {}
        for step, (_, maps, _) in enumerate(plan._steps):  # what is written and read when, as the operations say
            for found in maps.values():
                lives.setdefault(found.buffer, []).append(step)
        for found in plan.inputs:
            lives[found.buffer].append(-1)
        for found in plan.outputs:
            lives[found.buffer].append(len(plan._steps))
        shared = 0
        for a, b in combinations(lives, 2):
            beside = a.offset + a.blocks * a.block <= b.offset or b.offset + b.blocks * b.block <= a.offset
            apart = max(lives[a]) < min(lives[b]) or max(lives[b]) < min(lives[a])
            assert beside or (apart and not a.padding and not b.padding)
            shared += not beside
        assert shared > 10, "memory is used again"
        assert all(b.offset >= 0 and b.offset + b.blocks * b.block <= plan._memory.size for b in lives)
        assert not any(surroundings(plan, buffer).any() for buffer in lives), "padding stays zero"
        assert not any(plan._memory[begin:end].any() for begin, end in gaps(plan)), "nothing is written beside a map"
        total.append(plan._memory.size)
    assert total[1] < 4.5 * total[0], "four times the pixels"
    whole = sum(b.blocks * b.block for b in lives)
    assert total[1] < whole / 2
