"""A training run from its configuration to its folder: data, network, Lightning's trainer, records, resume."""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import DDPStrategy

from jcs_ct.core.errors import UsageError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.unpacked import UnpackedSlices
from jcs_ct.models import MODELS
from jcs_ct.training.again import score_of
from jcs_ct.training.checkpoint import check_checkpoint
from jcs_ct.training.fingerprint import Fingerprint, compare_checkpoint
from jcs_ct.training.hashes import keep_hashes
from jcs_ct.training.messages import plain_errors, quiet_lightning
from jcs_ct.training.module import TrainingModule, initialise
from jcs_ct.training.outlook import Outlook
from jcs_ct.training.parts import fingerprint_of, parts_of, resume_parts, verify
from jcs_ct.training.progress import Progress
from jcs_ct.training.records import Records, WholeCheckpoints
from jcs_ct.training.result import Result, run_card
from jcs_ct.training.samples import SliceDataset
from jcs_ct.training.sampling import PlannedBatches, ResumableLoader, balanced_weights
from jcs_ct.training.scores import NAMES, Score
from jcs_ct.training.shared_memory import check_shared_memory
from jcs_ct.training.start import LAST, RESULT, check_folder, hold_folder, record_start
from jcs_ct.training.step_memory import memory_warning
from jcs_ct.weights import load, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.training.config import TrainConfig
    from jcs_ct.weights import WeightsCard


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
    progress: TextIO | None = None,
    accept: bool = False,
) -> Result:
    """Train, and return how it went.

    Args:
        config: Of the run.
        out: Its folder.
        resume: Go on from `last.ckpt`.
        say: Where to say what happens.
        progress: A terminal, to write a line over and over on; None: a line once a minute.
        accept: Go on where the data, the settings or the versions are not what they were; the card will say so.

    Raises:
        JcsError: As `hold_folder`, `check_folder`, `parts_of`, `verify`, `check_shared_memory`, `compare_with_start`,
            `initialise`;
            what stops a run in its middle (a full disk, a killed worker, a loss of NaN).
    """
    with hold_folder(out, config.threads, config.devices) as here, ExitStack() as until_the_end:
        progress_lines = Progress(say, progress)
        return _train(config, out, here.rank, progress_lines, until_the_end, resume=resume, accept=accept)


def _train(
    config: TrainConfig,
    out: Path,
    rank: int,
    progress: Progress,
    until_the_end: ExitStack,
    *,
    resume: bool,
    accept: bool,
) -> Result:
    # A further process is silent: the first one has read and said everything before it started the others.
    last, say = out / LAST, _nothing if rank else progress.line
    check_folder(out, LAST, resume=resume, holds=() if rank else (LAST,))
    dataset, training, held = parts_of(config)
    say(f"{config.network}: {len(training)} slices to train on, {len(held)} to validate on ({dataset.layout})")
    outlook = verify(config, dataset, training, held) if rank == 0 else Outlook()
    if outlook.undefined:
        say(outlook.warning)
    # A further process needs it for the order of the slices alone.
    now = fingerprint_of(config, dataset, training, held) if resume or not rank else Fingerprint((), {}, {})
    if resume:
        now, training, held = resume_parts(out, now, training, held, accept=accept or rank > 0, say=say)
    unpacked = until_the_end.enter_context(
        closing(
            UnpackedSlices([*training, *held], out / f"slices_{rank}.tmp")
        )  # of volumes; pictures stay where they are
    )
    data = SliceDataset(training, config, train=True, unpacked=unpacked)
    if rank == 0 and config.workers:
        check_shared_memory(data[0], config.batch, config.workers, config.devices)
    if rank == 0 and (warning := memory_warning(config, data[0])):
        say(warning)
    if rank == 0:
        keep_hashes(out / "best.safetensors", training)

    torch.manual_seed(config.seed)
    weights = balanced_weights(training) if config.balance else None
    batches = PlannedBatches(len(training), config.batch, config.seed, weights, rank, config.devices)
    module = TrainingModule(config, len(batches), class_weights(training) if config.class_weights else None)
    for name in () if resume else config.init:
        tensors, card = load(name)
        count = initialise(module.network, config.network, card.architecture, tensors)
        say(f"{count} tensors from {card.name}")
    if not config.init and not resume:
        say("note: starts from random values; --init takes ImageNet backbones or other weights")
    frozen = module.apply_freezing()
    if frozen:
        say(f"{len(frozen)} parameters are frozen")
    task = MODELS[config.network].task

    def best(trained: TrainingModule, score: Score) -> None:
        card = card_of(config, out, score, NAMES[task], now.accepted)
        write(out / "best.safetensors", trained.network.state_dict(), card, overwrite=True)

    def again(trained: TrainingModule, score: Score) -> Score | None:
        path = out / "best.safetensors"
        if not path.is_file():
            return None
        tensors, every = load(path)[0], validation_loader(held, replace(config, devices=1), 0, unpacked)
        found = score_of(tensors, trained, every or (), score.epoch, outlook.undefined)
        write(path, tensors, card_of(config, out, found, NAMES[task], now.accepted), overwrite=True)
        chosen = f"warning: best.safetensors (epoch {found.epoch}) was chosen before the change"
        say(f"{chosen}; on what is here now: {found.words(NAMES[task])}")
        return found

    def draw_panel(trained: TrainingModule, epoch: int) -> None:
        _draw_panel(trained, held, out, epoch)

    def known(digest: str | None) -> None:
        compare_checkpoint(digest, now, last)

    records = Records(
        out,
        config.every,
        task,
        outlook.undefined,
        now.digest,
        known,
        len(now.accepted),
        again,
        best,
        draw_panel,
        progress,
    )
    if resume:
        check_checkpoint(last, module, records, known)
    if rank == 0:
        record_start(config.to_json(), out, now, (len(training), len(held)))
    loader = ResumableLoader(data, batches, config.workers)
    checked = validation_loader(held, config, rank, unpacked)
    with plain_errors(), quiet_lightning():
        trainer = L.Trainer(
            accelerator=config.accelerator,
            devices=config.devices,
            # Buffers are frozen statistics, the same everywhere. Sending them with each forward pass would wait for
            # ever when one process has more slices to validate than another.
            strategy=DDPStrategy(broadcast_buffers=False) if config.devices > 1 else "auto",
            precision=config.precision,
            max_epochs=config.epochs,
            callbacks=[records],
            plugins=[WholeCheckpoints(), LightningEnvironment()],  # and not what a scheduler's variables look like
            logger=_logger(out),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            deterministic="warn",  # some layers have no deterministic form on a GPU; on a CPU all are
            default_root_dir=out,
        )
        try:
            trainer.fit(module, loader, checked, ckpt_path=last if resume else None, weights_only=True)
            records.settle(trainer, module)  # of a run that had nothing left to do
        finally:
            progress.clear()
    sizes = len(training), len(held)
    result = Result(config.epochs, records.highest or Score(), NAMES[task], sizes, now.accepted)
    if rank == 0:
        write_whole(out / RESULT, result.to_json().encode(), overwrite=True)
    return result


