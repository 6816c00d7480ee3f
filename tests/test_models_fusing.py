"""Batch norm in a convolution: the same numbers as both, for either kind of norm, and for norms behind groups."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from jcs_ct.models.fusing import fuse, fuse_groups, scale_and_shift
from jcs_ct.models.layers import FrozenBatchNorm2d


def with_values(norm: nn.Module) -> nn.Module:
    for name, low, high in (("weight", 0.5, 2), ("bias", -1, 1), ("running_mean", -1, 1), ("running_var", 0.5, 2)):
        getattr(norm, name).data.uniform_(low, high)
    return norm.eval()


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d(6), nn.BatchNorm2d(6), nn.BatchNorm2d(6, eps=0.1)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_norm_becomes_part_of_the_convolution(norm: nn.Module, *, bias: bool) -> None:
    conv, x = nn.Conv2d(3, 6, 3, bias=bias), torch.randn(2, 3, 8, 9)
    before = conv.weight.clone()
    with torch.no_grad():
        fused, rest = fuse(conv, with_values(norm))
        torch.testing.assert_close(rest(fused(x)), norm(conv(x)))
    assert torch.equal(conv.weight, before), "the convolution that was given is not touched"


@torch.no_grad()
def test_the_frozen_norm_has_no_epsilon() -> None:
    frozen = FrozenBatchNorm2d(1)
    frozen.running_var.fill_(0.25)
    scale, shift = scale_and_shift(frozen)
    assert (float(scale), float(shift)) == (2.0, 0.0)
    ordinary = nn.BatchNorm2d(1, eps=0.75).eval()
    ordinary.running_var.fill_(0.25)  # type: ignore[union-attr]
    assert float(scale_and_shift(ordinary)[0]) == 1.0


def test_one_norm_behind_convolutions_side_by_side() -> None:
    convs = nn.ModuleList(nn.Conv2d(2, 3, 1, bias=False) for _ in range(4))
    norm, x = with_values(nn.BatchNorm2d(12)), torch.randn(1, 2, 4, 5)
    with torch.no_grad():
        fused, rest = fuse_groups(convs, norm)
        found = rest(torch.cat([conv(x) for conv in fused], dim=1))
        torch.testing.assert_close(found, norm(torch.cat([conv(x) for conv in convs], dim=1)))
