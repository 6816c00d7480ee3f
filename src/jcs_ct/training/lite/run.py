"""A training run of `jcs-lite` from its configuration to its folder. The loop and the checkpoints are Lightning's."""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import lightning as L
import torch

from jcs_ct import __version__
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.core.memory import keep_freed
from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.hashes import keep_hashes
from jcs_ct.training.lite.data import LiteSlices, LiteSteps, divide
from jcs_ct.training.lite.encoder import load_imagenet
from jcs_ct.training.lite.module import LiteModule
from jcs_ct.training.lite.score import score, summary, table
from jcs_ct.training.manners import plain_errors, quiet_lightning
from jcs_ct.training.order import ResumableLoader
from jcs_ct.training.records import WholeCheckpoints
from jcs_ct.weights import WeightsCard, load, write

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jcs_ct.training.lite.config import LiteConfig


class Journal(L.Callback):
    """Writes `metrics.csv` and `last.ckpt` every `every` steps."""

    def __init__(self, folder: Path, every: int, say: Callable[[str], None]) -> None:
        self.folder, self.every, self.say = folder, every, say
        self.rows: list[tuple[int, float, float]] = []
        self.total, self.count, self.seconds, self.mark = 0.0, 0, 0.0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back."""
        self.rows = [tuple(row) for row in state_dict["rows"]]

    def on_train_start(self, *_args: Any) -> None:
        """Start the clock."""
        self.mark = time.perf_counter()

    def on_train_batch_end(self, trainer: L.Trainer, _module: Any, outputs: Any, *_args: Any) -> None:
        """Add up the step; write now and then."""
        self.total, self.count = self.total + float(outputs["loss"]), self.count + 1
        if trainer.global_step % self.every and trainer.global_step < trainer.max_steps:
            return
        now = time.perf_counter()
        self.rows.append((trainer.global_step, self.total / self.count, now - self.mark))
        self.say(f"step {trainer.global_step} of {trainer.max_steps}: loss {self.total / self.count:.4f}")
        self.total, self.count, self.mark = 0.0, 0, now
        lines = "".join(f"{step},{loss:.6f},{seconds:.1f}\n" for step, loss, seconds in self.rows)
        write_whole(self.folder / "metrics.csv", f"step,train_loss,seconds\n{lines}".encode(), overwrite=True)
        if trainer.global_step < trainer.max_steps:
            trainer.save_checkpoint(self.folder / "last.ckpt", weights_only=False)


def train(config: LiteConfig, out: Path, *, resume: bool, say: Callable[[str], None]) -> dict[str, float]:
    """Train, write the averaged weights, and return the scores on the held-out fold (empty without one).

    Args:
        config: Of the run.
        out: Its folder.
        resume: Go on from `last.ckpt`.
        say: Where to say what happens.

    Raises:
        JcsError: As `divide` and `load_imagenet`; the folder holds another run, or nothing to resume.
    """
    last = out / "last.ckpt"
    if resume and not last.is_file():
        raise InputError("has no last.ckpt to go on from", path=out, hint="start it without --resume")
    if not resume and (out / "config.json").exists():
        raise OutputError("holds a run already", path=out, hint="--resume goes on with it; or give another folder")
    corpus = divide(config)
    if not corpus.samples:
        raise UsageError("nothing is left to train on", path=config.data[0])
    say(
        f"to train on: {len(corpus.lesions)} slices with lesion masks, {len(corpus.quiet)} without lesions, "
        f"{len(corpus.labelled)} with labels; held out: {len(corpus.held)}"
    )
    if config.threads:
        torch.set_num_threads(config.threads)
    keep_freed()
    torch.manual_seed(config.seed)
    module = LiteModule(config)
    if not resume:
        if config.init:
            module.network.load_state_dict(floats(load(config.init)[0]))
        else:
            load_imagenet(module.network.encoder)
        module.average.module.load_state_dict(module.network.state_dict())
        write_whole(out / "config.json", config.to_json().encode())
    steps: Any = LiteSteps(corpus, config)
    slices = LiteSlices(corpus.samples, config.seed, round(config.coarse * config.steps))
    slices.preload()
    say("all slices are read")
    loader = ResumableLoader(slices, steps, workers=0)
    with plain_errors(), quiet_lightning():
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=config.steps,
            callbacks=[Journal(out, config.every, say)],
            plugins=[WholeCheckpoints()],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            gradient_clip_val=5.0,
            default_root_dir=out,
        )
        trainer.fit(module, loader, ckpt_path=last if resume else None, weights_only=True)
    network: Any = module.average.module.eval()
    rows = list(score(network, corpus.held))
    scores = summary(rows) if rows else {}
    if rows:
        write_whole(out / "held_out.csv", table(rows), overwrite=True)
        write_whole(out / "scores.json", (json.dumps(scores, indent=2) + "\n").encode(), overwrite=True)
    keep_hashes(out / "best.safetensors", corpus.samples)
    # Last, since its presence says that the run is finished.
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}  # not channels-last
    write(out / "best.safetensors", tensors, card_of(config, out, scores), overwrite=True)
    return scores


def floats(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors in single precision; shipped weights are stored in half."""
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def card_of(config: LiteConfig, out: Path, scores: dict[str, float]) -> WeightsCard:
    """Return the card of weights of the run."""
    return WeightsCard(
        name=out.resolve().name,
        architecture="jcs-lite",
        source_file="config.json",
        source_kind="training run",
        source_sha256=hashlib.sha256(config.to_json().encode()).hexdigest(),
        source_url=None,
        weights_sha256="0" * 64,
        imported_at="",
        jcs_ct_version=__version__,
        recipe="lung-field",
        classes=("COVID-19", "lesion"),
        threshold=0.5,
        threshold_from="not tuned",
        licence="research use: that of the data it was trained on",
        citation="",
        bn_eps_folded=0.0,
        notes=tuple(f"held-out {name.replace('_', ' ')}: {value:.3f}" for name, value in scores.items()),
        covid_threshold=0.5,
        mirror=True,
    )
