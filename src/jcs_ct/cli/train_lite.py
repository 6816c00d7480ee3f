"""`jcs train lite`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import ACCEPT, line_printer
from jcs_ct.core.caches import cache_for_figures, place_for_temporary_files
from jcs_ct.core.errors import UsageError
from jcs_ct.core.installing import install_command
from jcs_ct.core.processors import need_processors_described

if TYPE_CHECKING:
    from jcs_ct.training.lite.config import LiteConfig

_RESUME = (
    "Continue from RUN/last.ckpt with the configuration it has; with more --steps, the run becomes longer. "
    "--build does so by itself."
)


@click.command("lite")
@click.option("--data", multiple=True, required=True, help="Data set with masks or with labels. Repeatable.")
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the run, called RUN below."
)
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
@click.option("--init", help="Start from these weights (jcs-lite, or a file) instead of ImageNet's.")
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
@click.option("--resume", is_flag=True, help=_RESUME)
@click.option("--accept-changed-data", "accept", is_flag=True, help=ACCEPT)
@click.option("--quiet", is_flag=True, help="Print problems only.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Print tracebacks of errors.")
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
    from jcs_ct.training.lite.config import LiteConfig
    from jcs_ct.training.processes import known_environment, place

    if build and (fold or folds == "all"):
        raise UsageError("--build trains every fold by itself", hint="leave --fold and --folds all out")
    if accept and not (resume or build):
        raise UsageError("--accept-changed-data belongs to --resume", hint="give both, or leave it out")
    given["quiet"] = given.pop("quiet_slices")
    asked = {
        k: v
        for k, v in {**given, **chosen_fold(fold, folds), "folds": _number("folds", folds)}.items()
        if v is not None and v != ()
    }
    asked["data"] = data
    config = LiteConfig(**asked)
    if resume and not build:
        config = _begun(out).resumed(asked)
    here = place(1)
    need_processors_described()
    place_for_temporary_files()
    cache_for_figures()  # Lightning's metrics import Matplotlib
    with known_environment(here):  # Lightning looks at it as soon as it is imported
        try:
            from jcs_ct.training.lite.build import build as build_all
            from jcs_ct.training.lite.folds import train_all
            from jcs_ct.training.lite.run import train as start
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed", hint=install_command("train,lite")) from error

        say = line_printer(quiet=quiet)
        line = sys.stderr if not quiet and sys.stderr.isatty() else None
        if build:
            build_all(config, out, jobs=jobs, say=say, accept=accept)
            return
        if config.all_folds:
            lines = train_all(config, out, resume=resume, say=say, progress=line, accept=accept)
            files = "fold_1 …, folds.csv, config.json"
        else:
            lines = start(config, out, resume=resume, say=say, progress=line, accept=accept).lines()
            files = "best.safetensors, last.ckpt, metrics.csv, config.json"
    for text in lines:
        say(text)
    say(f"{out}: {files}")


def _begun(out: Path) -> LiteConfig:
    """Return the configuration of the run in a folder. Raises InputError where there is none."""
    from jcs_ct.training.config import read_config
    from jcs_ct.training.lite.config import LiteConfig

    return read_config(out, LiteConfig.from_json)


def chosen_fold(fold: str | None, folds: str | None) -> dict[str, Any]:
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
