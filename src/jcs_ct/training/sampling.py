"""Which samples a step takes: a pure function of (seed, epoch, step, process), so that a run can go on anywhere."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np
from torch.utils.data import DataLoader, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from jcs_ct.datasets.samples import Sample

Key = tuple[int, int]  # position, epoch: what `SliceDataset` takes


def balanced_weights(samples: Sequence[Sample]) -> list[float]:
    """Return how often to draw each sample: every (source, label) equally, and every group within it equally."""
    cells = [(s.source, s.label) for s in samples]
    groups = [(s.source, s.label, s.group if s.group is not None else str(s.path)) for s in samples]
    size = Counter(groups)
    groups_in = Counter(cell for cell, _ in {((g[0], g[1]), g) for g in groups})
    weights = np.array([1 / (size[g] * groups_in[c]) for g, c in zip(groups, cells, strict=True)])
    return list(weights / weights.sum())


class PlannedBatches(Sampler[list[Key]]):
    """The batches of an epoch for one process, number `rank` of `world`.

    All processes together take `batch · world` samples a step, so that two processes with half the batch see what one
    process sees. The last step may be smaller; it is filled up to a multiple of `world` from the epoch's beginning.
    With `weights` samples are drawn with replacement, in these proportions; without, each comes once.

    Lightning sets the epoch through `dataloader.batch_sampler.sampler.set_epoch`, so this is its own `sampler`.
    """

    def __init__(
        self, count: int, batch: int, seed: int, weights: Sequence[float] | None = None, rank: int = 0, world: int = 1
    ) -> None:
        self.count, self.batch, self.seed, self.weights = count, batch, seed, weights
        self.rank, self.world = rank, world
        self.sampler = self
        self.epoch = 0
        self.start = 0  # the first batch that the next iteration gives out

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch; Lightning calls this before each."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.count // (self.batch * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        start, self.start = self.start, 0  # only the epoch that a resume lands in begins in its middle
        rng = np.random.default_rng([self.seed, self.epoch])
        if self.weights is None:
            order = rng.permutation(self.count)
        else:
            order = rng.choice(self.count, self.count, p=self.weights)
        order = np.concatenate([order, np.resize(order, -self.count % self.world)])
        step = self.batch * self.world
        for at in range(start * step, len(order), step):
            together = order[at : at + step]
            share = len(together) // self.world
            yield [(int(i), self.epoch) for i in together[self.rank * share : (self.rank + 1) * share]]


class ResumableLoader(DataLoader[Any]):
    """A loader that continues in the middle of an epoch; Lightning stores its state in the checkpoint."""

    def __init__(self, dataset: Any, batches: PlannedBatches, workers: int) -> None:
        super().__init__(
            dataset,
            batch_sampler=batches,
            num_workers=workers,
            persistent_workers=workers > 0,
            # Fork would inherit PyTorch's threads in a state that can hang; workers of a forkserver outlive a run
            # that is killed, since they watch the server instead of the run.
            multiprocessing_context="spawn" if workers else None,
        )
        self.batches = batches
        self.given = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        # A generator: nothing happens before the first batch is asked for, when Lightning has set the epoch.
        self.given = self.batches.start
        for batch in super().__iter__():
            self.given += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return how many batches of the epoch were given out; those that workers have ready do not count."""
        return {"given": self.given}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on after that many batches."""
        self.batches.start = state["given"] % len(self.batches)
