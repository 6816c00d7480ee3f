"""`jcs train segment | classify | joint`; `lite` has a home of its own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import ACCEPT, line_printer
from jcs_ct.cli.groups import Group
from jcs_ct.cli.train_lite import chosen_fold, lite
from jcs_ct.core.caches import cache_for_figures, place_for_temporary_files
from jcs_ct.core.errors import UsageError
from jcs_ct.core.installing import install_command
from jcs_ct.core.processors import need_processors_described

if TYPE_CHECKING:
    from collections.abc import Callable

# What decides a run; None keeps the recipe's value. Kept when a run is resumed.
_OPTIONS: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (
        ("--fold",),
        {"metavar": "N|all", "help": "Validate on this fold, train on the others; all: one after the other."},
    ),
    (
        ("--folds",),
        {"metavar": "FILE|all", "help": "File of folds; default: folds.json of the data set. all: --fold all."},
    ),
    (("--network",), {"help": "Another network for the same task."}),
    (("--inputs",), {"type": click.Choice(["image", "features"]), "help": "Pictures, or stage-1 features (.mat)."}),
    (("--size",), {"type": int, "help": "Side of the network's input; default: the recipe's 512 (224)."}),
    (("--epochs",), {"type": int, "help": "Number of passes over the training slices."}),
    (("--batch",), {"type": int, "help": "Slices in each step, on each device."}),
    (("--lr",), {"type": float, "help": "Peak learning rate."}),
    (("--loss",), {"type": click.Choice(["release", "f-measure"]), "help": "Loss of the segmentation."}),
    (("--augment/--no-augment",), {"default": None, "help": "Random moves, contrast, blur and noise."}),
    (("--seed",), {"type": int, "help": "Seed of the random numbers."}),
    (("--workers",), {"type": int, "help": "Number of processes that load data."}),
    (("--precision",), {"help": "32-true (default), bf16-mixed or 16-mixed."}),
    (("--device", "accelerator"), {"type": click.Choice(["auto", "cpu", "cuda", "mps"]), "help": "Where to train."}),
    (("--devices",), {"type": int, "help": "Number of devices; on a CPU, of processes."}),
    (("--every",), {"type": int, "help": "Also save a checkpoint every N steps."}),
    (
        ("--threads",),
        {"type": int, "help": "PyTorch threads of each process (default: OMP_NUM_THREADS, otherwise what is free)."},
    ),
)
_CLASSIFY: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = (
    (("--mix",), {"type": float, "help": "Mix slices and labels; α of the Beta distribution of λ."}),
    (("--pixel-weight",), {"type": float, "help": "Weight of the loss against lesion masks, where they exist."}),
    (("--class-weights/--no-class-weights",), {"default": None, "help": "Weigh classes by their rarity."}),
    (("--balance/--no-balance",), {"default": None, "help": "Draw sources, labels and groups equally often."}),
)

_RESUME = "Continue from RUN/last.ckpt with the configuration it has; with a larger --epochs, the run becomes longer."


@click.group(cls=Group)
def train() -> None:
    """Train on your own data. This needs the extra train."""


def _command(task: str, text: str, extra: tuple[tuple[tuple[str, ...], dict[str, Any]], ...] = ()) -> None:
    def run(**given: Any) -> None:
        _train(task, **given)

    function: Callable[..., Any] = run
    for names, settings in reversed((*_OPTIONS, *extra)):
        function = click.option(*names, **settings)(function)
    for decorate in (
        click.option("--verbose", is_flag=True, expose_value=False, help="Print tracebacks of errors."),
        click.option("--quiet", is_flag=True, help="Print problems only."),
        click.option("--accept-changed-data", "accept", is_flag=True, help=ACCEPT),
        click.option("--resume", is_flag=True, help=_RESUME),
        click.option(
            "--freeze", multiple=True, help="Do not train parameters whose names begin with this. Repeatable."
        ),
        click.option("--init", multiple=True, metavar="NAME|FILE", help="Weights to start from. Repeatable."),
        click.option(
            "--recipe",
            type=click.Choice(["release", "modern"]),
            default="release",
            show_default=True,
            help="Settings of the published release, or modern ones.",
        ),
        click.option(
            "-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the run, called RUN below."
        ),
        click.option("--data", required=True, help="The data set: a folder, a list or a manifest."),
    ):
        function = decorate(function)
    train.command(task, help=text)(function)


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
    from jcs_ct.training.processes import known_environment, place

    if accept and not resume:
        raise UsageError("--accept-changed-data belongs to --resume", hint="give both, or leave it out")
    given |= {"init": init or None, "freeze": freeze or None, **chosen_fold(given["fold"], given["folds"])}
    given["folds"] = None if given["folds"] == "all" else given["folds"]
    config = resolve(task, data, recipe, **given)  # type: ignore[arg-type]
    if resume:
        config = read_config(out, TrainConfig.from_json)
        if config.task != task:
            raise UsageError(f"is a run of `train {config.task}`", path=out, hint=f"go on with `train {config.task}`")
        config = config.resumed(given | {"data": data})
    here = place(config.devices)
    need_processors_described()
    place_for_temporary_files()
    cache_for_figures()  # Lightning's metrics import Matplotlib
    with known_environment(here):  # Lightning looks at it as soon as it is imported
        try:
            from jcs_ct.training.folds import train_all
            from jcs_ct.training.run import train as start
        except ModuleNotFoundError as error:
            raise UsageError(f"{error.name} is not installed", hint=install_command("train")) from error

        say = line_printer(quiet=quiet or here.rank > 0)
        line = sys.stderr if not quiet and here.rank == 0 and sys.stderr.isatty() else None
        if config.all_folds:
            lines = train_all(config, out, resume=resume, say=say, progress=line, accept=accept)
            files = "fold_1 …, folds.csv, config.json"
        else:
            lines = start(config, out, resume=resume, say=say, progress=line, accept=accept).lines()
            files = "best.safetensors, last.ckpt, metrics.csv, curves.png, config.json"
    for text in lines:
        say(text)
    say(f"{out}: {files}")


_command("segment", "Train jcs-single: slices with lesion masks.")
_command("classify", "Train jcs-classifier: slices with labels.", _CLASSIFY)
_command(
    "joint",
    "Train jcs-joint: the classifier's features feed the segmenter. To train in stages, as in the paper, give "
    "--init with a trained classifier and --freeze res2net. (with the dot). Without --freeze it trains end to end.",
)
train.add_command(lite)
