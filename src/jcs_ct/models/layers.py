"""Building blocks that the published networks share.

Source: Wu et al., "JCS: An Explainable COVID-19 Diagnosis System by Joint Classification and Segmentation",
IEEE TIP 2021, and the published checkpoints, whose parameter names these modules carry.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.core.errors import ShapeError


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and **no epsilon**, as the published backbones have it; never trained.

    y = x·s + (bias − running_mean·s) with s = weight / sqrt(running_var). Four buffers of C values each.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps = 0.0

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            self.register_buffer(name, torch.full((channels,), value))

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        scale = self.weight * self.running_var.rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


class ConvReLU(nn.Module):
    """Convolution with bias, then ReLU; keeps the size. The parameters are called `conv.*`."""

    def __init__(self, c_in: int, c_out: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, padding=kernel // 2)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×c_out×H×W."""
        return F.relu(self.conv(x))  # not in place: whoever hooks `conv` sees its own output


class SqueezeExcitation(nn.Module):
    """Channel attention: spatial mean, two linear layers, sigmoid, scale."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        weights = torch.sigmoid(self.linear2(F.relu(self.linear1(x.mean(dim=(2, 3))))))
        return x * weights[:, :, None, None]


class EnhancedFeatureModule(nn.Module):
    """Four dilated convolutions side by side (the paper: grouped atrous module); C channels in and out."""

    def __init__(self, channels: int, dilations: tuple[int, int, int, int]) -> None:
        super().__init__()
        group = channels // 2
        self.expand_conv = ConvReLU(channels, 2 * channels, 1)
        self.reduce_conv = ConvReLU(2 * channels, channels, 1)
        self.end_conv = ConvReLU(channels, channels, 3)
        self.se_block = SqueezeExcitation(2 * channels, channels // 2)
        self.dilation_convs = nn.ModuleList(nn.Conv2d(group, group, 3, padding=d, dilation=d) for d in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to the same shape."""
        groups = self.expand_conv(x).chunk(len(self.dilation_convs), dim=1)
        x = torch.cat([conv(group) for conv, group in zip(self.dilation_convs, groups, strict=True)], dim=1)
        x = self.se_block(F.relu(x, inplace=True))
        return cast("Tensor", self.end_conv(self.reduce_conv(x)))


def resize(x: Tensor, like: Tensor) -> Tensor:
    """Resize N×C×h×w to the H×W of another map: bilinear, corners not aligned, not antialiased."""
    size = (like.shape[2], like.shape[3])
    if x.shape[-2:] == size:
        return x
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def check_input(x: Tensor, what: str, channels: int, minimum: int) -> None:
    """Raise ShapeError for a tensor that is not N×`channels`×H×W, H and W of at least `minimum`, of real numbers."""
    if x.dim() != 4 or x.shape[1] != channels or x.shape[0] < 1 or min(x.shape[2:]) < minimum:
        raise ShapeError(
            f"{what} of shape {'×'.join(map(str, x.shape)) or 'scalar'} was given; "
            f"N×{channels}×H×W with H and W of at least {minimum} is expected"
        )
    if not x.is_floating_point():
        raise ShapeError(f"{what} is of type {x.dtype}; a floating-point tensor is expected")
