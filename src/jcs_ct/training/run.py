"""A training run from its configuration to its folder: data, network, Lightning's trainer, records, resume."""

from __future__ import annotations

from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, TextIO

import torch
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from jcs_ct.core.errors import UsageError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.unpacked import UnpackedSlices
from jcs_ct.training.fingerprint import Fingerprint
from jcs_ct.training.memory import check_shared_memory, memory_warning
from jcs_ct.training.messages import plain_errors, quiet_lightning
from jcs_ct.training.module import TrainingModule, initialise
from jcs_ct.training.outlook import Outlook
from jcs_ct.training.parts import fingerprint_of, parts_of, resume_parts, verify
from jcs_ct.training.progress import Progress
from jcs_ct.training.records import Records, check_checkpoint, trainer_of
from jcs_ct.training.result import Result
from jcs_ct.training.samples import SliceDataset, validation_loader
from jcs_ct.training.sampling import PlannedBatches, ResumableLoader, balanced_weights
from jcs_ct.training.scores import Score
from jcs_ct.training.start import BEST, LAST, RESULT, check_folder, hold_folder, keep_hashes, record_start
from jcs_ct.weights import load

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.training.config import TrainConfig


def train(
    config: TrainConfig,
    out: Path,
    *,
    resume: bool,
    say: Callable[[str], None],
    progress: TextIO | None = None,
    accept: bool = False,
) -> Result:
    """Train into a folder, and return how it went.

    Args:
        config: Of the run.
        out: Its folder.
        resume: Go on from `last.ckpt`.
        say: Where to say what happens.
        progress: A terminal, to write a line over and over on; None: a line once a minute.
        accept: Go on where the data, the settings or the versions are not what they were; the card will say so.

    Raises:
        JcsError: As `hold_folder`, `check_folder`, `parts_of`, `verify`, `check_shared_memory`, `compare_with_start`,
            `initialise`; what stops a run in its middle (a full disk, a killed worker, a loss of NaN).
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
    last, say = out / LAST, (lambda _: None) if rank else progress.line
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
    # Of volumes; pictures stay where they are.
    unpacked = until_the_end.enter_context(closing(UnpackedSlices([*training, *held], out / f"slices_{rank}.tmp")))
    data = SliceDataset(training, config, train=True, unpacked=unpacked)
    if rank == 0:
        if config.workers:
            check_shared_memory(data[0], config.batch, config.workers, config.devices)
        if warning := memory_warning(config, data[0]):
            say(warning)
        keep_hashes(out / BEST, training)

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
    records = Records(config, out, now, outlook.undefined, held, unpacked, progress)
    if resume:
        check_checkpoint(last, module, records, now)
    if rank == 0:
        record_start(config.to_json(), out, now, (len(training), len(held)))
    loader = ResumableLoader(data, batches, config.workers)
    checked = validation_loader(held, config, rank, unpacked)
    with plain_errors(), quiet_lightning():
        trainer = trainer_of(
            out,
            records,
            accelerator=config.accelerator,
            devices=config.devices,
            # Buffers are frozen statistics, the same everywhere. Sending them with each forward pass would wait for
            # ever when one process has more slices to validate than another.
            strategy=DDPStrategy(broadcast_buffers=False) if config.devices > 1 else "auto",
            precision=config.precision,
            max_epochs=config.epochs,
            logger=TensorBoardLogger(save_dir=out, name="", version="tensorboard"),
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            deterministic="warn",  # some layers have no deterministic form on a GPU; on a CPU all are
        )
        try:
            trainer.fit(module, loader, checked, ckpt_path=last if resume else None, weights_only=True)
            records.settle(trainer, module)  # of a run that had nothing left to do
        finally:
            progress.clear()
    sizes = len(training), len(held)
    result = Result(config.epochs, records.highest or Score(), records.name, sizes, now.accepted)
    if rank == 0:
        write_whole(out / RESULT, result.to_json().encode(), overwrite=True)
    return result


def class_weights(samples: Sequence[Sample]) -> list[float]:
    """Return the weights of the two classes: by their rarity, 1 on average. Raises UsageError for one class."""
    counts = [sum(s.label == label for s in samples) for label in (0, 1)]
    if not all(counts):
        raise UsageError(f"the training part holds {counts[0]} slices without and {counts[1]} with COVID-19: one class")
    return [len(samples) / (2 * count) for count in counts]
