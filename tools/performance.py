"""Measure what docs/performance.md tells, and write it there, between its marks. Nothing else may run meanwhile.

    python tools/performance.py --data SLICES --study STUDY                # about half an hour on 2 cores
    python tools/performance.py --data SLICES --networks jcs-lite --repeats 3    # a part; the page is left alone

It runs `jcs bench` (every network on every runtime, in turn), whole slices through `jcs-lite` in turn with plain
`jcs-single`, `jcs bench study` (the study on `jcs-lite`, with `jcs-joint` for its lesions, and phantoms of several
lengths), and the start of the command, each in processes of its own.
"""

from __future__ import annotations

import argparse
import datetime as dt
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
from jcs_ct.inference import apply
from jcs_ct.io.pictures import read_slice
from jcs_ct.io.files.sources import find_sources
from jcs_ct.inference import open_network, self_check_network
folder, weights, runtime, count = sys.argv[1:]
checked = weights in ("jcs-single", "")
opening = self_check_network if checked else open_network
network = opening(weights or "jcs-lite", "cpu", runtime=runtime)
work = apply.segment if weights == "jcs-single" else apply.diagnose_slice
images = [read_slice(source) for source in find_sources([folder]).sources[: int(count)]]
work(images[0], network)
seconds = []
for image in images:
    started = time.perf_counter()
    work(image, network)
    seconds.append(time.perf_counter() - started)
print(statistics.median(seconds))
"""


def main() -> None:
    """Measure, and rewrite the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of lung-windowed axial slices")
    parser.add_argument("--study", type=Path, help="a positive DICOM study of the chest")
    parser.add_argument("--networks", default="", help="only these, and leave the page alone")
    parser.add_argument("--weights", default="", help="weights of jcs-lite; default: the shipped ones")
    parser.add_argument("--repeats", default="5")
    parser.add_argument("--slices", default="4")
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
        text = (options.out / "bench.md").read_text(encoding="utf-8") + "\n" + _slices(options, weights, environment)
        text += "\n" + _studies(options.study, environment) + "\n" + _start(options.data, weights, environment)
    today = dt.datetime.now(dt.timezone.utc).date().isoformat()
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    words = ["python tools/performance.py --data", "/".join(options.data.resolve().parts[-2:])]
    words += ["--study", options.study.name] if options.study else []
    made = f"`{' '.join([*words, '--repeats', options.repeats])}`, {today}; nothing else ran."
    PAGE.write_text(f"{before}{BEGIN}\n{made}\n\n{text}\n{END}{after}", encoding="utf-8")
    print(f"{PAGE} holds the new figures; everything is in {options.out}")


def _slices(options: Any, weights: str, environment: dict[str, str]) -> str:
    """Whole slices: lung field, network, maps back on the grid, warm; three turns with plain jcs-single."""
    runtimes = ("torch", "torch-tuned", "onnxruntime", "openvino")
    taken: dict[str, list[float]] = {"single": [], **{runtime: [] for runtime in runtimes}}
    for _ in range(3):
        for name, seconds in taken.items():
            which = ["jcs-single", "torch", "5"] if name == "single" else [weights, name, "20"]
            command = [sys.executable, "-c", SLICES, str(options.data), *which]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True, env=environment)
            seconds.append(float(done.stdout))
    single = taken.pop("single")
    baseline = f"times faster than plain jcs-single ({statistics.median(single):.2f} s)"
    lines = [
        f"| whole slice through jcs-lite | s, median of three turns of 20 slices | {baseline} |",
        "| --- | ---: | ---: |",
    ]
    for runtime, seconds in taken.items():
        ratio = statistics.median(a / b for a, b in zip(single, seconds, strict=True))
        lines.append(f"| {runtime} | {statistics.median(seconds):.4f} | {ratio:.0f} |")
    return "\n".join(lines) + "\n"


def _studies(study: Path | None, environment: dict[str, str]) -> str:
    """Whole studies, by stage."""
    parts = []
    lengths = ["--lengths", "50,100,200,400", "--runtimes", "auto", "--repeats", "2"]
    jobs = [("Phantoms, each after a first study in its process:", lengths)]
    if study is not None:
        joint = ["-m", "jcs-lite", "-m", "jcs-joint", "--segment", "positive", "--repeats", "1"]
        jobs.insert(0, ("A study of the chest on `jcs-lite`:", [str(study), "--runtimes", "torch,torch-tuned,auto"]))
        jobs.insert(1, ("The same, lesions by `jcs-joint`:", [str(study), *joint]))
    for title, words in jobs:
        command = [sys.executable, "-m", "jcs_ct", "bench", "study", *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, check=True, env=environment)
        said = " ".join("STUDY" if word == str(study) else word for word in words)
        parts.append(f"{title} `jcs bench study {said}`\n\n{done.stdout}")
    return "\n".join(parts)


def _start(data: Path, weights: str, environment: dict[str, str]) -> str:
    """The command from its start: help, and one slice, first ever and later."""
    lines = ["| command, from its start to its end | s, median of 5 | first |", "| --- | ---: | ---: |"]
    commands = {"jcs --help": ["--help"]}
    if weights:
        picture = sorted(p for p in data.iterdir() if p.is_file())[0]
        for runtime in ("auto", "onnxruntime"):
            line = ["segment", str(picture), "-m", weights, "--runtime", runtime]
            line += ["--overwrite", "--quiet", "-o", "{out}"]
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
