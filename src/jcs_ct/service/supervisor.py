"""Keeps the worker processes of one machine alive, and ends those that are frozen or beyond a limit."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core.errors import UsageError
from jcs_ct.core.processors import threads
from jcs_ct.service.database import RecordError
from jcs_ct.service.files import Folders
from jcs_ct.service.record import Record, Study
from jcs_ct.service.worker import READY

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.service.settings import Service

WATCH_SECONDS = 0.25
MOST_PAUSE = 30.0  # between two starts of a worker that ends again and again
NVIDIA = Path("/proc/driver/nvidia/gpus")  # the driver's: a folder for each
START_SECONDS = 900.0  # a worker may take to load its weights; a runtime is made and checked meanwhile
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


@dataclass
class _Child:
    """A worker process."""

    name: str
    process: subprocess.Popen[str]
    gpu: str = ""  # the one that it sees
    ready: bool = False
    heard: float = field(default_factory=time.monotonic)
    words: list[str] = field(default_factory=list)
    study: Study | None = None  # what it had in hand last
    attempt: tuple[str, int] = ("", 0)  # what it has in hand …
    since: float = 0.0  # … and since when
    spent: bool = False  # it took more memory than it may

    def watch_memory(self, most: Callable[[], int]) -> None:
        """End it where it takes more memory, in a thread of its own: that does not wait until a database answers."""
        while self.process.poll() is None:
            if self.resident() > most():
                self.spent = True
                self.process.kill()
                return
            time.sleep(WATCH_SECONDS)

    def listen(self, say: Callable[[str], None]) -> None:
        """Read what it says, in a thread of its own; pass on what it says while it works, once."""
        if self.process.stdout is None:
            return
        for line in map(str.strip, self.process.stdout):
            self.heard = time.monotonic()
            if line == READY:
                self.ready = True
                continue
            if self.ready and self.words[-1:] != [line]:
                say(f"a worker waits: {line}")
            self.words = [*self.words, line][-5:]

    def resident(self) -> int:
        """Return the memory it holds, in bytes; 0 where it is gone or the system does not tell."""
        try:
            return int(Path(f"/proc/{self.process.pid}/statm").read_text(encoding="ascii").split()[1]) * _PAGE
        except (OSError, IndexError, ValueError):
            return 0

    def kill(self) -> None:
        """End it, whatever it does."""
        self.process.kill()  # also ends a stopped process
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


class Supervisor:
    """The worker processes of this machine; `say` gets a line about one that ended."""

    def __init__(self, service: Service, workers: int, say: Callable[[str], None]) -> None:
        self._service, self._wanted, self._say = service, workers, say
        self._record = Record(service.database)
        self._folders = Folders(service.folder)
        self._children: list[_Child] = []
        self._stop = threading.Event()
        self._failures, self._not_before = 0, 0.0
        self._thread = threading.Thread(target=self.run, name="supervisor", daemon=True)

    @property
    def ready(self) -> int:
        """How many workers have loaded their weights and live."""
        return sum(child.ready and child.process.poll() is None for child in self._children)

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers."""
        return [child.process.pid for child in self._children]

    def start(self) -> None:
        """Watch in a thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the workers; what they had in hand is given back and not counted."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        for child in self._children:
            child.kill()
        for child in self._children:  # a database that is away holds none of them up
            self._give_back(child, "lost", "", counted=False)
        self._children = []
        self._record.close()

    def run(self) -> None:
        """Watch until `stop`."""
        while not self._stop.is_set():
            try:
                self._watch()
            except RecordError as error:  # the database is away for long: workers wait for it as well
                self._tell(error.line())
                for child in self._children:  # nor is it known what they have in hand: their time begins anew
                    child.since = time.monotonic()
            except OSError as error:  # no process or no memory left for a worker: later there may be
                self._tell(f"no worker can be started: {error.strerror}")
                self._not_before = time.monotonic() + MOST_PAUSE
            self._stop.wait(WATCH_SECONDS)

    def _tell(self, line: str) -> None:
        with suppress(OSError):  # whoever listened has gone; the workers must be watched all the same
            self._say(line)

    def _watch(self) -> None:
        for child in [c for c in self._children if c.process.poll() is not None]:
            if child.spent:
                most = self._service.limits.memory / 2**30
                self._end(child, "memory", f"it takes more than {most:.3g} GiB of memory")
            else:
                self._ended(child)
        while len(self._children) < self._wanted and time.monotonic() >= self._not_before:
            self._children.append(self._started())
        held = self._record.held_by([child.name for child in self._children])
        for child in list(self._children):
            self._check(child, held.get(child.name))

    def _started(self) -> _Child:
        name = f"{platform.node()[:40]}-{uuid.uuid4().hex[:12]}"
        share = threads(processes=self._wanted)
        environment = {"OMP_NUM_THREADS": str(share), **os.environ}
        used = [child.gpu for child in self._children]
        gpu = min(gpus(), key=used.count, default="")
        if gpu:
            environment["CUDA_VISIBLE_DEVICES"] = gpu
        process = subprocess.Popen(  # noqa: S603  # this Python, and a name made here
            [sys.executable, "-m", "jcs_ct.service.worker", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        child = _Child(name, process, gpu)
        threading.Thread(target=child.listen, args=(self._tell,), daemon=True).start()
        threading.Thread(target=child.watch_memory, args=(lambda: self._service.limits.memory,), daemon=True).start()
        if process.stdin is not None:
            try:
                process.stdin.write(self._service.to_json() + "\n")
                process.stdin.flush()
            except OSError:  # it ended at once, which the next look tells
                pass
        return child

    def _ended(self, child: _Child) -> None:
        self._children.remove(child)
        status = child.process.returncode
        child.kill()
        self._give_back(child, "lost", "its worker ended")
        self._failures = 0 if child.ready else self._failures + 1
        if self._failures:
            self._not_before = time.monotonic() + min(2.0**self._failures, MOST_PAUSE)
        why = f": {' '.join(child.words)}" if child.words else ""
        self._tell(f"a worker ended with status {status}{why}; another is started")

    def _check(self, child: _Child, study: Study | None) -> None:
        limits, now = self._service.limits, time.monotonic()
        attempt = ("", 0) if study is None else (study.id, study.attempt)
        if attempt != child.attempt:
            child.attempt, child.since, child.study = attempt, now, study or child.study
        if child.ready and now - child.heard > 0.75 * limits.lease_seconds:  # before its lease ends
            self._end(child, "lost", "its worker was frozen")
        elif not child.ready and now - child.heard > START_SECONDS:
            self._end(child, "lost", "its worker did not start")
        elif study is not None and now - child.since > limits.seconds:
            self._end(child, "time", f"it takes more than {limits.seconds:.0f} seconds")

    def _end(self, child: _Child, error_class: str, why: str) -> None:
        child.kill()
        self._give_back(child, error_class, why)
        self._children.remove(child)
        self._tell(f"a worker was ended: {why}; another is started")

    def _give_back(self, child: _Child, error_class: str, why: str, *, counted: bool = True) -> None:
        """Have what an ended worker held wait again, and remove what it had written of it."""
        try:
            held = self._record.held_by([child.name]).get(child.name, child.study)  # its lease may have ended before
            self._record.give_back(child.name, error_class, why, self._service.limits.attempts, counted=counted)
            now = None if held is None else self._record.get(held.id)
        except RecordError as error:  # its lease ends by itself
            self._tell(error.line())
            return
        if held is not None and (now is None or (now.state, now.attempt) != ("done", held.attempt)):
            shutil.rmtree(self._folders.attempt(held), ignore_errors=True)


def gpus() -> list[str]:
    """Return NVIDIA's GPUs that workers share among them, as CUDA_VISIBLE_DEVICES names them; none: nothing is told.

    What that variable says already is kept to. CUDA itself is not asked: that would take memory of each GPU.
    """
    told = os.environ.get("CUDA_VISIBLE_DEVICES")
    if told is not None:
        return [name.strip() for name in told.split(",") if name.strip()]
    with suppress(OSError):
        return [str(number) for number in range(len(list(NVIDIA.iterdir())))]
    return []


def check_limits(service: Service) -> None:
    """Refuse limits that cannot be kept here. Raises UsageError."""
    if not Path("/proc/self/statm").exists() and service.limits.memory != type(service.limits)().memory:
        raise UsageError("--memory can only be kept on Linux", hint="leave it out")
    if service.limits.lease_seconds < 1:
        raise UsageError("--lease is below one second", hint="give 5 or more")
