"""Many studies, some of them broken, in a run that is killed again and again: `python tools/soak.py [--studies 300]`.

Makes phantom studies of which every tenth is broken in one of ten ways, starts `jcs diagnose --resume` on all of them,
kills it with SIGKILL three times, lets it end, and checks what is there: a whole result for every good study, a named
failure for every broken one, nothing half-written, nothing done twice, and a memory that does not grow.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import make_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

SIZE, SLICES = 128, 24


def main() -> None:
    """Make, run, kill, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("soak-out"))
    parser.add_argument("--model", default=None)
    options = parser.parse_args()
    shutil.rmtree(options.folder, ignore_errors=True)
    broken = make(options.folder / "in", options.studies)
    out = options.folder / "out"
    command = [sys.executable, "-m", "jcs_ct", "diagnose", str(options.folder / "in"), "-o", str(out), "--resume"]
    command += ["--no-html", *(["-m", options.model] if options.model else [])]
    stamps: dict[str, int] = {}
    started = time.perf_counter()
    for kill in range(options.kills):
        wanted = (kill + 1) * options.studies // (options.kills + 2)
        process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(done(out)) < wanted:
            time.sleep(0.2)
        time.sleep(random.Random(kill).uniform(0.1, 0.9))  # not for secrets
        process.send_signal(signal.SIGKILL)
        process.wait()
        stamps = {name: stamp for name, stamp in done(out).items() if stamps.get(name, stamp) == stamp} | stamps
        print(f"killed with {len(done(out))} studies done", flush=True)
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    finished = done(out)
    rows = list(csv.DictReader((out / "summary.csv").open(encoding="utf-8")))
    failed = [row for row in rows if row["status"] == "failed"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024
    print(f"{time.perf_counter() - started:.0f} s, exit status {ended.returncode}, peak memory {peak} MiB")
    for row in failed:
        print("  ", row["problem"][-150:])
    good = options.studies - broken
    checks = {
        f"{len(finished)} results of {good}": len(finished) == good,
        f"{len(failed)} named failures of {broken}": len(failed) == broken and all(row["problem"] for row in failed),
        "nothing half-written": not [p for p in out.rglob("*") if ".part" in p.name],
        "nothing done twice": all(finished.get(name) == stamp for name, stamp in stamps.items()),
        "every report is JSON": all(json.loads((out / n / "report.json").read_text())["verdict"] for n in finished),
        "exit status 1": ended.returncode == 1,
    }
    for what, right in checks.items():
        print("ok   " if right else "WRONG", what)
    sys.exit(0 if all(checks.values()) else 1)


def done(out: Path) -> dict[str, int]:
    """Return the finished studies, each with the time its report was written."""
    return {p.parent.name: p.stat().st_mtime_ns for p in out.glob("study-*/report.json")}


def make(folder: Path, studies: int) -> int:
    """Write the studies; return how many are broken."""
    phantom = make_phantom(slices=SLICES, size=SIZE, seed=1, spacing=(240 / SLICES, 358 / SIZE, 358 / SIZE))
    rng = np.random.default_rng(0)
    broken = 0
    for i in range(studies):
        noise = rng.integers(-5, 6, phantom.hu.shape).astype(np.int16)
        hu = np.clip(phantom.hu + noise, -1024, 3071).astype(np.int16)
        paths = write_ct_series(folder / f"s{i:03d}", hu, phantom.spacing, phantom.origin, key=str(i))
        if i % 10 == 9:
            WAYS[broken % len(WAYS)](paths)
            broken += 1
    return broken


def _edited(path: Path, **values: object) -> None:
    from pydicom import dcmread

    header = dcmread(path)
    for keyword, value in values.items():
        setattr(header, keyword, value)
    header.save_as(path)


def _all(**values: object) -> Callable[[list[Path]], None]:
    def edit(paths: list[Path]) -> None:
        for path in paths:
            _edited(path, **values)

    return edit


def _cut(paths: list[Path]) -> None:
    data = paths[5].read_bytes()
    paths[5].write_bytes(data[: len(data) // 2])


def _gap(paths: list[Path]) -> None:
    for path in paths[8:11]:
        path.unlink()


def _twice(paths: list[Path]) -> None:
    from pydicom import dcmread
    from pydicom.uid import generate_uid

    header: Dataset = dcmread(paths[4])
    header.PixelData = (np.frombuffer(header.PixelData, "<u2") ^ 1).tobytes()
    header.SOPInstanceUID = generate_uid()
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    header.save_as(paths[4].with_name("again.dcm"))


def _solid(paths: list[Path]) -> None:
    from pydicom import dcmread

    for path in paths:
        header = dcmread(path)
        header.PixelData = np.full(SIZE * SIZE, 1064, "<u2").tobytes()
        header.save_as(path)


WAYS: list[Callable[[list[Path]], None]] = [
    _cut,
    _gap,
    _twice,
    _solid,
    _all(Modality="MR"),
    _all(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
    _all(ImageOrientationPatient=[0, 1, 0, 0, 0, -1]),
    _all(SOPClassUID="1.2.840.10008.5.1.4.1.1.7"),
    _all(RescaleSlope="0.001", RescaleIntercept="0"),
    _all(ImagePositionPatient=[0, 0, 0]),
]

if __name__ == "__main__":
    main()
