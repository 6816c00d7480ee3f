"""A training run from its configuration to its folder: data, network, Lightning's trainer, records, resume."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from dataclasses import replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import lightning as L
import torch
from lightning.pytorch.strategies import DDPStrategy

from jcs_ct import __version__
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.check import check
from jcs_ct.datasets.folds import FOLDS
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.metrics import roc_auc
from jcs_ct.models import MODELS
from jcs_ct.training.manners import plain_errors, quiet_lightning
from jcs_ct.training.module import TrainingModule, initialise
from jcs_ct.training.order import PlannedBatches, ResumableLoader, balanced_weights
from jcs_ct.training.records import Records, WholeCheckpoints
from jcs_ct.training.samples import SliceDataset
from jcs_ct.weights import WeightsCard, load, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Dataset, Sample
    from jcs_ct.training.config import TrainConfig


def parts_of(config: TrainConfig) -> tuple[Dataset, tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the data set, and the samples to train on and to validate on.

    Raises:
        InputError: No such data set, or the two parts share slices or groups.
        UsageError: No such fold or split.
    """
    folds = os.path.abspath(config.folds) if config.folds else FOLDS  # noqa: PTH100  # a given one is not the data set's
    dataset = open_dataset(config.data, "classify" if config.task == "classify" else "segment", folds=folds)
    splits = {sample.split for sample in dataset.samples}
    if config.fold is not None:
        train, held = dataset.fold(config.fold)
    elif "train" in splits:
        train, held = dataset.part("train"), dataset.part("val") if "val" in splits else ()
    else:
        raise UsageError(
            "has no split called train, and no --fold was given",
            path=config.data,
            hint="`jcs data split` makes folds; then give --fold N",
        )
    if not train:
        raise UsageError("leaves nothing to train on", path=config.data, hint="make more than one fold")
    lacking = [s for s in (*train, *held) if (s.features if config.inputs == "features" else s.image) is None]
    if lacking:
        what = "stage-1 features" if config.inputs == "features" else "picture"
        raise UsageError(
            f"has no {what}, and {len(lacking) - 1} others have none" if len(lacking) > 1 else f"has no {what}",
            path=lacking[0].path,
            hint="--inputs features trains from .mat files, --inputs image from pictures",
        )
    return dataset, train, held


def verify(dataset: Dataset, train: Sequence[Sample], held: Sequence[Sample]) -> str:
    """Read every sample once, so that bad data ends the run at its start; return the SHA-256 of all files.

    Raises:
        InputError: Some cannot be used, or the two parts share slices or groups; names the first ten.
    """
    parts = [replace(s, split="training", fold=None) for s in train]
    parts += [replace(s, split="validation", fold=None) for s in held]
    report = check(replace(dataset, samples=tuple(parts)), similarity=None)
    bad = [fault.error().line() for fault in report.faults]
    if bad:
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise InputError(
            f"cannot be trained on, {len(bad)} faults: {'; '.join(bad[:10])}{more}",
            path=dataset.root,
            hint="`jcs data check` explains them",
        )
    digest = hashlib.sha256()
    for path in sorted({p for s in parts for p in (s.image, s.mask, s.features) if p is not None}):
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def train(config: TrainConfig, out: Path, *, resume: bool, say: Callable[[str], None], progress: bool) -> float:
    """Train, and return the best validation score (NaN without validation).

    Args:
        config: Of the run.
        out: Its folder.
        resume: Go on from `last.ckpt`.
        say: Where to say what happens.
        progress: Whether to show a bar, instead of a line for each epoch.

    Raises:
        JcsError: As `parts_of`, `verify`, `initialise`; the folder holds another run; nothing to resume, or the data
            are not what they were; what stops a run in its middle (a full disk, a killed worker, a loss of NaN).
    """
    last, rank = out / "last.ckpt", process_number()
    if resume and not last.is_file():
        raise InputError("has no last.ckpt to go on from", path=out, hint="start it without --resume")
    if not resume and last.exists() and rank == 0:
        raise OutputError("holds a run already", path=out, hint="--resume goes on with it; or give another folder")
    if rank:  # the first process has read and said everything before it started the others
        say = _nothing
    dataset, training, held = parts_of(config)
    say(f"{config.network}: {len(training)} slices to train on, {len(held)} to validate on ({dataset.layout})")

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
    if rank == 0:
        _write_down(config, out, verify(dataset, training, held), (len(training), len(held)), resume=resume)

    name, score = ("AUC", _auc) if config.task == "classify" else ("Dice", _mean_dice)

    def best(trained: TrainingModule, value: float, epoch: int) -> None:
        card = card_of(config, out, value, name, epoch)
        write(out / "best.safetensors", trained.network.state_dict(), card, overwrite=True)

    def look(trained: TrainingModule, epoch: int) -> None:
        _look(trained, held, out, epoch)

    records = Records(out, config.every, score, name, best, look, _nothing if progress else say)
    loader = ResumableLoader(SliceDataset(training, config, train=True), batches, config.workers)
    checked = validation_loader(held, config, rank)
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
            plugins=[WholeCheckpoints()],
            logger=_logger(out),
            enable_checkpointing=False,
            enable_progress_bar=progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            deterministic="warn",  # some layers have no deterministic form on a GPU; on a CPU all are
            default_root_dir=out,
        )
        trainer.fit(module, loader, checked, ckpt_path=last if resume else None, weights_only=True)
    return records.highest if records.highest > -math.inf else math.nan


