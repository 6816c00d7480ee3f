"""What a training run is: one frozen value, resolved before it starts and written beside the weights. No torch here."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, cast

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.imaging.recipes import recipe
from jcs_ct.models import MODELS, model_spec

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

C = TypeVar("C")
R = TypeVar("R", bound="RunConfig")
_ANEW = "start a new run in another folder"
Task = Literal["segment", "classify", "joint"]
PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
NO_MATTER = ("workers", "accelerator", "every", "threads", "data", "folds", "all_folds", "fold", "epochs", "init")
"""Settings that decide nothing that a fingerprint does not hold by itself: where the data lie, how long the run is."""
DEFAULT_NETWORK = {"segment": "jcs-single", "classify": "jcs-classifier", "joint": "jcs-joint"}


class RunConfig:
    """What the configurations of all training commands, which are dataclasses, have in common.

    Attributes:
        LENGTH: The setting that says how long a run is; it may become more when a run is resumed.
        MAY_CHANGE: The settings that may change then.
    """

    LENGTH: ClassVar[str]
    MAY_CHANGE: ClassVar[tuple[str, ...]]

    def to_json(self) -> str:
        """Return the configuration as JSON text."""
        values: Any = self
        return json.dumps(asdict(values), indent=2) + "\n"

    def resumed(self: R, given: dict[str, Any]) -> R:
        """Return the configuration to go on with, where `given` was given again (None: not given).

        Raises UsageError for a value that would make it another run.
        """
        asked = {name: value for name, value in given.items() if value is not None}
        length = getattr(self, self.LENGTH)
        longer = asked.pop(self.LENGTH, length)
        if longer < length:
            raise UsageError(
                f"the run has {self.LENGTH} {length}, {longer} was given: a run can be made longer, not shorter",
                hint=f"leave --{self.LENGTH} out, or give more",
            )
        for name, value in asked.items():
            if name not in self.MAY_CHANGE and value != getattr(self, name):
                raise UsageError(
                    f"the run has {name} {getattr(self, name)}, {value} was given",
                    hint="a resumed run keeps its settings: leave them out, or start a new run",
                )
        changed = {name: value for name, value in asked.items() if name in self.MAY_CHANGE}
        resumed: R = replace(cast("Any", self), **changed | {self.LENGTH: longer})
        return resumed


@dataclass(frozen=True)
class TrainConfig(RunConfig):
    """Everything that decides what a run computes.

    Attributes:
        task: "segment", "classify" or "joint".
        data: The data set (see `jcs_ct.datasets.layouts.open_dataset`).
        network: Key of `jcs_ct.models.MODELS`; default by task.
        recipe: "release" (the published one) or "modern" (AdamW, one cycle, augmentation, larger batches).
        fold: Train on the other folds and validate on this one; None: the splits "train" and, if there is one, "val".
        folds: File of the folds; default: `folds.json` of the data set.
        inputs: "image", or "features" where the data set holds stage-1 features.
        size: Side of the network's input; 0: that of the network's recipe. Weights remember it (`recipe_name`).
        epochs: Passes over the training samples.
        batch: Slices of a step, on each device.
        lr: Peak learning rate.
        weight_decay: Of the optimiser.
        optimiser: "adam" or "adamw".
        schedule: "poly" (with the release's warm-up) or "one-cycle".
        loss: "release" or "f-measure", of segmentation.
        augment: Move, turn, scale, brighten and blur slices at random (pictures only).
        mix: α of the Beta distribution that λ is drawn from when two slices and their labels are mixed; 0: no mixing.
        pixel_weight: Weight of pixel supervision of a classifier's activation map, where masks exist; 0: none.
        class_weights: Weigh the classes by the inverse of their number.
        balance: Draw samples so that each source and label, and each group in it, comes equally often.
        init: Stored weights or files to start from, first to last; later ones win.
        freeze: Parameters that begin with one of these keep their values.
        seed: Of initialisation, order, augmentation and mixing.
        workers: Number of processes that load data.
        precision: One of `PRECISIONS`.
        accelerator: "auto", "cpu", "gpu" …
        devices: Number of devices (processes, on a CPU).
        every: Steps between checkpoints, besides the end of each epoch; 0: at epochs only.
        threads: Of each process; 0: `OMP_NUM_THREADS`, else what affinity and cgroup leave.
        all_folds: All folds, one after the other, each in a folder of its own.

    What is not in `MAY_CHANGE` decides what is computed.
    """

    LENGTH = "epochs"
    MAY_CHANGE = ("data", "workers", "accelerator", "every", "threads", "folds")

    task: Task
    data: str
    network: str = ""
    recipe: Literal["release", "modern"] = "release"
    fold: int | None = None
    folds: str = ""
    inputs: Literal["image", "features"] = "image"
    size: int = 0
    epochs: int = 60
    batch: int = 1
    lr: float = 2.5e-5
    weight_decay: float = 1e-4
    optimiser: Literal["adam", "adamw"] = "adam"
    schedule: Literal["poly", "one-cycle"] = "poly"
    loss: Literal["release", "f-measure"] = "release"
    augment: bool = False
    mix: float = 0.0
    pixel_weight: float = 0.0
    class_weights: bool = False
    balance: bool = False
    init: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    seed: int = 0
    workers: int = 1
    precision: str = "32-true"
    accelerator: str = "auto"
    devices: int = 1
    every: int = 0
    threads: int = 0
    all_folds: bool = False

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read what `to_json` wrote. Raises UsageError for anything else."""
        values = held_values(text)
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise UsageError(f"the configuration has unknown fields: {', '.join(sorted(unknown))}", hint=_ANEW)
        try:
            read = cls(**values | {k: tuple(values.get(k, ())) for k in ("init", "freeze")})
        except TypeError as error:
            raise UsageError(f"the configuration is incomplete: {error}", hint=_ANEW) from error
        check_types(read)
        return read

    @property
    def recipe_name(self) -> str:
        """The preprocessing recipe (see `jcs_ct.imaging.recipes.recipe`), with its size where that is another."""
        name = model_spec(self.network).recipe
        usual = recipe(name)
        side = usual.crop or usual.size
        return f"{name}@{round(self.size * usual.size / side)}" if self.size not in (0, side) else name


def held_values(text: str) -> dict[str, Any]:
    """Return the object in a JSON text. Raises UsageError where it is none."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError("the configuration is not a JSON object", hint=_ANEW) from error
    if not isinstance(values, dict):
        raise UsageError("the configuration is not a JSON object", hint=_ANEW)
    return values


def check_types(config: Any) -> None:
    """Raise UsageError where a setting is of another type than its default. None stands for whole numbers."""
    for f in fields(config):
        value, usual = getattr(config, f.name), "" if f.default is MISSING else f.default
        fit = type(value) is type(usual) or (type(usual) is float and type(value) is int)
        if usual is None:
            fit = value is None or type(value) is int
        if f.name in ("init", "freeze", "data", "without") and isinstance(value, tuple):
            fit = all(isinstance(word, str) for word in value)
        if not fit:
            raise UsageError(f"the configuration has a {f.name} of another type: {value!r:.60}", hint=_ANEW)


def read_config(folder: Path, read: Callable[[str], C]) -> C:
    """Return the configuration of the run in a folder, which `read` makes of its text.

    Raises InputError where there is none, UsageError as `read`, with the file.
    """
    path = folder / "config.json"
    try:
        return read(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError("has no config.json to go on from", path=folder, hint="start without --resume") from error
    except UnicodeDecodeError as error:
        raise UsageError("the configuration is not a JSON object", path=path, hint=_ANEW) from error
    except UsageError as error:
        raise UsageError(error.message, path=path, hint=error.hint) from error


LEAST = {"epochs": 1, "batch": 1, "workers": 0, "devices": 1, "every": 0, "mix": 0, "threads": 0}
MODERN = {"optimiser": "adamw", "schedule": "one-cycle", "augment": True, "batch": 4, "lr": 2e-4, "weight_decay": 1e-2}
CLASSIFY = {"batch": 16, "epochs": 30, "lr": 1e-4}


def resolve(task: Task, data: str | Path, training: str, **given: Any) -> TrainConfig:
    """Return the configuration of a run: the recipe's values, and what was given (None: not given) on top.

    Raises UsageError for a value that cannot be.
    """
    if training not in ("release", "modern"):
        raise UsageError(f"no training recipe is called {training!r}", hint="known: release, modern")
    values: dict[str, Any] = dict(CLASSIFY) if task == "classify" else {}
    if training == "modern":
        values |= {**MODERN, **({"mix": 0.2, "balance": True} if task == "classify" else {})}
    values |= {name: value for name, value in given.items() if value is not None}
    values |= {"task": task, "data": str(data), "recipe": training}
    config = TrainConfig(**values)
    config = replace(config, network=config.network or DEFAULT_NETWORK[task])
    kind = "classification" if task == "classify" else "segmentation"
    if model_spec(config.network).task != kind:
        fit = ", ".join(spec.name for spec in MODELS.values() if spec.task == kind)
        raise UsageError(f"--network {config.network} cannot be trained by `train {task}`", hint=f"usable: {fit}")
    if config.precision not in PRECISIONS:
        raise UsageError(f"--precision {config.precision} is unknown", hint=f"known: {', '.join(PRECISIONS)}")
    for name, low in LEAST.items():
        if getattr(config, name) < low:
            raise UsageError(f"--{name} is {getattr(config, name)}; at least {low} is expected")
    if config.size and config.size < 32:
        raise UsageError(f"--size is {config.size}; 0 or at least 32 is expected")
    if not 0 < config.lr < float("inf"):
        raise UsageError(f"--lr is {config.lr}; a positive number is expected")
    if config.inputs == "features" and config.augment:
        config = replace(config, augment=False)
    if task != "classify" and (config.mix or config.pixel_weight or config.class_weights):
        raise UsageError(
            "mixing, pixel supervision and class weights belong to `train classify`", hint="leave them out"
        )
    return config
