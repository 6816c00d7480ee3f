"""Studies an hour, and memory, of one command, of shares side by side, of a Ray cluster.

    python tools/scale.py [DOC] [--studies 12] [--slices 60] [--size 512] [--folder scale-out] [--ways plain,parts,ray]

Makes DICOM studies of a phantom with noise of their own, diagnoses all of them in each way with all files that a user
gets (SEG, SR, NIfTI, report), and writes the table between the markers of DOC, which is docs/scale.md. *Cold*: from the
start of the command to its end, over all studies. *Warm*: from the end of the first study (of each process) to the end
of the last, with everything loaded. The ways must agree: every word of the verdicts, every number within 1e-4 of itself
(other numbers of threads sum in another order), else the exit status is 1; the table says how far they are apart.
The way `cold` is a command for each study. Memory is what all processes hold together at most, shared pages once.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.processors import available
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import make_phantom

if TYPE_CHECKING:
    from collections.abc import Callable

BEGIN, END = "<!-- table: written by tools/scale.py -->", "<!-- end of table -->"
ARCHIVE = 100_000
APART = 1e-4  # of a number: how far ways that compute with other numbers of threads may be apart


@dataclass(frozen=True)
class Measured:
    """What a way took.

    Attributes:
        seconds: From its start to its end.
        ends: For each process, when its studies ended, in seconds.
        memory: MiB of all its processes at most.
    """

    seconds: float
    ends: tuple[tuple[float, ...], ...]
    memory: float

    @property
    def studies(self) -> int:
        """How many studies were done."""
        return sum(map(len, self.ends))

    @property
    def cold(self) -> float:
        """Studies an hour, the start included."""
        return 3600 * self.studies / self.seconds

    @property
    def warm(self) -> float:
        """Studies an hour of all processes together, after the first of each; NaN where there is one at most."""
        return sum(3600 * (len(ends) - 1) / (ends[-1] - ends[0]) for ends in self.ends if len(ends) > 1) or float("nan")


def main() -> None:
    """Make, measure, compare, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("document", nargs="?", type=Path)
    parser.add_argument("--studies", type=int, default=12)
    parser.add_argument("--slices", type=int, default=60)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--folder", type=Path, default=Path("scale-out"))
    parser.add_argument("--ways", default="plain,parts,ray,cold")
    options = parser.parse_args()
    folder = options.folder.absolute()
    shutil.rmtree(folder, ignore_errors=True)
    make(folder / "in", options.studies, options.slices, options.size)
    run("warm-up", [command(folder / "in" / "s000", folder / "warm-up")], [folder / "warm-up"])  # files are in memory
    rows, verdicts = [], []
    for way in options.ways.split(","):
        if way == "ray" and importlib.util.find_spec("ray") is None:
            print("ray: not installed, left out")
            continue
        measured = WAYS[way](folder, options.studies)
        verdicts.append(found(folder / way))
        rows.append(row(way, measured))
        print(rows[-1], flush=True)
    apart = max(distance(one, verdicts[0]) for one in verdicts)
    same = apart <= APART and len(verdicts[0]) == options.studies
    if options.document is not None:
        write(options.document, [*rows, "", f"The ways' numbers differ by a share of {apart:.1e} at most."], options)
    shutil.rmtree(folder)
    print(f"{'ok    the ways agree' if same else 'WRONG the ways do not agree'}: {apart:.1e} apart at most")
    sys.exit(0 if same else 1)


def make(folder: Path, studies: int, slices: int, size: int) -> None:
    """Write the studies."""
    phantom = make_phantom(slices=slices, size=size, seed=1, spacing=(240 / slices, 358 / size, 358 / size))
    for i in range(studies):
        noise = np.random.default_rng(i).integers(-5, 6, phantom.hu.shape).astype(np.int16)
        hu = np.clip(phantom.hu + noise, -1024, 3071).astype(np.int16)
        write_ct_series(folder / f"s{i:03d}", hu, phantom.spacing, phantom.origin, key=str(i))


def command(given: Path, out: Path, *more: str) -> list[str]:
    """Return the words of a command."""
    return [sys.executable, "-m", "jcs_ct", "diagnose", str(given), "-o", str(out), "--quiet", *more]


