"""What a run leaves behind while it goes: the table, curves, sample predictions, the last checkpoint, the best weights.

Everything is written whole, and everything that must survive a crash is part of the checkpoint, so that after a resume
the table has each line once.
"""

from __future__ import annotations

import csv
import io
import math
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins import TorchCheckpointIO

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.core.whole_files import whole_file, write_whole
from jcs_ct.datasets.samples import numbered, stem_of
from jcs_ct.datasets.slices import pixels_of
from jcs_ct.imaging.recipes import prepare, recipe, restore
from jcs_ct.io.files.names import safe_name
from jcs_ct.models import model_spec
from jcs_ct.training.fingerprint import compare_checkpoint
from jcs_ct.training.outlook import UNDEFINED
from jcs_ct.training.result import run_card
from jcs_ct.training.samples import validation_loader
from jcs_ct.training.scores import NAMES, Score, Validation, together
from jcs_ct.training.start import BEST, LAST
from jcs_ct.weights import load, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.datasets.unpacked import UnpackedSlices
    from jcs_ct.training.config import TrainConfig
    from jcs_ct.training.fingerprint import Fingerprint
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
_ANEW = "start a new run in another folder; --init with best.safetensors starts from what was learned"
_HELD = ("state_dict", "optimizer_states", "loops", "callbacks")


