"""Real Orthancs, watchers and workers: images in by `storescu`, SEG and SR back, whatever is killed on the way."""

from __future__ import annotations

import io
import itertools
import json
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pydicom
import pytest
import requests

pytest.importorskip("sqlalchemy")

import orthanc_help
from dicom_seg_help import needs
from fault_proxy import FAULTS, REFUSED, REQUESTS, Proxy
from jcs_ct.core.errors import UsageError
from jcs_ct.service.files import Folders
from jcs_ct.service.log import Log
from jcs_ct.service.pseudonyms import Pseudonyms
from jcs_ct.service.settings import DiagnosisSettings, Limits, sqlite_in
from jcs_ct.service.watch.ledger import Ledger
from jcs_ct.service.watch.orthanc import AwayError, Orthanc, read_login
from jcs_ct.service.watch.watcher import Habits, Watcher
from service_help import dicom, until
from watch_help import (
    QUICK,
    Command,
    came_back,
    check_versions,
    command,
    kill_children,
    orthanc,
    quiet,
    read,
    send,
    struck,
    two_bursts,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.skipif(
        orthanc_help.program() is None or not orthanc_help.PLUGIN.exists(),
        reason="needs orthanc and orthanc-dicomweb: see tools/system.sh",
    ),
    pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's process files"),
    needs("storescu"),
]
PLANTED = ("Planted^Watched", "PLANTED-ID-91", "2.25.919191919191", "2.25.818181818181")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A chest with an identity."""
    paths = dicom(tmp_path_factory.mktemp("images"), seed=31)
    for path in paths:
        image = pydicom.dcmread(path)
        image.PatientName, image.PatientID, image.StudyInstanceUID = PLANTED[:3]
        image.SeriesInstanceUID = PLANTED[3]
        image.save_as(path)
    return paths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one service for all tests: what one has had computed, the next finds."""
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module", autouse=True)
def workers(folder: Path) -> Iterator[Command]:
    with command("work", str(folder), "--lease", "20", "--attempts", "9") as work:
        yield work


def test_two_archives_and_a_late_burst(folder: Path, files: list[Path], tmp_path: Path, workers: Command) -> None:
    """Two watchers share a service; the worker is killed on the way."""
    with orthanc(tmp_path / "a") as first, orthanc(tmp_path / "b") as second:
        ones = [
            command("watch", "orthanc", m.server.url, str(folder), "--workers", "0", *QUICK) for m in (first, second)
        ]
        with ones[0], ones[1]:
            send(first.server, files[:9])
            until(lambda: read(folder, "SELECT 1 FROM studies WHERE state = 'running'"), 300)
            kill_children(workers.pid)
            quiet(folder, first.server.url, 1)
            check_versions(came_back(first.server), [9])
            send(first.server, files[9:])
            send(second.server, files)
            quiet(folder, first.server.url, 2)
            quiet(folder, second.server.url, 1)
            time.sleep(1.5)  # what came back has made the study unstable, and stable again
            quiet(folder, first.server.url, 2)
        check_versions(came_back(first.server), [9, 14])
        check_versions(came_back(second.server), [14])
        # The same images have the same results; in the second archive they replace none.
        assert came_back(first.server)["SR"][1].SOPInstanceUID == came_back(second.server)["SR"][0].SOPInstanceUID
    assert len(read(folder, "SELECT 1 FROM studies")) == 2  # computed once
    assert read(folder, "SELECT 1 FROM watched_versions WHERE state != 'done'") == []
    assert not list((folder / "outgoing").iterdir())


@pytest.mark.parametrize("victim", ["watcher", "orthanc"])
def test_killed_at_every_step(folder: Path, files: list[Path], tmp_path: Path, victim: str) -> None:
    """SIGKILL and SIGTERM in turn, between what was asked and what was heard; tools/watch_soak.py: both, at each."""
    plan = partial(struck, victim, ["SIGKILL", "SIGTERM"])
    _, _, found = two_bursts(folder, tmp_path, files, [plan, lambda *_: None])
    check_versions(found, [9, 14])


