"""A worker and its supervisor within this process: late, frozen, without a disk or a database, on several GPUs."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("sqlalchemy")

from sqlalchemy.exc import OperationalError

from jcs_ct.core.errors import OutputError
from jcs_ct.service import database, supervisor, worker
from jcs_ct.service.files import Folders
from jcs_ct.service.record import Record, Study
from jcs_ct.service.settings import Limits, Service, sqlite_in
from jcs_ct.service.supervisor import Supervisor
from jcs_ct.service.worker import Worker
from service_help import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LEASE = 0.4


class Inside:
    """A service with one worker, whose studies are not looked at: `deed` is done in place of that."""

    def __init__(self, folder: Path) -> None:
        self.service = Service(folder, sqlite_in(folder), limits=Limits(lease_seconds=LEASE, attempts=3))
        self.folders, self.record = Folders(folder), Record(self.service.database)
        self.folders.prepare()
        self.record.prepare()
        self.settings = self.service.diagnosis.digest()
        self.deed: Callable[[Path], object] = lambda out: None
        self.worker = Worker("mine", self.service, self._run)  # type: ignore[arg-type]  # called like a StudyRunner

    def _run(self, folder: Path, out: Path, progress: Callable[[int, int], object]) -> dict[str, Any]:
        assert (folder / "study").read_bytes() == b"sent"
        (out / "study").mkdir(parents=True)
        (out / "study" / "report.json").write_text("{}")
        progress(1, 4)
        self.deed(out)
        return {"kind": "nifti"}

    def submit(self, number: int = 0) -> Study:
        folder = f"input{number}"
        self.folders.input(folder).mkdir()
        (self.folders.input(folder) / "study").write_bytes(b"sent")
        study, _ = self.record.submit(f"{number:064d}", self.settings, folder, 1, 4)
        return study

    def now(self, study: Study) -> Study:
        found = self.record.get(study.id)
        assert found is not None
        return found

    def files(self) -> list[str]:
        results = self.folders.root / "results"
        return sorted(str(path.relative_to(results)) for path in results.rglob("*") if path.is_file())


@pytest.fixture
def inside(tmp_path: Path) -> Iterator[Inside]:
    one = Inside(tmp_path)
    yield one
    one.worker.record.close()
    one.record.close()


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With what status the worker's process would have ended."""
    found: list[int] = []
    monkeypatch.setattr(worker, "os", SimpleNamespace(_exit=found.append))
    return found


def test_a_worker_that_comes_late_ends_and_publishes_nothing(inside: Inside, ended: list[int]) -> None:
    """It was stopped for longer than its lease, and goes on: by then another has done its study."""
    study = inside.submit()

    def another(out: Path) -> None:
        inside.worker.lease_keeper.study = None  # as good as frozen
        time.sleep(LEASE + 0.1)
        second = inside.record.claim("second", inside.settings, 60, 3)
        assert second is not None
        assert second.attempt == 2
        (inside.folders.attempt(second) / "study").mkdir(parents=True)
        (inside.folders.attempt(second) / "study" / "report.json").write_text("second")
        first = inside.now(study)
        inside.worker.lease_keeper.hold(Study(**vars(first) | {"attempt": 1}))  # and awake
        until(lambda: ended, 5)
        assert inside.record.finish(second, {"kind": "dicom"})

    inside.deed = another
    assert inside.worker.take()
    assert set(ended) == {worker.LOST}
    now = inside.now(study)
    assert (now.state, now.attempt, now.outcome) == ("done", 2, {"kind": "dicom"})
    assert inside.files() == ["input0/2/study/report.json"]


def test_a_study_that_is_deleted_while_it_is_looked_at(inside: Inside, ended: list[int]) -> None:
    study = inside.submit()

    def delete(out: Path) -> None:
        gone = inside.record.delete(study.id)
        assert gone is not None
        inside.folders.remove(gone)
        (out / "study").mkdir(parents=True)
        (out / "study" / "late.json").write_text("{}")
        until(lambda: ended, 5)

    inside.deed = delete
    assert inside.worker.take()
    assert inside.record.get(study.id) is None
    assert inside.files() == []
    assert not inside.folders.input(study.input).exists()


def test_progress_is_told(inside: Inside) -> None:
    study = inside.submit()
    inside.deed = lambda out: until(lambda: inside.now(study).progress == 0.25, 5)
    assert inside.worker.take()
    assert inside.now(study).state == "done"


