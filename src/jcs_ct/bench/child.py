"""A process of a benchmark: started afresh, so that its memory is its own and libraries do not disturb one another."""

from __future__ import annotations

import multiprocessing
import resource
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jcs_ct.core.errors import JcsError, first_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

STEADY = 1.25  # slowest turn against fastest: more, and something else was running
_ENDED = "its process ended early: too little memory, perhaps"


class _Failure(NamedTuple):
    text: str


class Child:
    """A process that runs `work(end, *arguments)`, and talks through `end` until this object is closed.

    Args:
        work: A function of a module.
        arguments: Its arguments after the connection.
        patience: Seconds to wait for an answer.
    """

    def __init__(self, work: Callable[..., None], *arguments: Any, patience: float) -> None:
        context = multiprocessing.get_context("spawn")
        self._end, theirs = context.Pipe()
        self._patience = patience
        self._process = context.Process(target=_serve, args=(work, theirs, *arguments))
        self._process.start()
        theirs.close()

    def answer(self) -> Any:
        """Return the next value that it sends. Raises JcsError when it fails, ends, or takes too long."""
        try:
            if not self._end.poll(self._patience):
                raise JcsError(f"no answer in {self._patience} s")
            found = self._end.recv()
        except (EOFError, OSError) as error:
            raise JcsError(_ENDED) from error
        if isinstance(found, _Failure):
            raise JcsError(found.text)
        return found

    def ask(self, *question: Any) -> Any:
        """Send it something and return its answer. Raises as `answer`."""
        try:
            self._end.send(question)
        except OSError as error:
            raise JcsError(_ENDED) from error
        return self.answer()

    def close(self) -> None:
        """End it."""
        self._end.close()
        self._process.join(5)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)


def _serve(work: Callable[..., None], end: Connection, *arguments: Any) -> None:
    """Do the work of a process; that the other side has gone is a way to end."""
    try:
        work(end, *arguments)
    except (EOFError, BrokenPipeError):
        pass
    except JcsError as error:
        end.send(_Failure(error.line()))
    except Exception as error:  # noqa: BLE001  # whatever a library meets has to reach the other process
        end.send(_Failure(first_line(error)))


def peak() -> int:
    """Return the largest memory of this process so far, bytes.

    Linux: from /proc, since what `getrusage` says counts the process that started this one.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return used if sys.platform == "darwin" else used * 1024
