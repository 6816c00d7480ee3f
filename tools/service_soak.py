"""Many studies through a service whose workers are killed and frozen: `python tools/service_soak.py [--postgres]`.

Sends phantom studies to `jcs serve` with several workers, sends SIGKILL and SIGSTOP to workers again and again,
restarts the database (with `--postgres`, a cluster of its own), and sends one study that always takes more memory than
a worker may. In the end every other study must be done once, that one must have failed by name, nothing of other
attempts may lie about, the files must be those of `jcs diagnose`, byte for byte but for times, the case's name and UIDs
of new DICOM objects, and memory must not have grown. Prints figures, and exits with 1 where something is wrong. Linux.
"""

from __future__ import annotations

import argparse
import gzip
import os
import random
import shutil
import signal
import sqlite3
import sys
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

import nibabel as nib
import numpy as np

import postgres_help
from jcs_ct.core.processors import threads
from service_compare import different
from service_help import Server, children, dicom, nifti, serving, until, zipped

if TYPE_CHECKING:
    from collections.abc import Iterator

HUNGRY = 3072
"""Pixels a side of a study that takes 1.5 GiB; the others take some 0.4."""
MIB = 2**20
SPARE = 1.15
"""Memory of the last third of a run, over that of the middle third, that is not called growth."""


