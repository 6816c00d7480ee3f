"""Variables of schedulers, threads, shared memory, and one process at a time in a folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest
import torch

from jcs_ct import models
from jcs_ct.core import processors
from jcs_ct.core.errors import JcsError, OutputError, UsageError
from jcs_ct.training import memory
from jcs_ct.training.memory import check_shared_memory
from jcs_ct.training.messages import plain_errors
from jcs_ct.training.processes import STARTED_BY, Place, known_environment, place
from jcs_ct.training.run import train
from jcs_ct.training.start import locked
from training_help import finish, same, small, specs, start, state, tiny_lists

if TYPE_CHECKING:
    from collections.abc import Iterator

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_JOB_NAME": "covid",
    "SLURM_NTASKS": "2",
    "SLURM_NNODES": "1",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "1",
    "SLURM_NODELIST": "node[1-2]",
}
RANKS = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29501"}
STRAY: dict[str, dict[str, str]] = {
    "slurm": SLURM,
    "slurm without a name": {k: v for k, v in SLURM.items() if k != "SLURM_JOB_NAME"},
    "slurm step": SLURM | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_ID": "0"},
    "ranks": RANKS,
    "no numbers": {"RANK": "first", "WORLD_SIZE": "", "LOCAL_RANK": "x", "NODE_RANK": "y", "MASTER_PORT": "z"},
    "a platform's one process": {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "job-master-0", "MASTER_PORT": "23456"},
    "torchelastic, one process": {"TORCHELASTIC_RUN_ID": "none", "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
    "lsf": {"LSB_JOBID": "9", "LSB_DJOB_RANKFILE": "/nowhere", "JSM_NAMESPACE_RANK": "3", "JSM_NAMESPACE_SIZE": "4"},
    "pbs": {"PBS_JOBID": "5.host", "PBS_NODEFILE": "/nowhere", "PBS_NP": "8", "PBS_NODENUM": "1"},
    "mpi": {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "PMI_RANK": "1", "PMI_SIZE": "2"},
}


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


@pytest.fixture
def quiet_environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for name in list(os.environ):
        if name in RANKS or name.startswith(("SLURM_", "TORCHELASTIC_")):
            monkeypatch.delenv(name)
    return monkeypatch  # type: ignore[return-value]


@pytest.mark.parametrize("kind", STRAY)
def test_one_process_takes_no_notice(kind: str) -> None:
    assert place(1, STRAY[kind]) == Place(0, 1)


@pytest.mark.parametrize("kind", ["slurm", "slurm without a name", "a platform's one process", "lsf", "pbs", "mpi"])
def test_several_processes_start_their_own(kind: str) -> None:
    assert place(2, STRAY[kind]) == Place(0, 2)


def test_those_that_were_started_know_their_place() -> None:
    child = {STARTED_BY: str(os.getppid()), "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "1"}
    assert place(2, child).rank == 1
    assert place(2, child | {STARTED_BY: "1"}).rank == 0
    assert place(2, RANKS) == Place(1, 2, tuple(RANKS.items()))
    elastic = RANKS | {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert place(2, elastic) == Place(1, 2, tuple(elastic.items()))
    step = place(2, STRAY["slurm step"])
    assert (step.rank, dict(step.variables)) == (
        1,
        {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "15007"},
    )
    assert place(2, dict(step.variables)).rank == 1


@pytest.mark.parametrize(
    ("devices", "env", "text"),
    [
        (1, {"TORCHELASTIC_RUN_ID": "x", **RANKS}, "torchrun started 2 processes, and the run has --devices 1"),
        (4, RANKS, "RANK=1, WORLD_SIZE=2, LOCAL_RANK=1, and the run has --devices 4"),
        (2, RANKS | {"RANK": "a"}, "RANK=a, WORLD_SIZE=2, LOCAL_RANK=1, and numbers are expected"),
        (2, RANKS | {"RANK": "-1"}, "RANK=-1, WORLD_SIZE=2, LOCAL_RANK=1, and numbers are expected"),
        (2, RANKS | {"RANK": "2"}, "and a number below 2 is expected"),
        (2, RANKS | {"LOCAL_RANK": "0"}, "the same in both: a run is on one machine"),
        (2, RANKS | {"MASTER_ADDR": ""}, "MASTER_ADDR is not set"),
        (2, RANKS | {"MASTER_PORT": "99999"}, "MASTER_PORT is 99999; a port is expected"),
        (2, STRAY["slurm step"] | {"SLURM_STEP_NUM_TASKS": "4"}, "srun started 4 tasks, and the run has --devices 2"),
        (2, STRAY["slurm step"] | {"SLURM_STEP_NUM_NODES": "2"}, "on 2 machines; a run is on one"),
        (2, STRAY["slurm step"] | {"SLURM_PROCID": "7"}, "SLURM_PROCID is 7, and srun started 2 tasks"),
    ],
)
def test_what_makes_no_sense_is_one_line(devices: int, env: dict[str, str], text: str) -> None:
    with pytest.raises(UsageError) as error:
        place(devices, env)
    assert text in error.value.line()
    assert error.value.hint


def test_the_environment_comes_back(quiet_environment: pytest.MonkeyPatch) -> None:
    quiet_environment.setenv("RANK", "5")
    quiet_environment.setenv("SLURM_NTASKS", "2")
    before = dict(os.environ)
    with known_environment(Place()):
        assert not {"RANK", "SLURM_NTASKS", STARTED_BY} & set(os.environ)
        os.environ["LOCAL_RANK"] = "0"  # as Lightning does
    assert dict(os.environ) == before
    with known_environment(Place(0, 2)):
        assert os.environ[STARTED_BY] == str(os.getpid())
        assert place(2) == Place(0, 2)
    assert dict(os.environ) == before
    with known_environment(Place(1, 2, (("RANK", "1"),))):
        assert os.environ["RANK"] == "1"
    assert dict(os.environ) == before


def test_a_run_under_every_scheduler_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = tiny_lists(tmp_path / "d")
    config = small("segment", data, epochs=1)
    train(config, tmp_path / "plain", resume=False, say=print)
    expected = state(tmp_path / "plain")
    for kind in ("slurm step", "ranks", "no numbers", "lsf"):
        with monkeypatch.context() as patch:
            for name, value in STRAY[kind].items():
                patch.setenv(name, value)
            train(config, tmp_path / kind, resume=False, say=print)
        assert same(state(tmp_path / kind), expected), kind


def test_the_command_under_a_scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In processes of their own: Lightning reads some of the variables when it is imported."""
    data = tiny_lists(tmp_path / "d", 4, 2)
    words = ["segment", "--data", data, "--network", "tiny-s", "--size", 32, "--epochs", 1, "--workers", 0]
    words += ["--device", "cpu", "--batch", 1]
    for name, value in (SLURM | {"RANK": "first"}).items():
        monkeypatch.setenv(name, value)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "bin" / "srun").chmod(0o755)  # as on a cluster's machines
    path = f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}"
    env = {**os.environ, "RANK": "first", "OMP_NUM_THREADS": "1", "PATH": path}
    command = [sys.executable, str(Path(__file__).with_name("training_help.py")), "train", *map(str, words)]
    one = subprocess.run([*command, "-o", str(tmp_path / "one")], env=env, capture_output=True, text=True, check=False)
    assert one.returncode == 0, one.stderr
    assert all(line.startswith("jcs: ") for line in one.stderr.splitlines())
    # Two processes that the run starts itself, in spite of SLURM's variables.
    status, said = finish(start(*words, "-o", tmp_path / "two", "--devices", 2))
    assert status == 0, said
    assert (tmp_path / "two" / "best.safetensors").exists()


