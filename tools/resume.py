"""How long does `--resume` take over thousands of finished studies? `python tools/resume.py [--studies 2000]`.

Writes small DICOM studies, diagnoses one, gives every other its result with a digest of its own, as if it had been
diagnosed, and runs `jcs diagnose --resume` on all of them.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pydicom

from jcs_ct.app.gather import gather
from jcs_ct.app.identity import identify, with_stable_names
from jcs_ct.app.resume_index import files_now, record_files
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import make_phantom

SLICES, SIZE, SEED = 5, 64, 1


def write_studies(top: Path, count: int) -> None:
    """Write copies of one phantom, each with UIDs of its own."""
    mm = (240 / SLICES, 358 / SIZE, 358 / SIZE)
    phantom = make_phantom(slices=SLICES, size=SIZE, seed=SEED, spacing=mm)
    paths = write_ct_series(top / "model", phantom.hu, mm, phantom.origin)
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
    contents = [path.read_bytes() for path in paths]
    for number in range(count):
        folder = top / "in" / f"s{number:05d}"
        folder.mkdir(parents=True)
        for i, (header, content) in enumerate(zip(headers, contents, strict=True)):
            data = content
            for uid in {header.StudyInstanceUID, header.SeriesInstanceUID, header.SOPInstanceUID}:
                data = data.replace(uid.encode(), f"{uid[:-7]}{1_000_000 + number}".encode())
            (folder / f"{i:03d}.dcm").write_bytes(data)


def run(top: Path, inputs: Path) -> tuple[float, float]:
    """Run the command; return the seconds that it took, and those that a processor worked for it."""
    words = ["diagnose", str(inputs), "-o", str(top / "out"), "--resume", "--no-html", "--quiet"]
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "jcs_ct", *words], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - started, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime


def finish_all(top: Path) -> int:
    """Give every study a finished result; return how many."""
    out = top / "out"
    model = next(out.glob("study-*/report.json")).parent
    report = json.loads((model / "report.json").read_text(encoding="utf-8"))
    cases = with_stable_names(gather([str(top / "in")]).cases, out)
    reading = report["source"]["reading"]
    for case in cases:
        mine = report
        if case.name != model.name:
            shutil.copytree(model, out / case.name)
            mine = report | {"case": case.name, "source": identify(case, reading).to_dict()}
            (out / case.name / "report.json").write_text(json.dumps(mine), encoding="utf-8")
        record_files(out, case, mine, files_now(case), reading)
    return len(cases)


def main() -> int:
    """Make, run, say; return 1 where a study was not kept."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--folder", type=Path, default=Path("resume-out"))
    options = parser.parse_args()
    top = options.folder.absolute()
    shutil.rmtree(top, ignore_errors=True)
    write_studies(top, options.studies)
    run(top, top / "in" / "s00000")
    count = finish_all(top)
    reports = {path: path.stat().st_mtime_ns for path in (top / "out").glob("study-*/report.json")}
    seconds, worked = run(top, top / "in")
    same = reports == {path: path.stat().st_mtime_ns for path in (top / "out").glob("study-*/report.json")}
    rows = (top / "out" / "summary.csv").read_text(encoding="utf-8").count(",kept,")
    print(f"{count} finished studies of {SLICES} slices: {seconds:.1f} s, {worked:.1f} s of a processor; {rows} kept")
    return int(not same or rows != count)


if __name__ == "__main__":
    sys.exit(main())
