"""`deploy/slurm/array.sh` under a Slurm of one node: shares, a job that is cancelled at work, and one that is lost."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from archive_help import blows, studies, write_study
from study_help import write_lite

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
SBIN = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin"))
STUDIES, SHARES = studies(8), 2
CONFIG = """ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
CredType=cred/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
KillWait=2
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=8000 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


class Slurm:
    """A controller and a node, ours alone."""

    def __init__(self, folder: Path) -> None:
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        self.folder, self.config = folder, folder / "slurm.conf"
        with socket.socket() as one, socket.socket() as two:
            ports = []
            for probe in (one, two):
                probe.bind(("127.0.0.1", 0))
                ports.append(probe.getsockname()[1])
        host = socket.gethostname().partition(".")[0]
        self.config.write_text(CONFIG.format(host=host, ports=ports, folder=folder))
        self.environment = os.environ | {"SLURM_CONF": str(self.config), "PATH": SBIN}

    def start(self) -> None:
        for name in ("slurmctld", "slurmd"):
            self.call(name, "-f", str(self.config))
        self.wait(lambda: "idle" in self.call("sinfo", "-h", "-o", "%T"), 20)

    def call(self, *words: str, **environment: str) -> str:
        given = self.environment | environment
        done = subprocess.run(words, env=given, cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0 or words[0] == "sinfo", done.stderr
        return done.stdout

    def wait(self, reached: Any, seconds: float) -> None:
        end = time.monotonic() + seconds
        while not reached():
            assert time.monotonic() < end, (self.folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.1)

    def stop(self) -> None:
        for name in ("slurmd", "slurmctld"):
            path = self.folder / f"{name}.pid"
            if path.exists():
                os.kill(int(path.read_text()), 15)


@pytest.fixture
def slurm(tmp_path: Path) -> Iterator[Slurm]:
    if shutil.which("slurmctld", path=SBIN) is None or os.geteuid() != 0:
        pytest.skip("needs slurmctld and slurmd, as root")
    made = Slurm(tmp_path / "slurm")
    try:
        made.start()
        yield made
    finally:
        made.stop()


def test_an_array_is_cancelled_goes_on_and_loses_a_share(slurm: Slurm, tmp_path: Path) -> None:
    archive, out, whole = tmp_path / "archive", tmp_path / "out", tmp_path / "all"
    for i in range(STUDIES):
        write_study(archive / f"p{i}", i)
    jcs = tmp_path / "jcs"
    weights = write_lite(tmp_path)
    jcs.write_text(
        f'#!/bin/sh\nexport PYTHONPATH="{ROOT / "src"}:$PYTHONPATH"\ncommand=$1; shift\n'
        f'exec "{sys.executable}" -m jcs_ct $command "$@" -m "{weights}" --runtime torch --no-html\n'
    )
    jcs.chmod(0o755)
    given = {"JCS_IN": str(archive), "JCS_OUT": str(out), "JCS": str(jcs)}
    script = ["sbatch", f"--array=1-{SHARES}", "--export=ALL", "--parsable", str(ROOT / "deploy/slurm/array.sh")]
    stamps: dict[Path, int] = {}
    for blow in blows(STUDIES, 1):
        job = slurm.call(*script, **given).strip()
        slurm.wait(lambda blow=blow: len(list(out.glob("part-*/[!.]*/report.json"))) >= blow, 120 + 3 * STUDIES)
        slurm.call("scancel", "--full", "--signal=KILL", job)
        slurm.call("scancel", job)
        slurm.wait(lambda: not slurm.call("squeue", "-h"), 60)
        assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
        stamps = {path: path.stat().st_mtime_ns for path in out.glob("part-*/[!.]*/report.json")}
    slurm.call("sbatch", "--wait", *script[1:], **given)
    results = sorted(out.glob("part-*/[!.]*/report.json"))
    assert len(results) == STUDIES, [path.read_text()[-800:] for path in slurm.folder.glob("slurm-*.out")]
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert len({json.loads(path.read_text())["source"]["digest"] for path in results}) == STUDIES

    lost = max(out.iterdir(), key=lambda part: len(list(part.glob("[!.]*/report.json"))))
    count = len(list(lost.glob("[!.]*/report.json")))
    shutil.rmtree(lost)
    there = [str(part) for part in out.iterdir()]
    command = [sys.executable, "-m", "jcs_ct", "collect", *there, "-o", str(whole), "--of", str(archive), "--json"]
    collected = subprocess.run(command, capture_output=True, text=True, check=False)
    assert collected.returncode in {1, 2}, collected.stderr
    assert len(json.loads(collected.stdout)["missing"]) == count
