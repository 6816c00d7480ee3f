"""A training run from its configuration to its folder: data, network, Lightning's trainer, records, resume."""

from __future__ import annotations

import hashlib
import json
import math
import os
import platform
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TextIO

import lightning as L
import torch
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch.strategies import DDPStrategy

from jcs_ct import __version__
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.core.processors import threads
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.check import check
from jcs_ct.datasets.folds import FOLDS
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.samples import relative_name
from jcs_ct.models import MODELS
from jcs_ct.training.config import NO_MATTER
from jcs_ct.training.fingerprint import (
    Entry,
    Fingerprint,
    compare_checkpoint,
    config_facts,
    entries_of,
    in_order,
    settle,
)
from jcs_ct.training.hashes import keep_hashes
from jcs_ct.training.lock import alone
from jcs_ct.training.manners import plain_errors, quiet_lightning
from jcs_ct.training.module import TrainingModule, initialise
from jcs_ct.training.order import PlannedBatches, ResumableLoader, balanced_weights
from jcs_ct.training.processes import known_environment, place
from jcs_ct.training.progress import Progress
from jcs_ct.training.prospects import Prospects, prospects_of_labels, prospects_of_masks
from jcs_ct.training.reading import check_shared_memory
from jcs_ct.training.records import Records, WholeCheckpoints
from jcs_ct.training.samples import SliceDataset
from jcs_ct.training.scores import NAMES, Score
from jcs_ct.weights import WeightsCard, load, write

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Dataset, Sample
    from jcs_ct.training.config import TrainConfig

RESULT = "result.json"
TRAINING, VALIDATION = "training", "validation"


def open_data(config: TrainConfig) -> Dataset:
    """Return the data set of a run. Raises InputError where there is none of its kind."""
    folds = os.path.abspath(config.folds) if config.folds else FOLDS  # noqa: PTH100  # a given one is not the data set's
    return open_dataset(config.data, "classify" if config.task == "classify" else "segment", folds=folds)


def parts_of(config: TrainConfig) -> tuple[Dataset, tuple[Sample, ...], tuple[Sample, ...]]:
    """Return the data set, and the samples to train on and to validate on.

    Raises:
        InputError: No such data set, or the two parts share slices or groups.
        UsageError: No such fold or split.
    """
    dataset = open_data(config)
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


def verify(config: TrainConfig, dataset: Dataset, train: Sequence[Sample], held: Sequence[Sample]) -> Prospects:
    """Read every sample once, so that bad data ends the run at its start; return whether it can be scored.

    Raises:
        InputError: Some cannot be used, or the two parts share slices or groups; names the first ten.
        UsageError: There is nothing to learn.
    """
    parts = [replace(s, split="training", fold=None) for s in train]
    parts += [replace(s, split="validation", fold=None) for s in held]
    return outlook(config, dataset, train, held, checked(dataset, parts))


def outlook(
    config: TrainConfig, dataset: Dataset, train: Sequence[Sample], held: Sequence[Sample], empty: set[str]
) -> Prospects:
    """Return what can be learned and scored, where `empty` are the names of slices whose masks are empty.

    Raises:
        UsageError: There is nothing to learn.
    """
    if config.task == "classify":
        return prospects_of_labels(train, held, str(dataset.root))

    def lesion(sample: Sample) -> bool:
        return sample.mask is not None and relative_name(sample.path, dataset.root) not in empty

    return prospects_of_masks(train, held, lesion, str(dataset.root))


def checked(dataset: Dataset, samples: Sequence[Sample]) -> set[str]:
    """Read the samples of a data set; return the names of those whose mask is empty. Raises InputError as `verify`."""
    report = check(replace(dataset, samples=tuple(samples)), similarity=None)
    bad = [fault.error().line() for fault in report.faults]
    if bad:
        more = f"; and {len(bad) - 10} more" if len(bad) > 10 else ""
        raise InputError(
            f"cannot be trained on, {len(bad)} faults: {'; '.join(bad[:10])}{more}",
            path=dataset.root,
            hint="`jcs data check` explains them",
        )
    return {finding.path for finding in report.findings if finding.kind == "empty-mask"}


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        epochs: That it has done.
        best: The score of its best weights.
        score_name: What the score is.
        slices: To train on, to validate on.
    """

    epochs: int
    best: Score
    score_name: str
    slices: tuple[int, int]

    def lines(self) -> list[str]:
        """Return what to say at the end."""
        if math.isnan(self.best.loss):
            return ["done, without validation: best.safetensors holds the last epoch"]
        by = "; chosen by the loss" if self.best.because else ""
        lines = [f"done; best is epoch {self.best.epoch}: {self.best.words(self.score_name)}{by}"]
        painting = self.best.painting()
        return [*lines, f"warning: {painting} (train longer, or with another --lr)"] if painting else lines

    def to_json(self) -> str:
        """Return it as JSON text."""
        facts = {"epochs": self.epochs, "score": self.score_name, "slices": list(self.slices)}
        return json.dumps(facts | {"best": self.best.facts()}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def read(cls, path: Path) -> Result | None:
        """Read what `to_json` wrote; None where there is nothing of the kind, for a run that is not finished."""
        try:
            held = json.loads(path.read_text(encoding="utf-8"))
            best = Score.from_facts(held["best"])
            return cls(held["epochs"], best, held["score"], (held["slices"][0], held["slices"][1]))
        except (OSError, ValueError, TypeError, KeyError, IndexError):
            return None


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
        JcsError: As `place`, `parts_of`, `verify`, `check_shared_memory`, `settle`, `initialise`; the folder holds
            another run, or another process trains into it; nothing to resume; what stops a run in its middle (a full
            disk, a killed worker, a loss of NaN).
    """
    here = place(config.devices)
    before = torch.get_num_threads()
    with known_environment(here), alone(out) if here.rank == 0 else nullcontext():
        count = threads(config.threads, config.devices)
        torch.set_num_threads(count)
        if here.world > 1:  # else Lightning would divide the machine's processors
            os.environ["OMP_NUM_THREADS"] = str(count)
        rank_zero_only.rank = here.rank
        try:
            return _train(config, out, here.rank, Progress(say, progress), resume=resume, accept=accept)
        finally:
            torch.set_num_threads(before)


