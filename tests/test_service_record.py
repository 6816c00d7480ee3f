"""The record on SQLite and PostgreSQL: each study is one worker's, and whoever comes late changes nothing."""

from __future__ import annotations

import gc
import socket
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("sqlalchemy")

import sqlalchemy
from sqlalchemy import text

import postgres_help
from jcs_ct.core.errors import UsageError
from jcs_ct.service.database import RecordError
from jcs_ct.service.record import Record, Study
from jcs_ct.service.settings import sqlite_in
from jcs_ct.service.tables import open_engine

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SETTINGS = "s" * 64
LEASE = 60.0


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with postgres_help.running(tmp_path_factory.mktemp("postgres") / "cluster") as server:
        yield server.url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=postgres_help.installed)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without tables."""
    if request.param == "sqlite":
        return sqlite_in(tmp_path)
    address: str = request.getfixturevalue("postgres")
    engine = open_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return address


@pytest.fixture
def record(url: str) -> Iterator[Record]:
    record = Record(url, patience=10)
    record.prepare()
    yield record
    record.close()


def submit(record: Record, number: int = 0) -> Study:
    study, taken = record.submit(f"{number:064d}", SETTINGS, f"input{number}", 1, 10)
    assert taken
    return study


def claim(record: Record, worker: str = "a", lease: float = LEASE, attempts: int = 3) -> Study:
    study = record.claim(worker, SETTINGS, lease, attempts)
    assert study is not None
    return study


def test_the_same_bytes_are_one_study(record: Record) -> None:
    first = submit(record)
    again, taken = record.submit(first.digest, SETTINGS, "another", 1, 10)
    assert (again.id, again.input, taken) == (first.id, "input0", False)
    other, taken = record.submit(first.digest, "t" * 64, "third", 1, 10)
    assert taken
    assert other.id != first.id
    assert record.counts() == {"waiting": 2}


def test_many_submit_and_claim_at_once(record: Record) -> None:
    with ThreadPoolExecutor(8) as pool:
        entered = list(pool.map(lambda i: record.submit(f"{i % 20:064d}", SETTINGS, f"i{i}", 1, 1), range(80)))
        assert sum(taken for _, taken in entered) == 20
        claimed = list(pool.map(lambda i: record.claim(f"w{i}", SETTINGS, LEASE, 3), range(30)))
    ids = [study.id for study in claimed if study is not None]
    assert len(ids) == len(set(ids)) == 20
    assert record.counts() == {"running": 20}


def test_oldest_first_and_only_of_the_same_settings(record: Record) -> None:
    studies = [submit(record, i) for i in range(3)]
    assert record.ahead_of(studies[2]) == 2
    assert record.claim("a", "t" * 64, LEASE, 3) is None
    assert [claim(record, f"w{i}").id for i in range(3)] == [s.id for s in studies]
    assert record.claim("z", SETTINGS, LEASE, 3) is None


def test_a_late_worker_changes_nothing(record: Record) -> None:
    submit(record)
    late = claim(record, "late", lease=0.05)
    time.sleep(0.1)
    second = claim(record, "second")
    assert (second.id, second.attempt, second.tries) == (late.id, 2, 2)
    assert not record.renew(late, LEASE)
    assert not record.finish(late, {"verdict": "late"})
    assert not record.fail(late, "input", "late")
    assert record.finish(second, {"verdict": "right"})
    assert not record.finish(late, {"verdict": "late"})
    done = record.get(late.id)
    assert done is not None
    assert (done.state, done.attempt, done.outcome) == ("done", 2, {"verdict": "right"})
    assert record.finish(second, {"verdict": "right"})  # the answer to a commit was lost, and it is asked again


def test_attempts_are_capped_and_start_anew_when_sent_again(record: Record) -> None:
    study = submit(record)
    for _ in range(3):
        claim(record, lease=0.01, attempts=3)
        time.sleep(0.05)
    assert record.claim("b", SETTINGS, LEASE, 3) is None
    failed = record.get(study.id)
    assert failed is not None
    assert (failed.state, failed.error_class, failed.attempt) == ("failed", "lost", 3)
    assert record.errors() == {"lost": 1}
    again, taken = record.submit(study.digest, SETTINGS, "again", 1, 10)
    assert (again.id, taken, again.input, again.tries, again.error) == (study.id, True, "again", 0, None)
    assert claim(record).attempt == 4  # so that what an old attempt made is never taken for it


def test_a_worker_that_ended_gives_back(record: Record) -> None:
    submit(record)
    held = claim(record, "a")
    assert record.held_by(["a", "b"])["a"].id == held.id
    record.give_back("b", "lost", "another one ended", 1)
    assert record.held_by(["a"])
    record.give_back("a", "lost", "", 1, counted=False)  # the service was stopped
    assert claim(record, "b", attempts=1).tries == 1
    record.give_back("b", "memory", "it takes more than 1 GiB", 1)
    failed = record.get(held.id)
    assert failed is not None
    assert (failed.state, failed.error_class, failed.error) == ("failed", "memory", "it takes more than 1 GiB")


def test_what_is_deleted_keeps_its_digest_and_can_be_sent_again(record: Record) -> None:
    submit(record)
    study = claim(record)
    was = record.delete(study.id)
    assert was is not None
    assert was.input == "input0"
    assert record.delete(study.id) is None
    assert record.get(study.id) is None
    assert record.newest(10) == []
    assert not record.renew(study, LEASE)
    assert not record.finish(study, {})
    assert record.counts() == {"deleted": 1}
    again, taken = record.submit(study.digest, SETTINGS, "again", 1, 10)
    assert (again.id, taken) == (study.id, True)
    assert list(record.inputs()) == ["again"]


def test_an_answer_that_was_lost_changes_nothing(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database has done it and was gone before it said so: then it is asked once more."""
    once = record._lasting
    monkeypatch.setattr(record, "_lasting", lambda work: (once(work), once(work))[1])
    study = submit(record)  # whose folder must stay
    held = claim(record)
    assert (held.id, held.attempt, held.tries) == (study.id, 1, 1)
    assert record.renew(held, LEASE, 0.5)
    record.give_back("a", "lost", "", 3)
    again = claim(record)
    assert (again.id, again.attempt, again.tries, again.progress) == (study.id, 2, 2, None)
    assert record.finish(again, {})
    assert record.submit(study.digest, SETTINGS, "another", 1, 10)[1] is False
    assert record.counts() == {"done": 1}


