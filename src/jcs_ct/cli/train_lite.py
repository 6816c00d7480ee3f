"""`jcs train lite`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from jcs_ct.core.errors import InputError, UsageError


@click.command("lite")
@click.option("--data", multiple=True, required=True, help="A data set with masks, or with labels; repeatable.")
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="RUN, the folder of the run.")
@click.option("--fold", type=int, help="Hold this fold out of every data set, and score on it.")
@click.option("--build", is_flag=True, help="All folds, then everything, then calibration: the shipped weights.")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Runs at the same time (--build).")
@click.option("--without", multiple=True, help="Leave out a source, where it holds a single class; repeatable.")
@click.option("--steps", type=click.IntRange(1), help="Optimiser steps.")
@click.option("--lr", type=float, help="Peak learning rate.")
@click.option("--mix", type=click.FloatRange(0), help="α of the Beta distribution of λ, for mixed slices; 0: none.")
@click.option("--attention", type=click.FloatRange(0), help="Weight of pixel supervision of the attention map.")
@click.option("--silence", type=click.FloatRange(0), help="Weight of empty slices in the loss of lesion maps.")
@click.option("--coarse", type=click.FloatRange(0, 1), help="Share of the steps, the first ones, at 3/4 of the size.")
@click.option("--labelled", type=click.IntRange(0), help="Slices with labels alone in a step.")
@click.option("--lesions", type=click.IntRange(0), help="Slices with lesion masks in a step.")
@click.option("--quiet-slices", "quiet_slices", type=click.IntRange(0), help="Slices without lesions in a step.")
@click.option("--init", help="Start from these weights (jcs-lite, or a file) instead of ImageNet's.")
@click.option("--freeze", multiple=True, help="Keep parameters whose names begin so ('encoder.'); repeatable.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), help="Of the arithmetic while training.")
@click.option("--seed", type=int, help="Of everything random.")
@click.option("--every", type=click.IntRange(1), help="Steps between checkpoints.")
@click.option("--threads", type=click.IntRange(0), help="Of PyTorch in a run; 0: as it comes.")
@click.option("--resume", is_flag=True, help="Go on from RUN/last.ckpt; --build does so by itself.")
@click.option("--quiet", is_flag=True, help="Problems only.")
@click.option("--verbose", is_flag=True, expose_value=False, help="Tracebacks.")
def lite(data: tuple[str, ...], out: Path, build: bool, jobs: int, resume: bool, quiet: bool, **given: Any) -> None:
    """Train jcs-lite: slices with masks and slices with labels together. Needs pip install 'jcs-ct[train,lite]'."""
    try:
        from jcs_ct.training.lite.build import build as build_all
        from jcs_ct.training.lite.config import LiteConfig
        from jcs_ct.training.lite.run import train as start
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed", hint="pip install 'jcs-ct[train,lite]'") from error

    def say(text: str) -> None:
        if not quiet:
            click.echo(f"jcs: {text}", err=True)

    if build and given["fold"] is not None:
        raise UsageError("--build trains every fold, and --fold names one", hint="give one of them")
    given["quiet"] = given.pop("quiet_slices")
    config = LiteConfig(data=data, **{k: v for k, v in given.items() if v is not None and v != ()})
    if build:
        build_all(config, out, jobs=jobs, say=say)
        return
    if resume:
        try:
            config = LiteConfig.from_json((out / "config.json").read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError("has no config.json to go on from", path=out, hint="start without --resume") from error
        if config.data != data:
            raise UsageError("is a run on other data", path=out, hint=f"give --data {' --data '.join(config.data)}")
    scores = start(config, out, resume=resume, say=say)
    for name, value in scores.items():
        say(f"{name}: {value:.4f}")
    say(f"{out}: best.safetensors, metrics.csv, config.json")