def groups(tmp_path: Path, own: str, **limits: str) -> tuple[Path, Path]:
    (tmp_path / "own").write_text(own)
    for name, text in limits.items():
        path = tmp_path / "fs" / name.replace("__", "/").replace("_max", ".max").replace("cfs", "cpu.cfs")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path / "fs", tmp_path / "own"


@pytest.mark.parametrize(
    ("own", "limits", "expected"),
    [
        ("0::/\n", {"cpu_max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu_max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a__cpu_max": "50000 100000", "a__b__cpu_max": "200000 100000"}, 0.5),
        ("4:cpu,cpuacct:/x\n0::/\n", {"cpu__cfs_quota_us": "300000", "cpu__cfs_period_us": "100000"}, 3.0),
        ("4:cpu:/x\n", {"cpu__x__cfs_quota_us": "-1", "cpu__x__cfs_period_us": "100000"}, None),
        ("2:memory:/x\n", {"cpu_max": "1 1"}, None),
        ("0::/\n", {"cpu_max": "what"}, None),
    ],
)
def test_the_quota_of_a_cgroup(tmp_path: Path, own: str, limits: dict[str, str], expected: float | None) -> None:
    assert processors.quota(*groups(tmp_path, own, **limits)) == expected


def test_threads_are_those_that_may_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    (tmp_path / "none").mkdir()
    assert processors.available(*groups(tmp_path / "none", "")) == 6
    (tmp_path / "some").mkdir()
    limited = groups(tmp_path / "some", "0::/\n", cpu_max="150000 100000")
    assert processors.available(*limited) == 2
    monkeypatch.setattr(processors, "available", lambda: 6)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [processors.threads(), processors.threads(3), processors.threads(0, 4)] == [6, 3, 1]
    for text, count in (("5", 5), ("4,2", 4), ("0", 6), ("many", 6), ("", 6)):
        monkeypatch.setenv("OMP_NUM_THREADS", text)
        assert processors.threads() == count
        assert processors.threads(2) == 2


