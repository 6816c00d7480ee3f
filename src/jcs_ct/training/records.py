"""What a run leaves behind while it goes: the table, curves, sample predictions, the last checkpoint, the best weights.

Everything is written whole, and everything that must survive a crash is part of the checkpoint, so that after a resume
the table has each line once.
"""

from __future__ import annotations

import csv
import io
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.plugins import TorchCheckpointIO

from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import whole_file, write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.training.module import TrainingModule

COLUMNS = (
    "epoch",
    "step",
    "lr",
    "train_loss",
    "val_loss",
    "val_score",
    "seconds",
    "slices_per_second",
    "waiting_share",
)


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole or not at all, written beside the last one (Lightning's go through /tmp)."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, **_options: Any) -> None:
        """Write one. Raises OutputError when the disk refuses; the last one stays."""
        with whole_file(Path(path), overwrite=True) as part, part.open("wb") as file:
            try:
                torch.save(checkpoint, file)
            except RuntimeError as error:  # what torch makes of an OSError
                raise OutputError("cannot be written", path=path, hint="check the disk; then --resume") from error


class Records(L.Callback):
    """Writes `metrics.csv`, `curves.png`, `last.ckpt`, and calls back when the validation score is the best so far.

    Args:
        folder: Of the run.
        every: Steps between checkpoints; 0: at the end of each epoch only.
        score: Makes the score of an epoch from the outcomes of its validation (see `TrainingModule.outcomes`).
        score_name: What it is called.
        best: Called with the module, the score and the epoch when there is a new best; without validation after each
            epoch.
        looked: Called with the module and the epoch after each validation, for sample predictions.
        say: Where to say what an epoch gave.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        score: Callable[[list[tuple[float, float, float]]], float],
        score_name: str,
        best: Callable[[TrainingModule, float, int], None],
        looked: Callable[[TrainingModule, int], None],
        say: Callable[[str], None],
    ) -> None:
        self.folder, self.every, self.score, self.score_name = folder, every, score, score_name
        self.best, self.looked, self.say = best, looked, say
        self.rows: list[dict[str, float]] = []
        self.highest = -math.inf
        self.total, self.count, self.seconds, self.waited, self.slices = 0.0, 0, 0.0, 0.0, 0
        self._mark, self._lr = time.perf_counter(), 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive."""
        names = ("rows", "highest", "total", "count", "seconds", "waited", "slices")
        return {name: getattr(self, name) for name in names}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        for name, value in state_dict.items():
            setattr(self, name, value)

    def on_train_epoch_start(self, _trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Start the clock; sums of an epoch that goes on after a resume are kept."""
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, _module: L.LightningModule, _batch: Any, _index: int) -> None:
        """Count the time since the last step ended as waiting for data."""
        self.waited += time.perf_counter() - self._mark
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, _module: L.LightningModule, outputs: Any, batch: Any, _index: int
    ) -> None:
        """Add up the step; write a checkpoint now and then.

        Not after an epoch's last step: Lightning would go on from there without validation and without its line.
        """
        self.total += float(outputs["loss"])
        self.count += 1
        self.slices += len(batch["label"]) * trainer.world_size
        now = time.perf_counter()
        self.seconds += now - self._mark
        self._mark = now
        if self.every and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self.checkpoint(trainer)
            self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the epoch: a line of the table, the curves, the best weights, a checkpoint. After validation."""
        module: Any = pl_module
        epoch = trainer.current_epoch
        row: dict[str, float] = {
            "epoch": epoch + 1,
            "step": trainer.global_step,
            "lr": self._lr,
            "train_loss": float(_mean(self.total / max(1, self.count), trainer)),
            "seconds": self.seconds,
            "slices_per_second": self.slices / max(self.seconds, 1e-9),
            "waiting_share": self.waited / max(self.seconds, 1e-9),
        }
        outcomes = _gathered(module.outcomes, trainer)
        module.outcomes.clear()
        if outcomes:
            row["val_loss"] = sum(o[0] for o in outcomes) / len(outcomes)
            row["val_score"] = self.score(outcomes)
        self.rows.append(row)
        self.total, self.count, self.seconds, self.waited, self.slices = 0.0, 0, 0.0, 0.0, 0
        if trainer.is_global_zero:
            self._write(module, row, epoch)
        self.checkpoint(trainer)

    def _write(self, module: TrainingModule, row: dict[str, float], epoch: int) -> None:
        from jcs_ct.outputs.curves import training_curves

        text = io.StringIO()
        table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows({k: f"{v:.8g}" for k, v in r.items()} for r in self.rows)
        write_whole(self.folder / "metrics.csv", text.getvalue().encode(), overwrite=True)
        if module.logger is not None:
            module.logger.log_metrics({k: v for k, v in row.items() if k not in ("epoch", "step")}, step=epoch + 1)
        title = f"{module.config.network} · {module.config.recipe} recipe"
        write_whole(self.folder / "curves.png", training_curves(self.rows, self.score_name, title), overwrite=True)
        score = row.get("val_score", math.nan)
        scored = f", validation {self.score_name} {score:.4f}" if "val_score" in row else ""
        self.say(f"epoch {epoch + 1} of {module.config.epochs}: loss {row['train_loss']:.4f}{scored}")
        if "val_score" in row:
            self.looked(module, epoch + 1)
        # A score that the data leave undefined (NaN) is no reason to keep the first epoch's weights.
        if math.isnan(score) or score > self.highest:
            if not math.isnan(score) or self.highest == -math.inf:
                self.best(module, score, epoch + 1)
            self.highest = self.highest if math.isnan(score) else score

    def checkpoint(self, trainer: L.Trainer) -> None:
        """Write `last.ckpt`, with everything that a resumed run needs.

        Only the first process writes, so the sum of the losses must be that of all of them by then.
        """
        self.total = _mean(self.total, trainer)
        trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)


def _mean(value: float, trainer: L.Trainer) -> float:
    if trainer.world_size == 1:
        return value
    reduced: Any = trainer.strategy.reduce(torch.tensor(value, device=trainer.strategy.root_device), reduce_op="mean")
    return float(reduced)


def _gathered(outcomes: list[tuple[float, float, float]], trainer: L.Trainer) -> list[tuple[float, float, float]]:
    if trainer.world_size == 1:
        return list(outcomes)
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, list(outcomes))
    return [outcome for part in parts for outcome in part]
