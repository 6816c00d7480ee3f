"""The record: one row a study. Whoever changes a row says which attempt it means, and learns whether it was right.

Each method is one transaction. Nothing else is shared between server and workers, so that any of them may die at any
point: a study is then found waiting, or running under a lease that ends.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, Connection, and_, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from jcs_ct.service.database import Database
from jcs_ct.service.tables import AUDIT, STUDIES, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILURES = ("input", "memory", "time", "lost", "unforeseen")
"""Classes of errors: unusable input; limits of memory and time; workers that died or froze; what nobody foresaw."""


@dataclass(frozen=True)
class Study:
    """A row, see `tables.STUDIES`."""

    id: str
    digest: str
    settings: str
    input: str
    files: int
    bytes: int
    state: str
    attempt: int
    tries: int
    worker: str | None
    lease: float | None
    submitted: float
    claimed: float | None
    finished: float | None
    progress: float | None
    error_class: str | None
    error: str | None
    outcome: dict[str, Any] | None


class Record(Database):
    """The studies of a service. See `Database` for its arguments, and for what every method raises."""

    def submit(self, digest: str, settings: str, folder: str, files: int, size: int) -> tuple[Study, bool]:
        """Enter a study that was received; return its row, and whether `folder` (its name) is its input.

        What is known already stays as it is, unless it failed or was deleted: then it is looked at again. Entering the
        same folder twice is entering it once: the answer to the first time may have been lost. `digest`: SHA-256 of
        what was sent; `settings`: digest of weights and settings.
        """
        same = and_(STUDIES.c.digest == digest, STUDIES.c.settings == settings)

        def enter(c: Connection) -> tuple[Study, bool]:
            fresh: dict[str, Any] = {"input": folder, "files": files, "bytes": size}
            fresh |= {"state": "waiting", "tries": 0, "submitted": self._now(c)}
            fresh |= dict.fromkeys(
                ("worker", "lease", "claimed", "finished", "progress", "error_class", "error", "outcome")
            )
            c.execute(update(STUDIES).where(same, STUDIES.c.state.in_(["failed", "deleted"])).values(fresh))
            row = c.execute(select(STUDIES).where(same)).first()
            if row is None:
                key = {"id": uuid.uuid4().hex, "digest": digest, "settings": settings, "attempt": 0}
                with suppress(IntegrityError), c.begin_nested():  # another process enters it in the same moment
                    c.execute(insert(STUDIES).values(key | fresh))
                row = c.execute(select(STUDIES).where(same)).one()
            return Study(**row._asdict()), row.input == folder

        return self._lasting(enter)

    def claim(self, worker: str, settings: str, lease: float, attempts: int) -> Study | None:
        """Give the oldest waiting study for these settings to a worker, by its name; None where there is none.

        After `lease` seconds it has lost the study, unless `renew` is called. A study gets so many attempts.
        """

        def give(c: Connection) -> Study | None:
            now = self._now(c)
            self._take_back(c, STUDIES.c.lease < now, "lost", "its worker stopped answering", attempts)
            mine = and_(STUDIES.c.state == "running", STUDIES.c.worker == worker)
            if (row := c.execute(select(STUDIES).where(mine)).first()) is not None:  # given before, the answer was lost
                self._change(c, row.id, row.attempt, "running", {"lease": now + lease})
                return Study(**row._asdict() | {"lease": now + lease})
            oldest = select(STUDIES).where(STUDIES.c.state == "waiting", STUDIES.c.settings == settings)
            # Not the very first: workers that ask at once would all want the same one.
            for row in c.execute(oldest.order_by(STUDIES.c.submitted, STUDIES.c.id).limit(8)).all():
                now = self._now(c)
                held = {"state": "running", "worker": worker, "claimed": now, "lease": now + lease, "progress": None}
                held |= {"attempt": row.attempt + 1, "tries": row.tries + 1}
                if self._change(c, row.id, row.attempt, "waiting", held):
                    return Study(**row._asdict() | held)
            return None

        return self._lasting(give)

    def renew(self, study: Study, lease: float, progress: float | None = None) -> bool:
        """Prolong a lease, and note which share of the slices is done; False where it is no longer this attempt's."""

        def prolong(c: Connection) -> bool:
            values = {"lease": self._now(c) + lease, "progress": progress}
            return self._change(c, study.id, study.attempt, "running", values)

        return self._lasting(prolong)

    def finish(self, study: Study, outcome: dict[str, Any]) -> bool:
        """Make the results of an attempt the study's; False where it is no longer this attempt's."""
        return self._end(study, {"state": "done", "outcome": outcome, "error_class": None, "error": None})

    def fail(self, study: Study, error_class: str, error: str) -> bool:
        """Note why a study has no results; False where it is no longer this attempt's."""
        return self._end(study, {"state": "failed", "error_class": error_class, "error": error})

    def _end(self, study: Study, values: dict[str, Any]) -> bool:
        def end(c: Connection) -> bool:
            ended = values | {"finished": self._now(c), "lease": None}
            if self._change(c, study.id, study.attempt, "running", ended):
                return True
            # The answer to a commit may have been lost: then it is asked for a second time.
            row = c.execute(select(STUDIES.c.state, STUDIES.c.attempt).where(STUDIES.c.id == study.id)).one()
            return bool(row.state == values["state"] and row.attempt == study.attempt)

        return self._lasting(end)

    def give_back(self, worker: str, error_class: str, error: str, attempts: int, *, counted: bool = True) -> None:
        """Take from a worker that has ended what it held: it waits again, or has failed after `attempts`."""
        self._lasting(
            lambda c: self._take_back(c, STUDIES.c.worker == worker, error_class, error, attempts, counted=counted)
        )

    def _take_back(
        self,
        c: Connection,
        which: ColumnElement[bool],
        error_class: str,
        error: str,
        attempts: int,
        *,
        counted: bool = True,
    ) -> None:
        running = and_(STUDIES.c.state == "running", which)
        if counted:
            why = f"{error}, {attempts} times" if attempts > 1 else error
            ended = {"state": "failed", "finished": self._now(c), "lease": None}
            ended |= {"error_class": error_class, "error": why}
            c.execute(update(STUDIES).where(running, STUDIES.c.tries >= attempts).values(ended))
        tries = STUDIES.c.tries if counted else STUDIES.c.tries - 1
        waits = {"state": "waiting", "worker": None, "lease": None, "claimed": None, "progress": None, "tries": tries}
        c.execute(update(STUDIES).where(running).values(waits))

    def delete(self, study_id: str) -> Study | None:
        """Mark a study as deleted and return it as it was; None where there is none. Its digest stays."""

        def mark(c: Connection) -> Study | None:
            row = c.execute(select(STUDIES).where(STUDIES.c.id == study_id)).first()
            if row is None or row.state == "deleted":
                return None
            gone: dict[str, Any] = dict.fromkeys(("worker", "lease", "progress", "error", "outcome"))
            c.execute(update(STUDIES).where(STUDIES.c.id == study_id).values(gone | {"state": "deleted"}))
            return Study(**row._asdict())

        return self._lasting(mark)

    def get(self, study_id: str) -> Study | None:
        """Return a study that is not deleted, or None."""
        found = self._studies(and_(STUDIES.c.id == study_id, STUDIES.c.state != "deleted"), 1)
        return found[0] if found else None

    def newest(self, most: int, before: float | None = None) -> list[Study]:
        """Return studies that are not deleted, newest first; only those submitted before a time, where it is given."""
        which = STUDIES.c.state != "deleted"
        return self._studies(which if before is None else and_(which, STUDIES.c.submitted < before), most)

    def held_by(self, workers: Sequence[str]) -> dict[str, Study]:
        """Return what workers have in hand."""
        held = self._studies(and_(STUDIES.c.state == "running", STUDIES.c.worker.in_(workers)), len(workers) or 1)
        return {str(study.worker): study for study in held}

    def inputs(self) -> dict[str, Study]:
        """Return every study that has files, by the folder of its input."""
        return {study.input: study for study in self._studies(STUDIES.c.state != "deleted", None)}

    def _studies(self, which: ColumnElement[bool], most: int | None) -> list[Study]:
        query = select(STUDIES).where(which).order_by(STUDIES.c.submitted.desc(), STUDIES.c.id).limit(most)
        return self._lasting(lambda c: [Study(**row._asdict()) for row in c.execute(query)])

    def ahead_of(self, study: Study) -> int:
        """Return how many studies wait in front of a waiting one."""
        which = and_(STUDIES.c.state == "waiting", STUDIES.c.submitted < study.submitted)
        return self._lasting(lambda c: int(c.execute(select(func.count()).where(which)).scalar_one()))

    def counts(self) -> dict[str, int]:
        """Return the number of studies by state."""
        return self._counted(STUDIES.c.state)

    def errors(self) -> dict[str, int]:
        """Return the number of failed studies by class of error."""
        return self._counted(STUDIES.c.error_class, STUDIES.c.state == "failed")

    def sent_back(self) -> dict[str, int]:
        """Return the number of versions of watched studies by state, see `tables.VERSION_STATES`."""
        return self._counted(VERSIONS.c.state)

    def _counted(self, column: ColumnElement[Any], *which: ColumnElement[bool]) -> dict[str, int]:
        query = select(column, func.count()).where(*which).group_by(column)
        return self._lasting(lambda c: {str(value): int(number) for value, number in c.execute(query)})

    def oldest_waiting(self) -> float:
        """Return for how many seconds the oldest waiting study has waited; 0 where none does."""

        def age(c: Connection) -> float:
            oldest = c.execute(select(func.min(STUDIES.c.submitted)).where(STUDIES.c.state == "waiting")).scalar()
            return 0.0 if oldest is None else max(0.0, self._now(c) - oldest)

        return self._lasting(age)

    def seconds(self) -> dict[str, tuple[int, float]]:
        """Return count and sum of the seconds that finished studies spent waiting and being diagnosed.

        Those that were deleted since count too: a sum that sinks would be a restart to a monitor.
        """
        s = STUDIES.c
        finished = or_(s.state == "done", and_(s.state == "deleted", s.finished.is_not(None), s.error_class.is_(None)))
        query = select(func.count(), func.sum(s.claimed - s.submitted), func.sum(s.finished - s.claimed))

        def sums(c: Connection) -> dict[str, tuple[int, float]]:
            count, waited, worked = c.execute(query.where(finished)).one()
            return {"waiting": (count, float(waited or 0)), "diagnosing": (count, float(worked or 0))}

        return self._lasting(sums)

    def note(self, who: str, what: str, study: str | None = None, digest: str | None = None) -> float:
        """Append to the audit table, which is never changed; return the time of the entry."""

        def append(c: Connection) -> float:
            now = self._now(c)
            c.execute(insert(AUDIT).values(time=now, who=who, what=what, study=study, digest=digest))
            return now

        return self._lasting(append)

    def _change(self, c: Connection, study_id: str, attempt: int, state: str, values: dict[str, Any]) -> bool:
        row = and_(STUDIES.c.id == study_id, STUDIES.c.attempt == attempt, STUDIES.c.state == state)
        return c.execute(update(STUDIES).where(row).values(values)).rowcount == 1
