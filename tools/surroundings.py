"""Run `jcs` where it has little: no user, no home, no network, one processor, a scheduler's variables, closed streams.

    python tools/surroundings.py [--only WORD] [-o docs/surroundings.md]

Each surrounding runs a command of its own process. It is right where the files hold what they hold in a plain run and
the same is printed, or where one line says what is wrong, with exit status 1 or 2. Some need root on Linux (namespaces,
a cgroup, another uid); without it they are left out, by name. Takes about five minutes on two free cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
GROUP = Path("/sys/fs/cgroup/cpu/jcs-surroundings")
GROUP_2 = Path("/sys/fs/cgroup/jcs-surroundings")
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"}
RANKS = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}
SCHEDULERS: dict[str, dict[str, str]] = {
    "SLURM, two tasks": SLURM,
    "a step of SLURM": SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0", "SLURM_NODELIST": "node[1-2]"},
    "RANK and WORLD_SIZE": RANKS,
    "RANK that is not a number": {"RANK": "first", "WORLD_SIZE": "", "LOCAL_RANK": "x", "MASTER_PORT": "z"},
    "one process of a platform": {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "1"},
    "TorchElastic, one process": {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    "LSF": {"LSB_JOBID": "9", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_SIZE": "4"},
    "PBS": {"PBS_JOBID": "5.host", "PBS_NODEFILE": "/nowhere", "PBS_NP": "8", "PBS_NODENUM": "1"},
    "Open MPI and PMI": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "PMI_SIZE": "2"},
    "Kubernetes and a local rank": {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "LOCAL_RANK": "3", "NODE_RANK": "2"},
    "Flux": {"FLUX_JOB_ID": "f1", "FLUX_TASK_RANK": "1", "FLUX_JOB_SIZE": "2", "FLUX_TASK_LOCAL_ID": "1"},
    "a port that is none": {"MASTER_ADDR": "no.such.host", "MASTER_PORT": "99999", "RANK": "0", "WORLD_SIZE": "1"},
    "Sun Grid Engine": {"JOB_ID": "3", "NSLOTS": "8", "PE_HOSTFILE": "/nowhere", "SGE_TASK_ID": "undefined"},
}
"""Thirteen kinds of variables that schedulers and platforms leave in the environment of a job of one process."""

NO_USER = (
    "setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups", "--inh-caps", "+dac_read_search",
    "--ambient-caps", "+dac_read_search",
)  # fmt: skip
"""Another uid that /etc/passwd does not know. It may read all files, as the environment may lie in root's home."""


@dataclass(frozen=True)
class Surrounding:
    """Where a command runs.

    Attributes:
        name: In words.
        environment: Variables to set; None: to take away.
        before: Words in front of the command, `{out}` is its folder.
        streams: "closed" with the names of what is closed, "full stdout", "gone reader" or "".
        commands: Which of `COMMANDS` run there.
        root: Whether it needs root.
        threads: How many threads the plain run is given: sums are rounded in another order by another number of them.
    """

    name: str
    environment: dict[str, str | None] = field(default_factory=dict)
    before: tuple[str, ...] = ()
    streams: str = ""
    commands: tuple[str, ...] = ("classify",)
    root: bool = False
    threads: int = 0


def shell(script: str) -> tuple[str, ...]:
    """Return words that run a script, which ends in the command as "$@"."""
    return "unshare", "-m", "sh", "-ec", script, "sh"


