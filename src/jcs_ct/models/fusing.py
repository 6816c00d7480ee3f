"""Batch norm fused into the convolution before it: the same numbers with one operation less.

In evaluation mode batch norm is y = x·s + t with fixed s and t, so that norm(conv(x)) is a convolution with kernels
w·s and bias b·s + t. That holds for the frozen norms of the published backbones (s = weight / sqrt(running_var), no
epsilon) and for ordinary ones (s = weight / sqrt(running_var + eps)). Factors are computed in double precision.

A block with norms has a method `fuse_norms()`, which replaces its convolutions and leaves an identity in place of each
norm. `jcs_ct.inference.fused` calls it on a copy.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor


def scale_and_shift(norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Return s and t of a norm in evaluation mode, float64, C each."""
    mean, variance = cast("Tensor", norm.running_mean).double(), cast("Tensor", norm.running_var).double()
    scale = cast("Tensor", norm.weight).double() / torch.sqrt(variance + cast("float", norm.eps))
    return scale, cast("Tensor", norm.bias).double() - mean * scale


def absorb(conv: nn.Module, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """Return a convolution that computes conv(x)·scale + shift, with parameters of its own."""
    fused = cast("nn.Conv2d", copy.copy(conv))  # shallow: geometry is kept, the tensors are replaced
    bias = 0.0 if fused.bias is None else fused.bias.double() * scale
    weight = fused.weight.double() * scale[:, None, None, None]
    fused._parameters = {  # `copy` shares the table of parameters with the original
        "weight": nn.Parameter(weight.float(), requires_grad=False),
        "bias": nn.Parameter((bias + shift).float(), requires_grad=False),
    }
    return fused


def fuse(conv: nn.Module, norm: nn.Module) -> tuple[nn.Conv2d, Any]:
    """Return the convolution with the norm behind it, and what stands in the place of the norm."""
    return absorb(conv, *scale_and_shift(norm)), nn.Identity()


def fuse_groups(convs: nn.ModuleList, norm: nn.Module) -> tuple[nn.ModuleList, Any]:
    """Return convolutions side by side with the one norm behind them all, and what stands in the place of the norm."""
    parts = (part.chunk(len(convs)) for part in scale_and_shift(norm))
    return nn.ModuleList(absorb(*one) for one in zip(convs, *parts, strict=True)), nn.Identity()
