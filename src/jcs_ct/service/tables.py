"""The record's tables, and how the two databases are opened."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    DDL,
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    Engine,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    create_engine,
    event,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    import sqlite3

METADATA = MetaData()

STUDIES = Table(
    "studies",
    METADATA,
    Column("id", String(32), primary_key=True),
    Column("digest", String(64), nullable=False),  # of the bytes that were sent
    Column("settings", String(64), nullable=False),  # of weights and settings
    Column("input", String(32), nullable=False),  # folder of what was sent; another one whenever it is sent again
    Column("files", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),  # see STATES
    Column("attempt", Integer, nullable=False),  # never goes back: results of an older attempt are not taken
    Column("tries", Integer, nullable=False),  # attempts since it was last sent
    Column("worker", String(80)),
    Column("lease", Double),  # until when the worker is believed to live
    Column("submitted", Double, nullable=False),  # seconds since 1970, by the database's clock
    Column("claimed", Double),
    Column("finished", Double),
    Column("progress", Double),  # share of the slices that the worker has done
    Column("error_class", String(16)),
    Column("error", Text),
    Column("outcome", JSON(none_as_null=True)),  # the verdict, notes, and seconds by stage
    UniqueConstraint("digest", "settings"),
    Index("studies_by_state", "state", "submitted"),
)
STATES = ("waiting", "running", "done", "failed", "deleted")

AUDIT = Table(
    "audit",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("time", Double, nullable=False),
    Column("who", String(64), nullable=False),
    Column("what", String(32), nullable=False),
    Column("study", String(32)),
    Column("digest", String(64)),
)

# What a watcher knows, see `watch.ledger`.
CURSORS = Table(
    "watch_cursors",
    METADATA,
    Column("source", String(64), primary_key=True),  # which archive
    Column("last", BigInteger, nullable=False),  # the last change that was read
    Column("scanned", Double),  # when all studies were last looked through
)
WATCHED = Table(
    "watched_studies",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("source", String(64), nullable=False),
    Column("study", String(64), nullable=False),  # the archive's name of it
    Column("dirty", Boolean, nullable=False),  # something has happened since it was last looked at
    Column("updated", String(32), nullable=False),  # the archive's time of the last change, then
    Column("outline", String(64)),  # digest of names and sizes of its source images …
    Column("changed", Double),  # … and since when it is this one
    UniqueConstraint("source", "study"),
    Index("watched_dirty", "source", "dirty"),
)
VERSIONS = Table(
    "watched_versions",
    METADATA,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("watched", Integer, nullable=False),  # number of the study
    Column("version", Integer, nullable=False),  # 1, 2, … of the study
    Column("key", String(64), nullable=False),  # the UIDs of the results follow from it
    Column("digest", String(64), nullable=False),  # of the bytes of the source images
    Column("settings", String(64), nullable=False),  # of weights and settings
    Column("outline", String(64), nullable=False),
    Column("job", String(32), nullable=False),  # number in the record
    Column("state", String(8), nullable=False),  # see VERSION_STATES
    Column("after", Integer),  # number of the version whose results these replace
    Column("seg", Boolean),  # whether there is a SEG; an SR there always is
    Column("tries", Integer, nullable=False),
    Column("later", Double, nullable=False),  # not to be tried again before
    Column("error", Text),
    UniqueConstraint("watched", "digest", "settings"),
    Index("versions_by_state", "state"),
)
VERSION_STATES = ("waiting", "pushing", "done", "failed", "dropped")
"""For a worker; on the way back; found there; without a result; deleted here or in the archive meanwhile."""

_APPEND_ONLY = {
    "sqlite": (
        """CREATE TRIGGER audit_no_replace BEFORE INSERT ON audit
        WHEN EXISTS (SELECT 1 FROM audit WHERE number = NEW.number)
        BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END""",  # INSERT OR REPLACE asks no other trigger
        "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
        "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'audit is append-only'); END",
    ),
    "postgresql": (
        """CREATE OR REPLACE FUNCTION audit_refuse() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION 'audit is append-only'; END $$""",
        """CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
        FOR EACH STATEMENT EXECUTE FUNCTION audit_refuse()""",
    ),
}
for _dialect, _statements in _APPEND_ONLY.items():
    for _statement in _statements:
        event.listen(AUDIT, "after_create", DDL(_statement).execute_if(dialect=_dialect))  # type: ignore[no-untyped-call]


def open_engine(url: str) -> Engine:
    """Return the engine of a database URL. Raises UsageError where it is none of SQLite or PostgreSQL."""
    hint = "give sqlite:////path/record.sqlite or postgresql://user:password@host/database"
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise UsageError("--database is not the URL of a database", hint=hint) from error
    name = parsed.get_backend_name()
    if name == "postgresql":
        # A connection that a restart of the database has cut is noticed before it is used. That it cannot even be
        # closed is no news then, and a traceback is no line of the log.
        logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
        return create_engine(parsed.set(drivername="postgresql+pg8000"), pool_pre_ping=True)
    if name != "sqlite" or parsed.database in {None, "", ":memory:"}:
        raise UsageError("--database is neither a file of SQLite nor PostgreSQL", hint=hint)
    engine = create_engine(parsed, connect_args={"timeout": 30, "isolation_level": None})
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return engine


def _prepare_sqlite(connection: sqlite3.Connection, _record: Any) -> None:
    """Let readers and one writer work side by side, and keep what was committed through a loss of power."""
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