READ_ONLY = (
    'm=$(mktemp -d); mount --rbind / "$m"; mount -o remount,bind,ro "$m"; mount --bind "{out}" "$m{out}"; '
    'exec chroot "$m" "$@"'
)
SMALL_SHM = 'mount -t tmpfs -o size=64k tmpfs /dev/shm; exec "$@"'
QUOTA = (
    f"if [ -d {GROUP.parent} ]; then mkdir -p {GROUP}; echo 100000 > {GROUP}/cpu.cfs_period_us; "
    f"echo 100000 > {GROUP}/cpu.cfs_quota_us; echo $$ > {GROUP}/cgroup.procs; "
    f'else mkdir -p {GROUP_2}; echo "100000 100000" > {GROUP_2}/cpu.max; echo $$ > {GROUP_2}/cgroup.procs; fi; '
    'exec "$@"'
)
HALF = (
    QUOTA.replace('"100000 100000"', '"50000 100000"')
    .replace("echo 100000 >", "echo 50000 >", 2)
    .replace(f"echo 50000 > {GROUP}/cpu.cfs_period_us", f"echo 100000 > {GROUP}/cpu.cfs_period_us")
)
NO_PROC = 'mount -t tmpfs -o size=64k tmpfs /proc; exec "$@"'
FULL_TMP = 'd=$(mktemp -d); mount -t tmpfs -o size=16k tmpfs "$d"; head -c 16384 /dev/zero > "$d/x" || true; '
FULL_TMP += 'export TMPDIR="$d"; exec "$@"'
HIDDEN_CWD = 'd=$(mktemp -d); cd "$d"; chmod 000 "$d"; exec "$@"'
GONE_CWD = 'd=$(mktemp -d); cd "$d"; rmdir "$d"; exec "$@"'
BOTH, WITH_TRAINING = ("classify", "diagnose"), ("classify", "diagnose", "train, no readers")
SURROUNDINGS = (
    Surrounding("nothing special", commands=BOTH),
    Surrounding("HOME unset", {"HOME": None, "XDG_CACHE_HOME": None}),
    Surrounding("HOME does not exist", {"HOME": "/nonexistent", "XDG_CACHE_HOME": None}),
    Surrounding("HOME is a file", {"HOME": str(Path(__file__).resolve()), "XDG_CACHE_HOME": None}),
    Surrounding("a uid that no one knows, no HOME", {"HOME": "/nonexistent", "USER": None, "LOGNAME": None}, NO_USER,
                commands=WITH_TRAINING, root=True),
    Surrounding("read-only root, only OUT can be written", {"HOME": "/root"}, shell(READ_ONLY),
                commands=WITH_TRAINING, root=True),
    Surrounding("read-only root and an unknown uid", {"HOME": "/nonexistent"},
                shell(READ_ONLY.replace('"$@"', f'{" ".join(NO_USER)} "$@"')), commands=BOTH, root=True),
    Surrounding("no network, not even loopback", {}, ("unshare", "-n"),
                commands=WITH_TRAINING, root=True),
    Surrounding("a cgroup with the quota of one processor", {}, ("sh", "-ec", QUOTA, "sh"), commands=BOTH, root=True,
                threads=1),
    Surrounding("one processor by the affinity mask", {}, ("taskset", "-c", "0"), threads=1),
    Surrounding("64 KiB of /dev/shm", {}, shell(SMALL_SHM), commands=(*WITH_TRAINING, "train"), root=True),
    Surrounding("LANG=C", {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, commands=BOTH),
    Surrounding("no LANG", {"LANG": None, "LC_ALL": None, "LC_CTYPE": None}),
    Surrounding("a locale that is not installed", {"LANG": "xx_YY.UTF-8", "LC_ALL": "xx_YY.UTF-8"}),
    Surrounding("no PATH, no TERM", {"PATH": None, "TERM": None}),
    Surrounding("closed stdout", streams="closed stdout", commands=BOTH),
    Surrounding("closed stderr", streams="closed stderr"),
    Surrounding("stdout on a full disk", streams="full stdout", commands=("diagnose",)),
    Surrounding("whoever reads stdout is gone", streams="gone reader", commands=("diagnose",)),
    Surrounding("64 open files", {}, ("sh", "-ec", 'ulimit -n 64; exec "$@"', "sh")),
    Surrounding("half a processor by the quota of a cgroup", {}, ("sh", "-ec", HALF, "sh"), root=True, threads=1),
    Surrounding("OMP_NUM_THREADS=0", {"OMP_NUM_THREADS": "0"}, commands=("classify", "train, no readers")),
    Surrounding("OMP_NUM_THREADS is no number", {"OMP_NUM_THREADS": "all"}, commands=("classify", "train, no readers")),
    Surrounding("OMP_NUM_THREADS=4,2", {"OMP_NUM_THREADS": "4,2"}, threads=4),
    Surrounding("OMP_NUM_THREADS=1", {"OMP_NUM_THREADS": "1"}, threads=1),
    Surrounding("a working folder that may not be read", {"HOME": "/nonexistent"},
                ("sh", "-ec", HIDDEN_CWD.replace('"$@"', f'{" ".join(NO_USER[:6])} "$@"'), "sh"), root=True),
    Surrounding("a working folder that is gone", {}, ("sh", "-ec", GONE_CWD, "sh"), commands=WITH_TRAINING),
    Surrounding("TMPDIR does not exist", {"TMPDIR": "/nonexistent"}, commands=WITH_TRAINING),
    Surrounding("TMPDIR is full", {}, shell(FULL_TMP), commands=WITH_TRAINING, root=True),
    Surrounding("no /proc", {}, shell(NO_PROC), commands=WITH_TRAINING, root=True),
    Surrounding("closed stdin", streams="closed stdin", commands=WITH_TRAINING),
    Surrounding("all streams closed", streams="closed stdin, stdout and stderr", commands=("classify", "diagnose")),
    Surrounding("behind nohup", {}, ("sh", "-c", 'trap "" HUP; "$@" & c=$!; sleep 1; kill -HUP $c; wait $c', "sh"),
                commands=("diagnose",)),
    Surrounding("64 open files, training", {}, ("sh", "-ec", 'ulimit -n 64; exec "$@"', "sh"),
                commands=("diagnose", "train, no readers", "train")),
    Surrounding("umask 077", {}, ("sh", "-ec", 'umask 077; exec "$@"', "sh")),
    *(Surrounding(f"variables of a scheduler: {name}", dict(given)) for name, given in SCHEDULERS.items()),
)  # fmt: skip


@dataclass(frozen=True)
class Ran:
    """How a command ended.

    Attributes:
        status: Its exit status.
        said: What it printed, paths and times taken out.
        digest: Of the numbers in its files; "" where it wrote none.
    """

    status: int
    said: str
    digest: str


def data(folder: Path) -> None:
    """Write a study of DICOM files, slices with masks, and lists of them. Names are not ASCII."""
    from jcs_ct.phantom import make_phantom, write_dicom, write_pngs

    study = make_phantom(slices=24, size=128, spacing=(10, 2.796875, 2.796875))
    write_dicom(study, folder / "Größe 大")
    paths = write_pngs(study, folder / "png")
    most = study.lesions.sum(axis=(1, 2)).argsort()[-6:]
    paths = [paths[i] for i in most]
    lines = [f"{p.name} masks/{p.name}\n" for p in paths]
    (folder / "png" / "train.txt").write_text("".join(lines[:4]))
    (folder / "png" / "val.txt").write_text("".join(lines[4:]))


def words(command: str, folder: Path, out: Path) -> list[str]:
    """Return the words of a command."""
    if command == "classify":
        return ["classify", str(folder / "png" / "phantom_012.png"), "-o", str(out / "table.csv"), "--runtime", "torch"]
    if command == "diagnose":
        return ["diagnose", str(folder / "Größe 大"), "-o", str(out / "result"), "--json", "--runtime", "torch"]
    given = ["train", "segment", "--data", str(folder / "png"), "-o", str(out / "run"), "--size", "32", "--epochs", "1"]
    return [*given, "--workers", "0" if command == "train, no readers" else "1", "--device", "cpu"]


def run(surrounding: Surrounding, command: str, folder: Path, out: Path) -> Ran:
    """Run a command in a surrounding, and return how it ended."""
    out.mkdir(parents=True)
    out.chmod(0o777)
    environment = {k: v for k, v in os.environ.items() if k != "JCS_HOME"}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p.endswith("src"))
    for name, value in surrounding.environment.items():
        if value is None:
            environment.pop(name, None)
        else:
            environment[name] = value
    before = [word.replace("{out}", str(out)) for word in surrounding.before]
    if before and shutil.which(before[0]) is not None:
        before[0] = str(shutil.which(before[0]))
    threads = ["--threads", str(surrounding.threads)] if surrounding.threads else []
    line = [*before, sys.executable, "-m", "jcs_ct", *words(command, folder, out), *threads]
    if surrounding.streams.startswith("closed"):
        ends = {"stdin": "0<&-", "stdout": "1>&-", "stderr": "2>&-"}
        closed = " ".join(end for name, end in ends.items() if name in surrounding.streams)
        line = ["/bin/sh", "-c", f'exec "$@" {closed}', "sh", *line]
    elif surrounding.streams == "full stdout":
        line = ["/bin/sh", "-c", 'exec "$@" >/dev/full', "sh", *line]
    elif surrounding.streams == "gone reader":
        line = ["/bin/bash", "-c", 'set -o pipefail; "$@" | true', "bash", *line]
    ended = subprocess.run(line, env=environment, cwd="/", capture_output=True, check=False, timeout=600)
    said = (ended.stdout + ended.stderr).decode(errors="backslashreplace")
    return Ran(ended.returncode, said, digest_of(out))