def main() -> None:
    """Send, kill, freeze, restart, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300, help="with the one that takes too much memory")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--blows", type=int, default=10, help="signals sent to workers, one after the other")
    parser.add_argument("--restarts", type=int, default=2, help="of the database, with --postgres")
    parser.add_argument("--lease", type=float, default=20, help="seconds")
    parser.add_argument("--memory", type=int, default=640, metavar="MIB", help="a worker may take")
    parser.add_argument("--compared", type=int, default=None, help="studies that `jcs diagnose` does as well: all")
    parser.add_argument("--folder", type=Path, default=Path("soak-out/service"))
    parser.add_argument("--postgres", action="store_true", help="a cluster of its own; else SQLite")
    options = parser.parse_args()
    options.folder = options.folder.resolve()
    shutil.rmtree(options.folder, ignore_errors=True)
    with postgres_help.running(options.folder / "postgres") if options.postgres else nullcontext() as database:
        checks = soak(options, database)
    for what, right in checks.items():
        print("ok   " if right else "WRONG", what)
    sys.exit(0 if all(checks.values()) else 1)


def soak(options: argparse.Namespace, database: postgres_help.Postgres | None) -> dict[str, bool]:
    """Run it; return what was checked, and whether it is right."""
    folder = options.folder / "service"
    more = ["--lease", str(options.lease), "--attempts", str(options.blows + 1), "--memory", str(options.memory)]
    more += [] if database is None else ["--database", database.url]
    studies = [small(seed, options.folder) for seed in range(options.studies - 1)]
    started = time.perf_counter()
    with serving(folder, *more, workers=options.workers) as server, watched(server) as memory:
        ids = [server.send(data)["id"] for data in studies]
        hungry = server.send(large())["id"]
        strike(server, options.blows, len(ids), database, options.restarts)
        until(lambda: over(server), 60.0 * options.studies)
        ended, failed = [server.study(study) for study in ids], server.study(hungry)
    seconds = time.perf_counter() - started
    (options.folder / "log").write_text(server.said(), encoding="utf-8")
    row = rows(folder, database)
    print(f"{seconds:.0f} s for {options.studies} studies, {3600 * options.studies / seconds:.0f} an hour")
    print(f"{sum(s['attempt'] for s in ended)} attempts for {len(ended)} studies, {failed['attempt']} for the other")
    print(f"the other: {failed['failure']}")
    for line in memory.lines():
        print(line)
    for place in sorted(set(attempts(folder)) ^ set(row.values())):
        print(f"of an attempt that does not count, or missing: {place}")
    checks = {
        f"{len(ended)} studies done": all(s["state"] == "done" for s in ended),
        "some were taken twice": options.blows == 0 or sum(s["attempt"] for s in ended) > len(ended),
        "the one that takes too much memory has failed, and says so": (failed["failure"] or {}).get("kind") == "memory",
        "one result for each, of the attempt that counts": attempts(folder) == sorted(row.values()),
        "nothing half-received": not list((folder / "incoming").iterdir()),
        "no line about something unforeseen": "Traceback" not in server.said(),
    }
    if not checks["no line about something unforeseen"]:
        print(server.said()[server.said().index("Traceback") - 500 :][:4000])
    compared = ids[: options.compared]
    pairs = [(data, folder / "results" / row.get(i, i)) for i, data in zip(ids, studies, strict=True) if i in compared]
    wrong = different(options.folder / "command", pairs, threads(processes=options.workers))
    print(f"{len(compared)} studies by `jcs diagnose` as well: {len(wrong)} with other files")
    checks["the files are those of `jcs diagnose`"] = not wrong and len(compared) > 0
    for line in wrong[:10]:
        print("     ", line)
    if options.studies >= 100:  # fewer are over before anything settles
        checks["memory does not grow"] = memory.flat()
    if database is None:
        with sqlite3.connect(folder / "record.sqlite") as connection:
            checks["the record is sound"] = connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    return checks


def small(seed: int, folder: Path) -> bytes:
    """Return a phantom study: every tenth as a zip of DICOM files, the others as NIfTI."""
    if seed % 10:
        return nifti(seed)
    files = {path.name: path.read_bytes() for path in dicom(folder / "dicom" / str(seed), seed)}
    return zipped(files)


def large() -> bytes:
    """Return a study of few slices with very many pixels, as packed NIfTI."""
    image: Any = nib.Nifti1Image.from_bytes(nifti(0))
    hu = np.asarray(image.dataobj, dtype=np.int16)
    times = HUNGRY // hu.shape[0]
    affine = image.affine @ np.diag([1 / times, 1 / times, 1, 1])
    big: Any = nib.Nifti1Image(hu.repeat(times, 0).repeat(times, 1), affine)  # type: ignore[no-untyped-call]
    return gzip.compress(big.to_bytes(), 1)


def strike(server: Server, blows: int, studies: int, database: postgres_help.Postgres | None, restarts: int) -> None:
    """Kill and freeze workers, and restart the database, while there is work left."""
    chance = random.Random(0)  # not for secrets
    deeds = ["blow"] * blows + ["restart"] * (restarts if database is not None else 0)
    chance.shuffle(deeds)
    for number, deed in enumerate(deeds):
        until(partial(worked, server, number * studies // (len(deeds) + 1)), 60.0 * studies)
        if deed == "restart" and database is not None:
            database.stop()
            time.sleep(2)
            database.start()
        elif workers := server.workers():
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL if number % 2 else signal.SIGSTOP)


def worked(server: Server, aim: int) -> bool:
    """Whether so many studies are done, and another is being looked at."""
    found = counts(server)
    return found.get("done", 0) >= aim and found.get("running", 0) > 0


def over(server: Server) -> bool:
    """Whether nothing waits and nothing is being looked at."""
    found = counts(server)
    return found.get("waiting", 0) + found.get("running", 0) == 0


def counts(server: Server) -> dict[str, int]:
    """Return the number of studies by state, as a monitor reads it; none while the database is away."""
    answer = server.ask("GET", "/metrics")
    lines = answer.text.splitlines() if answer.status_code == 200 else ['jcs_studies{state="waiting"} 1']
    found = [line.split('"') for line in lines if line.startswith("jcs_studies{")]
    return {state: int(float(number.split()[1])) for _, state, number in found}


def rows(folder: Path, database: postgres_help.Postgres | None) -> dict[str, str]:
    """Return where the results of each finished study lie, as the record says."""
    from jcs_ct.service.record import Record
    from jcs_ct.service.settings import sqlite_in

    record = Record(sqlite_in(folder) if database is None else database.url)
    try:
        return {s.id: f"{s.input}/{s.attempt}" for s in record.inputs().values() if s.state == "done"}
    finally:
        record.close()


def attempts(folder: Path) -> list[str]:
    """Return the folders of attempts that lie in the results."""
    found = (path for path in (folder / "results").glob("*/*") if path.is_dir())
    return sorted(f"{path.parent.name}/{path.name}" for path in found)


@dataclass
class Memory:
    """What the processes of a service hold, looked at every half second.

    Attributes:
        server: MiB of the server.
        workers: MiB of each worker, at the same times.
    """

    server: list[int] = field(default_factory=list)
    workers: list[list[int]] = field(default_factory=list)

    def thirds(self) -> tuple[float, float, float, float]:
        """Return medians in MiB: of the server and of its workers, in the middle and in the last third of the run."""
        third = len(self.server) // 3
        middle, last = slice(third, 2 * third), slice(2 * third, None)
        values = [self.server[middle], self.server[last]]
        values += [[one for now in self.workers[part] for one in now] for part in (middle, last)]
        server, server_last, workers, workers_last = (float(np.median(v)) if v else 0.0 for v in values)
        return server, server_last, workers, workers_last

    def lines(self) -> list[str]:
        """Return what is printed."""
        server, server_last, workers, workers_last = self.thirds()
        return [
            f"server: {server:.0f} MiB in the middle, {server_last:.0f} at the end, {max(self.server)} at most",
            f"a worker: {workers:.0f} MiB in the middle, {workers_last:.0f} at the end (medians)",
        ]

    def flat(self) -> bool:
        """Whether the last third holds no more than the middle one."""
        server, server_last, workers, workers_last = self.thirds()
        return server_last <= SPARE * server and workers_last <= SPARE * workers


@contextmanager
def watched(server: Server) -> Iterator[Memory]:
    """Look at the memory of a service while it works."""
    memory, stop = Memory(), threading.Event()

    def look() -> None:
        while not stop.wait(0.5):
            with suppress(OSError):
                now = resident(server.process.pid)
                held = [mib for pid in children(server.process.pid) if (mib := resident(pid)) > 150]  # weights are in
                memory.server.append(now)
                memory.workers.append(held)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield memory
    finally:
        stop.set()
        thread.join()


def resident(pid: int) -> int:
    """Return the memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB


if __name__ == "__main__":
    main()
