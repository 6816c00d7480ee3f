"""Real watchers beside real Orthancs for tests: started, killed, started again, and what has come back."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pydicom

from dcmtk_help import dcmtk
from fault_proxy import Proxy, between
from orthanc_help import Machine, Orthanc
from service_help import until

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
QUICK = ("--every", "0.1", "--settle", "0.3", "--patience", "1.5")
STEPS = (  # where something is killed: when a request has come, or was answered there without the watcher's knowing
    ("after", "GET /changes"),
    ("before", "POST /tools/bulk-content"),
    ("before", "GET /studies/*/instances"),
    ("after", "GET /instances/*/file"),
    ("before", "POST /dicom-web/studies"),
    ("after", "POST /dicom-web/studies"),
    ("after", "GET /dicom-web/instances"),
)


def send(server: Orthanc, files: Sequence[Path]) -> None:
    """Send images by the network protocol, as a scanner does."""
    address = ["-aet", "STORESCU", "-aec", server.title, "127.0.0.1", str(server.dicom_port)]
    subprocess.run([dcmtk("storescu"), "-R", *address, *map(str, files)], check=True, capture_output=True)


class Command:
    """A `jcs` that runs on, and can be ended and started again."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self._restart: threading.Thread | None = None
        self.said: list[str] = []

    @property
    def pid(self) -> int:
        """The process's number."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it."""
        command = [sys.executable, "-m", "jcs_ct", *self._arguments]
        self._process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        threading.Thread(target=self._listen, args=(self._process,), daemon=True).start()

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stderr is not None
        with process.stderr:
            self.said.extend(process.stderr)

    def end(self, name: str = "SIGTERM") -> int:
        """Send it a signal that ends it, and return its status."""
        if self._restart is not None:
            self._restart.join(60)
        process = self._process
        assert process is not None
        process.send_signal(getattr(signal, name))
        try:
            return process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def again(self, name: str) -> None:
        """End it, and start it when it has ended, which may wait for the caller."""
        old = self._process
        assert old is not None
        old.send_signal(getattr(signal, name))
        if self._restart is not None and self._restart.is_alive():
            return  # it was ending, and did this last thing

        def later() -> None:
            old.wait()
            self.start()

        self._restart = threading.Thread(target=later, daemon=True)
        self._restart.start()


def kill_children(pid: int) -> None:
    """Send SIGKILL to the processes that a process has started."""
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in listed.read_text().split():
            os.kill(int(child), signal.SIGKILL)


@contextmanager
def command(*arguments: str) -> Iterator[Command]:
    """Run a `jcs` that runs on."""
    one = Command(*arguments)
    one.start()
    try:
        yield one
    finally:
        one.end()


@contextmanager
def orthanc(folder: Path) -> Iterator[Machine]:
    """Run an Orthanc for which a study is stable after a second."""
    machine = Machine(folder, StableAge=1)
    machine.start()
    try:
        yield machine
    finally:
        machine.end()


def came_back(server: Orthanc) -> dict[str, list[pydicom.Dataset]]:
    """Return the SEGs and SRs in an archive, in the order of their versions."""
    found: dict[str, list[pydicom.Dataset]] = {"SEG": [], "SR": []}
    for series in server.get("/series?expand").json():
        for name in series["Instances"]:
            if series["MainDicomTags"]["Modality"] in found:
                data = server.get(f"/instances/{name}/file").content
                found[series["MainDicomTags"]["Modality"]].append(pydicom.dcmread(io.BytesIO(data)))
    return {kind: sorted(made, key=lambda one: int(one.InstanceNumber)) for kind, made in found.items()}


def read(folder: Path, question: str) -> list[tuple[Any, ...]]:
    """Ask the record of a service; nothing is told by one that is still being made."""
    if not (folder / "record.sqlite").exists():
        return []
    with closing(sqlite3.connect(folder / "record.sqlite", timeout=30)) as database:
        try:
            return database.execute(question).fetchall()
        except sqlite3.OperationalError as error:
            if "no such table" in str(error):
                return []
            raise


def source_of(folder: Path, url: str) -> str:
    """Return what the record calls an archive, as a condition of a question."""
    return f"source = '{hashlib.sha256(url.encode()).hexdigest()}'"


