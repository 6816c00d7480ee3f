"""The losses of the release, on logits.

Source: Wu et al., IEEE TIP 2021 (deep supervision, cross-entropy + Dice); Zhao et al., ICCV 2019, for the F-measure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch.nn import functional as F

from jcs_ct.core.errors import ShapeError

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SMOOTHING = 1e-5


def _check(logits: Tensor, target: Tensor) -> None:
    if logits.dim() != 4 or target.shape != (logits.shape[0], *logits.shape[2:]):
        raise ShapeError(
            f"logits {'×'.join(map(str, logits.shape))} and target {'×'.join(map(str, target.shape))} were given; "
            "N×K×H×W and N×H×W are expected"
        )


def release_loss(logits: Tensor, target: Tensor, *, total: Callable[[Tensor], Tensor] | None = None) -> Tensor:
    """Return the training loss of the release: over all maps, the sum of binary cross-entropy and 1 − Dice.

    Dice is taken over the whole batch, smoothed by 1e-5.

    Args:
        logits: N×K×H×W, K maps under deep supervision.
        target: N×H×W in [0, 1].
        total: Sums a scalar over all processes that share the batch; None: there is one.

    Raises:
        ShapeError: The shapes do not belong together.
    """
    _check(logits, target)
    total = total or (lambda x: x)
    loss = logits.new_zeros(())
    for i in range(logits.shape[1]):
        p = logits[:, i].sigmoid()
        dice = (2 * total((p * target).sum()) + SMOOTHING) / (total(p.sum() + target.sum()) + SMOOTHING)
        loss = loss + F.binary_cross_entropy_with_logits(logits[:, i], target) + 1 - dice
    return loss


def f_measure_loss(logits: Tensor, target: Tensor, beta_squared: float = 0.3) -> Tensor:
    """Return the alternative loss of the release: over all maps, the sum of the mean over slices of 1 − F_β.

    Args and errors: as `release_loss`; `beta_squared` weighs precision against recall.
    """
    _check(logits, target)
    p, t = logits.sigmoid(), target[:, None]
    hits = (p * t).sum(dim=(2, 3))
    f = (1 + beta_squared) * hits / (beta_squared * t.sum(dim=(2, 3)) + p.sum(dim=(2, 3)) + SMOOTHING)
    return (1 - f).mean(dim=0).sum()
