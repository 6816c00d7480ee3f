"""`jcs watch orthanc`: one watcher beside its workers, until it is told to end."""

from __future__ import annotations

import hashlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from jcs_ct.core.errors import UsageError
from jcs_ct.service.database import RecordError
from jcs_ct.service.files import Folders
from jcs_ct.service.log import Log
from jcs_ct.service.pseudonyms import Pseudonyms
from jcs_ct.service.run import told_to_end, tried_again, working
from jcs_ct.service.watch.ledger import Ledger
from jcs_ct.service.watch.orthanc import AwayError, Orthanc
from jcs_ct.service.watch.watcher import WHO, Habits, Watcher

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    from jcs_ct.service.settings import Service

MOST_PAUSE = 4  # times the usual pause between two looks, while an archive does not answer


@dataclass(frozen=True)
class Watch:
    """What is watched, and how: studies come from `archive`, results go to `target`, `every` so many seconds."""

    archive: Orthanc
    target: Orthanc
    habits: Habits
    every: float


def watch(service: Service, what: Watch, workers: int, say: Callable[[str], None]) -> None:
    """Watch until SIGTERM or SIGINT.

    Raises:
        UsageError: There is not an Orthanc at the address, or another watcher is at it with the same folder.
        OutputError: The folder cannot be used.
    """
    stopped = told_to_end()
    folders = Folders(service.folder)
    folders.prepare()
    with _alone(service, what.archive), working(service, workers, say):
        ledger = Ledger(service.database)
        ledger.prepare()
        _tidy(folders, ledger)
        log = Log(ledger)
        watcher = Watcher(
            what.archive, what.target, ledger, folders, service.limits, service.diagnosis.digest(), log,
            Pseudonyms(service.folder), what.habits, stopped.is_set,
        )  # fmt: skip
        log.audit(WHO, "start")
        say(f"watching {what.archive.url} with {workers} workers")
        _rounds(watcher, what, stopped, say)
        log.audit(WHO, "stop")
        ledger.close()


def _rounds(watcher: Watcher, what: Watch, stopped: threading.Event, say: Callable[[str], None]) -> None:
    """One round after the other; an archive or a database that is away is waited for, and told of once."""
    checked, away, pause = False, False, what.every
    while not stopped.wait(pause if checked or away else 0):
        try:
            if not checked:
                for one in (what.archive, what.target):
                    one.check()
                checked = True
            watcher.round()
            if away:
                say("answers again")
            away, pause = False, what.every
        except (AwayError, RecordError, OSError) as error:
            if not away:
                say(tried_again(error))
            away, pause = True, min(2 * pause, MOST_PAUSE * what.every)


def _tidy(folders: Folders, ledger: Ledger) -> None:
    """Remove what a watcher that was killed has left."""
    folders.tidy(ledger.inputs())
    kept = {str(number) for number in ledger.open_numbers()}
    for path in (folders.root / "outgoing").iterdir():
        if path.name not in kept:
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def _alone(service: Service, archive: Orthanc) -> Iterator[None]:
    """Keep a second watcher of the same archive from the folder: both would send what the other has sent."""
    mark = hashlib.sha256(archive.url.encode()).hexdigest()[:16]
    lock = FileLock(service.folder / f".watch-{mark}.lock")
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise UsageError(
            f"another watcher is at {archive.url} already", path=service.folder, hint="run only one"
        ) from error
    try:
        yield
    finally:
        lock.release()
