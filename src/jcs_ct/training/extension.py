"""A run that is made longer goes on with the learning rate that a run of that length would have there."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

OF_THE_OLD_LENGTH = ("total_steps", "_schedule_phases")  # of one cycle; the new ones stay
SCHEDULED = ("lr", "betas")


def extend_schedule(checkpoint: dict[str, Any], schedule_of: Callable[[Optimizer], LRScheduler]) -> None:
    """Give the optimiser and the schedule in a checkpoint the values of a longer run, at the step they are at.

    Args:
        checkpoint: Lightning's, before it is loaded.
        schedule_of: Puts the schedule of the longer run on an optimiser.
    """
    for held, state in zip(checkpoint["lr_schedulers"], checkpoint["optimizer_states"], strict=True):
        groups = state["param_groups"]
        stand_in = torch.optim.AdamW(
            [
                {"params": [torch.zeros(1, requires_grad=True)], "lr": g["initial_lr"], "betas": g["betas"]}
                for g in groups
            ]
        )
        schedule = schedule_of(stand_in)
        with warnings.catch_warnings():  # that the optimiser was not stepped: there is nothing to optimise
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(held["last_epoch"]):
                schedule.step()
        for name in OF_THE_OLD_LENGTH:
            held.pop(name, None)
        held["_last_lr"] = [float(group["lr"]) for group in stand_in.param_groups]
        for group, new in zip(groups, stand_in.param_groups, strict=True):
            group |= {name: new[name] for name in SCHEDULED}
