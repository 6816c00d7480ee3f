"""A real service with real workers: studies in, results out, workers that are killed, frozen, or beyond a limit."""

from __future__ import annotations

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import zipfile
from contextlib import closing
from dataclasses import replace
from http.client import HTTPConnection
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

pytest.importorskip("fastapi")

from jcs_ct.service.diagnosis import StudyRunner
from jcs_ct.service.files import Folders
from jcs_ct.service.record import Record
from jcs_ct.service.settings import DiagnosisSettings, Limits, Service, sqlite_in
from jcs_ct.service.supervisor import Supervisor, _Child
from service_help import Server, dicom, events, nifti, serving, until, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator

linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's process files")
pytestmark = linux
PLANTED = ("Planted^Name", "PLANTED-ID-77", "PlantedFile", "2.25.4242424242")
HOSTILE = "<script>document.title='planted'</script>"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """One worker; a lease that is short enough for a test, and long enough for a busy machine."""
    with serving(folder, "--lease", "8", workers=1) as server:
        yield server


@pytest.fixture(scope="module")
def done(server: Server) -> dict[str, Any]:
    """A NIfTI study that was looked at."""
    study = server.ended(server.send(nifti(1))["id"])
    assert study["state"] == "done", study
    return study


def fetch(server: Server, study: dict[str, Any], name: str) -> bytes:
    files = {f["name"]: f for f in server.ask("GET", f"/api/studies/{study['id']}/files").json()}
    answer = server.ask("GET", files[name]["url"])
    assert answer.status_code == 200
    assert len(answer.content) == files[name]["bytes"]
    return answer.content


def test_another_language_is_another_result() -> None:
    assert DiagnosisSettings(language="de").digest() != DiagnosisSettings().digest()
    told = Service(Path("x"), "sqlite:///x", DiagnosisSettings(language="de", runtime="torch"))
    assert Service.from_json(told.to_json()) == told  # as a worker is told of it
    assert StudyRunner(told.diagnosis)._settings.language == "de"  # of which the report is made


def test_the_results_are_those_of_the_command(server: Server, done: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "study").write_bytes(nifti(1))
    command = [sys.executable, "-m", "jcs_ct", "diagnose", "study", "-o", "out", "--quiet"]
    subprocess.run(command, cwd=tmp_path, check=True)
    names = [f["name"] for f in server.ask("GET", f"/api/studies/{done['id']}/files").json()]
    expected = {
        str(p.relative_to(tmp_path / "out/study")): p for p in (tmp_path / "out/study").rglob("*") if p.is_file()
    }
    assert set(names) == set(expected)
    archive = zipfile.ZipFile(BytesIO(server.ask("GET", f"/api/studies/{done['id']}/archive").content))
    assert archive.testzip() is None
    for name, path in expected.items():
        data = fetch(server, done, name)
        assert archive.read(f"study/{name}") == data
        if name == "report.json":
            ours, theirs = json.loads(data), json.loads(path.read_text())
            assert ours["source"].pop("stamp") != theirs["source"].pop("stamp")  # times of the file
            assert (ours["source"].pop("started_in"), theirs["source"].pop("started_in")) == ("", str(tmp_path))
            assert ours.pop("seconds") > 0
            theirs.pop("seconds")
            assert ours == theirs
        elif name != "report.html":  # it tells the seconds
            assert data == path.read_bytes(), name
    report = json.loads(fetch(server, done, "report.json"))
    assert report["verdict"]["score"] == done["verdict"]["score"]
    assert (done["kind"], done["slices"], done["attempt"]) == ("nifti", 14, 1)


def test_the_report_is_served_in_a_sandbox(server: Server, done: dict[str, Any]) -> None:
    where = server.ask("GET", f"/api/studies/{done['id']}/report")
    assert where.status_code == 307
    answer = server.ask("GET", where.headers["Location"])
    policy = answer.headers["Content-Security-Policy"]
    assert "sandbox allow-scripts" in policy
    assert "allow-same-origin" not in policy
    assert "default-src 'none'" in policy
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Type"].startswith("text/html")
    volume = server.ask("GET", f"/api/studies/{done['id']}/files/lesions.nii.gz")
    assert volume.headers["Content-Disposition"].startswith("attachment")


@pytest.mark.parametrize("key", ["..%2f..%2frecord.sqlite", "..%5crecord.sqlite", "0", "999", "study", "%00", "%2e%2e"])
def test_nothing_else_can_be_fetched(server: Server, done: dict[str, Any], key: str) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    connection = HTTPConnection(host, int(port), timeout=30)  # which leaves paths as they are
    connection.request("GET", f"/api/studies/{done['id']}/files/{key}")
    assert connection.getresponse().status == 404
    connection.close()


