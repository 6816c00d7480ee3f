"""How Lightning behaves inside a command: it says what is news to the user, and its failures fit on one line."""

from __future__ import annotations

import logging
import sys
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING

from lightning.fabric.utilities.exceptions import MisconfigurationException

from jcs_ct.core.errors import JcsError, OutputError, UsageError
from jcs_ct.training.memory import WAY_OUT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from sys import UnraisableHookArgs

NO_ROOM = "shared memory (/dev/shm) is too small for what reading processes hand over"
READER = "DataLoader worker"  # how PyTorch's words on a dead reading process begin
LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero", "lightning_utilities")
HARMLESS = (
    r".*`srun` command is available.*",  # on a cluster's machines it is; a run of one process needs none
    r".*does not have many workers.*",  # how many is the user's choice
    r".*module\(s\) in eval mode.*",  # frozen batch norm
    r".*but have no `val_dataloader`.*",  # a run without validation says so itself
    r".*treespec, LeafSpec.*",  # between Lightning and PyTorch
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*[Zz]ero length.*",  # fewer slices to validate on than processes
    r".*[Tt]otal length of .*DataLoader.* across ranks is zero.*",
)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Leave out Lightning's tips and its account of the devices; warnings and errors stay, except `HARMLESS` ones."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        with warnings.catch_warnings():
            for message in HARMLESS:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Turn what ends a run in its middle into errors of this package.

    Raises:
        UsageError: A device that is not there, a precision that it does not have.
        OutputError: The disk is full.
        JcsError: What a reading process met; that it was killed.
    """
    again = "--resume goes on from last.ckpt"
    try:
        with _late_word_of_readers():
            yield
    except MisconfigurationException as error:
        raise UsageError(f"cannot train so: {str(error).splitlines()[0]}", hint="see --device, --precision") from error
    except (JcsError, OSError, RuntimeError) as error:
        if _shared_memory(error):
            raise JcsError(NO_ROOM, hint=f"{WAY_OUT}; {again}") from error
        if isinstance(error, JcsError):
            if "Original Traceback" in error.message:  # raised in a reading process, with the text of its traceback
                raise JcsError(error.message.strip().splitlines()[-1].partition(": ")[2], hint=again) from error
            raise
        if isinstance(error, OSError):
            raise OutputError(f"a file cannot be written or read: {error}", path=error.filename, hint=again) from error
        if READER in str(error):
            text = "a process that reads ahead was killed, perhaps because memory ran out"
            raise JcsError(text, hint=again) from error
        if type(error).__module__.startswith("torch") and type(error).__name__.startswith("Dist"):
            text = f"the processes of the run cannot reach one another: {str(error).splitlines()[0]}"
            raise JcsError(text, hint="unset MASTER_ADDR and MASTER_PORT, or start it with torchrun again") from error
        raise


def _shared_memory(error: Exception) -> bool:
    """Return whether an error of PyTorch's, or of its reading processes, says that shared memory is full."""
    text = str(error)
    return any(words in text for words in ("shared memory", "Bus error", "/torch_")) and (
        READER in text or "torch_" in text
    )


@contextmanager
def _late_word_of_readers() -> Iterator[None]:
    """Keep the traceback off the screen of a reader's death that Python met where nothing can be raised.

    PyTorch raises it from a signal handler, so between any two instructions of the main process: within the callback
    of a weak reference Python prints and drops it. The run does not go on without its reader for that: the next batch
    that it waits for finds the process gone, and raises again.
    """
    before = sys.unraisablehook

    def hook(met: UnraisableHookArgs, /) -> None:
        if not (isinstance(met.exc_value, RuntimeError) and READER in str(met.exc_value)):
            before(met)

    sys.unraisablehook = hook
    try:
        yield
    finally:
        sys.unraisablehook = before
