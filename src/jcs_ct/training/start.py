"""How a run of any training command begins: its folder, its place among processes, what is written down of it."""

from __future__ import annotations

import errno
import json
import os
import platform
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.core.processors import threads
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.training_slices import read_training_slices, training_hashes, union_of
from jcs_ct.training.processes import known_environment, place
from jcs_ct.weights.store import hashes_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.processes import Place

LAST, CONFIG, RESULT, BEST = "last.ckpt", "config.json", "result.json", "best.safetensors"


def check_folder(out: Path, needed: str, *, resume: bool, holds: Sequence[str] = (LAST,)) -> None:
    """Refuse a folder that cannot be gone on with, or one that holds a run where a new one is to start.

    `needed` is the file that a run goes on from; `holds` are those that say that a run is there. A configuration alone
    is none: nothing was computed yet. Raises InputError where there is nothing to go on from, OutputError where a run
    is there.
    """
    if resume and not (out / needed).is_file():
        raise InputError(f"has no {needed} to go on from", path=out, hint="start it without --resume")
    if not resume and any((out / name).exists() for name in holds):
        raise OutputError("holds a run already", path=out, hint="--resume goes on with it; or give another folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, since schedulers and scripts start a command twice now and then.

    The system takes it back when the process ends, however it ends. Where the file system knows no locks, nothing is
    held. Raises OutputError where another process holds it, or the folder cannot be written into.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    path = folder / ".lock"
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        message = f"cannot be written into: {error.strerror}"
        raise OutputError(message, path=folder, hint="give another folder with -o") from error
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                hint = "wait for it; or give each run a folder of its own with -o"
                raise OutputError("is being trained into by another process", path=folder, hint=hint) from error
        try:
            yield
        finally:
            with suppress(OSError):
                path.unlink()
                if made:
                    folder.rmdir()  # a run that was refused leaves nothing
    finally:
        os.close(handle)


@contextmanager
def hold_folder(out: Path, given: int, devices: int = 1) -> Iterator[Place]:
    """Hold the folder of a run of so many processes, and compute with its share of the processors, until it ends.

    Yields which of the processes this one is; `given` are the threads of each (0: see `jcs_ct.core.processors`). Raises
    UsageError as `place`, OutputError as `locked`.
    """
    here = place(devices)
    before = torch.get_num_threads()
    with known_environment(here), locked(out) if here.rank == 0 else nullcontext():
        count = threads(given, devices)
        torch.set_num_threads(count)
        if here.world > 1:  # else Lightning would divide the machine's processors
            os.environ["OMP_NUM_THREADS"] = str(count)
        rank_zero_only.rank = here.rank
        try:
            yield here
        finally:
            torch.set_num_threads(before)


def record_start(config: str, out: Path, started: Fingerprint, slices: tuple[int, int]) -> None:
    """Write the configuration (JSON), what the run is on, and its circumstances; `slices`: to train, to validate on."""
    facts = {
        "data_sha256": started.data_digest(),
        "fingerprint": started.digest,
        "accepted": list(started.accepted),
        "slices": {"train": slices[0], "validation": slices[1]},
        "versions": dict(started.versions) | {"python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }
    started.write(out)
    write_whole(out / CONFIG, config.encode(), overwrite=True)
    write_whole(out / "run.json", (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode(), overwrite=True)


def keep_hashes(weights: Path, samples: Iterable[Sample]) -> None:
    """Write the hashes of training slices beside weights, so that `evaluate` knows them whoever has the weights.

    Those that are there stay: a run may go on with other data. The weights themselves need not be there yet.

    Raises:
        InputError: A slice cannot be read, or the file that is there holds something else.
        OutputError: It cannot be written.
    """
    path = hashes_path(weights)
    learned = training_hashes(samples)
    if path.exists():
        learned = union_of([read_training_slices(path), learned])
    write_whole(path, learned.to_bytes(), overwrite=True)
