"""Three things at once, in order and in bounded memory: slices are read ahead, looked at, and finished behind.

Reading and finishing have a thread each; NumPy, zlib and the decoders work outside of Python's lock.
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
    from types import TracebackType

S = TypeVar("S")
T = TypeVar("T")

AHEAD = 3  # slices that wait between two stages, at most


def ahead(work: Callable[[S], T], items: Iterable[S], threads: int = 1) -> Iterator[tuple[S, T]]:
    """Yield (item, work(item)) in order, a few of them computed beside whoever takes them."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[tuple[S, Future[T]]] = deque()
        for item in items:
            waiting.append((item, pool.submit(work, item)))
            if len(waiting) > AHEAD:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()


def side_by_side(work: Callable[[S], T], items: Iterable[S], threads: int) -> Iterator[tuple[S, T]]:
    """Yield (item, work(item)) in order, from several threads as `ahead` does, or, with one, just when it is asked for.

    Nothing waits then: memory is smaller.
    """
    return ahead(work, items, threads) if threads > 1 else ((item, work(item)) for item in items)


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


class Behind:
    """Does work in a thread of its own, in the order it comes; whoever brings more than waits for it, waits.

    A context: its end waits for all work. What goes wrong in the thread is raised where the next work is brought, or
    at the end.
    """

    def __init__(self, limit: int = AHEAD, threads: int = 1) -> None:
        self._limit, self._pool = limit, ThreadPoolExecutor(threads)
        self._waiting: deque[Future[None]] = deque()

    def do(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work(*arguments)` done."""
        while len(self._waiting) >= self._limit:
            self._waiting.popleft().result()
        self._waiting.append(self._pool.submit(work, *arguments))

    def __enter__(self) -> Behind:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        try:
            if error is None:
                while self._waiting:
                    self._waiting.popleft().result()
        finally:
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def brief_turns() -> Iterator[None]:
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

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Leave the lock behind, which cannot be pickled or copied."""
        return _clock_of, (dict(self.seconds),)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Count what happens in this context to a stage."""
        started = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self.seconds[stage] += time.perf_counter() - started


def _clock_of(seconds: dict[str, float]) -> Clock:
    clock = Clock()
    clock.seconds.update(seconds)
    return clock
