"""Measure what docs/performance.md tells, and write it there, between its marks. Nothing else may run meanwhile.

    python tools/performance.py --data ../shared/data/ct100/images            # about a quarter of an hour on 2 cores
    python tools/performance.py --data ... --networks jcs-lite --repeats 3    # a part; the page is left alone

It runs `jcs bench` (every network on every runtime, in turn), then whole slices through `jcs-lite` and the start of
the command in processes of their own.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- begin: tools/performance.py -->", "<!-- end -->"

SLICES = """
import sys, time, statistics
from jcs_ct import pipeline
from jcs_ct.io.raster import read_slice
from jcs_ct.io.sources import find_sources
from jcs_ct.runtime import open_network, self_check_network
weights, runtime = sys.argv[2], sys.argv[3]
network = open_network(weights, "cpu", runtime=runtime) if weights else self_check_network("jcs-lite", "cpu", runtime)
images = [read_slice(source) for source in find_sources([sys.argv[1]]).sources[:20]]
pipeline.diagnose_slice(images[0], network)
seconds = []
for image in images:
    started = time.perf_counter()
    pipeline.diagnose_slice(image, network)
    seconds.append(time.perf_counter() - started)
print(statistics.median(seconds))
"""


def main() -> None:
    """Measure, and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of lung-windowed axial slices")
    parser.add_argument("--networks", default="", help="only these, and leave the page alone")
    parser.add_argument("--weights", default="", help="weights of jcs-lite; default: the shipped ones")
    parser.add_argument("--repeats", default="7")
    parser.add_argument("--slices", default="8")
    parser.add_argument("-o", "--out", type=Path, default=ROOT / "bench-out")
    options = parser.parse_args()
    weights = options.weights or ("jcs-lite" if (ROOT / "src/jcs_ct/assets/jcs-lite.safetensors").exists() else "")
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as home:
        environment = os.environ | {"JCS_HOME": home}
        command = [sys.executable, "-m", "jcs_ct", "bench", "--repeats", options.repeats, "--slices", options.slices]
        command += ["--data", str(options.data), "-o", str(options.out), "--overwrite"]
        command += ["--networks", options.networks] if options.networks else []
        subprocess.run(command, check=True, env=environment, cwd=ROOT)
        if options.networks:
            return
        rows = json.loads((options.out / "bench.json").read_text(encoding="utf-8"))["rows"]
        single = next(r["median"] for r in rows if r["network"] == "jcs-single" and r["runtime"] == "torch")
        text = (options.out / "bench.md").read_text(encoding="utf-8") + "\n" + _slices(options, weights, single)
        text += "\n" + _start(options.data, weights, environment)
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    PAGE.write_text(f"{before}{BEGIN}\nMeasured {today}.\n\n{text}\n{END}{after}", encoding="utf-8")
    print(f"{PAGE} holds the new figures; everything is in {options.out}")


def _slices(options: Any, weights: str, single: float) -> str:
    """Whole slices: lung field, network, maps back on the grid, in a warm process."""
    lines = [
        "| whole slice through jcs-lite | s, median of 20 | times faster than plain jcs-single |",
        "| --- | ---: | ---: |",
    ]
    for runtime in ("torch", "torch-tuned", "onnxruntime", "openvino", "mnn"):
        command = [sys.executable, "-c", SLICES, str(options.data), weights, runtime]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        if done.returncode:
            lines.append(f"| {runtime} | {(done.stderr.strip().splitlines() or ['failed'])[-1]:.90} | |")
            continue
        seconds = float(done.stdout)
        lines.append(f"| {runtime} | {seconds:.4f} | {single / seconds:.0f} |")
    return "\n".join(lines) + "\n"


def _start(data: Path, weights: str, environment: dict[str, str]) -> str:
    """The command from its start: help, and one slice, first ever and later."""
    lines = ["| command, from its start to its end | s, median of 5 | first |", "| --- | ---: | ---: |"]
    commands = {"jcs --help": ["--help"]}
    if weights:
        picture = sorted(p for p in data.iterdir() if p.is_file())[0]
        for runtime in ("auto", "onnxruntime"):
            line = [
                "segment",
                str(picture),
                "-m",
                weights,
                "--runtime",
                runtime,
                "--overwrite",
                "--quiet",
                "-o",
                "{out}",
            ]
            commands[f"jcs segment, one slice, --runtime {runtime}"] = line
    with tempfile.TemporaryDirectory() as out:
        for name, arguments in commands.items():
            seconds = []
            for _ in range(6):
                words = [word.format(out=out) for word in arguments]
                started = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "jcs_ct", *words], check=True, env=environment, stdout=subprocess.DEVNULL
                )
                seconds.append(time.perf_counter() - started)
            lines.append(f"| {name} | {statistics.median(seconds[1:]):.2f} | {seconds[0]:.2f} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