def _train(config: TrainConfig, out: Path, rank: int, progress: Progress, *, resume: bool, accept: bool) -> Result:
    # A further process is silent: the first one has read and said everything before it started the others.
    last, say = out / "last.ckpt", _nothing if rank else progress.line
    if resume and not last.is_file():
        raise InputError("has no last.ckpt to go on from", path=out, hint="start it without --resume")
    if not resume and last.exists() and rank == 0:
        raise OutputError("holds a run already", path=out, hint="--resume goes on with it; or give another folder")
    dataset, training, held = parts_of(config)
    say(f"{config.network}: {len(training)} slices to train on, {len(held)} to validate on ({dataset.layout})")
    prospects = verify(config, dataset, training, held) if rank == 0 else Prospects()
    if prospects.undefined:
        say(prospects.warning)
    # A further process needs it for the order of the slices alone.
    now = fingerprint_of(config, dataset, training, held) if resume or not rank else Fingerprint((), {}, {})
    if resume:
        entries, count = now.entries, len(training)
        now = settle(out, now, accept=accept or rank > 0, say=say)
        training = in_order(training, entries[:count], [e for e in now.entries if e.part == TRAINING])
        held = in_order(held, entries[count:], [e for e in now.entries if e.part == VALIDATION])
    if rank == 0:
        keep_hashes(out / "best.safetensors", training)
    data = SliceDataset(training, config, train=True)
    if rank == 0 and config.workers:
        check_shared_memory(data[0], config.batch, config.workers, config.devices)

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
    if rank == 0:
        _write_down(config, out, now, (len(training), len(held)))

    def best(trained: TrainingModule, score: Score) -> None:
        card = card_of(config, out, score, NAMES[task], now.accepted)
        write(out / "best.safetensors", trained.network.state_dict(), card, overwrite=True)

    def look(trained: TrainingModule, epoch: int) -> None:
        _look(trained, held, out, epoch)

    def known(digest: str | None) -> None:
        compare_checkpoint(digest, now, last)

    records = Records(out, config.every, task, prospects.undefined, now.digest, known, best, look, progress)
    loader = ResumableLoader(data, batches, config.workers)
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
        finally:
            progress.clear()
    result = Result(config.epochs, records.highest or Score(), NAMES[task], (len(training), len(held)))
    if rank == 0:
        write_whole(out / RESULT, result.to_json().encode(), overwrite=True)
    return result


def fingerprint_of(
    config: TrainConfig, dataset: Dataset, training: Sequence[Sample], held: Sequence[Sample]
) -> Fingerprint:
    """Return what a run is started on. Raises InputError where a file cannot be read."""

    def file_of(sample: Sample) -> Path:
        return (sample.features or sample.path) if config.inputs == "features" else sample.path

    entries: tuple[Entry, ...] = ()
    for part, samples in ((TRAINING, training), (VALIDATION, held)):
        # A fold counts where the run is one of a fold.
        kept = samples if config.fold is not None else [replace(s, fold=None) for s in samples]
        entries += entries_of(kept, part, dataset.root, file_of)
    return Fingerprint(entries, config_facts(config, NO_MATTER), versions())


def versions() -> dict[str, str]:
    """Return the versions that decide what a run computes: of the package, Python and the libraries."""
    own = {"jcs-ct": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    return own | {name: version(name) for name in ("torch", "lightning", "monai", "numpy", "scipy", "pillow")}


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


def class_weights(samples: Sequence[Sample]) -> list[float]:
    """Return the weights of the two classes: by their rarity, 1 on average. Raises UsageError for one class."""
    counts = [sum(s.label == label for s in samples) for label in (0, 1)]
    if not all(counts):
        raise UsageError(f"the training part holds {counts[0]} slices without and {counts[1]} with COVID-19: one class")
    return [len(samples) / (2 * count) for count in counts]


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


def _write_down(config: TrainConfig, out: Path, started: Fingerprint, slices: tuple[int, int]) -> None:
    """Write the configuration, what the run is on, and its circumstances."""
    facts = {
        "data_sha256": started.data_digest(),
        "fingerprint": started.digest,
        "accepted": list(started.accepted),
        "slices": {"train": slices[0], "validation": slices[1]},
        "versions": dict(started.versions) | {"python": platform.python_version()},
        "threads": torch.get_num_threads(),
    }
    started.write(out)
    write_whole(out / "config.json", config.to_json().encode(), overwrite=True)
    write_whole(out / "run.json", (json.dumps(facts, indent=2, ensure_ascii=False) + "\n").encode(), overwrite=True)


def card_of(config: TrainConfig, out: Path, score: Score, name: str, accepted: Sequence[str]) -> WeightsCard:
    """Return the card of weights of the run."""
    spec = MODELS[config.network]
    notes = (f"epoch {score.epoch}, {score.words(name)}", score.painting(), *accepted)
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
        notes=tuple(note for note in notes if note),
    )