def run(name: str, commands: list[list[str]], outs: list[Path]) -> Measured:
    """Run commands side by side; exit where one fails."""
    started, since = time.time(), time.perf_counter()
    processes = [subprocess.Popen(words) for words in commands]
    most = 0.0
    while any(process.poll() is None for process in processes):
        most = max(most, held({process.pid for process in processes}))
        time.sleep(0.5)
    seconds = time.perf_counter() - since
    if any(process.returncode for process in processes):
        sys.exit(f"scale: {name} failed")
    ends = [sorted(path.stat().st_mtime - started for path in out.glob("*/report.json")) for out in outs]
    return Measured(seconds, tuple(map(tuple, ends)), most)


def held(roots: set[int]) -> float:
    """Return the MiB that processes and their descendants hold, what they share divided among them; 0 off Linux."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError, IndexError):
            continue
    ours = set(roots)
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    total = 0
    for pid in ours:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def plain(folder: Path, _studies: int) -> Measured:
    """One command for all."""
    return run("plain", [command(folder / "in", folder / "plain")], [folder / "plain"])


def parts(folder: Path, _studies: int) -> Measured:
    """As many shares side by side as there are processors, of one thread each; then they are collected."""
    number = available()
    outs = [folder / f"part-{k}" for k in range(1, number + 1)]
    words = [command(folder / "in", out, "--part", f"{k}/{number}", "--threads", "1") for k, out in enumerate(outs, 1)]
    measured = run("parts", words, outs)
    collect = [sys.executable, "-m", "jcs_ct", "collect", *map(str, outs), "-o", str(folder / "parts"), "--quiet"]
    subprocess.run([*collect, "--of", str(folder / "in")], check=True)
    return measured


def on_ray(folder: Path, _studies: int) -> Measured:
    """A cluster of this machine alone."""
    return run("ray", [command(folder / "in", folder / "ray", "--engine", "ray")], [folder / "ray"])


def cold(folder: Path, studies: int) -> Measured:
    """A command for each study."""
    seconds, memory, ends = 0.0, 0.0, []
    for i in range(studies):
        one = run("cold", [command(folder / "in" / f"s{i:03d}", folder / "cold" / f"s{i:03d}")], [])
        seconds, memory = seconds + one.seconds, max(memory, one.memory)
        ends.append((seconds,))
    for path in list((folder / "cold").glob("*/*/report.json")):
        path.parent.rename(folder / "cold" / path.parent.name)
    return Measured(seconds, tuple(ends), memory)


WAYS: dict[str, Callable[[Path, int], Measured]] = {"plain": plain, "parts": parts, "ray": on_ray, "cold": cold}
NAMES = {
    "plain": "`jcs diagnose archive/`",
    "parts": "a share for each processor, `--part K/N --threads 1`",
    "ray": "`--engine ray`",
    "cold": "a command for each study",
}


def found(out: Path) -> dict[str, Any]:
    """Return digest of the input → verdict and slices."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in out.glob("*/report.json")]
    return {one["source"]["digest"]: (one["verdict"], one["slices"], one["burden"]) for one in reports}


def distance(one: Any, other: Any) -> float:
    """Return the largest difference of two numbers at one place, as a share of the larger (of 1 at least); else inf."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return max((distance(one[key], other[key]) for key in one), default=0.0)
    if isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        return max(map(distance, one, other), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other) / max(abs(one), abs(other), 1.0)
    return 0.0 if one == other else float("inf")


def row(way: str, measured: Measured) -> str:
    """Return a line of the table."""
    warm = "" if np.isnan(measured.warm) else f"{measured.warm:.0f}"
    best = measured.cold if np.isnan(measured.warm) else measured.warm
    return f"| {NAMES[way]} | {measured.cold:.0f} | {warm} | {measured.memory:.0f} | {ARCHIVE / best:,.0f} |"


def write(document: Path, rows: list[str], options: argparse.Namespace) -> None:
    """Put the table between the markers of a document."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, marker, after = rest.partition(END)
    if not marker:
        sys.exit(f"scale: {document} lacks the markers {BEGIN} and {END}")
    day = datetime.now(timezone.utc).date()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    head = (
        f"{day}, {available()} processors {platform.machine()}, Python {platform.python_version()}; {options.studies} "
        f"studies of {options.slices} slices of {options.size}×{options.size}; load at the end {load:.1f}:"
    )
    columns = "| way | an hour, cold | an hour, warm | MiB at most | hours of this machine for 100,000 |"
    table = [BEGIN, head, "", columns, "| --- | --- | --- | --- | --- |", *rows, END]
    document.write_text(before + "\n".join(table) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
