"""Training speed of this package against the plain published loop, in one interleaved run.

Both train the same network on the same slices in a process of its own; in turn, one does a few steps while the other
waits. Plain is what the release's recipe says and no more: PyTorch's network, loss, backward, `torch.optim.Adam`, the
learning rate of each step, a `DataLoader` with the same reading process. The other is the `Trainer` of `jcs train`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import lightning as L
import numpy as np
import torch

from jcs_ct.bench.child import STEADY, Child, peak
from jcs_ct.core.duration import left_after
from jcs_ct.core.errors import JcsError
from jcs_ct.datasets.samples import Sample
from jcs_ct.models import build_model
from jcs_ct.phantom import make_phantom, write_pngs
from jcs_ct.training.config import TrainConfig, resolve
from jcs_ct.training.losses import release_loss
from jcs_ct.training.messages import quiet_lightning
from jcs_ct.training.module import TrainingModule
from jcs_ct.training.samples import SliceDataset
from jcs_ct.training.sampling import PlannedBatches, ResumableLoader
from jcs_ct.training.schedule import poly_lr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

TOLERANCE = 1e-4  # relative, of the loss of the first steps: float32 in another order
COMPARED = 5  # steps at most: differences in rounding grow with each
PATIENCE = 7200  # seconds that a turn may take
WAYS = ("plain", "jcs train")


class DisagreementError(JcsError):
    """The two ways do not compute the same, so that their speeds cannot be compared."""

    exit_status = 1


class Turn(NamedTuple):
    """What one turn took.

    Attributes:
        seconds: Of all its steps, together.
        waited: Of these, waiting for the loader.
        losses: Of each step.
        peak: Largest memory of the process so far, bytes.
    """

    seconds: float
    waited: float
    losses: tuple[float, ...]
    peak: int


@dataclass(frozen=True)
class TrainSpeed:
    """The result of a benchmark.

    Attributes:
        network: What was trained.
        size: Side of its input, pixels.
        batch: Slices of a step.
        threads: Of PyTorch, in each of the two processes.
        seconds: By way: seconds of a step in each turn.
        waiting: By way: share of the time spent waiting for the loader, in [0, 1].
        peak: By way: largest memory, bytes.
        difference: Largest relative difference of the losses of the first steps.
    """

    network: str
    size: int
    batch: int
    threads: int
    seconds: dict[str, list[float]]
    waiting: dict[str, float]
    peak: dict[str, int]
    difference: float

    def slices_per_second(self, way: str) -> float:
        """Return the median throughput of a way."""
        return self.batch / statistics.median(self.seconds[way])

    @property
    def ratio(self) -> float:
        """How many times faster `jcs train` is: the median of the turns' ratios."""
        plain, ours = (self.seconds[way] for way in WAYS)
        return statistics.median([a / b for a, b in zip(plain, ours, strict=True)])

    @property
    def steady(self) -> bool:
        """Whether the turns of each way took about equally long, as they do without other work on the machine."""
        return all(max(turns) <= STEADY * min(turns) for turns in self.seconds.values())


def measure(network: str, size: int, batch: int, steps: int, turns: int, say: Callable[[str], None]) -> TrainSpeed:
    """Train both ways in turn and return what it took. The first turn of each only warms up.

    Args:
        network: A segmentation network of the table.
        size: Side of its input.
        batch: Slices of a step.
        steps: Of a turn.
        turns: That count.
        say: Where to say what happens.

    Raises:
        DisagreementError: The losses differ by more than `TOLERANCE`.
        JcsError: One of the processes ended early.
    """
    config = resolve("segment", "phantom", "release", network=network, size=size, batch=batch, accelerator="cpu")
    with tempfile.TemporaryDirectory() as folder:
        paths = write_pngs(make_phantom(slices=16, size=512), folder)
        samples = [Sample(image=path, mask=path.parent / "masks" / path.name) for path in paths]
        arguments = (config, samples, steps, turns + 1)
        children = [Child(work, *arguments, patience=PATIENCE) for work in (_plain, _package)]
        try:
            taken = _in_turn(children, turns + 1, say)
        finally:
            for child in children:
                child.close()
    difference = agreement(taken[0][0].losses, taken[1][0].losses)
    counted = {way: turn[1:] for way, turn in zip(WAYS, taken, strict=True)}
    return TrainSpeed(
        network,
        size,
        batch,
        torch.get_num_threads(),
        {way: [turn.seconds / steps for turn in turns_of] for way, turns_of in counted.items()},
        {way: sum(t.waited for t in ts) / sum(t.seconds for t in ts) for way, ts in counted.items()},
        {way: max(t.peak for t in ts) for way, ts in counted.items()},
        difference,
    )


