"""A network of 68 numbers in the table, so that the tests of the store need no half gigabyte."""

from __future__ import annotations

import sys
from dataclasses import replace
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from jcs_ct import models
from jcs_ct.models.layers import FrozenBatchNorm2d

if TYPE_CHECKING:
    import pytest

    from jcs_ct.weights import WeightsCard


class Tiny(nn.Module):
    """One convolution and a frozen batch norm."""

    def __init__(self, inputs: str) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 2)
        self.bn = FrozenBatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.bn(self.conv(x))
        return out


def add_tiny(monkeypatch: pytest.MonkeyPatch, name: str = "tiny", task: models.Task = "segmentation") -> None:
    """Put the network into the table for one test."""
    module = ModuleType("tiny_network")
    module.Tiny = Tiny  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "tiny_network", module)
    spec = models.ModelSpec(name, task, "tiny_network:Tiny", "tiny", "release-segmentation", "", ("vgg",))
    monkeypatch.setitem(models.MODELS, name, spec)


def tiny_state(seed: int = 0) -> dict[str, Tensor]:
    """Return weights for it."""
    generator = torch.Generator().manual_seed(seed)
    state = {name: torch.rand(value.shape, generator=generator) for name, value in Tiny("image").state_dict().items()}
    state["bn.running_var"] += 0.5
    return state


def card_for(architecture: str, **values: Any) -> WeightsCard:
    """Return a card as `jcs models import` would make it, with some values changed."""
    from jcs_ct.inference.golden import self_check_card

    return replace(self_check_card(architecture), classes=("lesion",), **{"threshold": 0.5} | values)
