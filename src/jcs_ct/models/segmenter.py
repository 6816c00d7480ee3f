"""`jcs-single` and `jcs-joint`: the segmenters of JCS, with deep supervision at five levels.

Source: Wu et al., IEEE TIP 2021; the parameter names are those of the published checkpoints. Departure: the networks
return logits (the published ones end in a sigmoid), so that losses and exports can work on them.

Sizes: any H and W of at least 16, not only multiples of a stride. `inputs="features"` takes the stage-1 features of
the COVID-CS release instead of an image and returns maps of the size of the VGG features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.core.errors import ShapeError
from jcs_ct.models import decoder, res2net, vgg
from jcs_ct.models.layers import EnhancedFeatureModule, check_input, resize

if TYPE_CHECKING:
    from collections.abc import Sequence

MINIMUM = 16  # three poolings to stage 5, one more to level 6


class Segmenter(nn.Module):
    """What both segmenters have: VGG-16, two enhanced feature modules, the decoder, five side outputs."""

    def __init__(self, inputs: str = "image") -> None:
        super().__init__()
        self.vgg16 = vgg.VGG16(inputs)
        self.gpd = EnhancedFeatureModule(512, (1, 3, 6, 9))
        self.gpd1 = EnhancedFeatureModule(512, (1, 2, 3, 4))
        self.fpn = decoder.Decoder()
        for i, channels in enumerate(decoder.CHANNELS[:-1], 1):
            self.add_module(f"cls{i}", nn.Conv2d(channels, 1, 1))

    def encode(self, x: Tensor) -> list[Tensor]:
        """Return six levels, finest first: VGG stages 1–4, the refined stage 5, and level 6 made from it."""
        levels = self.vgg16(x)
        levels[-1] = self.gpd(levels[-1])
        return [*levels, self.gpd1(F.max_pool2d(levels[-1], 2))]

    def check(self, *inputs: Tensor) -> None:
        """Raise ShapeError where the channels are wrong, or H or W is below 16."""
        check_input(inputs[0], "an input", 64 if self.vgg16.first_stage else 3, MINIMUM)

    def levels(self, *inputs: Tensor) -> list[Tensor]:
        """Return the six levels that are decoded, finest first."""
        raise NotImplementedError

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return logits N×5×H×W, finest first. Raises ShapeError as `check`."""
        self.check(*inputs)
        decoded = enumerate(self.fpn(self.levels(*inputs)), 1)
        return torch.cat([resize(self.get_submodule(f"cls{i}")(level), inputs[0]) for i, level in decoded], dim=1)

    def infer(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the finest map N×1×H×W alone, see `jcs_ct.models.InferenceNetwork`."""
        finest = self.fpn(self.levels(*inputs))[0]
        return (resize(self.get_submodule("cls1")(finest), inputs[0]),)

    def published(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the same map of all five."""
        return (self(*inputs)[:, :1],)

    def explained(self, output: Tensor) -> Tensor:
        """Return the logits of lesion."""
        return output


class SingleSegmenter(Segmenter):
    """`jcs-single`: segmentation from the VGG path alone, of an image N×3×H×W or of VGG stage-1 features N×64×H×W."""

    def check(self, *inputs: Tensor) -> None:
        """See `Segmenter.check`; there is one input."""
        super().check(*inputs)
        if len(inputs) > 1:
            raise ShapeError(f"{len(inputs)} inputs were given; one is expected")

    def levels(self, *inputs: Tensor) -> list[Tensor]:
        """See `Segmenter.levels`."""
        return self.encode(inputs[0])


class ConvBatchNormReLU(vgg.ConvNormReLU):
    """The same block with ordinary batch norm."""

    norm = nn.BatchNorm2d


class ClassifierFusion(nn.Module):
    """Bring the classifier's features into the segmenter: three convolutions on each of five levels."""

    def __init__(self) -> None:
        super().__init__()
        pairs = list(zip(vgg.CHANNELS, res2net.CHANNELS, strict=True))
        self.cat_modules = nn.ModuleList(ConvBatchNormReLU(a + b, a) for a, b in pairs)
        self.se_modules = nn.ModuleList(ConvBatchNormReLU(a, a) for a, _ in pairs)
        self.fuse_modules = nn.ModuleList(ConvBatchNormReLU(a, a) for a, _ in pairs)

    def forward(self, vgg_levels: Sequence[Tensor], res2net_levels: Sequence[Tensor]) -> list[Tensor]:
        """Return five levels with VGG's channels at Res2Net's sizes (strides 2 to 32)."""
        fused = []
        for i, (a, b) in enumerate(zip(vgg_levels, res2net_levels, strict=True)):
            x = torch.cat([resize(a, b), b], dim=1)
            fused.append(self.fuse_modules[i](self.se_modules[i](self.cat_modules[i](x))))
        return fused


class JointSegmenter(Segmenter):
    """`jcs-joint`: the classifier's features (Res2Net-101 v1b) feed the segmenter.

    It reads an image N×3×H×W; with `inputs="features"` VGG stage-1 features N×64×H×W and those of Res2Net,
    N×64×ceil(H/2)×ceil(W/2).
    """

    def __init__(self, inputs: str = "image") -> None:
        super().__init__(inputs)
        self.res2net = res2net.Res2Net101(inputs)
        self.fuse = ClassifierFusion()

    def check(self, *inputs: Tensor) -> None:
        """See `Segmenter.check`; the two feature maps must also belong together."""
        super().check(*inputs)
        x, more = inputs[0], inputs[1:]
        if not self.vgg16.first_stage:
            if more:
                raise ShapeError("an image takes no second input; build the network with inputs='features' for two")
            return
        if len(more) != 1:
            raise ShapeError("only stage-1 features of VGG were given; those of Res2Net are needed too")
        needed = (x.shape[0], 64, (x.shape[2] + 1) // 2, (x.shape[3] + 1) // 2)
        if tuple(more[0].shape) != needed:
            raise ShapeError(
                f"Res2Net stage-1 features of shape {'×'.join(map(str, more[0].shape))} were given; "
                f"{'×'.join(map(str, needed))} belong to VGG features of {x.shape[2]}×{x.shape[3]}"
            )

    def levels(self, *inputs: Tensor) -> list[Tensor]:
        """See `Segmenter.levels`."""
        levels = self.encode(inputs[0])
        return [*self.fuse(levels[:-1], self.res2net.pyramid(inputs[-1])), levels[-1]]