def test_a_planted_identity_stays_inside(server: Server, folder: Path, tmp_path: Path) -> None:
    paths = dicom(tmp_path / "PlantedFile", seed=2)
    for path in paths:
        image = pydicom.dcmread(path)
        image.PatientName, image.PatientID = PLANTED[0], PLANTED[1]
        image.SeriesDescription = HOSTILE
        image.StudyInstanceUID = PLANTED[3]
        image.save_as(path)
    files = [("files", (f"PlantedFile/{path.name}", path.read_bytes())) for path in paths]
    study = server.ended(server.ask("POST", "/api/studies", files=files).json()["id"])
    assert study["state"] == "done", study
    report = fetch(server, study, "report.html").decode()
    assert HOSTILE not in report
    names = [f["name"] for f in server.ask("GET", f"/api/studies/{study['id']}/files").json()]
    assert {"seg.dcm", "sr.dcm"} <= set(names)
    seg = pydicom.dcmread(BytesIO(fetch(server, study, "seg.dcm")))
    assert (seg.PatientID, seg.StudyInstanceUID) == (PLANTED[1], PLANTED[3])  # where matching needs them
    metrics = server.ask("GET", "/metrics").text
    urls = json.dumps(server.ask("GET", f"/api/studies/{study['id']}/files").json())
    stored = " ".join(str(path) for path in folder.rglob("*"))
    for planted in PLANTED:
        for where in (server.said(), metrics, urls, stored, json.dumps(study)):
            assert planted not in where
    assert server.ask("DELETE", f"/api/studies/{study['id']}").status_code == 204
    assert PLANTED[0] not in server.said()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"nonsense", "study"),
        (zipped({"a.dcm": bytes(300 * 2**20)}), "bomb|times its size|no study|DICOM|unknown kind|nothing"),
        (zipped({"../../evil.nii": b"x", "/etc/evil.nii": b"y"}), "study"),
        (zipped({"a/one.nii": nifti(3), "b/two.nii": nifti(4)}), "holds 2 studies"),
    ],
    ids=["nonsense", "bomb", "climber", "two"],
)
def test_what_is_no_study_is_named(server: Server, folder: Path, data: bytes, words: str) -> None:
    study = server.ended(server.send(data)["id"])
    assert study["failure"]["kind"] == "input"
    assert re.search(words, study["failure"]["message"])
    assert str(folder) not in study["failure"]["message"]
    assert study["attempt"] == 1  # another worker would find no more
    assert server.ask("GET", f"/api/studies/{study['id']}/files").status_code == 409
    assert not list(folder.parent.rglob("evil*"))


def test_what_is_deleted_is_gone(server: Server, folder: Path) -> None:
    study = server.ended(server.send(nifti(5))["id"])
    with closing(Record(sqlite_in(folder))) as record:
        row = record.get(study["id"])
    assert row is not None
    assert list((folder / "results" / row.input).rglob("report.json"))
    assert server.ask("DELETE", f"/api/studies/{study['id']}").status_code == 204
    assert not (folder / "results" / row.input).exists()
    assert not (folder / "inputs" / row.input).exists()
    for method, path in (("GET", ""), ("GET", "/files"), ("GET", "/archive"), ("DELETE", "")):
        assert server.ask(method, f"/api/studies/{study['id']}{path}").status_code == 404
    with closing(sqlite3.connect(folder / "record.sqlite")) as database:
        kept = database.execute("SELECT digest, state FROM studies WHERE id = ?", (study["id"],)).fetchone()
        noted = database.execute("SELECT what, digest FROM audit WHERE study = ?", (study["id"],)).fetchall()
    assert kept == (study["digest"], "deleted")
    assert ("delete", study["digest"]) in noted
    again = server.send(nifti(5))
    assert again["id"] == study["id"]
    assert again["state"] == "waiting"