def digest_of(out: Path) -> str:
    """Return the digest of the numbers that a command wrote: tables as they are, reports without times and places."""
    found = []
    for path in sorted(out.rglob("*")):
        if path.name in ("table.csv", "slices.csv", "lesions.nii.gz", "attention.nii.gz"):
            found.append(path.name.encode() + path.read_bytes())
        elif path.name == "report.json":
            held = json.loads(path.read_text(encoding="utf-8"))
            found.append(json.dumps({name: held[name] for name in ("verdict", "burden", "slices")}).encode())
        elif path.name == "metrics.csv":  # without the columns of times
            rows = [row.split(",") for row in path.read_text().splitlines()]
            found.append(json.dumps([row[:6] for row in rows]).encode())
    return hashlib.sha256(b"\0".join(found)).hexdigest() if found else ""


def lines_of(ran: Ran) -> list[str]:
    """Return the lines that a command printed besides its result."""
    return [line for line in ran.said.splitlines() if line.startswith("jcs:")]


def verdict(ran: Ran, plain: Ran, surrounding: Surrounding) -> str:
    """Return "as everywhere", the one line that says what is wrong, or "WRONG: " and what was seen."""
    shown = [line.strip() for line in ran.said.splitlines() if line.strip()]
    errors = [line for line in shown if line.startswith("jcs: error: ")]
    ours = len(errors) == 1 and "unexpected" not in errors[0] and not strange(ran)
    if ran.status in (1, 2) and ours:
        return errors[0].removeprefix("jcs: error: ")
    if ran.status == 1 and not strange(ran) and not errors and surrounding.streams == "gone reader":
        return "exit status 1: whoever would read it is gone"
    if ran.status != 0 or ran.digest != plain.digest:
        return f"WRONG: exit status {ran.status}, {'other' if ran.digest else 'no'} numbers: {' / '.join(shown[-3:])}"
    alien = strange(ran)
    return f"WRONG: printed {alien[0]}" if alien else "as everywhere"


