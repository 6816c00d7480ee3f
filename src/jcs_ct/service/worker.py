"""A worker: a process that loads the weights once and takes one study after the other.

`python -m jcs_ct.service.worker NAME` reads one line, the service as JSON, and ends when its standard input does: no
worker outlives the process that started it. From when the weights are loaded it says "ready" every few seconds.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from jcs_ct.core.errors import JcsError, MemoryRanOutError, OutputError
from jcs_ct.service.database import RecordError
from jcs_ct.service.files import Folders
from jcs_ct.service.record import Record, Study
from jcs_ct.service.settings import Service

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jcs_ct.service.diagnosis import StudyRunner

POLL_SECONDS = 0.5
TELL_SECONDS = 1.0  # between two notes of progress
FULL_SECONDS = 10.0  # until a study is taken again on a disk that was full
LEAST_ROOM = 256 * 2**20  # bytes; with less than that and a study's size free, a disk is full
LOST = 3  # exit status of a worker whose study is no longer its own
READY = "ready"


class LeaseKeeper(threading.Thread):
    """Renews the lease of the study in hand; ends the process where it has been given to another.

    A process that is frozen, or whose interpreter is held, renews nothing: that is how it is found.
    """

    def __init__(self, record: Record, lease: float) -> None:
        super().__init__(daemon=True, name="lease")
        self.record, self.lease = record, lease
        self.study: Study | None = None
        self.progress: float | None = None
        self._lock = threading.Lock()

    def hold(self, study: Study) -> None:
        """Renew the lease of this study from now on."""
        self.progress, self.study = None, study

    @contextmanager
    def ending(self) -> Iterator[None]:
        """Renew no more: what is done in this context ends the attempt, and would look like one that was lost."""
        with self._lock:
            self.study = None
            yield

    def tell(self, done: int, slices: int) -> None:
        """Take note of how many slices are done."""
        self.progress = done / slices if slices else None

    def run(self) -> None:
        """Renew until the process ends: by the time a lease needs it, sooner where there is progress to tell."""
        told, renewed = None, 0.0
        while True:
            time.sleep(min(TELL_SECONDS, self.lease / 4))
            with self._lock:
                study, progress, now = self.study, self.progress, time.monotonic()
                if study is None or (progress == told and now - renewed < self.lease / 4):
                    continue
                try:
                    held = self.record.renew(study, self.lease, progress)
                except RecordError:  # it lets nobody in for now
                    continue
                if not held:
                    os._exit(LOST)  # the study was taken back or deleted: what is computed here is of no use
            told, renewed = progress, now


class Worker:
    """Takes studies under a name of its own, and looks at them with `run_study`."""

    def __init__(self, name: str, service: Service, run_study: StudyRunner) -> None:
        self.name, self.service, self.run_study = name, service, run_study
        # What was computed is not thrown away because the database is away: it is waited for.
        self.folders, self.record = Folders(service.folder), Record(service.database, patience=math.inf)
        self.settings = service.diagnosis.digest()
        self.lease_keeper = LeaseKeeper(self.record, service.limits.lease_seconds)
        self.lease_keeper.start()

    def take(self) -> bool:
        """Take one study; return whether there was one that could be worked on."""
        limits = self.service.limits
        study = self.record.claim(self.name, self.settings, limits.lease_seconds, limits.attempts)
        if study is None:
            return False
        self.lease_keeper.hold(study)
        return self._work(study)

    def _work(self, study: Study) -> bool:
        out = self.folders.attempt(study)
        try:
            try:
                out.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot be made: {error.strerror}", path=out.name, hint="check the disk") from error
            outcome = self.run_study(self.folders.input(study.input), out, self.lease_keeper.tell)
        except (MemoryError, MemoryRanOutError):
            self._fail(study, "memory", "needs more memory than there is")
        except OutputError as error:
            return self._give_back(study, error)
        except JcsError as error:
            self._fail(study, "unforeseen" if "unexpected" in (error.hint or "") else "input", error.line())
        except Exception as error:  # noqa: BLE001  # a study must not stop the others
            self._fail(study, "unforeseen", f"failed: {type(error).__name__}")
        else:
            with self.lease_keeper.ending():
                published = self.record.finish(study, outcome)
            if published:
                self.folders.keep_only(study)
            else:
                self._clear(study)
        return True

    def _give_back(self, study: Study, error: OutputError) -> bool:
        """Have a study wait again whose results could not be written; on a full disk that is not the study's fault."""
        room = study.bytes + LEAST_ROOM
        full = any(free < room for free in (self.folders.free_bytes(), shutil.disk_usage(tempfile.gettempdir()).free))
        if full:  # not what `error` says: that may name a file
            print(f"the disk is full, study {study.id} is tried again", flush=True)  # noqa: T201  # for the supervisor
        self._clear(study)
        with self.lease_keeper.ending():
            self.record.give_back(self.name, "unforeseen", error.line(), self.service.limits.attempts, counted=not full)
        time.sleep(FULL_SECONDS if full else POLL_SECONDS)
        return False

    def _fail(self, study: Study, error_class: str, line: str) -> None:
        with self.lease_keeper.ending():
            self.record.fail(study, error_class, line)
        self._clear(study)

    def _clear(self, study: Study) -> None:
        shutil.rmtree(self.folders.attempt(study), ignore_errors=True)


def main() -> None:
    """Work until standard input ends."""
    name = sys.argv[1]
    service = Service.from_json(sys.stdin.readline())
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        from jcs_ct.core.memory import one_arena
        from jcs_ct.service.diagnosis import StudyRunner

        one_arena()
        worker = Worker(name, service, StudyRunner(service.diagnosis))
    except JcsError as error:
        print(error.line(), flush=True)  # noqa: T201  # the supervisor reads it
        sys.exit(error.exit_status)
    threading.Thread(target=_tell_life, args=(service.limits.lease_seconds / 8,), daemon=True).start()
    while True:
        try:
            busy = worker.take()
        except RecordError as error:  # it lets nobody in any more; leases end by themselves
            print(error.line(), flush=True)  # noqa: T201
            busy = False
        if not busy:
            time.sleep(POLL_SECONDS)


def _tell_life(pause: float) -> None:
    """Say "ready" again and again: a process that is frozen does not, whether it has a study in hand or none."""
    while True:
        print(READY, flush=True)  # noqa: T201
        time.sleep(pause)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(0)  # what was in hand is given back by whoever sees that this process is gone


if __name__ == "__main__":
    main()
