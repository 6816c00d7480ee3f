"""The decoder of both segmenters (the paper: attentive feature fusion) and the five side outputs.

Source: Wu et al., IEEE TIP 2021. One implementation serves `jcs-single` and `jcs-joint`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from jcs_ct.models.layers import ConvReLU, SqueezeExcitation, resize

if TYPE_CHECKING:
    from collections.abc import Sequence

CHANNELS = (64, 128, 256, 512, 512, 512)  # of the six levels, in and out


class AttentiveFusion(nn.Module):
    """Fuse a lateral and a top-down map of C/2 channels each to C channels; both attentions have one hidden unit."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.se1 = SqueezeExcitation(channels, 1)
        self.conv1 = ConvReLU(channels, channels, 3)
        self.se2 = SqueezeExcitation(channels + half, 1)
        self.reduce_conv = ConvReLU(channels + half, channels, 1)
        self.conv2 = ConvReLU(channels, channels, 3)

    def forward(self, lateral: Tensor, top_down: Tensor) -> Tensor:
        """Map two N×C/2×H×W to N×C×H×W."""
        x = self.conv1(self.se1(torch.cat([lateral, top_down], dim=1)))
        x = self.se2(torch.cat([x, top_down], dim=1))
        return cast("Tensor", self.conv2(self.reduce_conv(x)))


class Decoder(nn.Module):
    """Six levels in (finest first), five refined levels out (finest first, the channels of the input)."""

    def __init__(self) -> None:
        super().__init__()
        last = len(CHANNELS) - 1
        self.inners_a = nn.ModuleList(ConvReLU(c, c if i == last else c // 2, 1) for i, c in enumerate(CHANNELS))
        self.inners_b = nn.ModuleList(ConvReLU(CHANNELS[i + 1], CHANNELS[i] // 2, 1) for i in range(last))
        self.fuse = nn.ModuleList(AttentiveFusion(c) for c in CHANNELS[:-1])
        self.fuse.append(ConvReLU(CHANNELS[-1], CHANNELS[-1], 3))

    def forward(self, levels: Sequence[Tensor]) -> list[Tensor]:
        """Refine from the coarsest level down; each level keeps its own size."""
        previous = self.fuse[-1](self.inners_a[-1](levels[-1]))
        refined: list[Tensor] = []
        for i in range(len(levels) - 2, -1, -1):
            top_down = resize(self.inners_b[i](previous), levels[i])
            previous = self.fuse[i](self.inners_a[i](levels[i]), top_down)
            refined.insert(0, previous)
        return refined
