"""The processes of a benchmark: they answer, and whatever keeps them from it is one line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from jcs_ct.bench.child import Child, peak
from jcs_ct.core.errors import InputError, JcsError

if TYPE_CHECKING:
    from multiprocessing.connection import Connection


def doubling(end: Connection) -> None:
    while True:
        (number,) = end.recv()
        if number < 0:
            raise InputError("is negative", path="number", hint="give another")
        end.send(2 * number if number else 1 // number)


def test_a_child_answers_until_it_fails() -> None:
    child = Child(doubling, patience=60)
    assert [child.ask(1), child.ask(21)] == [2, 42]
    with pytest.raises(JcsError, match=r"^number: is negative \(give another\)$"):
        child.ask(-1)
    with pytest.raises(JcsError, match=r"^its process ended early"):
        child.ask(1)
    child.close()
    broken = Child(doubling, patience=60)
    with pytest.raises(JcsError, match=r"^ZeroDivisionError: "):
        broken.ask(0)
    broken.close()


def test_a_child_that_does_not_answer_is_ended() -> None:
    child = Child(doubling, patience=0.05)
    with pytest.raises(JcsError, match=r"^no answer in 0\.05 s$"):
        child.answer()
    child.close()
    assert child._process.exitcode is not None


def test_memory_is_of_this_process() -> None:
    before = peak()
    assert 10e6 < before < 100e9
    grown = b"x" * before  # more than ever was free
    assert peak() > before + len(grown) // 4