def _nothing(_text: str) -> None:
    """Say nothing."""


def validation_loader(
    held: Sequence[Sample], config: TrainConfig, rank: int, unpacked: UnpackedSlices
) -> torch.utils.data.DataLoader[Any] | None:
    """Return the validation slices of one process: every `devices`-th, none twice; read in this process."""
    if not held:
        return None
    dataset = SliceDataset(held[rank :: config.devices], config, train=False, unpacked=unpacked)
    return torch.utils.data.DataLoader(dataset, batch_size=config.batch)


def class_weights(samples: Sequence[Sample]) -> list[float]:
    """Return the weights of the two classes: by their rarity, 1 on average. Raises UsageError for one class."""
    counts = [sum(s.label == label for s in samples) for label in (0, 1)]
    if not all(counts):
        raise UsageError(f"the training part holds {counts[0]} slices without and {counts[1]} with COVID-19: one class")
    return [len(samples) / (2 * count) for count in counts]


def _logger(out: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir=out, name="", version="tensorboard")


def _draw_panel(module: TrainingModule, held: Sequence[Sample], out: Path, epoch: int) -> None:
    """Write the first validation slices with what the network finds in them (pictures only)."""
    from jcs_ct.datasets.samples import numbered, stem_of
    from jcs_ct.datasets.slices import pixels_of
    from jcs_ct.imaging.recipes import prepare, restore
    from jcs_ct.io.files.names import safe_name
    from jcs_ct.outputs.figures import lesion_overlay

    if module.config.inputs == "features" or not module.segments:
        return
    how = SliceDataset(held, module.config, train=False).how
    for sample in held[:3]:
        pixels, name = pixels_of(sample), numbered(stem_of(sample.path), sample.index)
        values, placement = prepare(pixels, how)
        with torch.inference_mode():
            p = module.network(torch.from_numpy(values)[None].to(module.device))[0, 0].sigmoid().float().cpu().numpy()
        picture = lesion_overlay(pixels, restore(p, placement), title=name, caption=f"epoch {epoch}")
        write_whole(out / "samples" / f"epoch_{epoch:03d}_{safe_name(name)}.png", picture, overwrite=True)


def card_of(config: TrainConfig, out: Path, score: Score, name: str, accepted: Sequence[str]) -> WeightsCard:
    """Return the card of weights of the run."""
    spec = MODELS[config.network]
    notes = (f"epoch {score.epoch}, {score.words(name)}", score.painting(), *accepted)
    return run_card(
        config.to_json(),
        out,
        architecture=spec.name,
        recipe=config.recipe_name,
        classes=("lesion",) if spec.task == "segmentation" else ("no COVID-19", "COVID-19"),
        licence="that of the data it was trained on",
        notes=tuple(note for note in notes if note),
    )
