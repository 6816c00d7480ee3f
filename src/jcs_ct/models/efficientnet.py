"""EfficientNet-Lite0 as a feature pyramid: the encoder of `jcs-lite`.

Source: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks", ICML 2019; the Lite
variants (TensorFlow TPU project, 2020) leave out squeeze-and-excitation and use ReLU6, so that they quantise well.
Departures: one input channel (a CT slice is grey), no classification head, and symmetric padding where TensorFlow pads
strided convolutions at the end only. The latter moves the sampling grid by half a pixel; weights are fine-tuned anyway.
"""

from __future__ import annotations

from torch import Tensor, nn

from jcs_ct.models.fusing import fuse

# (kernel, stride, expansion, channels, blocks) of the seven stages, after a stem of 32 channels at stride 2
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3), (5, 1, 6, 112, 3), (5, 2, 6, 192, 4),
          (3, 1, 6, 320, 1))  # fmt: skip
STEM = 32
LEVELS = (16, 24, 40, 112, 320)  # channels of the pyramid, at strides 2, 4, 8, 16, 32
_LEVEL_ENDS = (0, 1, 2, 4, 6)  # the stages that end a level
EPSILON = 1e-3  # of batch norm, as the ImageNet weights have it


class ConvNorm(nn.Module):
    """Convolution without bias, batch norm and, unless told otherwise, ReLU6."""

    def __init__(
        self, c_in: int, c_out: int, kernel: int, stride: int = 1, groups: int = 1, *, active: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(c_out, eps=EPSILON)
        self.active = nn.ReLU6(inplace=True) if active else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×c_out×ceil(H/stride)×ceil(W/stride)."""
        y: Tensor = self.active(self.norm(self.conv(x)))
        return y

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`."""
        self.conv, self.norm = fuse(self.conv, self.norm)


class InvertedResidual(nn.Module):
    """1×1 expansion, depthwise convolution, linear 1×1 projection; a shortcut where the shape is kept."""

    def __init__(self, c_in: int, c_out: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        wide = c_in * expansion
        self.expand = ConvNorm(c_in, wide, 1) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, c_out, 1, active=False)
        self.shortcut = stride == 1 and c_in == c_out

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×c_out×ceil(H/stride)×ceil(W/stride)."""
        y: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + y if self.shortcut else y


class EfficientNetLite0(nn.Module):
    """Five feature maps of a grey picture: 16, 24, 40, 112 and 320 channels at strides 2, 4, 8, 16 and 32."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvNorm(1, STEM, 3, 2)
        stages, c_in = [], STEM
        for kernel, stride, expansion, channels, count in STAGES:
            blocks = [
                InvertedResidual(c_in if i == 0 else channels, channels, kernel, stride if i == 0 else 1, expansion)
                for i in range(count)
            ]
            stages.append(nn.Sequential(*blocks))
            c_in = channels
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Map N×1×H×W to the pyramid, finest first."""
        x = self.stem(x)
        levels = []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            if i in _LEVEL_ENDS:
                levels.append(x)
        return levels
