"""What lies in a service's folder while the database is away, after uploads that were given up, and after kills."""

from __future__ import annotations

import hashlib
import io
import os
import socket
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests

pytest.importorskip("fastapi")

import uvicorn

from jcs_ct.service import run
from jcs_ct.service.access import Access, add_token
from jcs_ct.service.app import build_app
from jcs_ct.service.context import ServiceContext
from jcs_ct.service.database import RecordError
from jcs_ct.service.files import STALE_SECONDS, Folders
from jcs_ct.service.log import Log
from jcs_ct.service.record import Record
from jcs_ct.service.settings import Service, sqlite_in
from service_help import until

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = "s" * 64


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with closing(Record(sqlite_in(tmp_path), patience=0.1)) as record:
        record.prepare()
        yield record


@contextmanager
def answering(folder: Path, record: Record, tokens: Path | None = None, **more: Any) -> Iterator[str]:
    """Answer requests within this process, without workers; yield the address."""
    service = Service(folder, sqlite_in(folder))
    folders = Folders(folder)
    folders.prepare()
    context = ServiceContext(
        service, Access(tokens), record, folders, Log(record, **more), SETTINGS, lambda: 0, 0
    )  # fmt: skip
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(build_app(context), access_log=False, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.glob("*/*"))


def test_an_upload_outlasts_a_database_that_is_away(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last byte is answered 503, and nothing has to be sent again."""
    with answering(tmp_path, record) as url:
        where = url + requests.post(f"{url}/api/uploads", headers={"Upload-Length": "5"}, timeout=9).headers["Location"]
        patch = {"Content-Type": "application/offset+octet-stream", "Upload-Offset": "0"}
        with monkeypatch.context() as away:
            away.setattr(record, "counts", lambda: (_ for _ in ()).throw(RecordError("gone: host db.ward3")))
            answer = requests.patch(where, data=b"study", headers=patch, timeout=9)
            assert (answer.status_code, answer.json()) == (503, {"error": "the database does not answer"})
            assert int(answer.headers["Retry-After"]) > 0
            assert requests.post(f"{url}/api/studies", data=b"x", timeout=9).status_code == 503
        assert requests.head(where, timeout=9).headers["Upload-Offset"] == "5"
        ended = requests.patch(where, headers=patch | {"Upload-Offset": "5"}, timeout=9)
        assert ended.status_code == 204
        study = requests.get(url + ended.headers["Content-Location"], timeout=9).json()
        assert study["digest"] == hashlib.sha256(b"study").hexdigest()
    (entered,) = record.newest(9)
    assert (tmp_path / "inputs" / entered.input / "study").read_bytes() == b"study"


def test_what_may_have_been_entered_keeps_its_input(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database was gone before it could say; the study must have its images if its row is there."""
    enter = record.submit

    def gone(*facts: Any) -> Any:
        enter(*facts)
        raise RecordError("the database does not answer")

    monkeypatch.setattr(record, "submit", gone)
    with answering(tmp_path, record) as url:
        assert requests.post(f"{url}/api/studies", data=b"study", timeout=9).status_code == 503
        monkeypatch.undo()
        again = requests.post(f"{url}/api/studies", data=b"study", timeout=9)
        assert again.status_code == 200
    (entered,) = record.newest(9)
    assert names(tmp_path) == [f"inputs/{entered.input}"]


def test_a_log_that_cannot_be_written_stops_nobody(tmp_path: Path, record: Record) -> None:
    class Full:
        def write(self, _text: str) -> None:
            raise OSError(28, os.strerror(28))

    with answering(tmp_path, record, stream=Full()) as url:
        assert requests.post(f"{url}/api/studies", data=b"study", timeout=9).status_code == 201
        queue = requests.get(f"{url}/api/queue", timeout=9).json()
    assert queue.pop("oldest_waiting") >= 0
    assert queue == {"waiting": 1, "running": 0, "done": 0, "failed": 0}


def test_tokens_that_are_damaged_while_it_runs(tmp_path: Path, record: Record) -> None:
    tokens, log = tmp_path / "tokens", io.StringIO()
    headers = {"Authorization": f"Bearer {add_token(tokens, 'ward', ('submit',))}"}
    with answering(tmp_path, record, tokens, stream=log) as url:
        assert requests.get(f"{url}/api/queue", headers=headers, timeout=9).status_code == 200
        before = tokens.read_bytes()
        tokens.write_bytes(before + b"nonsense\n")
        answer = requests.get(f"{url}/api/queue", headers=headers, timeout=9)
        assert (answer.status_code, answer.json()) == (503, {"error": "the service cannot answer; its log says why"})
        assert "line 2 is not a token" in log.getvalue()
        tokens.write_bytes(before)
        assert requests.get(f"{url}/api/queue", headers=headers, timeout=9).status_code == 200


def test_a_deletion_whose_answer_was_lost(tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    with answering(tmp_path, record) as url:
        study = requests.post(f"{url}/api/studies", data=b"study", timeout=9).json()
        delete = record.delete
        monkeypatch.setattr(record, "delete", lambda study_id: (delete(study_id), delete(study_id))[1])
        assert requests.delete(f"{url}/api/studies/{study['id']}", timeout=9).status_code == 204
    assert names(tmp_path) == []


def test_what_was_given_up_is_removed_while_the_service_runs(
    tmp_path: Path, record: Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = Folders(tmp_path)
    folders.prepare()
    record.submit("1" * 64, SETTINGS, "known", 1, 1)
    claimed = record.claim("worker", SETTINGS, 60, 3)
    assert claimed is not None
    kept = ["incoming/new", "inputs/known", "inputs/young", "results/known", "results/young"]
    for name in [*kept, "incoming/old", "inputs/old", "results/old"]:
        (tmp_path / name / "1").mkdir(parents=True)
    old = time.time() - STALE_SECONDS - 60
    for name in ("incoming/old/1", "incoming/old", "inputs/old", "inputs/known", "results/old", "results/known"):
        os.utime(tmp_path / name, (old, old))
    (tmp_path / "results/known/0").mkdir()
    listed, gone = Path.rglob, iter([True])

    def racing(path: Path, pattern: str) -> Any:
        found = list(listed(path, pattern))
        return [*found, path / "renamed"] if next(gone, False) else found  # by another process, since it was listed

    monkeypatch.setattr(Path, "rglob", racing)
    assert folders.tidy(record.inputs()) == 3
    assert names(tmp_path) == sorted(kept)
    assert (tmp_path / "results/known/0").exists()  # it is being looked at
    assert record.finish(claimed, {})
    assert folders.tidy(record.inputs()) == 1
    assert [path.name for path in (tmp_path / "results/known").iterdir()] == ["1"]

    monkeypatch.setattr(run, "TIDY_SECONDS", 0.05)
    said: list[str] = []
    stopped = threading.Event()
    thread = threading.Thread(target=run._tidy, args=(folders, sqlite_in(tmp_path), stopped, said.append))
    thread.start()
    os.utime(tmp_path / "incoming/new/1", (old, old))
    os.utime(tmp_path / "incoming/new", (old, old))
    until(lambda: not (tmp_path / "incoming/new").exists(), 5)
    stopped.set()
    thread.join()
    assert said == ["1 folders that were left half-done were removed"]