def test_a_full_disk_costs_no_study(
    inside: Inside, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """They wait until there is room, however long that takes; a study that cannot be written otherwise has failed."""
    study, free = inside.submit(), 10
    monkeypatch.setattr(Folders, "free_bytes", lambda _: free)
    monkeypatch.setattr(worker, "FULL_SECONDS", 0)
    monkeypatch.setattr(worker, "POLL_SECONDS", 0)

    def refuse(out: Path) -> None:
        raise OutputError("cannot be written: No space left on device", path="study/report.json")

    inside.deed = refuse
    for _ in range(5):
        assert not inside.worker.take()
    assert (inside.now(study).state, inside.now(study).tries) == ("waiting", 0)
    assert inside.files() == []
    assert capfd.readouterr().out == 5 * f"the disk is full, study {study.id} is tried again\n"
    mkdir = Path.mkdir

    def full(path: Path, *args: Any, **options: Any) -> None:
        if "results" in path.parts:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        mkdir(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "mkdir", full)  # not even a folder
        assert not inside.worker.take()
    assert (inside.now(study).state, inside.now(study).tries) == ("waiting", 0)

    free = 2**40
    for _ in range(3):
        inside.worker.take()
    now = inside.now(study)
    assert (now.state, now.error_class) == ("failed", "unforeseen")
    assert "No space left on device" in (now.error or "")
    inside.deed = lambda out: None
    other = inside.submit(1)
    assert inside.worker.take()
    assert inside.now(other).state == "done"


def test_what_was_computed_outlasts_a_database_that_is_away(inside: Inside, monkeypatch: pytest.MonkeyPatch) -> None:
    """For longer than anybody is patient; the lease is held again when it is back."""
    study = inside.submit()
    engine = inside.worker.record._engine
    monkeypatch.setattr(database, "time", SimpleNamespace(sleep=lambda _: time.sleep(0.01), time=time.time,
                                                          monotonic=lambda: 1000 * time.monotonic()))  # fmt: skip
    asked = []

    def away() -> Any:
        asked.append(1)
        raise OperationalError("SELECT 1", {}, Exception("gone"))

    def leave(out: Path) -> None:
        inside.worker.record._engine = SimpleNamespace(begin=away)  # type: ignore[assignment]

        def back() -> None:
            until(lambda: len(asked) > 50, 5)
            inside.worker.record._engine = engine

        threading.Thread(target=back).start()

    inside.deed = leave
    assert inside.worker.take()
    assert inside.now(study).state == "done"
    assert inside.worker.lease_keeper.is_alive()
    inside.deed = lambda out: until(lambda: inside.now(study).progress == 0.25, 5)
    study = inside.submit(1)
    assert inside.worker.take()  # its lease is kept as before


def test_no_process_for_a_worker_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system has no memory or no number left for another process: the others are watched on."""
    monkeypatch.setattr(supervisor, "MOST_PAUSE", 0.0)
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.01)
    tried: list[int] = []

    def none_left(*_: Any, **__: Any) -> None:
        tried.append(1)
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", none_left)
    service = Service(tmp_path, sqlite_in(tmp_path))
    with closing(Record(service.database)) as record:
        record.prepare()
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        raise BrokenPipeError  # nobody listens any more

    one = Supervisor(service, 1, say)
    one.start()
    try:
        until(lambda: len(tried) > 3, 5)
        assert said[0] == "no worker can be started: Resource temporarily unavailable"
    finally:
        one.stop()


def test_a_worker_that_hangs_while_it_starts_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    start = subprocess.Popen
    command = [sys.executable, "-S", "-c", "input(); input()"]
    monkeypatch.setattr(subprocess, "Popen", lambda _command, **options: start(command, **options))
    service, said = Service(tmp_path, sqlite_in(tmp_path)), list[str]()
    with closing(Record(service.database)) as record:
        record.prepare()
    one = Supervisor(service, 1, said.append)
    try:
        one._watch()
        (first,) = one.pids
        one._watch()
        assert one.pids == [first]  # it may take its time
        monkeypatch.setattr(supervisor, "START_SECONDS", 0.0)
        one._watch()
        assert one.pids == []
        assert said == ["a worker was ended: its worker did not start; another is started"]
    finally:
        one.stop()


@pytest.mark.parametrize(
    ("told", "driver", "expected"),
    [(None, 2, ["0", "1", "0"]), ("3,1", 4, ["3", "1", "3"]), ("", 2, ["", "", ""]), (None, 0, [None, None, None])],
    ids=["two", "told", "none wanted", "none there"],
)
def test_workers_share_the_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str | None, driver: int, expected: list[str | None]
) -> None:
    for number in range(driver):
        (tmp_path / "gpus" / f"0000:0{number}:00.0").mkdir(parents=True)
    monkeypatch.setattr(supervisor, "NVIDIA", tmp_path / "gpus")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if told is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", told)
    seen: list[str | None] = []
    start = subprocess.Popen

    def started(_command: list[str], *, env: dict[str, str], **options: Any) -> subprocess.Popen[str]:
        seen.append(env.get("CUDA_VISIBLE_DEVICES"))
        return start([sys.executable, "-S", "-c", "input()"], **options)

    monkeypatch.setattr(subprocess, "Popen", started)
    service = Service(tmp_path, sqlite_in(tmp_path))
    with closing(Record(service.database)) as record:
        record.prepare()
    one = Supervisor(service, 3, lambda _: None)
    try:
        for _ in range(3):
            one._children.append(one._started())
        assert seen == expected
        one._children.pop(1).kill()  # the one that ends makes room where it was
        one._children.append(one._started())
        assert seen[3] == expected[1]
    finally:
        one.stop()
    shutil.rmtree(tmp_path / "gpus", ignore_errors=True)
