"""`jcs train segment | classify | joint | lite`."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import DEVICES, PATH, Group, line_printer, needing, quiet_option, stacked, verbose_option
from jcs_ct.core.caches import cache_for_figures, place_for_temporary_files
from jcs_ct.core.errors import UsageError
from jcs_ct.core.processors import need_processors_described

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import TextIO

    from jcs_ct.training.config import TrainConfig
    from jcs_ct.training.lite.config import LiteConfig

# What decides a run; None keeps the recipe's value. Kept when a run is resumed.
_OPTIONS = (
    click.option(
        "--fold", metavar="N|all", help="Validate on this fold, train on the others; all: one after the other."
    ),
    click.option(
        "--folds", metavar="FILE|all", help="File of folds; default: folds.json of the data set. all: --fold all."
    ),
    click.option("--network", help="Another network for the same task."),
    click.option("--inputs", type=click.Choice(["image", "features"]), help="Pictures, or stage-1 features (.mat)."),
    click.option("--size", type=int, help="Side of the network's input; default: the recipe's 512 (224)."),
    click.option("--epochs", type=int, help="Number of passes over the training slices."),
    click.option("--batch", type=int, help="Slices in each step, on each device."),
    click.option("--lr", type=float, help="Peak learning rate."),
    click.option("--loss", type=click.Choice(["release", "f-measure"]), help="Loss of the segmentation."),
    click.option("--augment/--no-augment", default=None, help="Random moves, contrast, blur and noise."),
    click.option("--seed", type=int, help="Seed of the random numbers."),
    click.option("--workers", type=int, help="Number of processes that load data."),
    click.option("--precision", help="32-true (default), bf16-mixed or 16-mixed."),
    click.option("--device", "accelerator", type=DEVICES, help="Where to train."),
    click.option("--devices", type=int, help="Number of devices; on a CPU, of processes."),
    click.option("--every", type=int, help="Also save a checkpoint every N steps."),
    click.option(
        "--threads",
        type=int,
        help="PyTorch threads of each process (default: OMP_NUM_THREADS, otherwise what is free).",
    ),
)
_CLASSIFY = (
    click.option("--mix", type=float, help="Mix slices and labels; α of the Beta distribution of λ."),
    click.option("--pixel-weight", type=float, help="Weight of the loss against lesion masks, where they exist."),
    click.option("--class-weights/--no-class-weights", default=None, help="Weigh classes by their rarity."),
    click.option("--balance/--no-balance", default=None, help="Draw sources, labels and groups equally often."),
)
_out_option = click.option("-o", "--out", type=PATH, required=True, help="Folder of the run, called RUN below.")
_accept_option = click.option(
    "--accept-changed-data",
    "accept",
    is_flag=True,
    help="With --resume: go on though slices, labels, masks or their parts have changed; the weights' card says so.",
)
_OF_FOLDS = "fold_1 …, folds.csv, config.json"
_RESUME = "Continue from RUN/last.ckpt with the configuration it has; with a larger --epochs, the run becomes longer."


@click.group(cls=Group)
def train() -> None:
    """Train on your own data. This needs the extra train."""


def _command(task: str, text: str, extra: tuple[Callable[[Any], Any], ...] = ()) -> None:
    @train.command(task, help=text)
    @stacked(
        click.option("--data", required=True, help="The data set: a folder, a list or a manifest."),
        _out_option,
        click.option(
            "--recipe",
            type=click.Choice(["release", "modern"]),
            default="release",
            show_default=True,
            help="Settings of the published release, or modern ones.",
        ),
        click.option("--init", multiple=True, metavar="NAME|FILE", help="Weights to start from. Repeatable."),
        click.option(
            "--freeze", multiple=True, help="Do not train parameters whose names begin with this. Repeatable."
        ),
        click.option("--resume", is_flag=True, help=_RESUME),
        _accept_option,
        quiet_option,
        verbose_option,
        *_OPTIONS,
        *extra,
    )
    def run(**given: Any) -> None:
        _train(task, **given)


def _train(
    task: str,
    data: str,
    out: Path,
    recipe: str,
    resume: bool,
    accept: bool,
    quiet: bool,
    init: tuple[str, ...],
    freeze: tuple[str, ...],
    **given: Any,
) -> None:
    from jcs_ct.training.config import TrainConfig, read_config, resolve

    if accept and not resume:
        raise UsageError("--accept-changed-data belongs to --resume", hint="give both, or leave it out")
    given |= {"init": init or None, "freeze": freeze or None, **_chosen_fold(given["fold"], given["folds"])}
    given["folds"] = None if given["folds"] == "all" else given["folds"]
    config = resolve(task, data, recipe, **given)  # type: ignore[arg-type]
    if resume:
        config = read_config(out, TrainConfig.from_json)
        if config.task != task:
            raise UsageError(f"is a run of `train {config.task}`", path=out, hint=f"go on with `train {config.task}`")
        config = config.resumed(given | {"data": data})
    with _begun(config.devices, quiet=quiet) as (say, line):
        with needing("train"):
            from jcs_ct.training.folds import train_all
            from jcs_ct.training.run import train as start

        how = {"resume": resume, "say": say, "progress": line, "accept": accept}
        files = "best.safetensors, last.ckpt, metrics.csv, curves.png, config.json"
        lines = _trained(config, out, train_all, start, files, **how)
    for text in lines:
        say(text)


@contextmanager
def _begun(devices: int, *, quiet: bool) -> Iterator[tuple[Callable[[str], None], TextIO | None]]:
    """Yield where a run says its lines, and where it shows how far it is, with the environment that it may see."""
    from jcs_ct.training.processes import known_environment, place

    here = place(devices)
    need_processors_described()
    place_for_temporary_files()
    cache_for_figures()  # Lightning's metrics import Matplotlib
    with known_environment(here):  # Lightning looks at it as soon as it is imported
        say = line_printer(quiet=quiet or here.rank > 0)
        yield say, sys.stderr if not quiet and here.rank == 0 and sys.stderr.isatty() else None


_command("segment", "Train jcs-single: slices with lesion masks.")
_command("classify", "Train jcs-classifier: slices with labels.", _CLASSIFY)
_command(
    "joint",
    "Train jcs-joint: the classifier's features feed the segmenter. To train in stages, as in the paper, give "
    "--init with a trained classifier and --freeze res2net. (with the dot). Without --freeze it trains end to end.",
)


@train.command()
@click.option("--data", multiple=True, required=True, help="Data set with masks or with labels. Repeatable.")
@_out_option
@click.option(
    "--fold", metavar="N|all", help="Hold this fold out of every data set and score on it. all: each fold in turn."
)
@click.option(
    "--folds", metavar="N|all", help="Number of folds of a data set that brings none (4). all: the same as --fold all."
)
@click.option(
    "--build", is_flag=True, help="Train all folds, then on everything, then calibrate: this makes the shipped weights."
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of runs at the same time, with --build.",
)
@click.option("--without", multiple=True, help="Leave out a source where it holds a single class. Repeatable.")
@click.option("--steps", type=click.IntRange(1), help="Number of optimiser steps.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option(
    "--mix", type=click.FloatRange(0), help="Mix slices and labels: α of the Beta distribution of λ (0: do not mix)."
)
@click.option(
    "--attention", type=click.FloatRange(0), help="Weight of the loss that compares attention with lesion masks."
)
@click.option(
    "--silence", type=click.FloatRange(0), help="Weight of slices without lesions in the loss of lesion maps."
)
@click.option(
    "--coarse", type=click.FloatRange(0, 1), help="Share of the steps, at the start, that run at 3/4 of the size."
)
@click.option("--labelled", type=click.IntRange(0), help="Number of slices with only a label in each step.")
@click.option("--lesions", type=click.IntRange(0), help="Number of slices with lesion masks in each step.")
@click.option(
    "--quiet-slices", "quiet_slices", type=click.IntRange(0), help="Number of slices without lesions in each step."
)
@click.option(
    "--init",
    help="Start from these weights instead of ImageNet's: jcs-lite, a file, or the folder of a --build, of which each "
    "run takes the network of its fold.",
)
@click.option(
    "--freeze",
    multiple=True,
    help="Do not train parameters whose names begin with this (such as encoder.). Repeatable.",
)
@click.option(
    "--precision", type=click.Choice(["bf16", "fp32"]), help="Number format of the computation during training."
)
@click.option("--seed", type=int, help="Seed of the random numbers.")
@click.option("--every", type=click.IntRange(1), help="Number of steps between checkpoints.")
@click.option(
    "--threads", type=click.IntRange(0), help="Threads of each run (default: OMP_NUM_THREADS, otherwise what is free)."
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue from RUN/last.ckpt with the configuration it has; with more --steps, the run becomes longer. "
    "--build does so by itself.",
)
@_accept_option
@quiet_option
@verbose_option
def lite(
    data: tuple[str, ...],
    out: Path,
    build: bool,
    jobs: int,
    resume: bool,
    accept: bool,
    quiet: bool,
    fold: str | None,
    folds: str | None,
    **given: Any,
) -> None:
    """Train jcs-lite: slices with masks and slices with labels together. Needs the extras train and lite."""
    from jcs_ct.training.config import read_config
    from jcs_ct.training.lite.config import LiteConfig

    if build and (fold or folds == "all"):
        raise UsageError("--build trains every fold by itself", hint="leave --fold and --folds all out")
    if accept and not (resume or build):
        raise UsageError("--accept-changed-data belongs to --resume", hint="give both, or leave it out")
    given["quiet"] = given.pop("quiet_slices")
    given |= {**_chosen_fold(fold, folds), "folds": _number("folds", folds)}
    asked = {k: v for k, v in given.items() if v is not None and v != ()}
    asked["data"] = data
    config = LiteConfig(**asked)
    if resume and not build:
        config = read_config(out, LiteConfig.from_json).resumed(asked)
    with _begun(1, quiet=quiet) as (say, line):
        with needing("train,lite"):
            from jcs_ct.training.lite.build import build as build_all
            from jcs_ct.training.lite.folds import train_all
            from jcs_ct.training.lite.run import train as start

        if build:
            build_all(config, out, jobs=jobs, say=say, accept=accept)
            return
        how = {"resume": resume, "say": say, "progress": line, "accept": accept}
        files = "best.safetensors, last.ckpt, metrics.csv, config.json"
        lines = _trained(config, out, train_all, start, files, **how)
    for text in lines:
        say(text)


def _trained(
    config: TrainConfig | LiteConfig, out: Path, folds: Callable[..., list[str]], one: Any, files: str, **how: Any
) -> list[str]:
    """Train all folds, or one run that writes `files`; return the lines that say how it ended."""
    if config.all_folds:
        return [*folds(config, out, **how), f"{out}: {_OF_FOLDS}"]
    return [*one(config, out, **how).lines(), f"{out}: {files}"]


def _chosen_fold(fold: str | None, folds: str | None) -> dict[str, Any]:
    """Return `fold` and `all_folds`, the settings that --fold stands for; "all" may be said of either option.

    Raises:
        UsageError: --folds asks for all and --fold for one; or --fold is neither a number nor "all".
    """
    if folds == "all" and fold not in (None, "all"):
        raise UsageError(f"--folds all trains every fold, and --fold {fold} names one", hint="give one of them")
    return {"fold": _number("fold", fold), "all_folds": "all" in (fold, folds) or None}


def _number(option: str, text: str | None) -> int | None:
    """Return the number that an option names; None for "all", or where it was not given."""
    if text is None or text == "all":
        return None
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(f"--{option} is {text}; a number from 1 upwards, or all, is expected")
    return int(text)