def test_spoiled_answers(folder: Path, files: list[Path], tmp_path: Path) -> None:
    """Each request meets a fault, sending back many: the outcome is the same, and nobody is named on the way."""

    def spoil(proxy: Proxy, _machine: Any, _watcher: Any) -> None:
        for kind, fault in zip(REQUESTS, itertools.cycle(FAULTS), strict=False):
            proxy.faults[kind] = [fault]
        proxy.faults["POST /dicom-web/studies"] = [REFUSED, "503", "lost", "early 503", "short"]

    proxy, watcher, found = two_bursts(folder, tmp_path, files, [spoil])
    check_versions(found, [9])
    (seg,) = found["SEG"]
    assert (seg.StudyInstanceUID, seg.PatientID) == (PLANTED[2], PLANTED[1])  # where matching needs them
    bodies = [
        size for kind, _, size, fault in proxy.seen if kind.startswith("POST /dicom-web") and fault != "early 503"
    ]
    assert min(bodies) > 1000  # never sent again without a body
    said = "".join(watcher.said)
    assert said.count("not sent back yet") >= 5
    assert "0xa700" in said  # why it was refused
    asked = " ".join(path for _, path, _, _ in proxy.seen)
    stored = " ".join(str(path) for path in folder.rglob("*"))
    tables = [
        read(folder, f"SELECT * FROM {name}") for name in ("audit", "studies", "watched_studies", "watched_versions")
    ]
    for where in (said, asked, stored, json.dumps(tables)):
        assert not [planted for planted in PLANTED if planted in where]
    names = {json.loads(line)["name"] for line in watcher.said if '"name"' in line}
    assert len(names) == 1
    assert not names & {row[2] for row in tables[2]}  # a pseudonym, not the archive's name


class Inside:
    """A watcher within this process, whose clock can be moved on."""

    def __init__(self, folder: Path, url: str, monkeypatch: pytest.MonkeyPatch, **habits: Any) -> None:
        self.folders, self.ledger = Folders(folder), Ledger(sqlite_in(folder))
        self.passed = 0.0
        monkeypatch.setattr(Ledger, "_now", lambda _ledger, _connection: time.time() + self.passed)
        self.ledger.prepare()
        self.said = io.StringIO()
        self.watcher = Watcher(
            Orthanc(url), Orthanc(url), self.ledger, self.folders, Limits(free_share=0.0), DiagnosisSettings().digest(),
            Log(self.ledger, self.said), Pseudonyms(folder), Habits(settle=100.0, **habits), lambda: False,
        )  # fmt: skip

    def rounds(self, number: int = 3) -> None:
        for _ in range(number):
            self.watcher.round()

    def later(self, seconds: float) -> None:
        """Move the clock on; wait for the workers where there is something for them."""
        self.passed += seconds
        self.rounds()

        def computed() -> bool:
            self.rounds(1)
            return "waiting" not in {state for _, state in self.versions()}

        until(computed, 400)
        self.rounds()

    def versions(self) -> list[tuple[int, str]]:
        mine = f"watched IN (SELECT number FROM watched_studies WHERE source = '{self.watcher.source}')"
        return read(self.folders.root, f"SELECT version, state FROM watched_versions WHERE {mine}")


def stable(server: orthanc_help.Orthanc) -> bool:
    return all(server.get(f"/studies/{name}").json()["IsStable"] for name in server.get("/studies").json())


@pytest.fixture
def watched(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[orthanc_help.Machine, Any]]:
    """An Orthanc, and what makes a watcher of it."""
    made: list[Inside] = []

    def make(**habits: Any) -> Inside:
        made.append(Inside(folder, machine.server.url, monkeypatch, **habits))
        return made[-1]

    with orthanc(tmp_path) as machine:
        yield machine, make
    for one in made:
        one.ledger.close()


def test_two_bursts_within_the_quiet_time_are_one_study(watched: Any, files: list[Path]) -> None:
    machine, make = watched
    one = make()
    send(machine.server, files[:9])
    one.rounds()
    until(lambda: stable(machine.server))
    one.rounds()
    one.later(90)  # stable for Orthanc, and not yet quiet for long enough
    send(machine.server, files[9:])
    until(lambda: stable(machine.server))
    one.rounds()
    one.later(90)  # 180 s after the first burst
    assert one.versions() == []
    machine.end("SIGKILL")  # forgets what was stable
    machine.start()
    one.later(20)
    assert one.versions() == [(1, "done")]
    check_versions(came_back(machine.server), [14])
    until(lambda: stable(machine.server))
    one.later(1000)
    one.later(100_000)  # all studies are looked through
    assert one.versions() == [(1, "done")]
    (row,) = read(one.folders.root, f"SELECT dirty FROM watched_studies WHERE source = '{one.watcher.source}'")
    assert row == (0,)


