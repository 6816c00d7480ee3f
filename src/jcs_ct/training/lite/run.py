"""A training run of `jcs-lite` from its configuration to its folder. The loop and the checkpoints are Lightning's."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TextIO

import lightning as L
import torch

from jcs_ct.core.memory import reuse_freed_blocks
from jcs_ct.core.whole_files import write_whole
from jcs_ct.training.fingerprint import compare_checkpoint
from jcs_ct.training.lite.corpus import Corpus, divide, fingerprint_of, open_sets
from jcs_ct.training.lite.data import LiteSlices, LiteSteps
from jcs_ct.training.lite.encoder import load_imagenet
from jcs_ct.training.lite.initial import initial_weights
from jcs_ct.training.lite.module import LiteModule
from jcs_ct.training.lite.outlook import outlook_of, refuse_copies, with_lesions
from jcs_ct.training.lite.score import label, score, summary, table
from jcs_ct.training.messages import plain_errors, quiet_lightning
from jcs_ct.training.outlook import UNDEFINED
from jcs_ct.training.parts import resume_parts
from jcs_ct.training.progress import Progress
from jcs_ct.training.records import check_checkpoint, trainer_of
from jcs_ct.training.result import run_card
from jcs_ct.training.sampling import ResumableLoader
from jcs_ct.training.start import BEST, LAST, RESULT, check_folder, hold_folder, keep_hashes, record_start
from jcs_ct.weights import load, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.lite.config import LiteConfig
    from jcs_ct.weights import WeightsCard


@dataclass(frozen=True)
class LiteResult:
    """How a run ended.

    Attributes:
        steps: That it has done.
        scores: Of the held-out fold; empty without one.
        undefined: Score → why it cannot be computed.
        slices: To train on, held out.
        accepted: What was changed since its start and accepted, a line each time.
    """

    steps: int
    scores: Mapping[str, float]
    undefined: Mapping[str, str]
    slices: tuple[int, int]
    accepted: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return what to say at the end."""
        found = [f"{label(name)}: {value:.4f}" for name, value in self.scores.items()]
        found += [f"{label(name)}: {UNDEFINED} {why}" for name, why in self.undefined.items()]
        return [*(f"warning: {line}" for line in self.accepted), *found]

    def to_json(self) -> str:
        """Return it as JSON text."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> LiteResult | None:
        """Read what `to_json` wrote; None where there is nothing of the kind, for a run that is not finished."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            sizes = held["slices"][0], held["slices"][1]
            return cls(held["steps"], held["scores"], held["undefined"], sizes, tuple(held.get("accepted", ())))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None


class Journal(L.Callback):
    """Writes `metrics.csv` and `last.ckpt` every `every` steps of the run that is on `settled`; says how far it is."""

    def __init__(self, folder: Path, every: int, settled: Fingerprint, progress: Progress) -> None:
        self.folder, self.every, self.settled, self.progress = folder, every, settled, progress
        self.digest = settled.digest
        self.rows: list[tuple[int, float, float]] = []
        self.total, self.count, self.mark = 0.0, 0, 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive."""
        return {"rows": self.rows, "digest": self.digest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take it back. Raises UsageError where the checkpoint is one of another run."""
        compare_checkpoint(state_dict.get("digest"), self.settled, self.folder / LAST)
        self.rows = [tuple(row) for row in state_dict["rows"]]

    def on_train_start(self, trainer: L.Trainer, _module: Any) -> None:
        """Start the clocks."""
        self.mark = time.perf_counter()
        self.progress.start(trainer.global_step)

    def on_train_batch_end(self, trainer: L.Trainer, _module: Any, outputs: Any, *_args: Any) -> None:
        """Add up the step; write now and then."""
        loss, step, total = float(outputs["loss"]), trainer.global_step, trainer.max_steps
        self.total, self.count = self.total + loss, self.count + 1
        if step % self.every and step < total:
            self.progress.step(f"step {step} of {total}", loss, step, total)
            return
        now = time.perf_counter()
        self.rows.append((step, self.total / self.count, now - self.mark))
        ahead = self.progress.ahead(step, total)
        self.progress.line(f"step {step} of {total}: loss {self.total / self.count:.4f}{ahead}")
        self.total, self.count, self.mark = 0.0, 0, now
        lines = "".join(f"{step},{loss:.6f},{seconds:.1f}\n" for step, loss, seconds in self.rows)
        write_whole(self.folder / "metrics.csv", f"step,train_loss,seconds\n{lines}".encode(), overwrite=True)
        trainer.save_checkpoint(self.folder / LAST, weights_only=False)