@pytest.mark.parametrize("seconds", [3600, -3600])
def test_a_clock_that_jumps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: int) -> None:
    """Set forward it costs a study in hand an attempt; set back it costs nothing. It is published once."""
    passed = 0.0
    monkeypatch.setattr(Record, "_now", lambda _record, _connection: time.time() + passed)
    with closing(Record(sqlite_in(tmp_path))) as record:
        record.prepare()
        submit(record)
        first = claim(record, "first")
        passed += seconds
        second = record.claim("second", SETTINGS, LEASE, 3)
        assert (second is not None) == (seconds > 0)
        assert record.renew(first, LEASE) == (second is None)
        last = second or first
        assert record.finish(last, {})
        assert second is None or not record.finish(first, {})
        done = record.get(first.id)
        assert done is not None
        assert (done.state, done.attempt) == ("done", last.attempt)
        assert record.oldest_waiting() == 0


def test_figures(record: Record) -> None:
    assert record.oldest_waiting() == 0
    submit(record, 0)
    submit(record, 1)
    record.finish(claim(record), {})
    assert 0 <= record.oldest_waiting() < 60
    seconds = record.seconds()
    assert [count for count, _ in seconds.values()] == [1, 1]
    assert all(0 <= total < 60 for _, total in seconds.values())
    first, second = record.newest(5)
    assert record.newest(5, before=first.submitted) == [second]
    record.fail(claim(record, "b"), "input", "is none")
    for study in (first, second):
        record.delete(study.id)
    assert record.seconds() == seconds  # neither those of the failed one, nor fewer


