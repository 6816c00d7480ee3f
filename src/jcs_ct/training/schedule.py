"""The learning rate of the release, and that of a run that is made longer: as if it had been so long from the start."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler


WARMUP, POWER = 200, 0.9  # iterations; of the decay


def poly_lr(iteration: int, total: int, per_epoch: int, *, base: float = 2.5e-5) -> float:
    """Return the learning rate of an iteration: polynomial decay, with a linear warm-up in the first epoch.

    In the first epoch the first `WARMUP` iterations rise from a tenth of `base`, the peak, without decay; the release's
    own lists have 79 slices, so that its warm-up ends with the first epoch, at 0.4555 of `base`. Iterations count from
    0, over all epochs. Raises UsageError where one lies outside the training.
    """
    if not 0 <= iteration < total:
        raise UsageError(f"iteration is {iteration}; 0 to {total - 1} is expected")
    if iteration < min(WARMUP, per_epoch):
        return base * (0.1 + 0.9 * (iteration + 1) / WARMUP)
    return base * float((1 - iteration / total) ** POWER)


def extend_schedule(checkpoint: dict[str, Any], schedule_of: Callable[[Optimizer], LRScheduler]) -> None:
    """Give the optimiser and the schedule in a checkpoint the values of a longer run, at the step they are at.

    The checkpoint is Lightning's, before it is loaded; `schedule_of` puts the longer run's schedule on an optimiser.
    """
    for held, state in zip(checkpoint["lr_schedulers"], checkpoint["optimizer_states"], strict=True):
        groups = state["param_groups"]
        kept = [{"lr": group["initial_lr"], "betas": group["betas"]} for group in groups]
        stand_in = torch.optim.AdamW([{"params": [torch.zeros(1, requires_grad=True)]} | values for values in kept])
        schedule = schedule_of(stand_in)
        with warnings.catch_warnings():  # that the optimiser was not stepped: there is nothing to optimise
            warnings.simplefilter("ignore", UserWarning)
            for _ in range(held["last_epoch"]):
                schedule.step()
        for name in ("total_steps", "_schedule_phases"):  # of one cycle; the new ones stay
            held.pop(name, None)
        held["_last_lr"] = [float(group["lr"]) for group in stand_in.param_groups]
        for group, new in zip(groups, stand_in.param_groups, strict=True):
            group |= {name: new[name] for name in ("lr", "betas")}