def quiet(folder: Path, url: str, versions: int) -> None:
    """Wait until so many versions of an archive's studies are at their end, and nothing is left to do."""
    mine = f"watched IN (SELECT number FROM watched_studies WHERE {source_of(folder, url)})"

    def ended() -> bool:
        open_ones = read(folder, f"SELECT 1 FROM watched_versions WHERE {mine} AND state IN ('waiting', 'pushing')")
        done = read(folder, f"SELECT 1 FROM watched_versions WHERE {mine}")
        dirty = read(folder, f"SELECT 1 FROM watched_studies WHERE dirty AND {source_of(folder, url)}")
        return not open_ones and not dirty and len(done) >= versions

    until(ended, 400)
    lost = read(folder, f"SELECT state, error FROM watched_versions WHERE {mine} AND state != 'done'")
    assert not lost, lost


Plan = Callable[[Proxy, Machine, Command], None]
"""Sets up what happens while a burst of images is on its way."""


def struck(victim: str, names: Sequence[str], proxy: Proxy, machine: Machine, watcher: Command) -> None:
    """A plan: "watcher" or "orthanc" gets a signal at every step, one of `names` after the other."""

    def blow(name: str) -> None:
        if victim == "watcher":
            watcher.again(name)
        else:
            machine.end(name)
            machine.start()

    for (when, kind), name in zip(STEPS, itertools.cycle(names), strict=False):
        getattr(proxy, when)[kind] = partial(blow, name)


def two_bursts(folder: Path, place: Path, files: Sequence[Path], plans: Sequence[Plan]) -> tuple[Proxy, Command, Any]:
    """Send a study to an Orthanc in two bursts, the second late; return what passed, who watched, what came back.

    Args:
        folder: Of the service, which has workers.
        place: For the Orthanc.
        files: Of the study.
        plans: What happens during the first burst, and during the second.
    """
    with orthanc(place) as machine, between(machine.server.url) as proxy:
        watcher = Command("watch", "orthanc", proxy.url, str(folder), "--workers", "0", *QUICK)
        try:
            for number, (burst, plan) in enumerate(zip((files[:9], files[9:]), plans, strict=False), 1):
                send(machine.server, burst)
                plan(proxy, machine, watcher)
                if number == 1:
                    watcher.start()
                quiet(folder, proxy.url, number)
                # What was asked for before the plan was laid is asked again when SEG and SR have come back.
                until(
                    lambda: not (proxy.before or proxy.after or any(proxy.faults.values())), left=partial(left, proxy)
                )
                quiet(folder, proxy.url, number)
        finally:
            watcher.end()
        return proxy, watcher, came_back(machine.server)


def left(proxy: Proxy) -> str:
    """Return which blows have not fallen, and which faults were not met."""
    return f"left: {[*proxy.before, *proxy.after]} {dict(proxy.faults)}"


def check_versions(found: dict[str, list[pydicom.Dataset]], images: Sequence[int]) -> None:
    """One SEG and one SR of each version, of so many images, each referring to the one it replaces."""
    segs, reports = found["SEG"], found["SR"]
    for made in (segs, reports):
        assert [int(one.InstanceNumber) for one in made] == list(range(1, len(images) + 1))
    for seg, report, count in zip(segs, reports, images, strict=True):
        evidence = {
            str(item.ReferencedSOPInstanceUID)
            for study in report.CurrentRequestedProcedureEvidenceSequence
            for series in study.ReferencedSeriesSequence
            for item in series.ReferencedSOPSequence
        }
        assert str(seg.SOPInstanceUID) in evidence
        assert len(evidence) == count + 1
    for (old_seg, seg), (old, new) in zip(pairs(segs), pairs(reports), strict=True):
        (before,) = new.PredecessorDocumentsSequence
        (series,) = before.ReferencedSeriesSequence
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == old.SOPInstanceUID
        assert seg.RelatedSeriesSequence[0].SeriesInstanceUID == old_seg.SeriesInstanceUID


def pairs(made: Sequence[T]) -> list[tuple[T, T]]:
    """Return each with its successor."""
    return list(itertools.pairwise(made))
