"""Many studies through a service whose workers are killed and frozen: `python tools/service_soak.py [--studies 300]`.

Sends phantom studies to `jcs serve` with several workers, sends SIGKILL and SIGSTOP to workers again and again, and
checks what is there in the end: every study done once, with whole results and nothing of other attempts. `--database`
takes the URL of an empty PostgreSQL; without it the record is SQLite's.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from service_help import Server, nifti, serving, until


def main() -> None:
    """Send, kill, freeze, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--blows", type=int, default=10, help="signals sent to workers, one after the other")
    parser.add_argument("--lease", type=float, default=20, help="seconds")
    parser.add_argument("--folder", type=Path, default=Path("soak-out/service"))
    parser.add_argument("--database", default=None)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    more = [] if options.database is None else ["--database", options.database]
    more += ["--lease", str(options.lease), "--attempts", str(options.blows + 1)]
    started = time.perf_counter()
    with serving(options.folder, *more, workers=options.workers) as server:
        ids = [server.send(nifti(seed))["id"] for seed in range(options.studies)]
        strike(server, options.blows, options.studies)
        until(lambda: sum(counts(server).get(s, 0) for s in ("waiting", "running")) == 0, 60.0 * options.studies)
        ended = [server.study(study_id) for study_id in ids]
        memory = resident(server.process.pid)
    print(f"{time.perf_counter() - started:.0f} s, {sum(s['attempt'] for s in ended)} attempts, server {memory} MiB")
    reports = sorted((options.folder / "results").glob("*/*/study/report.json"))
    checks = {
        f"{len(ended)} studies done": all(s["state"] == "done" for s in ended),
        "some were taken twice": sum(s["attempt"] for s in ended) > len(ended),
        "one result for each, none of other attempts": len(reports) == len(set(ids)) == attempts(options.folder),
        "every report is whole": all(json.loads(path.read_text(encoding="utf-8"))["verdict"] for path in reports),
        "nothing half-received": not list((options.folder / "incoming").iterdir()),
    }
    if options.database is None:
        with sqlite3.connect(options.folder / "record.sqlite") as database:
            sound = database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        checks["the record is sound"] = sound
    for what, right in checks.items():
        print("ok   " if right else "WRONG", what)
    sys.exit(0 if all(checks.values()) else 1)


def strike(server: Server, blows: int, studies: int) -> None:
    """Kill and freeze workers while there is work left."""
    chance = random.Random(0)  # not for secrets
    for blow in range(blows):
        until(partial(worked, server, blow * studies // (blows + 1)), 60.0 * studies)
        workers = server.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(chance.choice(workers), signal.SIGKILL if blow % 2 else signal.SIGSTOP)


def worked(server: Server, aim: int) -> bool:
    """Whether so many studies are done, and another is being looked at."""
    found = counts(server)
    return found.get("done", 0) >= aim and found.get("running", 0) > 0


def counts(server: Server) -> dict[str, int]:
    """Return the number of studies by state, as a monitor reads it."""
    lines = server.ask("GET", "/metrics").text.splitlines()
    found = [line.split('"') for line in lines if line.startswith("jcs_studies{")]
    return {state: int(float(number.split()[1])) for _, state, number in found}


def attempts(folder: Path) -> int:
    """Return how many folders of attempts lie in the results."""
    return sum(1 for path in (folder / "results").glob("*/*") if path.is_dir())


def resident(pid: int) -> int:
    """Return the memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20


if __name__ == "__main__":
    main()
