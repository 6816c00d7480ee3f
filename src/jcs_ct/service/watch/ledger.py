"""What the watcher knows: how far it has read, which studies have changed, and which results have gone back.

Three tables of the record's database. The cursor moves in the transaction that marks the studies it has passed, so that
whoever is killed has either seen a change or will see it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, and_, func, insert, select, update

from jcs_ct.service.record import Record
from jcs_ct.service.tables import CURSORS, VERSIONS, WATCHED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

OPEN = ("waiting", "pushing")


@dataclass(frozen=True)
class Watched:
    """A study of an archive, see `tables.WATCHED`."""

    number: int
    source: str
    study: str
    dirty: bool
    updated: str
    outline: str | None
    changed: float | None


@dataclass(frozen=True)
class Version:
    """A state of a study's images and its results, see `tables.VERSIONS`."""

    number: int
    watched: int
    version: int
    key: str
    digest: str
    settings: str
    outline: str
    job: str
    state: str
    after: int | None
    seg: bool | None
    tries: int
    later: float
    error: str | None


class Ledger(Record):
    """The record, with what a watcher knows. One watcher at a time works on a source."""

    def cursor(self, source: str) -> tuple[int, float | None] | None:
        """Return the last change that was read and when all was looked through; None for a new source."""
        query = select(CURSORS.c.last, CURSORS.c.scanned).where(CURSORS.c.source == source)
        row = self._lasting(lambda c: c.execute(query).first())
        return None if row is None else (row.last, row.scanned)

    def follow(self, source: str, studies: Iterable[str], last: int) -> None:
        """Mark studies and move the cursor, both or neither."""

        def both(c: Connection) -> None:
            for study in sorted(studies):
                if not self._set(c, source, study, {"dirty": True}):
                    c.execute(insert(WATCHED).values(source=source, study=study, dirty=True, updated=""))
            if c.execute(update(CURSORS).where(CURSORS.c.source == source).values(last=last)).rowcount == 0:
                c.execute(insert(CURSORS).values(source=source, last=last))

        self._lasting(both)

    def compare(self, source: str, found: Mapping[str, str], *, dirty: bool = True) -> None:
        """Mark the studies that are not known (if `dirty`), or were changed since they were last looked at.

        `found`: when each was last changed, by its name.
        """

        def mark(c: Connection) -> None:
            query = select(WATCHED.c.study, WATCHED.c.updated).where(WATCHED.c.source == source)
            known = {row.study: row.updated for row in c.execute(query.where(WATCHED.c.study.in_(list(found))))}
            for study, updated in found.items():
                if study not in known:
                    c.execute(insert(WATCHED).values(source=source, study=study, dirty=dirty, updated=updated))
                elif known[study] != updated:
                    self._set(c, source, study, {"dirty": True})

        self._lasting(mark)

    def scanned(self, source: str) -> None:
        """Note that all studies were looked through."""
        self._lasting(
            lambda c: c.execute(update(CURSORS).where(CURSORS.c.source == source).values(scanned=self._now(c)))
        )

    def now(self) -> float:
        """Return the database's time."""
        return self._lasting(self._now)

    def dirty(self, source: str) -> list[Watched]:
        """Return the studies in which something has happened, in the order in which they were first seen."""
        query = select(WATCHED).where(WATCHED.c.source == source, WATCHED.c.dirty).order_by(WATCHED.c.number)
        return self._lasting(lambda c: [Watched(**row._asdict()) for row in c.execute(query)])

    def outlined(self, watched: Watched, outline: str) -> None:
        """Note that a study's images have changed: the quiet time begins anew."""
        self._lasting(
            lambda c: self._set(c, watched.source, watched.study, {"outline": outline, "changed": self._now(c)})
        )

    def settle(self, watched: Watched, updated: str) -> None:
        """Note that a study needs nothing for now."""
        self._lasting(lambda c: self._set(c, watched.source, watched.study, {"dirty": False, "updated": updated}))

    def begin(self, watched: Watched, updated: str, facts: Mapping[str, Any]) -> bool:
        """Enter a version whose images wait in the record; return False where they are on their way already.

        The study is settled with it, at the archive's time of its last change. `facts`: `key`, `digest`, `settings`,
        `outline` and `job`.
        """

        def enter(c: Connection) -> bool:
            self._set(c, watched.source, watched.study, {"dirty": False, "updated": updated})
            mine = VERSIONS.c.watched == watched.number
            same = and_(mine, VERSIONS.c.digest == facts["digest"], VERSIONS.c.settings == facts["settings"])
            c.execute(update(VERSIONS).where(same).values(outline=facts["outline"]))
            anew = {"state": "waiting", "tries": 0, "later": 0.0, "error": None}
            if c.execute(update(VERSIONS).where(same, VERSIONS.c.state.not_in(OPEN)).values(anew)).rowcount:
                return True  # sent again after it was deleted there, or had failed: it gets its results again
            if c.execute(select(VERSIONS.c.number).where(same)).first() is not None:
                return False
            newest = c.execute(select(func.max(VERSIONS.c.version)).where(mine)).scalar() or 0
            new = {"watched": watched.number, "version": newest + 1, "state": "waiting", "tries": 0, "later": 0.0}
            c.execute(insert(VERSIONS).values({**new, **facts}))
            return True

        return self._lasting(enter)

    def has_version(self, watched: Watched, outline: str) -> bool:
        """Whether the images of this outline have had their version."""
        query = select(VERSIONS.c.number).where(VERSIONS.c.watched == watched.number, VERSIONS.c.outline == outline)
        return self._lasting(lambda c: c.execute(query.limit(1)).first() is not None)

    def open_versions(self, source: str) -> list[tuple[Version, Watched]]:
        """Return the versions that are not at their end, the oldest first; of a study only the oldest of them."""
        query = select(VERSIONS).join(WATCHED, WATCHED.c.number == VERSIONS.c.watched)
        query = query.where(WATCHED.c.source == source, VERSIONS.c.state.in_(OPEN)).order_by(VERSIONS.c.number)

        def read(c: Connection) -> list[tuple[Version, Watched]]:
            first: dict[int, Version] = {}
            for row in c.execute(query):
                first.setdefault(row.watched, Version(**row._asdict()))
            studies = {row.number: Watched(**row._asdict()) for row in c.execute(
                select(WATCHED).where(WATCHED.c.number.in_(list(first)))
            )}  # fmt: skip
            return [(version, studies[number]) for number, version in first.items()]

        return self._lasting(read)

    def previous(self, version: Version) -> Version | None:
        """Return the newest version before one whose results are in the archive."""
        before = and_(VERSIONS.c.watched == version.watched, VERSIONS.c.version < version.version)
        query = select(VERSIONS).where(before, VERSIONS.c.state == "done").order_by(VERSIONS.c.version.desc()).limit(1)

        def read(c: Connection) -> Version | None:
            row = c.execute(query).first()
            return None if row is None else Version(**row._asdict())

        return self._lasting(read)

    def move(self, version: Version, state: str, **facts: Any) -> None:
        """Give a version another state."""
        change = update(VERSIONS).where(VERSIONS.c.number == version.number).values(state=state, **facts)
        self._lasting(lambda c: c.execute(change))

    def put_off(self, version: Version, seconds: float, error: str) -> None:
        """Note that a version could not be sent back, and is to be tried again."""
        facts = {"tries": version.tries + 1, "error": error}
        change = update(VERSIONS).where(VERSIONS.c.number == version.number)
        self._lasting(lambda c: c.execute(change.values(facts | {"later": self._now(c) + seconds})))

    def open_numbers(self) -> set[int]:
        """Return the numbers of all versions that are not at their end, of all sources."""
        query = select(VERSIONS.c.number).where(VERSIONS.c.state.in_(OPEN))
        return self._lasting(lambda c: set(c.execute(query).scalars()))

    def _set(self, c: Connection, source: str, study: str, values: Mapping[str, Any]) -> bool:
        which = and_(WATCHED.c.source == source, WATCHED.c.study == study)
        return c.execute(update(WATCHED).where(which).values(**values)).rowcount == 1
