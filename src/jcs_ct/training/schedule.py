"""The learning rate of the release. No torch here."""

from __future__ import annotations

from jcs_ct.core.errors import UsageError


def poly_lr(
    iteration: int, total: int, per_epoch: int, *, base: float = 2.5e-5, power: float = 0.9, warmup: int = 200
) -> float:
    """Return the learning rate of an iteration: polynomial decay, with a linear warm-up in the first epoch.

    In the first epoch the first `warmup` iterations rise from a tenth of `base`, without decay; the release's own
    lists have 79 slices, so that its warm-up ends with the first epoch, at 0.4555 of `base`.

    Args:
        iteration: From 0, over all epochs.
        total: Number of iterations of the whole training.
        per_epoch: Iterations of an epoch.
        base: Peak learning rate.
        power: Of the decay.
        warmup: Length of the warm-up in iterations.

    Raises:
        UsageError: `iteration` lies outside the training.
    """
    if not 0 <= iteration < total:
        raise UsageError(f"iteration is {iteration}; 0 to {total - 1} is expected")
    if iteration < min(warmup, per_epoch):
        return base * (0.1 + 0.9 * (iteration + 1) / warmup)
    return base * float((1 - iteration / total) ** power)
