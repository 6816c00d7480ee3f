"""Res2Net-101 v1b, 26w×4s, with frozen batch norm.

Source: Gao et al., "Res2Net: A New Multi-scale Backbone Architecture", IEEE TPAMI 2021; version 1b has the deep stem
and the average-pooled shortcuts of ResNet-D. Departure: batch norm is frozen and has no epsilon (see `layers`).

Contract (for a 2×3×96×64 image): five maps of 2×64×48×32, 2×256×24×16, 2×512×12×8, 2×1024×6×4, 2×2048×3×2.
Every size from 1×1 on is taken; strides round up.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.models.fusing import fuse
from jcs_ct.models.layers import FrozenBatchNorm2d, check_input

BLOCKS = (3, 4, 23, 3)
CHANNELS = (64, 256, 512, 1024, 2048)
BASE_WIDTH, SCALE, EXPANSION = 26, 4, 4


class Bottle2neck(nn.Module):
    """A residual block whose middle convolution works on four groups of channels, each seeing the one before it.

    Args:
        c_in: Channels that come in.
        planes: A quarter of the channels that go out.
        stride: Of the middle convolutions.
        first: The first block of a layer: its groups do not see one another, the fourth is average-pooled, and the
            shortcut is average pooling, a 1×1 convolution and batch norm.
    """

    def __init__(self, c_in: int, planes: int, stride: int, *, first: bool) -> None:
        super().__init__()
        width = planes * BASE_WIDTH // 64
        self.first, self.stride = first, stride
        self.conv1 = nn.Conv2d(c_in, width * SCALE, 1, bias=False)
        self.bn1 = FrozenBatchNorm2d(width * SCALE)
        self.convs = nn.ModuleList(
            nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False) for _ in range(SCALE - 1)
        )
        self.bns = nn.ModuleList(FrozenBatchNorm2d(width) for _ in range(SCALE - 1))
        self.conv3 = nn.Conv2d(width * SCALE, planes * EXPANSION, 1, bias=False)
        self.bn3 = FrozenBatchNorm2d(planes * EXPANSION)
        self.downsample: nn.Sequential | None = None
        if first:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False),
                nn.Conv2d(c_in, planes * EXPANSION, 1, bias=False),
                FrozenBatchNorm2d(planes * EXPANSION),
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×4·planes×ceil(H/stride)×ceil(W/stride)."""
        shortcut = x if self.downsample is None else self.downsample(x)
        groups = F.relu(self.bn1(self.conv1(x))).chunk(SCALE, dim=1)
        outputs: list[Tensor] = []
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            group = groups[i] if i == 0 or self.first else groups[i] + outputs[-1]
            outputs.append(F.relu(bn(conv(group))))
        last = F.avg_pool2d(groups[-1], 3, self.stride, padding=1) if self.first else groups[-1]
        x = self.bn3(self.conv3(torch.cat([*outputs, last], dim=1)))
        return F.relu(x + shortcut, inplace=True)

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`."""
        self.conv1, self.bn1 = fuse(self.conv1, self.bn1)
        self.conv3, self.bn3 = fuse(self.conv3, self.bn3)
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns, strict=True)):
            self.convs[i], self.bns[i] = fuse(conv, bn)
        if self.downsample is not None:
            self.downsample[1], self.downsample[2] = fuse(self.downsample[1], self.downsample[2])


class Res2Net101(nn.Module):
    """The backbone.

    `inputs` is "image" (N×3×H×W), or "features" (N×64×H'×W', the output of the stem, which is then skipped).
    """

    def __init__(self, inputs: str = "image") -> None:
        super().__init__()
        self.from_features = inputs == "features"
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 32, 3, stride=2, padding=1, bias=False),
            FrozenBatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 32, 3, padding=1, bias=False),
            FrozenBatchNorm2d(32),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1, bias=False),
        )
        self.bn1 = FrozenBatchNorm2d(64)
        c_in = CHANNELS[0]
        for layer, (blocks, c_out) in enumerate(zip(BLOCKS, CHANNELS[1:], strict=True), 1):
            stride, planes = 1 if layer == 1 else 2, c_out // EXPANSION
            block_list = [Bottle2neck(c_in, planes, stride, first=True)]
            block_list += [Bottle2neck(c_out, planes, 1, first=False) for _ in range(blocks - 1)]
            self.add_module(f"layer{layer}", nn.Sequential(*block_list))
            c_in = c_out

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`: the three norms of the stem, of which the last is `bn1`."""
        self.conv1[0], self.conv1[1] = fuse(self.conv1[0], self.conv1[1])
        self.conv1[3], self.conv1[4] = fuse(self.conv1[3], self.conv1[4])
        self.conv1[6], self.bn1 = fuse(self.conv1[6], self.bn1)

    def check(self, x: Tensor) -> None:
        """Raise ShapeError for what is not N×3×H×W (N×64×H×W with `inputs="features"`)."""
        what, channels = ("Res2Net stage-1 features", CHANNELS[0]) if self.from_features else ("an image", 3)
        check_input(x, what, channels, 1)

    def stage_one(self, image: Tensor) -> Tensor:
        """Return the stage-1 features N×64×ceil(H/2)×ceil(W/2) of an image N×3×H×W."""
        check_input(image, "an image", 3, 1)
        return F.relu(self.bn1(self.conv1(image)))

    def pyramid(self, x: Tensor) -> list[Tensor]:
        """Return the five levels, finest first. Raises ShapeError as `check`."""
        self.check(x)
        levels = [x if self.from_features else self.stage_one(x)]
        x = F.max_pool2d(levels[0], 3, stride=2, padding=1)
        for layer in range(1, len(BLOCKS) + 1):
            x = self.get_submodule(f"layer{layer}")(x)
            levels.append(x)
        return levels

    def forward(self, x: Tensor) -> list[Tensor]:
        """See `pyramid`."""
        return self.pyramid(x)


class Res2NetClassifier(Res2Net101):
    """Res2Net-101 v1b, global average pooling and a linear layer without bias: logits N×2, index 1 is COVID-19."""

    def __init__(self, inputs: str = "image") -> None:
        super().__init__(inputs)
        self.fc = nn.Linear(CHANNELS[-1], 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]  # the pyramid stays available under its name
        """Return logits N×2 of N×3×H×W (or of stage-1 features N×64×H'×W')."""
        return cast("Tensor", self.fc(self.pyramid(x)[-1].mean(dim=(2, 3))))

    def infer(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logits N×2 and evidence N×h×w, see `jcs_ct.models.InferenceNetwork`."""
        deepest = self.pyramid(x)[-1]
        evidence = F.conv2d(deepest, self.fc.weight[1][None, :, None, None])
        return self.fc(deepest.mean(dim=(2, 3))), evidence[:, 0]

    def published(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the same: the published network has no map, and its logits are computed alike."""
        return self.infer(x)

    def explained(self, output: Tensor) -> Tensor:
        """Return the logits."""
        return output
