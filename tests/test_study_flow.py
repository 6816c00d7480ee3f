"""The stages of a study work at the same time: in order, in bounded memory, errors raised."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from jcs_ct.core.errors import InputError
from jcs_ct.study.flow import WAITING, batches, concurrently, in_order, short_switch_interval

if TYPE_CHECKING:
    from collections.abc import Iterator


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(in_order(lambda i: i * i, [])) == []
    for count in (1, 2, 3, 4, 50):
        for threads in (1, 2, 5):
            assert list(in_order(lambda i: i * i, range(count), threads)) == [(i, i * i) for i in range(count)]
    with pytest.raises(ZeroDivisionError):
        list(in_order(lambda i: 1 // (i - 5), range(9)))


def test_no_more_is_read_ahead_than_was_said() -> None:
    begun: list[int] = []
    for i, _ in in_order(begun.append, range(20), 2):
        assert len(begun) <= i + 1 + WAITING
        assert begun[: i + 1] == list(range(i + 1))
    assert len(begun) == 20


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_concurrently(threads: int) -> None:
    meeting = threading.Barrier(threads)

    def work(i: int) -> int:
        meeting.wait(30)  # nobody goes on before as many are at work
        return -i

    assert list(concurrently(work, range(6), threads)) == [(i, -i) for i in range(6)]
    asked: list[int] = []

    def items() -> Iterator[int]:
        for i in range(6):
            asked.append(i)
            yield i

    first = next(concurrently(abs, items(), threads))
    assert first == (0, 0)
    assert len(asked) == (1 if threads == 1 else WAITING + 1), "one caller keeps nothing waiting"


@pytest.mark.parametrize("threads", [1, 2])
def test_what_goes_wrong_side_by_side_is_raised(threads: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise InputError("cannot be read")

    found: list[int] = []
    with pytest.raises(InputError, match="cannot be read"):
        found.extend(i for i, _ in concurrently(abs, items(), threads))
    with pytest.raises(ZeroDivisionError):
        list(concurrently(lambda i: 1 // (i - 3), range(50), threads))
    assert threading.active_count() < 20


def test_threads_share_one_heap() -> None:
    """glibc tells how many heaps ("arenas") a process has: of its own it makes one for each thread, up to a limit."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    code = (
        "import ctypes, sys, threading; from jcs_ct.core.memory import one_arena\n"
        "print(one_arena() if sys.argv[1] == 'one' else 'not asked', file=sys.stderr)\n"
        "gate = threading.Barrier(4)\n"
        "def work():\n    data = [bytes(700 + i) for i in range(9)]; gate.wait(30); return data\n"
        "threads = [threading.Thread(target=work) for _ in range(4)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]\n"
        "ctypes.CDLL(None).malloc_stats()\n"
    )

    def heaps(word: str, **more: str) -> tuple[str, int]:
        environment = {k: v for k, v in os.environ.items() if k != "MALLOC_ARENA_MAX"} | more
        command = [sys.executable, "-c", code, word]
        ran = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
        return ran.stderr.split()[0], ran.stderr.count("Arena ")

    assert heaps("one") == ("True", 1)
    assert heaps("none")[1] > 1, "or the test would not see it"
    assert heaps("one", MALLOC_ARENA_MAX="3")[0] == "False", "what the user has set counts"


def test_stages_one_behind_the_other() -> None:
    """Three stages, each in a thread of its own, keep the order; what fails in the last ends the first."""
    read: list[int] = []
    seen: list[str] = []

    def last(pair: tuple[int, int]) -> int:
        seen.append(threading.current_thread().name)
        if pair[0] == 30:
            raise InputError("broken")
        return pair[1] + 1

    def stages(count: int) -> list[int]:
        squares = concurrently(lambda i: i * i, (i for i, _ in in_order(read.append, range(count))), 1)
        return [found for _, found in in_order(last, squares)]

    assert stages(20) == [i * i + 1 for i in range(20)]
    assert threading.current_thread().name not in seen
    with pytest.raises(InputError, match="broken"):
        stages(1000)
    assert len(read) < 100
    assert threading.active_count() < 20


def test_the_switch_interval_comes_back() -> None:
    before = sys.getswitchinterval()
    with short_switch_interval():
        assert sys.getswitchinterval() == pytest.approx(0.0005)
    assert sys.getswitchinterval() == before


def test_batches() -> None:
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches(range(2), 1)) == [[0], [1]]
    assert list(batches([], 3)) == []
