"""Is every result that of its input? Hundreds of studies under few names, changed between runs that are killed.

    python tools/identity.py [--studies 300] [--folder identity-out] [--seed 0]

Every study is called `chest`: folders and zips of pictures, NIfTI files and DICOM series, in folders of patients. Five
runs of `jcs diagnose --resume` go over them in another order each time; between the runs studies are exchanged, grow,
are damaged and mended, and patients come back with a second one. The first, the second and the fourth run are killed
(SIGKILL) at a random moment; the third and the fourth run at once. In the end the digest in each result is compared
with one that is computed here from the files, and `summary.csv` must hold each input once, in its last state.

The network's pass is replaced by the mean of what it would see, since not the network is tested here but whose result
lies where.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
from PIL import Image

from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import make_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

SLICES, SIZE = 24, 128  # of volumes
MM = (240 / SLICES, 358 / SIZE, 358 / SIZE)
VOLUMES = 0.05  # share of the studies that are NIfTI, and that are DICOM
ZIPS = 0.2


class Archive:
    """The studies on disk.

    Args:
        top: Their folder.
        studies: How many there will be in the end.
        rng: What decides.
    """

    def __init__(self, top: Path, studies: int, rng: random.Random) -> None:
        self.top, self.studies, self.rng = top, studies, rng
        self.history: dict[Path, list[str]] = {}  # input → its digests, the last one now; "" where it is damaged
        self._hu = make_phantom(slices=SLICES, size=SIZE, seed=1, spacing=MM).hu
        self._made = 0

    def add(self, patient: int, visit: str) -> Path:
        """Make a study."""
        part, number = self.rng.random(), self._made
        self._made += 1
        folder = self.top / f"ward{patient % 7}" / f"p{patient:03d}" / visit
        folder.mkdir(parents=True)
        values = np.random.default_rng(number)
        if part < VOLUMES:
            path = folder / "chest.nii"
            hu = self._volume(values).transpose(2, 1, 0)
            library: Any = nibabel
            library.save(library.Nifti1Image(hu, np.diag([-MM[2], -MM[1], -MM[0], 1.0])), path)
        elif part < 2 * VOLUMES:
            path = folder / "chest"
            write_ct_series(path, self._volume(values), MM, (0.0, 0.0, 0.0), key=str(number))
        elif part < 2 * VOLUMES + ZIPS:
            path = folder / "chest.zip"
            with zipfile.ZipFile(path, "w") as archive:
                for i in (1, 2):
                    archive.writestr(f"{i}.png", _picture(values))
        else:
            path = folder / "chest"
            path.mkdir()
            for i in (1, 2):
                (path / f"{i}.png").write_bytes(_picture(values))
        self.note(path)
        return path

    def _volume(self, values: np.random.Generator) -> NDArray[np.int16]:
        found = np.clip(self._hu + values.integers(-5, 6, self._hu.shape), -1024, 3071)
        return np.asarray(found, dtype=np.int16)

    def note(self, path: Path) -> None:
        """Keep the digest of a study as it is now."""
        self.history.setdefault(path, []).append(digest_of(path))

    def exchange(self, a: Path, b: Path) -> None:
        """Give each of two studies the other's place."""
        aside = a.with_name("aside")
        a.rename(aside)
        b.rename(a)
        aside.rename(b)
        self.note(a)
        self.note(b)

    def grow(self, path: Path) -> None:
        """Add a picture to a folder of pictures."""
        number = len(list(path.iterdir())) + 1
        (path / f"{number}.png").write_bytes(_picture(np.random.default_rng(1000 + len(self.history) + number)))
        self.note(path)

    def damage(self, path: Path) -> bytes:
        """Cut a file in half; return what it was."""
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        self.history[path].append("")
        return whole

    def some(self, count: int, fits: Callable[[Path], bool]) -> list[Path]:
        """Return a number of studies of a kind, by chance."""
        found = sorted(path for path in self.history if fits(path))
        return self.rng.sample(found, min(count, len(found)))

    def shuffled(self) -> list[Path]:
        """Return all studies in some order."""
        paths = sorted(self.history)
        self.rng.shuffle(paths)
        return paths


def of_pictures(path: Path) -> bool:
    """Return whether a study is a folder of pictures."""
    return path.is_dir() and (path / "1.png").exists()