def _nothing(_text: str) -> None:
    """Say nothing."""


def validation_loader(
    held: Sequence[Sample], config: TrainConfig, rank: int
) -> torch.utils.data.DataLoader[Any] | None:
    """Return the validation slices of one process: every `devices`-th, none twice; read in this process."""
    if not held:
        return None
    dataset = SliceDataset(held[rank :: config.devices], config, train=False)
    return torch.utils.data.DataLoader(dataset, batch_size=config.batch)


def process_number() -> int:
    """Return which of the processes of a run this is; torchrun and Lightning say it in the environment."""
    return int(next((os.environ[name] for name in ("RANK", "LOCAL_RANK") if name in os.environ), "0"))


def class_weights(samples: Sequence[Sample]) -> list[float]:
    """Return the weights of the two classes: by their rarity, 1 on average. Raises UsageError for one class."""
    counts = [sum(s.label == label for s in samples) for label in (0, 1)]
    if not all(counts):
        raise UsageError(f"the training part holds {counts[0]} slices without and {counts[1]} with COVID-19: one class")
    return [len(samples) / (2 * count) for count in counts]


def _mean_dice(outcomes: list[tuple[float, float, float]]) -> float:
    values = [o[1] for o in outcomes if not math.isnan(o[1])]
    return sum(values) / len(values) if values else math.nan


def _auc(outcomes: list[tuple[float, float, float]]) -> float:
    return roc_auc([o[2] for o in outcomes], [o[1] for o in outcomes])


def _logger(out: Path) -> Any:
    from lightning.pytorch.loggers import TensorBoardLogger

    return TensorBoardLogger(save_dir=out, name="", version="tensorboard")


def _look(module: TrainingModule, held: Sequence[Sample], out: Path, epoch: int) -> None:
    """Write the first validation slices with what the network finds in them (pictures only)."""
    from jcs_ct.imaging.recipes import prepare, restore
    from jcs_ct.io.files.opening import read_file
    from jcs_ct.io.pictures import decode_slice
    from jcs_ct.outputs.figures import lesion_overlay

    if module.config.inputs == "features" or not module.segments:
        return
    how = SliceDataset(held, module.config, train=False).how
    for sample in held[:3]:
        pixels = decode_slice(read_file(sample.path), sample.path.stem, str(sample.path)).pixels
        values, placement = prepare(pixels, how)
        with torch.inference_mode():
            p = module.network(torch.from_numpy(values)[None].to(module.device))[0, 0].sigmoid().float().cpu().numpy()
        picture = lesion_overlay(pixels, restore(p, placement), title=sample.path.stem, caption=f"epoch {epoch}")
        write_whole(out / "samples" / f"epoch_{epoch:03d}_{sample.path.stem}.png", picture, overwrite=True)


def _write_down(config: TrainConfig, out: Path, digest: str, slices: tuple[int, int], *, resume: bool) -> None:
    """Write the configuration and the circumstances of the run. Raises InputError where the data changed since."""
    path = out / "run.json"
    if resume and path.is_file() and json.loads(path.read_text(encoding="utf-8")).get("data_sha256") != digest:
        raise InputError("the data are not those that the run began with", path=out, hint="start a new run")
    libraries = ("torch", "lightning", "monai", "numpy", "scipy", "pillow")
    facts = {
        "data_sha256": digest,
        "slices": {"train": slices[0], "validation": slices[1]},
        "versions": {"jcs-ct": __version__, "python": platform.python_version(), **{n: version(n) for n in libraries}},
        "threads": torch.get_num_threads(),
    }
    write_whole(out / "config.json", config.to_json().encode(), overwrite=True)
    write_whole(path, (json.dumps(facts, indent=2) + "\n").encode(), overwrite=True)


def card_of(config: TrainConfig, out: Path, value: float, name: str, epoch: int) -> WeightsCard:
    """Return the card of weights of the run."""
    spec = MODELS[config.network]
    scored = "no validation score" if math.isnan(value) else f"validation {name} {value:.4f}"
    return WeightsCard(
        name=out.resolve().name,
        architecture=spec.name,
        source_file="config.json",
        source_kind="training run",
        source_sha256=hashlib.sha256(config.to_json().encode()).hexdigest(),
        source_url=None,
        weights_sha256="0" * 64,
        imported_at="",
        jcs_ct_version=__version__,
        recipe=config.recipe_name,
        classes=("lesion",) if spec.task == "segmentation" else ("no COVID-19", "COVID-19"),
        threshold=0.5,
        threshold_from="not tuned",
        licence="that of the data it was trained on",
        citation="",
        bn_eps_folded=0.0,
        notes=(f"epoch {epoch}, {scored}",),
    )