def trainer_of(out: Path, records: L.Callback, **settings: Any) -> L.Trainer:
    """Return Lightning's trainer of a run, which writes and shows what its records do, and nothing else."""
    return L.Trainer(
        callbacks=[records],
        plugins=[WholeCheckpoints(), LightningEnvironment()],  # and not what a scheduler's variables look like
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=out,
        **settings,
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


def check_checkpoint(path: Path, module: torch.nn.Module, callback: L.Callback, settled: Fingerprint) -> None:
    """Refuse a checkpoint that a run cannot go on from: of another network, other records, started on something else.

    PyTorch does not look at the checksums in it, so a byte that a disk has changed would become a weight.

    Raises:
        InputError: It is damaged, no checkpoint of a run of this package, or of another network.
        UsageError: As `compare_checkpoint`.
    """
    try:
        with zipfile.ZipFile(path) as packed:
            if packed.testzip() is not None:
                raise InputError("is damaged: a checksum in it is wrong", path=path, hint=_ANEW)
        held: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except InputError:
        raise
    except Exception as error:  # both libraries raise many kinds
        raise InputError("is damaged, or no checkpoint", path=path, hint=_ANEW) from error
    records = held.get("callbacks") if isinstance(held, dict) else None
    mine = records.get(callback.state_key) if isinstance(records, dict) else None
    if not isinstance(mine, dict) or any(name not in held for name in _HELD):
        raise InputError("is no checkpoint of such a run", path=path, hint=_ANEW)
    compare_checkpoint(mine.get("digest"), settled, path)
    if _shapes(held["state_dict"]) != _shapes(module.state_dict()):
        raise InputError("is a checkpoint of another network", path=path, hint=_ANEW)


def _shapes(tensors: Any) -> dict[str, Any]:
    return {name: getattr(tensor, "shape", None) for name, tensor in dict(tensors).items()}


class Records(L.Callback):
    """Writes `metrics.csv`, `curves.png`, `last.ckpt`, sample predictions, and `best.safetensors` where it is the best.

    Args:
        config: Of the run.
        folder: Of the run.
        settled: What the run is on.
        because: Why the validation score cannot be computed, as far as it is known; else "".
        held: The slices that it validates on.
        unpacked: Where those of volumes are found.
        progress: Where to say how far it is, and what an epoch gave.
    """

    def __init__(
        self,
        config: TrainConfig,
        folder: Path,
        settled: Fingerprint,
        because: str,
        held: Sequence[Sample],
        unpacked: UnpackedSlices,
        progress: Progress,
    ) -> None:
        self.config, self.folder, self.because, self.progress = config, folder, because, progress
        self.settled, self.digest = settled, settled.digest
        self.held, self.unpacked = held, unpacked
        self.spec = model_spec(config.network)
        self.name = NAMES[self.spec.task]  # of the score
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
        compare_checkpoint(digest, self.settled, self.folder / LAST)
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
            self.highest = self._again(module, self.highest.epoch)
        self.outdated = False

    def _again(self, module: TrainingModule, epoch: int) -> Score | None:
        if not (self.folder / BEST).is_file():
            return None
        tensors = load(self.folder / BEST)[0]
        batches = validation_loader(self.held, replace(self.config, devices=1), 0, self.unpacked)
        found = module.score_of(tensors, batches or (), epoch, self.because)
        self._keep(tensors, found)
        chosen = f"warning: best.safetensors (epoch {epoch}) was chosen before the change"
        self.progress.line(f"{chosen}; on what is here now: {found.words(self.name)}")
        return found

    def _keep(self, tensors: Mapping[str, Tensor], score: Score) -> None:
        """Write weights of the run with their card."""
        notes = (f"epoch {score.epoch}, {score.words(self.name)}", score.painting(), *self.settled.accepted)
        card = run_card(
            self.config.to_json(),
            self.folder,
            architecture=self.spec.name,
            recipe=self.config.recipe_name,
            classes=("lesion",) if self.spec.task == "segmentation" else ("no COVID-19", "COVID-19"),
            licence="that of the data it was trained on",
            notes=tuple(note for note in notes if note),
        )
        write(self.folder / BEST, tensors, card, overwrite=True)

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
        if self.config.every and trainer.global_step % self.config.every == 0 and not trainer.is_last_batch:
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
            row |= {"val_dice": score.dice, "val_marked": score.marked} if self.spec.task == "segmentation" else {}
        row |= {"because": score.because} if score.because else {}
        changes = len(self.settled.accepted)
        row |= {"accepted_changes": changes} if changes else {}
        self.rows.append(row)
        self.total, self.count, self.seconds, self.waited, self.slices = 0.0, 0, 0.0, 0.0, 0
        better = score.beats(self.highest)
        if trainer.is_global_zero:
            self._write(trainer, module, row, score)
            if better:
                self._keep(module.network.state_dict(), score)
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
        title = f"{self.config.network} · {self.config.recipe} recipe"
        curves = training_curves(self.rows, self.name, title, undefined)
        write_whole(self.folder / "curves.png", curves, overwrite=True)
        scored = "" if math.isnan(score.loss) else f", {score.words(self.name)}"
        epochs = trainer.max_epochs or 1
        ahead = self.progress.ahead(trainer.global_step, epochs * int(trainer.num_training_batches))
        self.progress.line(f"epoch {score.epoch} of {epochs}: loss {row['train_loss']:.4f}{scored}{ahead}")
        if not math.isnan(score.loss) and module.segments and self.config.inputs == "image":
            self._draw_panel(module, score.epoch)

    def _draw_panel(self, module: TrainingModule, epoch: int) -> None:
        """Write the first validation slices with what the network finds in them."""
        from jcs_ct.outputs.figures import lesion_overlay

        for sample in self.held[:3]:
            pixels, name = pixels_of(sample), numbered(stem_of(sample.path), sample.index)
            values, placement = prepare(pixels, recipe(self.config.recipe_name))
            with torch.inference_mode():
                logits = module.network(torch.from_numpy(values)[None].to(module.device))[0, 0]
            p = logits.sigmoid().float().cpu().numpy()
            picture = lesion_overlay(pixels, restore(p, placement), title=name, caption=f"epoch {epoch}")
            path = self.folder / "samples" / f"epoch_{epoch:03d}_{safe_name(name)}.png"
            write_whole(path, picture, overwrite=True)

    def checkpoint(self, trainer: L.Trainer) -> None:
        """Write `last.ckpt`, with everything that a resumed run needs.

        Only the first process writes, so the sum of the losses must be that of all of them by then.
        """
        self.total = _mean(self.total, trainer)
        trainer.save_checkpoint(self.folder / LAST, weights_only=False)


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
    lines = []
    for row in rows:
        cells = {k: "" if math.isnan(row[k]) else f"{row[k]:.8g}" for k in columns if k in row}
        if "val_score" in row and math.isnan(row["val_score"]):
            cells["val_score"] = f"{UNDEFINED} {row.get('because', '')}"
        if "accepted_changes" in columns:
            cells.setdefault("accepted_changes", "0")
        lines.append(cells)
    return csv_table(columns, lines)


def csv_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Return rows as CSV with a header."""
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue().encode()
