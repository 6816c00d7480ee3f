"""A worker: a process that loads the weights once and takes one study after the other.

`python -m jcs_ct.service.worker NAME` reads one line, the service as JSON, and ends when its standard input does: no
worker outlives the process that started it. From when the weights are loaded it says "ready" every few seconds.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
import time
from typing import TYPE_CHECKING

from jcs_ct.core.errors import JcsError, OutputError
from jcs_ct.service.files import Folders
from jcs_ct.service.record import Record
from jcs_ct.service.settings import Service

if TYPE_CHECKING:
    from jcs_ct.service.diagnosis import StudyRunner
    from jcs_ct.service.record import Study

POLL_SECONDS = 0.5
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

    def run(self) -> None:
        """Renew until the process ends."""
        while True:
            time.sleep(self.lease / 4)
            study = self.study
            if study is not None and not self.record.renew(study, self.lease) and study is self.study:
                os._exit(LOST)  # the study was taken back or deleted: what is computed here is of no use


class Worker:
    """Takes studies and looks at them.

    Args:
        name: Of this process, in the record.
        service: The service.
        run_study: Diagnoses one study.
    """

    def __init__(self, name: str, service: Service, run_study: StudyRunner) -> None:
        self.name, self.service, self.run_study = name, service, run_study
        self.folders, self.record = Folders(service.folder), Record(service.database)
        self.settings = service.diagnosis.digest()
        self.lease_keeper = LeaseKeeper(self.record, service.limits.lease_seconds)
        self.lease_keeper.start()

    def take(self) -> bool:
        """Take one study; return whether there was one."""
        limits = self.service.limits
        study = self.record.claim(self.name, self.settings, limits.lease_seconds, limits.attempts)
        if study is None:
            return False
        self.lease_keeper.study = study
        try:
            self._work(study)
        finally:
            self.lease_keeper.study = None
        return True

    def _work(self, study: Study) -> None:
        out = self.folders.attempt(study)
        try:
            out.mkdir(parents=True, exist_ok=True)
            outcome = self.run_study(self.folders.input(study.input), out)
        except MemoryError:
            self._fail(study, "memory", "needs more memory than there is")
        except OutputError as error:  # the disk may be full for now
            self._clear(study)
            self.record.give_back(self.name, "unforeseen", error.line(), self.service.limits.attempts)
            time.sleep(POLL_SECONDS)
        except JcsError as error:
            self._fail(study, "unforeseen" if "unexpected" in (error.hint or "") else "input", error.line())
        except Exception as error:  # noqa: BLE001  # a study must not stop the others
            self._fail(study, "unforeseen", f"failed: {type(error).__name__}")
        else:
            if self.record.finish(study, outcome):
                self.folders.keep_only(study)
            else:
                self._clear(study)

    def _fail(self, study: Study, error_class: str, line: str) -> None:
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
        if not worker.take():
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
