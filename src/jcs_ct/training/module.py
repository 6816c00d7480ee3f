"""The training step of each task, in Lightning's terms; the loop, devices and checkpoints are Lightning's."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.core.errors import UsageError
from jcs_ct.core.memory import reuse_freed_blocks
from jcs_ct.models import MODELS, build_model
from jcs_ct.training.fast import use_fast_layers
from jcs_ct.training.losses import f_measure_loss, release_loss
from jcs_ct.training.schedule import extend_schedule, poly_lr
from jcs_ct.training.scores import Validation

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from jcs_ct.training.config import TrainConfig
    from jcs_ct.training.scores import Score

Batch = dict[str, Tensor]
# What the tensors of one network are called in another: (from, to) → prefix there; "" where the names are the same.
TRANSPLANTS = {
    ("vgg16-bn", "jcs-single"): "vgg16.",
    ("vgg16-bn", "jcs-joint"): "vgg16.",
    ("res2net101-v1b", "jcs-joint"): "res2net.",
    ("res2net101-v1b", "jcs-classifier"): "",
    ("jcs-classifier", "jcs-joint"): "res2net.",
    ("jcs-single", "jcs-joint"): "",
}


def initialise(network: nn.Module, name: str, source: str, tensors: Mapping[str, Tensor]) -> int:
    """Copy the tensors of the network called `source` into `network`, called `name`; return how many.

    Raises UsageError where nothing of one fits into the other.
    """
    if source != name and (source, name) not in TRANSPLANTS:
        usable = sorted({a for a, b in TRANSPLANTS if b == name} | {name})
        raise UsageError(f"weights of {source} do not fit into {name}", hint=f"usable: {', '.join(usable)}")
    prefix = TRANSPLANTS.get((source, name), "")
    own = network.state_dict()
    fitting = {prefix + k: v for k, v in tensors.items() if prefix + k in own and own[prefix + k].shape == v.shape}
    network.load_state_dict(fitting, strict=source == name)
    return len(fitting)


class TrainingModule(L.LightningModule):
    """A network with its loss (where classes may have weights), optimiser and schedule."""

    def __init__(self, config: TrainConfig, steps_per_epoch: int, class_weights: Sequence[float] | None = None) -> None:
        super().__init__()
        self.config, self.steps_per_epoch = config, steps_per_epoch
        self.network = build_model(config.network, config.inputs)
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)
        self.segments = MODELS[config.network].task == "segmentation"
        self.validation = Validation()
        self.allow_zero_length_dataloader_with_multiple_devices = True  # fewer slices to validate on than processes
        self.train()  # Lightning leaves the mode as it is

    def train(self, mode: bool = True) -> TrainingModule:
        """Set the mode; batch-norm statistics stay frozen in training, as in the release."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def on_fit_start(self) -> None:
        """Take the cheaper ways of a processor, where the network is going to be trained on one."""
        if self.device.type == "cpu":
            use_fast_layers(self.network)
            reuse_freed_blocks()

    def apply_freezing(self) -> list[str]:
        """Freeze what the configuration names and what features leave without work; return the names.

        Raises UsageError where no parameter begins with a prefix, or nothing is left to train.
        """
        prefixes = list(self.config.freeze)
        names = [name for name, _ in self.network.named_parameters()]
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in names):
                heads = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
                raise UsageError(f"--freeze {prefix}: no parameter begins with it", hint=f"they begin with {heads}")
        if self.config.inputs == "features":
            prefixes += ["vgg16.conv1_", "res2net.conv1.", "conv1."]
        frozen = [name for name in names if name.startswith(tuple(prefixes))]
        if len(frozen) == len(names):
            raise UsageError("every parameter is frozen, so there is nothing to train", hint="freeze less")
        for name in frozen:
            self.network.get_parameter(name).requires_grad_(False)
        return frozen

    def inputs(self, batch: Batch) -> list[Tensor]:
        """Return the network's inputs of a batch."""
        return [batch[key] for key in ("input0", "input1") if key in batch]

    def segmentation_loss(self, logits: Tensor, mask: Tensor, *, together: bool = False) -> Tensor:
        """Return the loss of lesion maps; `together`: Dice over the batches of all processes."""
        logits = logits.float()  # sums over a slice are too long for half precision
        if self.config.loss == "f-measure":
            return f_measure_loss(logits, mask)
        return release_loss(logits, mask, total=sum_over_processes if together else None)

    def classify(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the logits N×2 and the features that they are the linear function of, N×C×h×w."""
        network: Any = self.network
        features = network.pyramid(*inputs)[-1]
        return network.fc(features.mean(dim=(2, 3))), features

    def classification_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy with labels N×2, which may be mixed."""
        weight = None if self.class_weights is None else self.class_weights.to(logits.device)
        return F.cross_entropy(logits.float(), labels, weight=weight)

    def pixel_loss(self, features: Tensor, mask: Tensor) -> Tensor:
        """Cross-entropy between the class activation map (Zhou et al., CVPR 2016) and the mask, where there is one.

        0, with a gradient of 0, where no slice has a mask; a slice has one where no pixel is below 0.
        """
        network: Any = self.network
        direction = network.fc.weight[1] - network.fc.weight[0]
        activation = torch.einsum("nchw,c->nhw", features, direction).float()
        have = (mask >= 0).flatten(1).all(dim=1)
        if not bool(have.any()):
            return activation.sum() * 0
        target = F.adaptive_avg_pool2d(mask[have][:, None], (activation.shape[1], activation.shape[2]))[:, 0]
        return F.binary_cross_entropy_with_logits(activation[have], target)

    def mixing(self, count: int) -> tuple[Tensor, float]:
        """Return the partners and λ of the step: slices become λ·own + (1 − λ)·partner's, and so do labels."""
        if not self.config.mix:
            return torch.arange(count, device=self.device), 1.0
        rng = np.random.default_rng([self.config.seed, self.global_step, self.global_rank])
        partners = torch.from_numpy(rng.permutation(count)).to(self.device)
        return partners, float(rng.beta(self.config.mix, self.config.mix))

    def training_step(self, batch: Batch, _index: int) -> Tensor:
        """Return the loss of a step. Raises UsageError where it is not finite, in any process: all end together."""
        inputs, mask = self.inputs(batch), batch["mask"]
        if self.segments:
            loss = self.segmentation_loss(self.network(*inputs), mask, together=True)
        else:
            partners, share = self.mixing(len(mask))
            labels = F.one_hot(batch["label"], 2).float()
            if share < 1:
                inputs = [share * x + (1 - share) * x[partners] for x in inputs]
                labels = share * labels + (1 - share) * labels[partners]
            logits, features = self.classify(inputs)
            loss = self.classification_loss(logits, labels)
            if self.config.pixel_weight:
                if share < 1:
                    both = ((mask >= 0) & (mask[partners] >= 0)).flatten(1).all(dim=1)[:, None, None]
                    mask = torch.where(both, share * mask + (1 - share) * mask[partners], -1.0)
                loss = loss + self.config.pixel_weight * self.pixel_loss(features, mask)
        if not torch.isfinite(sum_over_processes(loss.detach())):
            raise UsageError(
                f"the loss is not finite at step {self.global_step + 1}",
                hint="lower --lr, or look at the data; last.ckpt holds an earlier step",
            )
        return loss

    def on_validation_epoch_start(self) -> None:
        """Forget what an earlier validation found."""
        self.validation = Validation()

    def validation_step(self, batch: Batch, _index: int) -> None:
        """Look at each slice by itself: its loss with its map against the mask, or with the probability of COVID-19.

        No value depends on which slices are validated together, nor on the number of processes; none waits for another.
        """
        inputs, mask = self.inputs(batch), batch["mask"]
        if not self.segments:
            logits, _ = self.classify(inputs)
            labels = F.one_hot(batch["label"], 2).float()
            for i, p in enumerate(logits.float().softmax(dim=1)[:, 1].tolist()):
                loss = self.classification_loss(logits[i : i + 1], labels[i : i + 1])
                self.validation.add_label(float(loss), p, int(batch["label"][i]))
            return
        maps = self.network(*inputs)
        for logits, truth in zip(maps, mask, strict=True):
            self.validation.add_map(float(self.segmentation_loss(logits[None], truth[None])), logits[0], truth > 0)

    def score_of(self, tensors: Mapping[str, Tensor], batches: Iterable[Batch], epoch: int, because: str) -> Score:
        """Return the score of other weights, kept after that epoch; the module is left as it was, to the last bit.

        Without batches there is no score; `because` is as in `Validation.score`.
        """
        before = {name: tensor.clone() for name, tensor in self.network.state_dict().items()}
        training = self.training
        self.network.load_state_dict(dict(tensors))
        self.eval()
        self.validation = Validation()
        try:
            with torch.no_grad():
                for index, batch in enumerate(batches):
                    self.validation_step({name: value.to(self.device) for name, value in batch.items()}, index)
            return self.validation.score(epoch, because)
        finally:
            self.network.load_state_dict(before)
            self.train(training)
            self.validation = Validation()

    def configure_optimizers(self) -> Any:
        """Adam or AdamW over what is not frozen; the learning rate of every step by the schedule."""
        config = self.config
        parameters = [p for p in self.network.parameters() if p.requires_grad]
        kind = torch.optim.Adam if config.optimiser == "adam" else torch.optim.AdamW
        fused = self.device.type in ("cpu", "cuda")  # one pass over the parameters instead of a dozen
        optimiser = kind(parameters, lr=config.lr, betas=(0.9, 0.999), weight_decay=config.weight_decay, fused=fused)
        schedule = self.schedule_of(optimiser)
        return {"optimizer": optimiser, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def schedule_of(self, optimiser: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
        """Return the schedule of the learning rate, over all epochs of the configuration."""
        config, per_epoch = self.config, self.steps_per_epoch
        total = config.epochs * per_epoch
        if config.schedule == "poly":
            return torch.optim.lr_scheduler.LambdaLR(
                optimiser, lambda i: poly_lr(min(i, total - 1), total, per_epoch, base=1.0)
            )
        return torch.optim.lr_scheduler.OneCycleLR(optimiser, config.lr, total_steps=total + 1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Note how many epochs the schedule is made for."""
        checkpoint["epochs"] = self.config.epochs

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Where the run was made longer, go on with the learning rate of a run that was so long from the start."""
        if checkpoint.get("epochs", self.config.epochs) != self.config.epochs:
            extend_schedule(checkpoint, self.schedule_of)


def sum_over_processes(x: Tensor) -> Tensor:
    """Return the sum of `x` over all processes; gradients flow to each."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return x
    from torch.distributed.nn.functional import all_reduce

    with warnings.catch_warnings():  # its successor has no gradient in the oldest PyTorch that is supported
        warnings.filterwarnings("ignore", ".*all_reduce is deprecated.*", FutureWarning)
        summed: Tensor = all_reduce(x)
    return summed
