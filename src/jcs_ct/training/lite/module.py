"""The training step of `jcs-lite`: one pass over slices with masks and slices with labels, each taught what it has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from jcs_ct.core.errors import UsageError
from jcs_ct.models.lite import LiteNetwork, LiteOutput
from jcs_ct.training.lite.depthwise import speed_up

if TYPE_CHECKING:
    from jcs_ct.training.lite.config import LiteConfig

DEEP = (1.0, 0.5, 0.25)  # weights of the maps, finest first
EXTENT = 0.01  # share of a slice whose highest lesion logits stand for it
SMOOTH = 1.0  # of Dice, in pixels: a slice without lesions asks for an empty map


class LiteModule(L.LightningModule):
    """The network, its moving average, loss, optimiser and schedule."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self.config = config
        network: Any = LiteNetwork()
        self.network: LiteNetwork = network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.keep), use_buffers=True)
        # The finest stages are the most expensive to train, and edges are edges: they keep their ImageNet values.
        encoder = self.network.encoder
        self.fixed = nn.ModuleList([encoder.stem, encoder.stages[0], encoder.stages[1]])
        for parameter in self.fixed.parameters():
            parameter.requires_grad_(False)
        speed_up(self.network)
        self.train()

    def train(self, mode: bool = True) -> LiteModule:
        """Set the mode; the stages that are not trained keep their statistics too."""
        super().train(mode)
        self.fixed.eval()
        self.average.eval()
        return self

    def training_step(self, batch: dict[str, Tensor], _index: int) -> Tensor:
        """Return the loss of a step."""
        image, label, mask = batch["image"], batch["label"], batch["mask"]
        labelled = label >= 0
        count = int(labelled.sum())  # they come first
        if self.config.mix and count:
            share, partner = self.mixing(count)
            image = torch.cat([blend(image[:count], partner, share), image[count:]])
            label = torch.cat([blend(label[:count], partner, share), label[count:]])
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            out = LiteOutput(*self.network(image.contiguous(memory_format=torch.channels_last)))
        out = LiteOutput(*(part.float() for part in out))
        loss: Tensor = out.logit.sum() * 0
        if self.config.weak and count:
            highest = strongest(out.maps[:count, 0])
            loss = loss + self.config.weak * F.binary_cross_entropy_with_logits(highest, label[:count])
        if bool(labelled.any()):
            loss = loss + F.binary_cross_entropy_with_logits(out.logit[labelled], label[labelled])
        have = (mask >= 0).flatten(1).all(dim=1)
        if bool(have.any()):
            loss = loss + lesion_loss(out.maps[have], mask[have])
            if self.config.attention:
                target = F.adaptive_avg_pool2d(mask[have][:, None], (out.evidence.shape[1], out.evidence.shape[2]))[
                    :, 0
                ]
                pixels = F.binary_cross_entropy_with_logits(out.evidence[have], target)
                loss = loss + self.config.attention * pixels
        if not torch.isfinite(loss):
            raise UsageError(f"the loss is no finite number at step {self.global_step + 1}", hint="lower --lr")
        return loss

    def mixing(self, count: int) -> tuple[float, Tensor]:
        """Return λ from a Beta distribution, and the partner of each labelled slice of this step."""
        rng = np.random.default_rng([self.config.seed, self.global_step, 2])
        share = float(rng.beta(self.config.mix, self.config.mix))
        return share, torch.from_numpy(rng.permutation(count))

    def optimizer_step(self, *args: Any, **options: Any) -> None:
        """Step, and move the average: before any callback, so that a checkpoint holds both."""
        super().optimizer_step(*args, **options)
        self.average.update_parameters(self.network)

    def configure_optimizers(self) -> Any:
        """AdamW with one cycle; norms and offsets do not decay."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for p in trained if p.dim() > 1]},
            {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
        ]
        optimiser = torch.optim.AdamW(groups, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, self.config.lr, total_steps=self.config.steps + 1, pct_start=0.15
        )
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def strongest(logits: Tensor) -> Tensor:
    """Return the mean of the highest 1 % of lesion logits of each slice: N×H×W to N.

    Multiple-instance learning: a slice without the disease has no pixel of it, one with it has some.
    """
    cells = F.avg_pool2d(logits[:, None], 4).flatten(1)
    return cells.topk(max(1, round(EXTENT * cells.shape[1])), dim=1).values.mean(dim=1)


def blend(values: Tensor, partner: Tensor, share: float) -> Tensor:
    """Return `values` and those of their partners, mixed."""
    return share * values + (1 - share) * values[partner.to(values.device)]


def lesion_loss(maps: Tensor, mask: Tensor) -> Tensor:
    """Return the loss of lesion maps: over the maps, cross-entropy + 1 − Dice (half by slice, half over the batch).

    Args:
        maps: N×M×H×W logits, finest first.
        mask: N×H×W in 0 … 1.
    """
    loss = maps.sum() * 0
    for weight, logits in zip(DEEP, maps.unbind(dim=1), strict=True):
        p = logits.sigmoid()
        overlap, total = (p * mask).sum(dim=(1, 2)), (p + mask).sum(dim=(1, 2))
        each = 1 - ((2 * overlap + SMOOTH) / (total + SMOOTH)).mean()
        together = 1 - (2 * overlap.sum() + SMOOTH) / (total.sum() + SMOOTH)
        entropy = F.binary_cross_entropy_with_logits(logits, mask)
        loss = loss + weight * (entropy + (each + together) / 2)
    return loss
