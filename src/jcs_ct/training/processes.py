"""Which of the processes of a run this one is, and the threads that each computes with.

Schedulers, platforms and launchers leave variables in the environment (SLURM_*, RANK, WORLD_SIZE, LOCAL_RANK,
MASTER_*, LSB_*, TORCHELASTIC_*), for jobs of one process too. They count only where a run asks for several processes
(`--devices N`) and something started that many: `torchrun`, or `srun` with several tasks. Otherwise they are hidden
from the libraries while the run goes on, since these would wait for processes that nobody starts.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

STARTED_BY = "JCS_STARTED_BY"  # the process that started this one, where it is a further one of a run
NUMBERS = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
HIDDEN = ("SLURM_", "TORCHELASTIC_", "LSB_", "JSM_", "PMI_", "PMIX_", "OMPI_")
HIDDEN_NAMES = (
    *NUMBERS,
    "LOCAL_WORLD_SIZE",
    "GROUP_RANK",
    "ROLE_RANK",
    "NODE_RANK",
    "MASTER_ADDR",
    "MASTER_PORT",
    "STANDALONE_PORT",
)


@dataclass(frozen=True)
class Place:
    """The place of this process in its run.

    Attributes:
        rank: Its number, from 0.
        world: Number of processes.
        variables: What the environment has to say of it, for the libraries; empty where they start the others.
    """

    rank: int = 0
    world: int = 1
    variables: tuple[tuple[str, str], ...] = ()


def place(devices: int, environ: Mapping[str, str] | None = None) -> Place:
    """Return the place of this process in a run that was asked to have `devices` processes.

    Raises UsageError where several were asked for, or started, and the environment speaks of another number, or makes
    no sense.
    """
    env = os.environ if environ is None else environ
    if devices == 1:
        started = _number(env, "WORLD_SIZE") if "TORCHELASTIC_RUN_ID" in env else None
        if started is not None and started > 1:
            raise UsageError(
                f"torchrun started {started} processes, and the run has --devices 1",
                hint=f"give --devices {started}; or start it without torchrun",
            )
        return Place()
    if env.get(STARTED_BY) == str(os.getppid()):
        rank = _number(env, "LOCAL_RANK") or 0
        return Place(rank, devices, tuple((n, env[n]) for n in (*HIDDEN_NAMES, STARTED_BY) if n in env))
    if all(name in env for name in NUMBERS) and env["WORLD_SIZE"].strip() != "1":
        return _launched(env, devices)
    tasks = _number(env, "SLURM_STEP_NUM_TASKS")
    if tasks is not None and tasks > 1:
        return _slurm(env, devices, tasks)
    return Place(0, devices)


@contextmanager
def known_environment(here: Place) -> Iterator[None]:
    """Show the libraries the environment that belongs to `here`, and nothing else of schedulers; undone at the end."""
    before = dict(os.environ)
    for name in before:
        if name in HIDDEN_NAMES or name.startswith(HIDDEN):
            del os.environ[name]
    os.environ.update(here.variables)
    if here.world > 1 and not here.variables:
        os.environ[STARTED_BY] = str(os.getpid())  # for those that are started from here
    try:
        yield
    finally:
        for name in {*os.environ, *before}:
            if name in before:
                os.environ[name] = before[name]
            elif name in HIDDEN_NAMES or name in (STARTED_BY, "OMP_NUM_THREADS"):
                del os.environ[name]


def _launched(env: Mapping[str, str], devices: int) -> Place:
    """The place that `torchrun`, or a script in its manner, gives this process."""
    said = ", ".join(f"{name}={env[name]}" for name in NUMBERS)
    rank, world, local = (_number(env, name) for name in NUMBERS)
    wrong = ""
    if rank is None or world is None or local is None:
        wrong = "numbers are expected"
    elif world != devices:
        wrong = f"the run has --devices {devices}"
    elif not 0 <= rank < world or rank != local:
        wrong = f"a number below {world} is expected, the same in both: a run is on one machine"
    elif not env.get("MASTER_ADDR"):
        wrong = "MASTER_ADDR is not set"
    elif not 0 < (_number(env, "MASTER_PORT") or 0) < 65536:
        wrong = f"MASTER_PORT is {env.get('MASTER_PORT', 'not set')}; a port is expected"
    if wrong or rank is None:
        hint = f"torchrun --nproc-per-node {devices} sets them; or unset them, and the run starts its processes itself"
        raise UsageError(f"the environment says {said}, and {wrong}", hint=hint)
    # torchrun's own variables as well: they say that its agent holds the port already.
    names = (*NUMBERS, "MASTER_ADDR", "MASTER_PORT", *(name for name in env if name.startswith("TORCHELASTIC_")))
    return Place(rank, devices, tuple((name, env[name]) for name in names))


def _slurm(env: Mapping[str, str], devices: int, tasks: int) -> Place:
    """The place that `srun` gives this process, one of several tasks of a step."""
    rank, nodes = _number(env, "SLURM_PROCID"), _number(env, "SLURM_STEP_NUM_NODES") or 1
    alone = "or --ntasks=1, and the run starts its processes itself"
    if tasks != devices:
        raise UsageError(
            f"srun started {tasks} tasks, and the run has --devices {devices}", hint=f"make them equal; {alone}"
        )
    if nodes > 1:
        raise UsageError(f"srun started the tasks on {nodes} machines; a run is on one", hint=f"--nodes=1; {alone}")
    if rank is None or not 0 <= rank < tasks:
        said = env.get("SLURM_PROCID", "not set")
        raise UsageError(
            f"SLURM_PROCID is {said}, and srun started {tasks} tasks", hint=f"start them with srun; {alone}"
        )
    job = _number(env, "SLURM_JOB_ID") or 0
    port = str(15000 + job % 10000)  # the same in all tasks, another in another job
    given = {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(tasks), "MASTER_ADDR": "127.0.0.1"}
    return Place(rank, devices, (*given.items(), ("MASTER_PORT", port)))


def _number(env: Mapping[str, str], name: str) -> int | None:
    """Return a variable as a number; None where it is none."""
    text = env.get(name, "").strip()
    return int(text) if text.isascii() and text.isdigit() else None