def train(
    config: LiteConfig,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
    progress: TextIO | None = None,
    accept: bool = False,
) -> LiteResult:
    """Train, write the averaged weights, and return the scores on the held-out fold.

    The arguments are those of `jcs_ct.training.run.train`; a finished run that has more steps now becomes longer.

    Raises:
        JcsError: As `hold_folder`, `check_folder`, `divide`, `with_lesions`, `outlook_of`, `compare_with_start` and
            `load_imagenet`; what stops a run in its middle.
    """
    with hold_folder(out, config.threads):
        return _train(config, out, Progress(say, progress), resume=resume, accept=accept)


def _train(config: LiteConfig, out: Path, progress: Progress, *, resume: bool, accept: bool) -> LiteResult:
    last, say = out / LAST, progress.line
    check_folder(out, LAST, resume=resume, holds=(LAST, BEST))
    datasets = open_sets(config, divided=config.fold is not None)
    corpus = divide(config, datasets)
    say(
        f"to train on: {len(corpus.lesions)} slices with lesion masks, {len(corpus.quiet)} without lesions, "
        f"{len(corpus.labelled)} with labels; held out: {len(corpus.held)}"
    )
    now = fingerprint_of(config, corpus, datasets)
    refuse_copies(config, now)
    if resume:
        now, *parts = resume_parts(out, now, corpus.samples, corpus.held, accept=accept, say=say)
        corpus = Corpus(*parts)
    slices = LiteSlices(corpus.samples, config.seed, round(config.coarse * config.steps))
    if warning := slices.memory_warning():
        say(warning)
    seen = outlook_of(config, corpus, with_lesions(corpus.samples, slices.pixels) | with_lesions(corpus.held))
    say("all slices are read")
    for warning in seen.warnings:
        say(warning)
    reuse_freed_blocks()
    torch.manual_seed(config.seed)
    module = LiteModule(config)
    if not resume:
        if config.init:
            module.network.load_state_dict(floats(load(initial_weights(config, now))[0]))
        else:
            load_imagenet(module.network.encoder)
        module.average.module.load_state_dict(module.network.state_dict())
    sizes = len(corpus.samples), len(corpus.held)
    journal = Journal(out, config.every, now, progress)
    if resume:
        check_checkpoint(last, module, journal, now)
    record_start(config.to_json(), out, now, sizes)
    steps: Any = LiteSteps(corpus, config)
    with plain_errors(), quiet_lightning():
        trainer = trainer_of(
            out, journal, accelerator="cpu", max_steps=config.steps, logger=False, gradient_clip_val=5.0
        )
        try:
            loader = ResumableLoader(slices, steps, workers=0)
            trainer.fit(module, loader, ckpt_path=last if resume else None, weights_only=True)
        finally:
            progress.clear()
    network: Any = module.average.module.eval()
    held = [s for s in corpus.held if config.labelled or s.mask is not None or s.empty]
    rows = list(score(network, held))  # where labels teach nothing, slices with a label alone tell nothing
    scores = summary(rows) if rows else {}
    if rows:
        write_whole(out / "held_out.csv", table(rows), overwrite=True)
        write_whole(out / "scores.json", (json.dumps(scores, indent=2) + "\n").encode(), overwrite=True)
    keep_hashes(out / BEST, corpus.samples)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}  # not channels-last
    notes = (*seen.lacking, *now.accepted)
    write(out / BEST, tensors, card_of(config, out, scores, notes), overwrite=True)
    # Last, since its presence says that the run is finished.
    result = LiteResult(config.steps, scores, seen.undefined, sizes, now.accepted)
    write_whole(out / RESULT, result.to_json().encode(), overwrite=True)
    return result


def floats(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return tensors in single precision; shipped weights are stored in half."""
    return {name: t.float() if t.is_floating_point() else t for name, t in tensors.items()}


def card_of(config: LiteConfig, out: Path, scores: Mapping[str, float], notes: Sequence[str]) -> WeightsCard:
    """Return the card of weights of the run."""
    return run_card(
        config.to_json(),
        out,
        architecture="jcs-lite",
        recipe="lung-field",
        classes=("COVID-19", "lesion"),
        licence="research use: that of the data it was trained on",
        notes=(*(f"held out, {label(name)}: {value:.3f}" for name, value in scores.items()), *notes),
        covid_threshold=0.5,
        mirror=True,
    )
