"""How other programs name the tensors of our networks. No torch here."""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcs_ct.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable


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
    for stage, blocks in enumerate((2, 2, 3, 3, 3), 1):
        for block in range(1, blocks + 1):
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


def _without(prefix: str) -> Callable[[str], str | None]:
    return lambda name: name.removeprefix(prefix)


def _without_fc(name: str) -> str | None:
    return None if name.startswith("fc.") else name


def layouts() -> tuple[Layout, ...]:
    """Return every known layout, those of whole networks first."""
    whole = [Layout(spec.name, "official names", str) for spec in MODELS.values()]
    return (
        *whole,
        Layout("vgg16-bn", "layer numbers of torchvision", _from_vgg_numbers),
        Layout("vgg16-bn", "official names under vgg16.", _without("vgg16.")),
        Layout("res2net101-v1b", "Res2Net names with an ImageNet fc", _without_fc),
        Layout("res2net101-v1b", "official names under res2net.", _without("res2net.")),
    )
