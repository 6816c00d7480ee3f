"""The checkpoint that a run goes on from: looked at before anything is made of it."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import lightning as L

_ANEW = "start a new run in another folder; --init with best.safetensors starts from what was learned"
_HELD = ("state_dict", "optimizer_states", "loops", "callbacks")


def check_checkpoint(
    path: Path, module: torch.nn.Module, callback: L.Callback, known: Callable[[str | None], None]
) -> None:
    """Refuse a checkpoint that a run cannot go on from.

    PyTorch does not look at the checksums in it, so a byte that a disk has changed would become a weight.

    Args:
        path: Of the checkpoint.
        module: What is trained.
        callback: What keeps the records of the run.
        known: Checks the digest of what the run was started on that the checkpoint holds (None: it holds none).

    Raises:
        InputError: It is damaged, no checkpoint of a run of this package, or of another network.
        UsageError: As `known`.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:
                raise InputError("is damaged: a checksum in it is wrong", path=path, hint=_ANEW)
        held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except Exception as error:  # both libraries raise many kinds
        raise InputError("is damaged, or no checkpoint", path=path, hint=_ANEW) from error
    records = held.get("callbacks") if isinstance(held, dict) else None
    mine = records.get(callback.state_key) if isinstance(records, dict) else None
    if not isinstance(mine, dict) or any(name not in held for name in _HELD):
        raise InputError("is no checkpoint of such a run", path=path, hint=_ANEW)
    known(mine.get("digest"))
    if _shapes(held["state_dict"]) != _shapes(module.state_dict()):
        raise InputError("is a checkpoint of another network", path=path, hint=_ANEW)


def _shapes(tensors: Any) -> dict[str, Any]:
    return {name: getattr(tensor, "shape", None) for name, tensor in dict(tensors).items()}
