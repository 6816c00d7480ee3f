"""Stages of a study at work at the same time, in order and in bounded memory: reading, networks, measuring.

Each stage takes from the one before; all but the networks have a thread of their own. NumPy, zlib and the decoders
work outside of Python's lock.
"""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from concurrent.futures import Future

S = TypeVar("S")
T = TypeVar("T")

WAITING = 3  # slices that wait between two stages, at most


def in_order(work: Callable[[S], T], items: Iterable[S], threads: int = 1) -> Iterator[tuple[S, T]]:
    """Yield (item, work(item)) in order, a few of them computed in threads beside whoever takes them.

    What goes wrong in a thread is raised where its result would come.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        waiting: deque[tuple[S, Future[T]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > WAITING:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def concurrently(work: Callable[[S], T], items: Iterable[S], calls: int) -> Iterator[tuple[S, T]]:
    """Yield (item, work(item)) in order, with so many calls at the same time, or, with one, just when it is asked for.

    Nothing waits then: memory is smaller.
    """
    return in_order(work, items, calls) if calls > 1 else ((item, work(item)) for item in items)


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield items in groups of `size`, the last one smaller."""
    group: list[T] = []
    for item in items:
        group.append(item)
        if len(group) >= size:
            yield group
            group = []
    if group:
        yield group


@contextmanager
def short_switch_interval() -> Iterator[None]:
    """Let threads take turns with Python each half millisecond: one that packs would wait for 5 ms at every step."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(0.0005)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


class Clock:
    """Seconds that the stages of a study take, each in its own thread: together more than the study where they overlap.

    Attributes:
        seconds: By stage.
    """

    def __init__(self, seconds: dict[str, float] | None = None) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float, seconds or {})
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the lock behind, which cannot be pickled or copied."""
        return Clock, (dict(self.seconds),)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count what happens in this context to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - started