def alive(pid: int) -> bool:
    """Whether a process computes; one that nobody has asked for its status since it ended does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def running_on(folder: Path, study_id: str) -> str | None:
    """Return the worker that has a study in hand."""
    with closing(sqlite3.connect(folder / "record.sqlite")) as database:
        row = database.execute("SELECT worker FROM studies WHERE id = ? AND state = 'running'", (study_id,)).fetchone()
    return None if row is None else str(row[0])


@pytest.mark.parametrize("name", ["SIGKILL", "SIGSTOP"])
def test_a_worker_that_dies_or_freezes_gives_its_study_back(server: Server, folder: Path, name: str) -> None:
    until(lambda: server.ask("GET", "/readyz").status_code == 200)
    study = server.send(nifti(6 if name == "SIGKILL" else 7, slices=20))
    until(lambda: running_on(folder, study["id"]))
    (worker,) = server.workers()
    os.kill(worker, getattr(signal, name))
    ended = server.ended(study["id"])
    assert (ended["state"], ended["attempt"]) == ("done", 2)
    assert server.workers() != [worker]
    with closing(Record(sqlite_in(folder))) as record:
        row = record.get(study["id"])
    assert row is not None
    assert [p.name for p in (folder / "results" / row.input).iterdir()] == ["2"]  # nothing of the first attempt
    assert fetch(server, ended, "report.json")
    assert any("worker" in line for line in server.lines)


def test_metrics_and_log(server: Server, done: dict[str, Any]) -> None:
    text = server.ask("GET", "/metrics").text
    assert float(re.findall(r'jcs_studies\{state="done"\} (\S+)', text)[0]) >= 1
    assert float(re.findall(r'jcs_stage_seconds_sum\{stage="diagnosing"\} (\S+)', text)[0]) > 0
    assert "jcs_oldest_waiting_seconds" in text
    assert 'jcs_failed_studies{class="memory"} 0.0' in text
    assert any(e["what"] == "submit" and e["digest"] == done["digest"] for e in events(server, "audit"))
    paths = {e["path"] for e in events(server, "request")}
    assert "/api/studies/{study_id}" in paths
    assert not any(done["id"] in path for path in paths)


def test_limits_of_time_and_memory(tmp_path: Path) -> None:
    """The study that is beyond a limit costs its own attempts and no other study."""
    folders = Folders(tmp_path)
    folders.prepare()
    service = Service(tmp_path, sqlite_in(tmp_path), limits=Limits(attempts=1, seconds=0.01, lease_seconds=60))
    record = Record(service.database)
    record.prepare()
    ids = []
    for number in (1, 2, 3):
        folders.incoming(f"{number}").mkdir()
        (folders.incoming(f"{number}") / "study").write_bytes(nifti(10 + number))
        folders.accept(f"{number}")
    said: list[str] = []
    supervisor = Supervisor(service, 1, said.append)

    def ended(number: int, limits: Limits) -> tuple[str, str | None, str | None]:
        supervisor._service = replace(service, limits=limits)
        study, _ = record.submit(f"{number:064d}", service.diagnosis.digest(), f"{number}", 1, 1)
        ids.append(study.id)
        until(lambda: (found := record.get(study.id)) is not None and found.finished is not None)
        found = record.get(study.id)
        assert found is not None
        return found.state, found.error_class, found.error

    supervisor.start()
    try:
        until(lambda: supervisor.ready)
        assert ended(1, service.limits) == ("failed", "time", "it takes more than 0 seconds")
        until(lambda: supervisor.ready)
        at_rest = supervisor._children[0].resident()
        assert at_rest > 100 * 2**20
        state, error_class, why = ended(2, Limits(attempts=1, memory=at_rest + 2**20, lease_seconds=60))
        assert (state, error_class) == ("failed", "memory")
        assert "GiB of memory" in (why or "")
        assert ended(3, Limits(lease_seconds=60)) == ("done", None, None)
    finally:
        supervisor.stop()
        record.close()
    assert len(said) == 2


def test_memory_is_watched_without_the_database() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, text=True) as process:
        child = _Child("one", process)
        child.watch_memory(lambda: 2**20)  # a Python that does nothing takes more
        assert child.spent
        assert process.wait() == -signal.SIGKILL


def test_stopping_the_service_ends_its_workers_and_costs_no_attempt(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        until(lambda: server.ask("GET", "/readyz").status_code == 200)
        study = server.send(nifti(20, slices=20))
        until(lambda: running_on(tmp_path, study["id"]))
        (worker,) = server.workers()
    assert server.process.returncode == 0, server.said()
    until(lambda: not alive(worker))
    with closing(Record(sqlite_in(tmp_path))) as record:
        row = record.get(study["id"])
    assert row is not None
    assert (row.state, row.tries) == ("waiting", 0)


def test_workers_do_not_outlive_a_service_that_was_killed(tmp_path: Path) -> None:
    with serving(tmp_path, workers=1) as server:
        until(lambda: server.workers())
        (worker,) = server.workers()
        server.process.kill()
        server.process.wait()
        until(lambda: not alive(worker))
