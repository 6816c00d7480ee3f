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
from jcs_ct.training.schedule import extend_schedule

if TYPE_CHECKING:
    from jcs_ct.training.lite.config import LiteConfig

DEEP = (1.0, 0.5, 0.25, 0.25)  # weights of the maps, finest first
EXTENT = 0.002  # share of an empty slice whose highest lesion logits stand for it
FINEST = ("encoder.stem.", "encoder.stages.0.", "encoder.stages.1.")
"""The finest stages are the most expensive to train, and edges are edges: they keep their ImageNet values."""
LOUDEST = 0.3  # weight of those beside the cross-entropy of all pixels
SMOOTH = 1.0  # of Dice, in pixels


class LiteModule(L.LightningModule):
    """The network, its moving average, loss, optimiser and schedule."""

    def __init__(self, config: LiteConfig) -> None:
        super().__init__()
        self.config = config
        network: Any = LiteNetwork()
        self.network: LiteNetwork = network.to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(config.keep), use_buffers=True)
        frozen = (*FINEST, *config.freeze)
        for name, parameter in self.network.named_parameters():
            if name.startswith(frozen):
                parameter.requires_grad_(False)
        if not any(p.requires_grad for p in self.network.parameters()):
            raise UsageError(f"--freeze {' '.join(config.freeze)} leaves nothing to train", hint="freeze less")
        self.fixed = nn.ModuleList(m for name, m in self.network.named_modules() if f"{name}.".startswith(frozen))
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
        known = (mask >= 0).flatten(1).all(dim=1)
        count = int((~known).sum())  # those with a label alone come first
        if self.config.mix and count:
            share, partner = self.mixing(count)
            image = torch.cat([blend(image[:count], partner, share), image[count:]])
            label = torch.cat([blend(label[:count], partner, share), label[count:]])
        with torch.autocast(image.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            mapped = known if bool(known.any()) else None
            out = LiteOutput(*self.network(image.contiguous(memory_format=torch.channels_last), mapped))
        out = LiteOutput(*(part.float() for part in out))
        loss: Tensor = out.logit.sum() * 0
        labelled = label >= 0
        if bool(labelled.any()):
            loss = loss + F.binary_cross_entropy_with_logits(out.logit[labelled], label[labelled])
        if bool(known.any()):
            loss = loss + lesion_loss(out.maps, mask[known], self.config.silence)
            if self.config.attention:
                grid = (out.evidence.shape[1], out.evidence.shape[2])
                target = F.adaptive_avg_pool2d(mask[known][:, None], grid)[:, 0]
                pixels = F.binary_cross_entropy_with_logits(out.evidence[known], target)
                loss = loss + self.config.attention * pixels
        if not torch.isfinite(loss):
            raise UsageError(f"the loss is not finite at step {self.global_step + 1}", hint="lower --lr")
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
        encoder = {id(p) for p in self.network.encoder.parameters()}
        trained = [p for p in self.network.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = []
        for inside in (False, True):
            part = [p for p in trained if (id(p) in encoder) == inside]
            groups.append({"params": [p for p in part if p.dim() > 1]})
            groups.append({"params": [p for p in part if p.dim() <= 1], "weight_decay": 0.0})
        optimiser = torch.optim.AdamW(groups, lr=self.config.lr, weight_decay=self.config.weight_decay, fused=True)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": self.schedule_of(optimiser), "interval": "step"}}

    def schedule_of(self, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return one cycle of the learning rate over all steps."""
        lr, total = self.config.lr, self.config.steps + 1
        rates = [lr, lr, lr / 2, lr / 2]  # of the groups: the decoder's, then the encoder's
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, rates, total_steps=total, pct_start=0.15)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note how many steps the schedule is made for."""
        checkpoint["steps"] = self.config.steps

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Where the run was made longer, go on with the learning rate of a run that was so long from the start."""
        if checkpoint.get("steps", self.config.steps) != self.config.steps:
            extend_schedule(checkpoint, self.schedule_of)


def loudest(logits: Tensor) -> Tensor:
    """Return the mean of the highest lesion logits of each slice: N×H×W to N."""
    cells = F.avg_pool2d(logits[:, None], 2).flatten(1)
    return cells.topk(max(1, round(EXTENT * cells.shape[1])), dim=1).values.mean(dim=1)


def blend(values: Tensor, partner: Tensor, share: float) -> Tensor:
    """Return `values` and those of their partners, mixed."""
    return share * values + (1 - share) * values[partner.to(values.device)]


def lesion_loss(maps: Tensor, mask: Tensor, silence: float) -> Tensor:
    """Return the loss of lesion maps, summed over the maps.

    Slices with a lesion: cross-entropy + half of (1 − Dice) of each. Empty slices: `silence` times (cross-entropy +
    what the loudest pixels say). All together: half of (1 − Dice) over the batch, where marks on empty slices count.
    `maps` are N×M×H×W logits, finest first, `mask` is N×H×W in 0 … 1.
    """
    loss = maps.sum() * 0
    full = mask.flatten(1).amax(dim=1) > 0
    share = full.float().mean()
    for weight, logits in zip(DEEP, maps.unbind(dim=1), strict=True):
        p = logits.sigmoid()
        overlap, total = (p * mask).sum(dim=(1, 2)), (p + mask).sum(dim=(1, 2))
        entropy = F.binary_cross_entropy_with_logits(logits, mask, reduction="none").mean(dim=(1, 2))
        part = (1 - (2 * overlap.sum() + SMOOTH) / (total.sum() + SMOOTH)) / 2
        if bool(full.any()):
            each = 1 - ((2 * overlap[full] + SMOOTH) / (total[full] + SMOOTH)).mean()
            part = part + entropy[full].mean() + each / 2
        if not bool(full.all()):
            marks = F.softplus(loudest(logits[~full])).mean()
            part = part + silence * (1 - share) * (entropy[~full].mean() + LOUDEST * marks)
        loss = loss + weight * part
    return loss