def agreement(plain: Sequence[float], ours: Sequence[float]) -> float:
    """Return the largest relative difference of the first losses of both.

    Raises:
        DisagreementError: It is too large, or not a number.
    """
    plain, ours = plain[:COMPARED], ours[:COMPARED]
    difference = float(np.max(np.abs(np.subtract(plain, ours)) / np.abs(plain)))
    if not difference <= TOLERANCE:
        raise DisagreementError(
            f"the two ways do not compute the same: losses differ by {difference:.1e}, {TOLERANCE:g} is allowed",
            hint="this build of PyTorch computes different numbers; please report it",
        )
    return difference


def _in_turn(children: Sequence[Child], turns: int, say: Callable[[str], None]) -> list[list[Turn]]:
    taken: list[list[Turn]] = [[] for _ in children]
    began, done = time.monotonic(), 0
    for number in range(turns):
        for way, child, into in zip(WAYS, children, taken, strict=True):
            try:
                turn: Turn = child.ask("go")
            except JcsError as error:
                raise JcsError(f"{way!r} cannot be measured: {error.line()}") from error
            into.append(turn)
            per_step = turn.seconds / len(turn.losses)
            done += 1
            more = (" (warm-up)" if not number else "") + left_after(done, turns * len(taken), began)
            say(f"turn {number} of {turns - 1}, {way}: {per_step:.3f} s a step{more}")
    return taken


def _batches(config: TrainConfig, samples: Sequence[Sample], count: int) -> tuple[SliceDataset, PlannedBatches]:
    """Return slices and an order that is long enough: the list over and over."""
    many = [samples[i % len(samples)] for i in range(count * config.batch)]
    return SliceDataset(many, config, train=True), PlannedBatches(len(many), config.batch, config.seed)


def _plain(end: Connection, config: TrainConfig, samples: Sequence[Sample], steps: int, turns: int) -> None:
    """Be the plain published loop."""
    torch.manual_seed(config.seed)
    network = build_model(config.network).train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    optimiser = torch.optim.Adam(network.parameters(), lr=config.lr, weight_decay=config.weight_decay)
    dataset, order = _batches(config, samples, steps * turns)
    loader = iter(torch.utils.data.DataLoader(dataset, batch_sampler=order, num_workers=1))
    total = len(order)
    for turn in range(turns):
        end.recv()
        started, waited, losses = time.perf_counter(), 0.0, []
        for i in range(turn * steps, (turn + 1) * steps):
            mark = time.perf_counter()
            batch = next(loader)
            waited += time.perf_counter() - mark
            for group in optimiser.param_groups:
                group["lr"] = config.lr * poly_lr(i, total, total, base=1.0)
            loss = release_loss(network(batch["input0"]), batch["mask"])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(float(loss.detach()))
        end.send(Turn(time.perf_counter() - started, waited, tuple(losses), peak()))


class _Turns(L.Callback):
    """Stops after each turn until it is told to go on."""

    def __init__(self, end: Connection, steps: int, turns: int) -> None:
        self.end, self.steps, self.turns = end, steps, turns
        self.losses: list[float] = []
        self.waited, self.started, self.mark = 0.0, 0.0, 0.0

    def _begin(self) -> None:
        self.end.recv()
        self.losses, self.waited = [], 0.0
        self.started = self.mark = time.perf_counter()

    def on_train_epoch_start(self, *_args: Any) -> None:
        self._begin()

    def on_train_batch_start(self, *_args: Any) -> None:
        self.waited += time.perf_counter() - self.mark

    def on_train_batch_end(self, _trainer: Any, _module: Any, outputs: Any, *_args: Any) -> None:
        self.losses.append(float(outputs["loss"]))
        self.mark = now = time.perf_counter()
        if len(self.losses) == self.steps:
            self.end.send(Turn(now - self.started, self.waited, tuple(self.losses), peak()))
            self.turns -= 1
            if self.turns:
                self._begin()


def _package(end: Connection, config: TrainConfig, samples: Sequence[Sample], steps: int, turns: int) -> None:
    """Be what `jcs train` runs."""
    torch.manual_seed(config.seed)
    config = replace(config, epochs=1)
    dataset, order = _batches(config, samples, steps * turns)
    module = TrainingModule(config, len(order))
    with quiet_lightning(), tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            accelerator="cpu",
            max_epochs=1,
            callbacks=[_Turns(end, steps, turns)],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            default_root_dir=Path(folder),
        )
        trainer.fit(module, ResumableLoader(dataset, order, workers=1))
