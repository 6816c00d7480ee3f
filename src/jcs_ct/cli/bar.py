"""How far a long command is and how long it will take: a bar on a terminal, a line a minute in a log."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from jcs_ct.core.duration import duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

EVERY = 60.0  # seconds between lines in a log


class Bar:
    """Shows how many of `total` slices are done. A context: the bar is gone when it ends.

    `say` says a line; with `quiet` there is neither bar nor line. `now` is the clock, in seconds.
    """

    def __init__(
        self, total: int, say: Callable[[str], object], *, quiet: bool, now: Callable[[], float] = time.monotonic
    ) -> None:
        from tqdm import tqdm

        self._total, self._say, self._quiet, self._now = total, say, quiet, now
        self._began = self._said = now()
        self._bar = tqdm(total=total, unit="slice", disable=quiet or None, leave=False)

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._bar.close()

    def to(self, done: int) -> None:
        """Show that `done` slices are done."""
        if not self._bar.disable:
            self._bar.update(done - self._bar.n)
            return
        now = self._now()
        if self._quiet or now - self._said < EVERY or not 0 < done < self._total:
            return
        self._said = now
        left = duration((now - self._began) / done * (self._total - done))
        self._say(f"jcs: {done} of {self._total} slices, {left} left")
