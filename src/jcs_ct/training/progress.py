"""How far a run is, and how long it will take: a line that is written over on a terminal, else one now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TextIO

from jcs_ct.core.duration import duration

if TYPE_CHECKING:
    from collections.abc import Callable

EVERY = 60.0  # seconds between lines where they cannot be written over


class Progress:
    """Says where a run is: on a terminal a line that is written over, else a line once a minute."""

    def __init__(
        self, say: Callable[[str], None], terminal: TextIO | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._say, self._terminal, self._now = say, terminal, now
        self._first: tuple[float, int] | None = None
        self._said = now()
        self._shown = False

    def start(self, done: int) -> None:
        """Start the clock, after `done` steps of the run."""
        self._first, self._said = (self._now(), done), self._now()

    def step(self, where: str, loss: float, done: int, total: int) -> None:
        """Say where the run is ("epoch 2 of 60, step 5 of 79"), of whose `total` steps so many are done."""
        if self._terminal is None and self._now() - self._said < EVERY:
            return
        left = self.left(done, total)
        text = f"{where}: loss {loss:.4f}" + ("" if left is None else f", {duration(left)} left")
        if self._terminal is None:
            self._said = self._now()
            self._say(text)
            return
        self._terminal.write(f"\rjcs: {text}\x1b[K")
        self._terminal.flush()
        self._shown = True

    def left(self, done: int, total: int) -> float | None:
        """Return how many seconds are left, as fast as it went since the start; None before the first step."""
        if self._first is None or done <= self._first[1]:
            return None
        began, first = self._first
        return (self._now() - began) / (done - first) * (total - done)

    def ahead(self, done: int, total: int) -> str:
        """Return what to add to a line: how long it will take from here on; "" where nobody knows, or at the end."""
        left = self.left(done, total)
        return f"; {duration(left)} left" if left else ""

    def line(self, text: str) -> None:
        """Say a line of its own, in the place of the one that is written over."""
        self.clear()
        self._say(text)

    def clear(self) -> None:
        """Take the line away."""
        if self._terminal is not None and self._shown:
            self._terminal.write("\r\x1b[K")
            self._terminal.flush()
            self._shown = False
