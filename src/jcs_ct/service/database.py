"""A database that may be away for a while: work is done in one transaction, and asked for again until it is back.

What is asked for twice may have been done the first time, where only the answer was lost: whoever writes work for here
must make sure that doing it once more changes nothing.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError

from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.service.tables import METADATA, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
_LOST = (OperationalError, InterfaceError)
_PASSING = ("57P", "08", "40", "53", "58")
"""Classes of SQLSTATE: it shuts down or starts up, no connection, deadlock, no room or connection left, its disk."""
_REFUSED = ("28", "3D", "42501")
"""No such user or a wrong password, no such database, no right to do it: asking again does not help."""
HINT = "look at --database, and whether it runs"


class RecordError(JcsError):
    """The database does not answer."""

    exit_status = 1


class DatabaseRefusedError(RecordError):
    """It answers, and lets nobody in with this URL."""

    exit_status = 2


class Database:
    """The tables of a service.

    Args:
        url: Of the database.
        patience: Seconds for which a database that does not answer is asked again; `math.inf`: until it does.
    """

    def __init__(self, url: str, patience: float = 60.0) -> None:
        self._engine = open_engine(url)
        self._patience = patience
        self._sqlite = self._engine.dialect.name == "sqlite"

    def prepare(self) -> None:
        """Make the tables where they are not there.

        Raises:
            RecordError: It does not answer.
            UsageError: It is none, or holds the tables of another version.
        """
        for last in (False, False, True):
            try:
                self._lasting(lambda connection: METADATA.create_all(connection))
                missing = self._lasting(_missing)
                break
            except DBAPIError as error:  # as a rule: another process made them in the same moment
                if last:
                    why = f"the database cannot be used: {_reason(error)}"
                    raise UsageError(why, hint="look at --database") from error
        if missing:
            raise UsageError(
                f"the database was made by another version of jcs-ct: it has no {missing}",
                hint="give a new --database, or a new FOLDER",
            )

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _now(self, c: Connection) -> float:
        """Return the time by the one clock that all processes share: that of the database."""
        if self._sqlite:  # its processes are on one machine
            return time.time()
        return float(c.execute(text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())

    def _lasting(self, work: Callable[[Connection], T]) -> T:
        """Do `work` in a transaction, again while the database is away.

        Raises:
            RecordError: Patience has ended, or it lets nobody in with this URL.
        """
        end = time.monotonic() + self._patience
        pause = 0.05
        while True:
            try:
                with self._engine.begin() as connection:
                    return work(connection)
            except (DBAPIError, OSError) as error:  # OSError: pg8000 lets through what cuts a handshake off
                if isinstance(error, DBAPIError):
                    if _state(error).startswith(_REFUSED):
                        why = f"the database refuses: {_reason(error)}"
                        raise DatabaseRefusedError(why, hint="look at --database") from error
                    if not _passes(error):
                        raise
                if time.monotonic() + pause > end:
                    raise RecordError(f"the database does not answer: {_reason(error)}", hint=HINT) from error
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311  # so that workers do not come back as one
            pause = min(2 * pause, 2.0)


def _missing(connection: Connection) -> str | None:
    """Return the name of a column that the tables should have, and have not."""
    found = inspect(connection)
    for table in METADATA.sorted_tables:
        there = {column["name"] for column in found.get_columns(table.name)}
        for column in table.columns:
            if column.name not in there:
                return f"{table.name}.{column.name}"
    return None


def _passes(error: DBAPIError) -> bool:
    """Whether the database may answer when it is asked again."""
    return isinstance(error, _LOST) or error.connection_invalidated or _state(error).startswith(_PASSING)


def _facts(error: DBAPIError) -> object:
    return error.orig.args[0] if error.orig is not None and error.orig.args else ""


def _state(error: DBAPIError) -> str:
    """Return the SQLSTATE that PostgreSQL gave, or ""."""
    facts = _facts(error)
    return str(facts.get("C", "")) if isinstance(facts, dict) else ""


def _reason(error: DBAPIError | OSError) -> str:
    """Return what the database or the system said, on one line; neither SQL nor values of a row."""
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    facts = _facts(error)
    if isinstance(facts, dict):
        return str(facts.get("M", type(error).__name__))
    return str(facts).partition("\n")[0].partition(" (timeout")[0] or type(error).__name__
