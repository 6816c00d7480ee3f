"""How a run of any training command begins: its folder, its place among processes, what is written down of it."""

from __future__ import annotations

import json
import os
import platform
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from typing import TYPE_CHECKING

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.core.processors import threads
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.lock import locked
from jcs_ct.training.processes import known_environment, place

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.processes import Place

LAST, CONFIG, RESULT = "last.ckpt", "config.json", "result.json"


def check_folder(out: Path, needed: str, *, resume: bool, holds: Sequence[str] = (LAST,)) -> None:
    """Refuse a folder that cannot be gone on with, or one that holds a run where a new one is to start.

    Args:
        out: Folder of the run.
        needed: The file that a run goes on from.
        resume: Whether it is to go on.
        holds: Files that say that a run is there. A configuration alone is none: nothing was computed yet.

    Raises:
        InputError: There is nothing to go on from.
        OutputError: There is a run already.
    """
    if resume and not (out / needed).is_file():
        raise InputError(f"has no {needed} to go on from", path=out, hint="start it without --resume")
    if not resume and any((out / name).exists() for name in holds):
        raise OutputError("holds a run already", path=out, hint="--resume goes on with it; or give another folder")


@contextmanager
def hold_folder(out: Path, given: int, devices: int = 1) -> Iterator[Place]:
    """Hold the folder of a run, and compute with its share of the processors, until the run ends.

    Args:
        out: Folder of the run.
        given: Threads of each process; 0: `OMP_NUM_THREADS`, else what it may use (see `jcs_ct.core.processors`).
        devices: Processes of the run.

    Yields:
        Which of them this one is.

    Raises:
        UsageError: As `place`.
        OutputError: Another process trains into the folder.
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


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes: of the package, Python and the libraries."""
    own = {"jcs-ct": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    return own | {name: version(name) for name in ("torch", "lightning", "monai", "numpy", "scipy", "pillow")}


def record_start(config: str, out: Path, started: Fingerprint, slices: tuple[int, int]) -> None:
    """Write the configuration (as JSON), what the run is on, and its circumstances.

    Args:
        config: Of the run.
        out: Its folder.
        started: What it is on.
        slices: To train on, to validate on.
    """
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
