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

from jcs_ct.core.duration import duration
from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import whole_file, write_whole
from jcs_ct.training.outlook import UNDEFINED
from jcs_ct.training.scores import NAMES, Score, Validation, together

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from jcs_ct.training.module import TrainingModule
    from jcs_ct.training.progress import Progress

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
    "val_dice",
    "val_marked",
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
        task: "segmentation" or "classification", which says what the score is (see `jcs_ct.training.scores`).
        because: Why the validation score cannot be computed, as far as it is known; else "".
        known: Checks the digest of what the run was started on that a checkpoint holds (None: it holds none).
        digest: Of what it goes on with.
        changes: How many changes of what it was started on were accepted.
        again: Called with the module and the score of the best weights where they were chosen on something else than
            the run goes on with; returns their score on what it goes on with (None: there are none any more).
        best: Called with the module and the score when there is a new best; without validation after each epoch.
        draw_panel: Called with the module and the epoch after each validation, for sample predictions.
        progress: Where to say how far it is, and what an epoch gave.
    """

    def __init__(
        self,
        folder: Path,
        every: int,
        task: str,
        because: str,
        digest: str,
        known: Callable[[str | None], None],
        changes: int,
        again: Callable[[TrainingModule, Score], Score | None],
        best: Callable[[TrainingModule, Score], None],
        draw_panel: Callable[[TrainingModule, int], None],
        progress: Progress,
    ) -> None:
        self.folder, self.every, self.task, self.because = folder, every, task, because
        self.digest, self.known, self.changes, self.again = digest, known, changes, again
        self.best, self.draw_panel, self.progress = best, draw_panel, progress
        self.rows: list[dict[str, Any]] = []
        self.highest: Score | None = None
        self.outdated = False  # the best weights were chosen on something else
        self.total, self.count, self.seconds, self.waited, self.slices = 0.0, 0, 0.0, 0.0, 0
        self._mark, self._lr = time.perf_counter(), 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive."""
        names = ("rows", "total", "count", "seconds", "waited", "slices", "digest")
        held = {name: getattr(self, name) for name in names}
        return held | {"highest": None if self.highest is None else self.highest.facts()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back. Raises UsageError where the checkpoint is one of another run."""
        held = dict(state_dict)
        digest = held.pop("digest", None)
        self.known(digest)
        self.outdated = digest != self.digest
        highest = held.pop("highest", None)
        self.highest = Score.from_facts(highest) if isinstance(highest, dict) else None
        for name, value in held.items():
            setattr(self, name, value)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock of the time that is left."""
        self.settle(trainer, pl_module)
        self.progress.start(trainer.global_step)

    def settle(self, trainer: L.Trainer, module: Any) -> None:
        """Have the best weights scored on what the run goes on with, where they were chosen on something else.

        Only the first process writes weights, and so needs to know which are best.
        """
        if self.outdated and self.highest is not None and trainer.is_global_zero:
            self.highest = self.again(module, self.highest)
        self.outdated = False

    def on_train_epoch_start(self, _trainer: L.Trainer, _module: L.LightningModule) -> None:
        """Start the clock; sums of an epoch that goes on after a resume are kept."""
        self._mark = time.perf_counter()

    def on_train_batch_start(self, trainer: L.Trainer, _module: L.LightningModule, _batch: Any, _index: int) -> None:
        """Count the time since the last step ended as waiting for data."""
        self.waited += time.perf_counter() - self._mark
        self._lr = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: L.Trainer, _module: L.LightningModule, outputs: Any, batch: Any, index: int
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
        if trainer.is_global_zero:
            epochs, steps = trainer.max_epochs or 1, int(trainer.num_training_batches)
            where = f"epoch {trainer.current_epoch + 1} of {epochs}, step {index + 1} of {steps}"
            self.progress.step(where, float(outputs["loss"]), trainer.global_step, epochs * steps)
        if self.every and trainer.global_step % self.every == 0 and not trainer.is_last_batch:
            self.checkpoint(trainer)
            self._mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Close the epoch: a line of the table, the curves, the best weights, a checkpoint. After validation."""
        module: Any = pl_module
        epoch = trainer.current_epoch
        row: dict[str, Any] = {
            "epoch": epoch + 1,
            "step": trainer.global_step,
            "lr": self._lr,
            "train_loss": float(_mean(self.total / max(1, self.count), trainer)),
            "seconds": self.seconds,
            "slices_per_second": self.slices / max(self.seconds, 1e-9),
            "waiting_share": self.waited / max(self.seconds, 1e-9),
        }
        score = _gathered(module.validation, trainer).score(epoch + 1, self.because)
        module.validation = Validation()
        if not math.isnan(score.loss):
            row |= {"val_loss": score.loss, "val_score": score.value}
            row |= {"val_dice": score.dice, "val_marked": score.marked} if self.task == "segmentation" else {}
        row |= {"because": score.because} if score.because else {}
        row |= {"accepted_changes": self.changes} if self.changes else {}
        self.rows.append(row)
        self.total, self.count, self.seconds, self.waited, self.slices = 0.0, 0, 0.0, 0.0, 0
        better = score.beats(self.highest)
        if trainer.is_global_zero:
            self._write(trainer, module, row, score)
            if better:
                self.best(module, score)
        if better:
            self.highest = score
        self.checkpoint(trainer)

    def _write(self, trainer: L.Trainer, module: TrainingModule, row: dict[str, Any], score: Score) -> None:
        from jcs_ct.outputs.plots import training_curves

        undefined = f"{UNDEFINED} {score.because}" if score.because else ""
        write_whole(self.folder / "metrics.csv", table_of(self.rows), overwrite=True)
        if module.logger is not None:
            known = {k: row[k] for k in COLUMNS[2:] if k in row and not math.isnan(row[k])}
            module.logger.log_metrics(known, step=score.epoch)
        title, name = f"{module.config.network} · {module.config.recipe} recipe", NAMES[self.task]
        write_whole(self.folder / "curves.png", training_curves(self.rows, name, title, undefined), overwrite=True)
        scored = "" if math.isnan(score.loss) else f", {score.words(name)}"
        epochs = trainer.max_epochs or 1
        left = self.progress.left(trainer.global_step, epochs * int(trainer.num_training_batches))
        ahead = f"; {duration(left)} left" if left and score.epoch < epochs else ""
        self.progress.line(f"epoch {score.epoch} of {epochs}: loss {row['train_loss']:.4f}{scored}{ahead}")
        if not math.isnan(score.loss):
            self.draw_panel(module, score.epoch)

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


def _gathered(validation: Validation, trainer: L.Trainer) -> Validation:
    if trainer.world_size == 1:
        return validation
    parts: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(parts, validation)
    return together(parts)


def table_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the table of the epochs; a score that is not defined says why.

    Once changed data were accepted, a column more says how many changes there were before an epoch: scores of rows with
    unequal numbers are of different slices.
    """
    columns = (*COLUMNS, *(["accepted_changes"] if any("accepted_changes" in row for row in rows) else []))
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    for row in rows:
        cells = {k: "" if math.isnan(row[k]) else f"{row[k]:.8g}" for k in columns if k in row}
        if "val_score" in row and math.isnan(row["val_score"]):
            cells["val_score"] = f"{UNDEFINED} {row.get('because', '')}"
        if "accepted_changes" in columns:
            cells.setdefault("accepted_changes", "0")
        table.writerow(cells)
    return text.getvalue().encode()
