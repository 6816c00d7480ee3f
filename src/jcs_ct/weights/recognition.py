"""Which network a set of tensors belongs to, and its tensors under our names.

Known layouts: the three checkpoints of the JCS release (their names are ours); VGG-16-BN numbered as torchvision and
timm do (`features.N.*`), or cut after stage 5 with either naming; Res2Net-101 v1b as its authors and timm name it.

ImageNet networks divide by sqrt(running_var + 1e-5), frozen batch norm by sqrt(running_var). Adding the 1e-5 to the
stored variances once makes ours compute exactly what theirs does. JCS was trained frozen: nothing is added.
"""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from jcs_ct.core.errors import UsageError, WeightsError
from jcs_ct.models import MODELS, build_model, model_spec
from jcs_ct.models.vgg import STAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor

IMAGENET_BN_EPS = 1e-5
LARGEST_BN_EPS = 0.1
COUNTER = "num_batches_tracked"
_STRANGER = 0.05  # share of common names under which a file is called nothing at all

Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Layout:
    """One naming of one network: `rename` maps a foreign name to ours, or to None for what has to be dropped."""

    architecture: str
    title: str
    rename: Callable[[str], str | None]


@functools.cache
def _vgg_numbers() -> dict[int, str]:
    """Return torchvision's numbers of VGG-16-BN: convolution, norm and ReLU take one each, and so does a pooling."""
    numbers, number = {}, 0
    for stage, widths in enumerate(STAGES, 1):
        for block in range(1, len(widths) + 1):
            numbers[number] = f"conv{stage}_{block}.conv"
            numbers[number + 1] = f"conv{stage}_{block}.bn"
            number += 3
        number += 1
    return numbers


def _from_vgg_numbers(name: str) -> str | None:
    if name.startswith(("classifier.", "pre_logits.", "head.")):
        return None
    match = re.fullmatch(r"(?:features\.)?(\d{1,3})\.(\w+)", name)
    if match is None or int(match[1]) not in _vgg_numbers():
        return name
    return f"{_vgg_numbers()[int(match[1])]}.{match[2]}"


FOREIGN = (
    Layout("vgg16-bn", "layer numbers of torchvision", _from_vgg_numbers),
    Layout("vgg16-bn", "official names under vgg16.", lambda name: name.removeprefix("vgg16.")),
    Layout("res2net101-v1b", "Res2Net names with an ImageNet fc", lambda n: None if n.startswith("fc.") else n),
    Layout("res2net101-v1b", "official names under res2net.", lambda name: name.removeprefix("res2net.")),
)
"""How other programs name the tensors of our networks, besides the official names."""


@dataclass(frozen=True)
class Recognised:
    """Tensors that fit a network of the table, name by name and shape by shape.

    Attributes:
        architecture: Key of `jcs_ct.models.MODELS`.
        tensors: By our names, running variances ready for frozen batch norm.
        bn_eps: What was added to the running variances of frozen batch norms.
        notes: What was dropped, added or folded, a line each.
    """

    architecture: str
    tensors: dict[str, Tensor]
    bn_eps: float
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Fit:
    """How well tensors fit a layout: `names` maps the file's names to ours, `missing` are ours, the rest the file's."""

    layout: Layout
    names: dict[str, str]
    dropped: tuple[str, ...]
    missing: tuple[str, ...]
    extra: tuple[str, ...]
    wrong: tuple[str, ...]

    @property
    def exact(self) -> bool:
        """Whether nothing is missing, left over or of a wrong shape."""
        return not (self.missing or self.extra or self.wrong)

    @property
    def likeness(self) -> float:
        """Share of names and shapes in common, from 0 to 1."""
        common = len(self.names)
        return common / max(1, common + len(self.missing) + len(self.extra) + len(self.wrong))

    def difference(self) -> str:
        """Return a phrase with the counts and the first few names of what does not fit."""
        parts = (("missing", self.missing), ("left over", self.extra), ("of a wrong shape", self.wrong))
        return "; ".join(f"{len(names)} {title} ({_some(names)})" for title, names in parts if names)