def strange(ran: Ran) -> list[str]:
    """Return printed lines that are not ours: neither "jcs: …" nor the JSON of the result."""
    text = ran.said
    start, end = text.find("{\n"), text.rfind("\n}\n")
    if 0 <= start < end:
        json.loads(text[start : end + 3])
        text = text[:start] + text[end + 3 :]
    return [line for line in text.splitlines() if line.strip() and not line.startswith("jcs:")]


def possible(surrounding: Surrounding) -> str:
    """Return why a surrounding cannot be made here; "" where it can."""
    if not sys.platform.startswith("linux"):
        return "not on Linux"
    if surrounding.before and shutil.which(surrounding.before[0]) is None:
        return f"no {surrounding.before[0]} here"
    if not surrounding.root:
        return ""
    if os.geteuid() != 0:
        return "needs root"
    if surrounding.before[0] == "unshare":
        tried = subprocess.run(["unshare", surrounding.before[1], "true"], capture_output=True, check=False)
        return "" if tried.returncode == 0 else "namespaces are not permitted"
    return ""


def main() -> int:
    """Run everything, print the table, and return 1 where something is wrong."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", default="", help="Surroundings whose names hold this.")
    parser.add_argument("-o", "--out", type=Path, help="Write the table into this file, between its marks.")
    given = parser.parse_args()
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as top:
        folder = Path(top)
        folder.chmod(0o755)
        data(folder / "data")
        plain: dict[tuple[str, int], Ran] = {}
        for i, surrounding in enumerate(SURROUNDINGS):
            if given.only not in surrounding.name:
                continue
            cannot = possible(surrounding)
            for command in surrounding.commands:
                if cannot:
                    said = f"not tried: {cannot}"
                else:
                    key = command, surrounding.threads
                    if key not in plain:
                        same = replace(SURROUNDINGS[0], threads=surrounding.threads)
                        plain[key] = run(same, command, folder / "data", folder / f"plain {len(plain)}")
                    ran = run(replace(surrounding, threads=0), command, folder / "data", folder / str(i) / command)
                    said = verdict(ran, plain[key], surrounding).replace(str(folder), "…")
                wrong += said.startswith("WRONG")
                rows.append(f"| {surrounding.name} | `{command}` | {said} |")
                print(rows[-1], flush=True)
    for group in (GROUP, GROUP_2):
        with suppress(OSError):  # never made; another run of this tool is in it
            group.rmdir()
    if given.out is not None:
        write(given.out, rows)
    return 1 if wrong else 0


def write(path: Path, rows: list[str]) -> None:
    """Write the table between the marks of a document."""
    start, end = "<!-- table -->\n", "<!-- end of table -->"
    text = path.read_text(encoding="utf-8")
    today, cores = datetime.now(timezone.utc).date(), os.cpu_count()
    head = f"{today}, {platform.machine()}, {cores} cores, Python {platform.python_version()}:\n\n"
    table = "\n".join(["| where | command | what happens |", "| --- | --- | --- |", *rows])
    before, rest = text.split(start)[0], text.split(end)[1]
    path.write_text(f"{before}{start}{head}{table}\n{end}{rest}", encoding="utf-8")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "src"))
    sys.exit(main())
