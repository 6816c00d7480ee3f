"""Orthanc, watcher and worker killed at every step, every answer spoiled: `python tools/watch_soak.py [--rounds 1]`.

A round sends a study in two bursts to a real Orthanc, behind a proxy that tells when a request passes. Watcher and
Orthanc are struck at every step of both versions, by SIGKILL and by SIGTERM; workers are killed all the while; in
another pass every kind of request meets every fault. In the end there must be one SEG and one SR of each version.
`tests/test_service_watch.py` does the same with fewer blows.
"""

from __future__ import annotations

import argparse
import itertools
import shutil
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from fault_proxy import FAULTS, REFUSED, REQUESTS, STORED, Proxy
from service_help import dicom
from watch_help import Command, Plan, check_versions, command, kill_children, struck, two_bursts

WORKER_SECONDS = 30.0  # until the first blow at the workers; twice as long to each that follows


def main() -> None:
    """Strike, spoil, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("soak-out/watch"))
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    wrong = 0
    for number in range(options.rounds):
        folder = options.folder / str(number)
        files = dicom(folder / "study", seed=100 + number)
        with command("work", str(folder / "service"), "--lease", "20", "--attempts", "99") as workers:
            threading.Thread(target=strike_workers, args=(workers,), daemon=True).start()
            for name, plan in plans().items():
                started = time.perf_counter()
                said = one_pass(folder, name, files, plan)
                wrong += said != ""
                print(
                    f"{'WRONG' if said else 'ok   '} {name}, {time.perf_counter() - started:.0f} s {said}", flush=True
                )
    sys.exit(0 if not wrong else 1)


def plans() -> dict[str, Plan]:
    """Return what happens in each pass, to both bursts."""
    pairs = itertools.product(("watcher", "orthanc"), ("SIGKILL", "SIGTERM"))
    return {f"{name} of {victim}": partial(struck, victim, [name]) for victim, name in pairs} | {"faults": spoiled}


def spoiled(proxy: Proxy, _machine: Any, _watcher: Any) -> None:
    """A plan: every kind of request meets every fault. What is asked at the start meets them with the first burst.

    An object that was stored is not sent again, though its answer was lost: each of the two can meet one such fault, so
    that the first burst meets two of the three kinds and the second the third.
    """
    late = bool(proxy.seen)
    at_start = {"GET /system", "GET /plugins", "GET /studies"} if late else set()
    for kind in REQUESTS:
        proxy.faults[kind] = [] if kind in at_start else list(FAULTS)
    before = [fault for fault in FAULTS if fault not in STORED]
    proxy.faults["POST /dicom-web/studies"] = [*before, REFUSED, *(STORED[1:] if late else STORED[:2])]


def strike_workers(workers: Command) -> None:
    """Kill them less and less often, so that a slow machine comes to an end too, while their parent lives."""
    pause = WORKER_SECONDS
    while Path(f"/proc/{workers.pid}").exists():
        time.sleep(pause)
        pause *= 2
        with suppress(OSError):
            kill_children(workers.pid)


def one_pass(folder: Path, name: str, files: list[Path], plan: Plan) -> str:
    """Send two bursts; return what is wrong in the end, or ""."""
    try:
        _, _, found = two_bursts(folder / "service", folder / name.replace(" ", "-"), files, [plan, plan])
        check_versions(found, [9, 14])
    except AssertionError as error:
        return f"{error}" or "see the traceback of check_versions"
    return ""


if __name__ == "__main__":
    main()