@functools.cache
def expected_shapes(architecture: str) -> Shapes:
    """Return names and shapes of a network's state dict, without making weights. Raises UsageError as `model_spec`."""
    model_spec(architecture)
    with torch.device("meta"):
        state = build_model(architecture).state_dict()
    return {name: tuple(value.shape) for name, value in state.items()}


def recognise(
    tensors: Mapping[str, Tensor], *, path: Path | str, architecture: str | None = None, bn_eps: float | None = None
) -> Recognised:
    """Find the network that the tensors of a file (`read_tensors`) belong to, and return them under its names.

    `architecture`: accept this network only. `bn_eps` is added to the running variances of frozen batch norms; None:
    1e-5 for a bare backbone (ImageNet), else 0.

    Raises:
        UsageError: Unknown `architecture`, or `bn_eps` out of range.
        WeightsError: They fit no network, or not this one: what is missing, left over or of a wrong shape is named.
    """
    if bn_eps is not None and not (math.isfinite(bn_eps) and 0 <= bn_eps <= LARGEST_BN_EPS):
        raise UsageError(
            f"an epsilon of {bn_eps} makes no sense", hint=f"0 to {LARGEST_BN_EPS}; ImageNet networks use 1e-5"
        )
    if architecture is not None:
        model_spec(architecture)
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    layouts = (*(Layout(spec.name, "official names", str) for spec in MODELS.values()), *FOREIGN)
    fits = [_fit(layout, shapes, forced=architecture == layout.architecture) for layout in layouts]
    wanted = [fit for fit in fits if architecture in (None, fit.layout.architecture)]
    # Fewest tensors dropped first: the classifier is also a backbone whose fc would be dropped.
    fit = min((fit for fit in wanted if fit.exact), key=lambda fit: len(fit.dropped), default=None)
    if fit is None:
        raise _no_fit(fits, wanted, shapes, path, architecture)
    notes = _notes(fit)
    ours = {ours: tensors[theirs] for theirs, ours in fit.names.items()}
    for name in expected_shapes(fit.layout.architecture):
        if name not in ours:  # only counters may be: PyTorch before 0.4.1 had none, and evaluation never reads them
            ours[name] = torch.zeros((), dtype=torch.int64)
    if bn_eps is None:
        bn_eps = IMAGENET_BN_EPS if MODELS[fit.layout.architecture].task == "backbone" else 0.0
    if bn_eps:
        for name in _frozen_variances(ours):
            # Not below zero: adding eps must not hide a negative variance, which `check` refuses.
            ours[name] = torch.where(ours[name] < 0, ours[name], ours[name] + bn_eps)
        notes.append(f"batch-norm epsilon {bn_eps:g} added to the running variances (frozen batch norm has none)")
    check(ours, fit.layout.architecture, path=path)
    return Recognised(fit.layout.architecture, ours, bn_eps, tuple(notes))


def check(tensors: Mapping[str, Tensor], architecture: str, *, path: Path | str) -> None:
    """Check names, shapes and running variances against a network, strictly.

    Raises:
        UsageError: Unknown `architecture`.
        WeightsError: Something is missing, left over, of a wrong shape, or would divide by zero.
    """
    shapes = {name: tuple(value.shape) for name, value in tensors.items()}
    fit = _fit(Layout(architecture, "ours", str), shapes, strict=True)
    if not fit.exact:
        raise WeightsError(f"does not fit {architecture}: {fit.difference()}", path=path, hint="import it again")
    frozen = set(_frozen_variances(tensors))
    for name, value in tensors.items():
        if not name.endswith("running_var") or not value.numel():
            continue
        lowest = float(value.min())
        if lowest < 0 or (lowest == 0 and name in frozen):
            raise WeightsError(
                f"running variance {name!r} is {'0' if lowest == 0 else 'negative'} somewhere, "
                "and batch norm divides by its root",
                path=path,
                hint="for an ImageNet backbone import it with --bn-eps 1e-5" if lowest == 0 else "the file is damaged",
            )