def test_a_run_computes_with_the_threads_it_was_given(tmp_path: Path) -> None:
    before, seen = torch.get_num_threads(), list[int]()
    config = small("segment", tiny_lists(tmp_path / "d", 2, 1), epochs=1, threads=before + 3)
    train(config, tmp_path / "run", resume=False, say=lambda _: seen.append(torch.get_num_threads()))
    assert set(seen) == {before + 3}
    assert torch.get_num_threads() == before
    assert f'"threads": {before + 3}' in (tmp_path / "run" / "run.json").read_text()


def test_a_small_shared_memory_is_named_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    item = {"input0": torch.zeros(3, 32, 32), "label": torch.tensor(1)}  # 12,288 bytes; 8, of a page
    needed = (3 * 12288 + 4096) * (2 * 2 + 2)
    monkeypatch.setattr(memory, "room", lambda: needed)
    check_shared_memory(item, 3, 2)
    monkeypatch.setattr(memory, "room", lambda: needed - 1)
    check_shared_memory(item, 3, 0)
    with pytest.raises(UsageError) as error:
        check_shared_memory(item, 3, 2)
    assert error.value.line() == (
        "/dev/shm has room for 240 KiB, and 2 processes that read ahead need 240 KiB "
        "(--workers 0 reads in the process itself; in a container, --shm-size 1g makes it larger)"
    )
    monkeypatch.setattr(memory, "room", lambda: 65536)
    config = small("segment", tiny_lists(tmp_path / "d"), size=128, workers=1)
    with pytest.raises(UsageError, match=r"room for 64 KiB, and 1 process that reads ahead needs 2\.0 MiB"):
        train(config, tmp_path / "run", resume=False, say=print)
    assert not (tmp_path / "run").exists()
    monkeypatch.setattr(memory, "room", lambda: None)  # not known
    check_shared_memory(item, 3, 2)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error. It is possible that dataloader's …"),
        RuntimeError("Caught RuntimeError in DataLoader worker process 0.\nunable to allocate shared memory(shm) …"),
        RuntimeError("unable to write to file </torch_1_2_3>: No space left on device (28)"),
    ],
)
def test_shared_memory_that_fills_up_is_named(error: Exception) -> None:
    with pytest.raises(JcsError, match=r"shared memory .* is too small.*--workers 0"), plain_errors():
        raise error


def test_processes_that_cannot_meet_are_one_line() -> None:
    with pytest.raises(JcsError, match=r"cannot reach one another: no such host \(unset MASTER_ADDR"), plain_errors():
        raise torch.distributed.DistNetworkError("no such host\nmore")


def test_two_processes_do_not_train_into_one_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with locked(run):
        assert run.is_dir()
        with pytest.raises(OutputError, match="is being trained into by another process"), locked(run):
            pass
        with locked(tmp_path / "other"):
            pass
    assert not run.exists()  # nothing was written
    with locked(run):
        (run / "file").touch()
    assert [path.name for path in run.iterdir()] == ["file"]
    (tmp_path / "a_file").touch()
    with pytest.raises(OutputError, match="cannot be written into"), locked(tmp_path / "a_file"):
        pass


def test_the_room_is_that_of_the_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=3, f_frsize=4096), raising=False)
    assert memory.room() == 12288
    monkeypatch.undo()
    monkeypatch.setattr(memory, "SHARED", tmp_path / "none")
    assert memory.room() is None