def digest_of(path: Path) -> str:
    """Return SHA-256 over the digests of a study's files: in order for pictures, sorted for volumes."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            contents = [archive.read(name) for name in sorted(archive.namelist())]
    else:
        contents = [p.read_bytes() for p in (sorted(path.iterdir()) if path.is_dir() else [path])]
    digests = [hashlib.sha256(content).digest() for content in contents]
    return hashlib.sha256(b"".join(sorted(digests) if path.is_dir() and not of_pictures(path) else digests)).hexdigest()


def _picture(values: np.random.Generator) -> bytes:
    file = BytesIO()
    Image.fromarray(values.integers(0, 256, (64, 64)).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def child(arguments: list[str]) -> None:
    """Run `jcs` with a network that answers with the mean of what it sees."""
    from jcs_ct.cli import main as jcs
    from jcs_ct.inference.network import Network, OnePass

    def passes(_self: Network, batch: Sequence[NDArray[np.float32]]) -> list[OnePass]:
        nothing = np.zeros((16, 20), np.float32)
        return [OnePass(float(v.mean()), nothing, np.full(v.shape[1:], -5, np.float32)) for v in batch]

    setattr(Network, "passes", passes)  # noqa: B010  # an assignment has another type
    jcs(arguments)


def start(paths: Sequence[Path], out: Path) -> subprocess.Popen[bytes]:
    """Start a run over some studies."""
    words = ["diagnose", *map(str, paths), "-o", str(out), "--resume", "--no-html", "--runtime", "torch", "--quiet"]
    return subprocess.Popen([sys.executable, __file__, "--child", *words], stderr=subprocess.DEVNULL)


def lines_of(out: Path) -> int:
    """Return how many lines the table has, or 0."""
    return (out / "summary.csv").read_bytes().count(b"\n") if (out / "summary.csv").exists() else 0


def kill_within(process: subprocess.Popen[bytes], out: Path, rng: random.Random, most: int) -> bool:
    """Kill a run after a random number of further studies, at most so many; return whether it was still there."""
    wanted = lines_of(out) + rng.randint(1, most)
    while process.poll() is None and lines_of(out) < wanted:
        time.sleep(0.05)
    time.sleep(rng.uniform(0, 0.3))
    there = process.poll() is None
    process.send_signal(signal.SIGKILL)
    process.wait()
    return there


def work(archive: Archive, out: Path, rng: random.Random) -> int:
    """Run five times over studies that change; return how many runs were killed in their middle."""
    first = max(4, archive.studies * 9 // 10)
    for patient in range(first):
        archive.add(patient, "first")
    some = archive.studies // 15
    kills = int(kill_within(start(archive.shuffled(), out), out, rng, first * 2 // 3))
    pictures = archive.some(2 * some, of_pictures)
    for a, b in zip(pictures[::2], pictures[1::2], strict=False):
        archive.exchange(a, b)
    kills += kill_within(start(archive.shuffled(), out), out, rng, first // 3)
    for path in archive.some(some, of_pictures):
        archive.grow(path)
    for patient in range(archive.studies - first):
        archive.add(patient, "second")
    whole = {path: archive.damage(path) for path in archive.some(some, lambda p: p.suffix in {".zip", ".nii"})}
    beside = start(archive.shuffled(), out)
    kills += kill_within(start(archive.shuffled(), out), out, rng, first // 3)
    beside.wait()
    for path in sorted(whole)[: len(whole) // 2]:
        path.write_bytes(whole[path])
        archive.note(path)
    start(archive.shuffled(), out).wait()
    return kills


def faults_of(archive: Archive, out: Path) -> list[str]:
    """Return every result that is not its input's, and every line of the table that is not as it should be."""
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    count = Counter(row["path"] for row in rows)
    by_path = {Path(row["path"]): row for row in rows}
    wrong = [f"{path} has {n} lines" for path, n in count.items() if n != 1]
    wrong += [f"{path} is no input" for path in by_path if path not in archive.history]
    for path, digests in archive.history.items():
        row = by_path.get(path)
        if row is None:
            wrong.append(f"{path} has no line")
        elif (row["status"] == "failed") != (not digests[-1]):
            wrong.append(f"{path} is {row['status']}: {row['problem']}")
        elif (
            digests[-1]
            and json.loads((out / row["case"] / "report.json").read_text())["source"]["digest"] != digests[-1]
        ):
            wrong.append(f"{path} has the result of another input")
    for report in out.glob("*/report.json"):
        source = json.loads(report.read_text())["source"]
        if source["digest"] not in archive.history.get(Path(source["path"]), []):
            wrong.append(f"{report.parent.name} was never the result of {source['path']}")
    wrong += [f"{path.name} is half-written" for path in out.rglob("*") if path.name.endswith(".part")]
    return wrong


def main() -> int:
    """Make, run, kill, compare; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=300)
    parser.add_argument("--folder", type=Path, default=Path("identity-out"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    top, out = options.folder.absolute() / "in", options.folder.absolute() / "out"
    shutil.rmtree(options.folder, ignore_errors=True)
    rng = random.Random(options.seed)  # not for secrets
    started = time.perf_counter()
    archive = Archive(top, options.studies, rng)
    kills = work(archive, out, rng)
    wrong = faults_of(archive, out)
    results = len(list(out.glob("*/report.json")))
    print(f"{len(archive.history)} studies, {kills} of 3 runs killed in their middle, {results} results")
    print(f"{time.perf_counter() - started:.0f} s; {len(wrong)} faults")
    for line in wrong:
        print(f"  {line}")
    return int(bool(wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2:])
    else:
        sys.exit(main())