def _frozen_variances(tensors: Mapping[str, Tensor]) -> list[str]:
    """Return the running variances of frozen layers: those without a batch counter in our networks."""
    suffix = ".running_var"
    return [n for n in tensors if n.endswith(suffix) and f"{n.removesuffix(suffix)}.{COUNTER}" not in tensors]


def _fit(layout: Layout, shapes: Shapes, *, forced: bool = False, strict: bool = False) -> _Fit:
    """Compare the names and shapes of the tensors of a file with a layout.

    `forced`: the user asked for this network, so any `fc` is dropped, also one of two classes; `strict`: batch counters
    have to match as well.
    """
    expected = expected_shapes(layout.architecture)
    names: dict[str, str] = {}
    taken: set[str] = set()
    dropped, extra, wrong = [], [], []
    for theirs, shape in shapes.items():
        ours = layout.rename(theirs)
        if ours is None and not forced and shapes.get("fc.weight", ())[:1] == (2,):
            ours = theirs  # two classes: a COVID-19 classifier that does not fit, no ImageNet backbone
        if ours is None:
            dropped.append(theirs)
        elif ours in expected and ours not in taken:
            taken.add(ours)
            if shape == expected[ours]:
                names[theirs] = ours
            else:
                wrong.append(f"{theirs} is {_size(shape)}, expected {_size(expected[ours])}")
        elif ours.endswith(COUNTER) and not strict:
            dropped.append(theirs)
        else:
            extra.append(theirs)
    missing = [name for name in expected if name not in taken and (strict or not name.endswith(COUNTER))]
    return _Fit(layout, names, tuple(dropped), tuple(missing), tuple(extra), tuple(wrong))


def _notes(fit: _Fit) -> list[str]:
    """Return what a user should know about an exact fit."""
    notes = [f"recognised as {fit.layout.architecture}: {fit.layout.title}"]
    counters = [name for name in fit.dropped if name.endswith(COUNTER)]
    heads = sorted({name.partition(".")[0] for name in fit.dropped} - {name.partition(".")[0] for name in fit.names})
    if heads:
        notes.append(f"dropped, not part of the backbone: {', '.join(heads)}")
    if counters:
        notes.append(f"{len(counters)} batch counters of frozen layers dropped")
        if MODELS[fit.layout.architecture].task != "backbone":
            notes.append("if it was trained with ordinary batch norm in its backbones, import it with --bn-eps 1e-5")
    return notes


def _no_fit(
    fits: list[_Fit], wanted: list[_Fit], shapes: Shapes, path: Path | str, architecture: str | None
) -> WeightsError:
    """Say which network the tensors are instead, or what they lack to be the closest one."""
    known = f"known networks: {', '.join(MODELS)}"
    other = next((fit.layout.architecture for fit in fits if fit.exact), None)
    if other is not None:
        return WeightsError(f"this is {other}, not {architecture}", path=path, hint=f"use {other}, or the other file")
    closest = max(fits, key=lambda fit: fit.likeness)
    asked = max(wanted, key=lambda fit: fit.likeness)
    if closest.likeness < _STRANGER:
        return WeightsError(
            f"is not a network of this package: {len(shapes)} tensors ({_some(list(shapes))})", path=path, hint=known
        )
    if asked.likeness < closest.likeness:
        return WeightsError(
            f"is not {architecture}; closest to {closest.layout.architecture}, but {closest.difference()}",
            path=path,
            hint=known,
        )
    lead = f"does not fit {architecture}" if architecture else f"is closest to {asked.layout.architecture}, but"
    return WeightsError(f"{lead}: {asked.difference()}".replace("but:", "but"), path=path, hint=known)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape)) or "a single number"


def _some(names: list[str] | tuple[str, ...], count: int = 3) -> str:
    return ", ".join(f"{name:.100}" for name in names[:count]) + (", …" if len(names) > count else "")
