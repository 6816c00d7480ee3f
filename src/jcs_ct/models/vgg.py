"""VGG-16 with frozen batch norm, as JCS cuts it: five stages, no pooling between stages 4 and 5.

Source: Simonyan & Zisserman 2015; Wu et al., IEEE TIP 2021, for the missing fourth pooling. Departure from the
classification network: stage 5 runs at stride 8, and nothing follows it.

Contract (for a 2×3×96×64 image): five maps of 2×64×96×64, 2×128×48×32, 2×256×24×16, 2×512×12×8, 2×512×12×8.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.models.fusing import fuse
from jcs_ct.models.layers import FrozenBatchNorm2d, check_input

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CHANNELS = tuple(stage[-1] for stage in STAGES)
POOLED = (1, 2, 3)  # the stages (from 0) that a 2×2 max-pool precedes
MINIMUM = 8  # three poolings


class ConvNormReLU(nn.Module):
    """3×3 convolution with bias, frozen batch norm, ReLU (`conv.*`, `bn.*`)."""

    norm: type[Any] = FrozenBatchNorm2d

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.bn = self.norm(c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×c_out×H×W."""
        return F.relu(self.bn(self.conv(x)))

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`."""
        self.conv, self.bn = fuse(self.conv, self.bn)


class VGG16(nn.Module):
    """The backbone; blocks are called `conv{stage}_{k}`, both from 1.

    `inputs` is "image" (N×3×H×W), or "features" (N×64×H×W, the output of stage 1, which is then skipped).
    """

    def __init__(self, inputs: str = "image") -> None:
        super().__init__()
        self.first_stage = 1 if inputs == "features" else 0
        c_in = 3
        for stage, widths in enumerate(STAGES, 1):
            for k, c_out in enumerate(widths, 1):
                self.add_module(f"conv{stage}_{k}", ConvNormReLU(c_in, c_out))
                c_in = c_out

    def stage(self, index: int, x: Tensor) -> Tensor:
        """Run stage `index` (from 0) on the output of the stage before it."""
        if index in POOLED:
            x = F.max_pool2d(x, 2)
        for k in range(1, len(STAGES[index]) + 1):
            x = self.get_submodule(f"conv{index + 1}_{k}")(x)
        return x

    def stage_one(self, image: Tensor) -> Tensor:
        """Return the stage-1 features N×64×H×W of an image N×3×H×W."""
        check_input(image, "an image", 3, 1)
        return self.stage(0, image)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the five stage outputs, finest first. H and W: at least 8, any value (poolings round down).

        Raises ShapeError where `x` is not N×3×H×W (N×64×H×W with `inputs="features"`), or too small.
        """
        what, channels = ("VGG stage-1 features", CHANNELS[0]) if self.first_stage else ("an image", 3)
        check_input(x, what, channels, MINIMUM)
        outputs = [x if self.first_stage else self.stage_one(x)]
        for index in range(1, len(STAGES)):
            outputs.append(self.stage(index, outputs[-1]))
        return outputs