def test_what_was_there_may_stay_as_it_is(watched: Any, files: list[Path]) -> None:
    """With --new-only; until something comes of it. And a lost event is found by looking through all studies."""
    machine, make = watched
    send(machine.server, files[:9])
    until(lambda: stable(machine.server))
    one = make(backlog=False)
    one.rounds()
    one.later(1000)
    assert one.versions() == []
    send(machine.server, files[9:])
    until(lambda: stable(machine.server))
    last = one.watcher.archive.changes(0).last
    one.ledger.follow(one.watcher.source, (), last)  # as if its events had been lost
    one.rounds()
    one.later(1000)
    assert one.versions() == []
    one.later(100_000)
    one.later(1000)
    assert one.versions() == [(1, "done")]
    check_versions(came_back(machine.server), [14])


def test_what_was_deleted_is_not_sent_back(watched: Any, files: list[Path]) -> None:
    machine, make = watched
    one = make()
    send(machine.server, files)
    until(lambda: stable(machine.server))
    one.rounds(1)
    one.passed += 200
    monkey = one.watcher.target
    one.watcher.target = Orthanc("http://127.0.0.1:9", patience=1)  # which nobody listens at
    one.later(0)
    assert one.versions() == [(1, "pushing")]
    (name,) = machine.server.get("/studies").json()
    requests.delete(f"{machine.server.url}/studies/{name}", timeout=60).raise_for_status()
    one.watcher.target = monkey
    one.later(1000)
    assert one.versions() == [(1, "dropped")]
    assert machine.server.get("/studies").json() == []
    assert not list((one.folders.root / "outgoing").iterdir())
    send(machine.server, files)  # once more: it gets the same results
    until(lambda: stable(machine.server))
    one.rounds()
    one.later(1000)
    assert one.versions() == [(1, "done")]
    check_versions(came_back(machine.server), [14])


def test_a_study_that_cannot_be_read_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file is gone in the archive, say: it is tried less and less often; several of them end a round early."""
    studies = [f"{number:040x}" for number in range(5)]
    asked: list[int] = []
    broken = {1}

    def study(_archive: Orthanc, name: str) -> tuple[bool, str]:
        asked.append(studies.index(name))
        if studies.index(name) in broken:
            raise AwayError("http://archive answered 404 when an image was asked for")
        return False, ""

    monkeypatch.setattr(Orthanc, "study", study)
    monkeypatch.setattr(Watcher, "_follow", lambda _: None)
    one = Inside(tmp_path, "http://archive", monkeypatch)
    one.watcher.ledger.follow(one.watcher.source, studies, 1)
    Folders(tmp_path).prepare()
    for _ in range(3):
        one.watcher.round()
    assert asked == [0, 1, 2, 3, 4, 0, 2, 3, 4, 0, 2, 3, 4]
    said = one.said.getvalue()
    assert said.count("cannot be read yet") == 1
    assert studies[1] not in said  # a pseudonym
    times, later = one.watcher._failed[studies[1]]
    assert times == 1
    monkeypatch.setattr("jcs_ct.service.watch.watcher.time.monotonic", lambda: later + 1)
    broken.clear()
    one.watcher.round()
    assert asked[13:] == [0, 1, 2, 3, 4]
    assert not one.watcher._failed
    broken |= {0, 2, 3}
    with pytest.raises(AwayError):
        one.watcher.round()
    one.watcher.round()
    assert asked[18:] == [0, 1, 2, 3, 1, 4]
    one.ledger.close()


def test_no_orthanc_is_said_at_once(tmp_path: Path) -> None:
    """Wrong addresses and logins end it; one line each. What is away for now is waited for."""
    for url in ("ftp://here", "http://user:secret@here", "http://here/?a=b"):
        with pytest.raises(UsageError) as error:
            Orthanc(url)
        assert "secret" not in error.value.line()
    (tmp_path / "login").write_text("no colon")
    with pytest.raises(UsageError, match="is not one line user:password"):
        read_login(tmp_path / "login")
    (tmp_path / "login").write_text("a:b:c\n")
    assert read_login(tmp_path / "login") == ("a", "b:c")
    with pytest.raises(AwayError, match="does not answer"):
        Orthanc("http://127.0.0.1:9", patience=1).check()
    machine = orthanc_help.Machine(
        tmp_path / "o", StableAge=1, AuthenticationEnabled=True, RegisteredUsers={"a": "b"}, Plugins=[], Name="locked"
    )
    run = [
        sys.executable,
        "-m",
        "jcs_ct",
        "watch",
        "orthanc",
        machine.server.url,
        str(tmp_path / "f"),
        "--workers",
        "0",
    ]
    try:
        machine.start(lambda: requests.get(f"{machine.server.url}/system", timeout=5).status_code == 401)
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "refuses the login (401) (use --login FILE)" in done.stderr
        with pytest.raises(UsageError, match="has no DICOMweb"):
            Orthanc(machine.server.url, ("a", "b")).check()
    finally:
        machine.end()
