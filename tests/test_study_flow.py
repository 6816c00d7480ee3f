"""Slices are read ahead, looked at side by side, and finished behind: in order, in bounded memory, errors raised."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from jcs_ct.core.errors import InputError
from jcs_ct.study.flow import AHEAD, Behind, ahead, batches, side_by_side

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


def test_reading_ahead_keeps_the_order_and_passes_errors_on() -> None:
    assert list(ahead(lambda i: i * i, [])) == []
    for count in (1, 2, 3, 4, 50):
        for threads in (1, 2, 5):
            assert list(ahead(lambda i: i * i, range(count), threads)) == [(i, i * i) for i in range(count)]
    with pytest.raises(ZeroDivisionError):
        list(ahead(lambda i: 1 // (i - 5), range(9)))


def test_no_more_is_read_ahead_than_was_said() -> None:
    begun: list[int] = []
    for i, _ in ahead(begun.append, range(20), 2):
        assert len(begun) <= i + 1 + AHEAD
        assert begun[: i + 1] == list(range(i + 1))
    assert len(begun) == 20


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_side_by_side(threads: int) -> None:
    meeting = threading.Barrier(threads)

    def work(i: int) -> int:
        meeting.wait(30)  # nobody goes on before as many are at work
        return -i

    assert list(side_by_side(work, range(6), threads)) == [(i, -i) for i in range(6)]
    asked: list[int] = []

    def items() -> Iterator[int]:
        for i in range(6):
            asked.append(i)
            yield i

    first = next(side_by_side(abs, items(), threads))
    assert first == (0, 0)
    assert len(asked) == (1 if threads == 1 else AHEAD + 1), "one caller keeps nothing waiting"


@pytest.mark.parametrize("threads", [1, 2])
def test_what_goes_wrong_side_by_side_is_raised(threads: int) -> None:
    def items() -> Iterator[int]:
        yield from range(5)
        raise InputError("cannot be read")

    found: list[int] = []
    with pytest.raises(InputError, match="cannot be read"):
        found.extend(i for i, _ in side_by_side(abs, items(), threads))
    with pytest.raises(ZeroDivisionError):
        list(side_by_side(lambda i: 1 // (i - 3), range(50), threads))
    assert threading.active_count() < 20


def test_threads_share_one_heap() -> None:
    """glibc tells how many heaps ("arenas") a process has: of its own it makes one for each thread, up to a limit."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("needs glibc")
    code = (
        "import ctypes, sys, threading; from jcs_ct.core.memory import one_heap\n"
        "print(one_heap() if sys.argv[1] == 'one' else 'not asked', file=sys.stderr)\n"
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


def test_work_behind_is_done_in_order_and_its_errors_are_raised() -> None:
    done: list[int] = []
    with Behind(2) as behind:
        for i in range(20):
            behind.do(done.append, i)
    assert done == list(range(20))

    def fail(i: int) -> None:
        if i == 3:
            raise InputError("broken")
        done.append(i)

    def give(numbers: Sequence[int], last: type[Exception] | None = None) -> None:
        with Behind(2) as behind:
            for i in numbers:
                behind.do(fail, i)
            if last is not None:
                raise last

    with pytest.raises(InputError, match="broken"):
        give(range(50))
    assert 49 not in done[20:]
    with pytest.raises(InputError, match="broken"):
        give([3])
    with pytest.raises(KeyError):
        give([3], KeyError)


def test_batches() -> None:
    assert list(batches(range(7), 3)) == [[0, 1, 2], [3, 4, 5], [6]]
    assert list(batches(range(2), 1)) == [[0], [1]]
    assert list(batches([], 3)) == []