@postgres_help.installed
def test_a_database_that_lets_nobody_in_is_named_at_once(postgres: str) -> None:
    for user, database, words in (("nobody", "postgres", 'role "nobody" does'), ("postgres", "x", 'database "x" does')):
        url = postgres.replace("//postgres@", f"//{user}@").removesuffix("postgres") + database
        with closing(Record(url, patience=60)) as record, pytest.raises(RecordError, match=words) as error:
            record.prepare()
        assert error.value.exit_status == 2


def test_what_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "record.sqlite").write_bytes(b"a text that is long enough to be something else" * 30)
    with closing(Record(sqlite_in(tmp_path))) as record, pytest.raises(UsageError, match="file is not a database"):
        record.prepare()
    elsewhere = f"sqlite:///{tmp_path}/none/record.sqlite"
    with closing(Record(elsewhere, patience=0.01)) as record, pytest.raises(RecordError, match="unable to open"):
        record.prepare()


def test_a_record_of_another_version_is_named(record: Record, url: str) -> None:
    engine = open_engine(url)
    with engine.begin() as connection:
        connection.execute(text("ALTER TABLE studies DROP COLUMN progress"))
    engine.dispose()
    with pytest.raises(UsageError, match=r"another version of jcs-ct: it has no studies\.progress"):
        record.prepare()


def test_the_audit_table_only_grows(record: Record, url: str) -> None:
    record.note("somebody", "submit", "1" * 32, "2" * 64)
    engine = open_engine(url)
    for statement in ("DELETE FROM audit", "UPDATE audit SET who = 'nobody'"):
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(statement))
    if engine.dialect.name == "sqlite":
        replace = "INSERT OR REPLACE INTO audit SELECT number, time, 'nobody', what, study, digest FROM audit"
        with pytest.raises(sqlalchemy.exc.DBAPIError, match="append-only"), engine.begin() as connection:
            connection.execute(text(replace))
    record.note("somebody", "submit")
    with engine.begin() as connection:
        assert [row.who for row in connection.execute(text("SELECT who FROM audit"))] == ["somebody", "somebody"]
    engine.dispose()


def test_processes_that_start_at_once(url: str) -> None:
    records = [Record(url, patience=10) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(Record.prepare, records))
    assert records[0].counts() == {}
    for record in records:
        record.close()


@postgres_help.installed
def test_a_restart_of_the_database_is_waited_for(tmp_path: Path) -> None:
    with postgres_help.running(tmp_path / "cluster") as server:
        record = Record(server.url, patience=60)
        record.prepare()
        submit(record)
        held = claim(record)
        server.stop()
        found: list[Any] = []
        asking = threading.Thread(target=lambda: found.append(record.finish(held, {"verdict": "right"})))
        asking.start()
        time.sleep(0.5)
        assert not found
        server.start()
        asking.join(60)
        assert found == [True]
        server.stop()
        impatient = Record(server.url, patience=0.1)
        with pytest.raises(RecordError, match="the database does not answer"):
            impatient.counts()
        impatient.close()
        record.close()


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://a@b/c"])
def test_other_databases_are_refused(url: str) -> None:
    with pytest.raises(UsageError, match="--database"):
        Record(url)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pg8000 leaves such a socket open
@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
def test_a_database_that_cuts_the_handshake_off_is_asked_again(reset: bool) -> None:
    """One that restarts does; the driver lets a reset connection through as it is."""
    asked = []
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def refuse() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    asked.append(connection.recv(4096))
                    if reset:
                        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()

        threading.Thread(target=refuse, daemon=True).start()
        url = f"postgresql+pg8000://someone@127.0.0.1:{listening.getsockname()[1]}/studies"
        with closing(Record(url, patience=0.5)) as record, pytest.raises(RecordError, match="does not answer"):
            record.prepare()
        listening.shutdown(socket.SHUT_RDWR)
    gc.collect()  # here, where its sockets are not an error
    assert len(asked) > 1
