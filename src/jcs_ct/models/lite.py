"""`jcs-lite`: probability, attention and lesion maps of a slice out of one forward pass.

A light form of JCS (Wu et al., IEEE TIP 2021). What is kept: one encoder shared by classification and segmentation,
the enhanced feature module of four dilated groups on the deepest level, a decoder that fuses top-down with attention
over channels, and deep supervision. What is new:

- the encoder is EfficientNet-Lite0, and the network reads one grey channel;
- what the classifier needs of the decoder stands alone: the module and one step of fusion, at stride 16;
- lesions have a plain decoder of their own, down to stride 2, where small lesions and their edges are: 1×1 laterals,
  sums, 3×3 convolutions with batch norm, and four dilated convolutions on the deepest level. So lesion maps can be
  trained on further data while probabilities, attention and their calibration stay as they are;
- the classifier is a map of evidence e = w·A at stride 16 (A: N×96×h×w, no bias), pooled by log-mean-exp. The
  gradient of that pooling sums to one over the positions, so that Grad-CAM (Selvaraju et al., ICCV 2017) on A
  gives ReLU(w·A) / (h·w): the attention map of the pass itself, up to its scale.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.core.errors import UsageError
from jcs_ct.models.efficientnet import EPSILON, LEVELS, ConvNorm, EfficientNetLite0
from jcs_ct.models.fusing import absorb, fuse_groups, scale_and_shift
from jcs_ct.models.layers import SqueezeExcitation, check_input, resize

FUSED = 96  # channels of the classifier's fusion, at stride 16
WIDTHS = (24, 40, 64, 96, 128)  # of the lesion decoder, at strides 2, 4, 8, 16, 32
DEPTHS = (1, 2, 2, 2)  # 3×3 convolutions of its steps; the finest ones cost most
DILATIONS = (1, 2, 3, 4)
SHARPNESS = 4.0  # of the pooling: towards the maximum of the evidence as it grows, towards the mean as it shrinks


class LiteOutput(NamedTuple):
    """What one pass gives, for an input of N×1×H×W.

    Attributes:
        logit: N; the probability of COVID-19 is sigmoid(logit / temperature of the weights).
        evidence: N×h×w at stride 16; attention is its positive part, scaled (`jcs_ct.inference.attention`).
        maps: N×4×H×W logits of lesion, finest first; map 0 is the prediction, the others are deep supervision.
    """

    logit: Tensor
    evidence: Tensor
    maps: Tensor


class LightFeatureModule(nn.Module):
    """The paper's enhanced feature module at a fraction of its cost: four dilated groups, then attention."""

    def __init__(self, c_in: int, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(c_in, channels, 1)
        group = channels // len(DILATIONS)
        self.dilated = nn.ModuleList(nn.Conv2d(group, group, 3, padding=d, dilation=d, bias=False) for d in DILATIONS)
        self.norm: nn.Module = nn.BatchNorm2d(channels)
        self.attention = SqueezeExcitation(channels, channels // 4)
        self.end = ConvNorm(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×channels×H×W."""
        x = self.reduce(x)
        groups = x.chunk(len(DILATIONS), dim=1)
        together = torch.cat([conv(group) for conv, group in zip(self.dilated, groups, strict=True)], dim=1)
        y: Tensor = self.end(self.attention(F.relu(self.norm(together))))
        return x + y

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`: one norm behind four convolutions side by side."""
        self.dilated, self.norm = fuse_groups(self.dilated, self.norm)


class LightFusion(nn.Module):
    """One step of the attentive fusion decoder: attention over [lateral, top-down], then two cheap convolutions."""

    def __init__(self, c_lateral: int, c_top: int, channels: int) -> None:
        super().__init__()
        self.lateral = ConvNorm(c_lateral, channels, 1)
        self.top = ConvNorm(c_top, channels, 1)
        self.attention = SqueezeExcitation(2 * channels, channels // 4)
        self.mix = ConvNorm(2 * channels, channels, 1)
        self.smooth = ConvNorm(channels, channels, 3)

    def forward(self, lateral: Tensor, top: Tensor) -> Tensor:
        """Map N×c_lateral×H×W and a coarser N×c_top×h×w to N×channels×H×W."""
        lateral = self.lateral(lateral)
        above = resize(self.top(top), lateral)  # 1×1 first: fewer positions
        y: Tensor = self.smooth(self.mix(self.attention(torch.cat([lateral, above], dim=1))))
        return y


class DilatedGroups(nn.Module):
    """Four dilated convolutions beside one another, with a shortcut."""

    def __init__(self, c_in: int, channels: int) -> None:
        super().__init__()
        self.reduce = ConvNorm(c_in, channels, 1)
        group = channels // len(DILATIONS)
        self.dilated = nn.ModuleList(
            nn.Conv2d(channels, group, 3, padding=d, dilation=d, bias=False) for d in DILATIONS
        )
        self.norm: nn.Module = nn.BatchNorm2d(channels, eps=EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """Map N×c_in×H×W to N×channels×H×W."""
        x = self.reduce(x)
        return x + F.relu(self.norm(torch.cat([conv(x) for conv in self.dilated], dim=1)))

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`: one norm behind four convolutions side by side."""
        self.dilated, self.norm = fuse_groups(self.dilated, self.norm)


class SumFusion(nn.Module):
    """One step of the lesion decoder: the lateral and the coarser level in one sum, then 3×3 convolutions."""

    def __init__(self, c_lateral: int, c_top: int, channels: int, depth: int) -> None:
        super().__init__()
        self.lateral = nn.Conv2d(c_lateral, channels, 1, bias=False)
        self.top = nn.Conv2d(c_top, channels, 1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(channels, eps=EPSILON)
        self.smooth = nn.Sequential(*(ConvNorm(channels, channels, 3) for _ in range(depth)))

    def forward(self, lateral: Tensor, top: Tensor) -> Tensor:
        """Map N×c_lateral×H×W and a coarser N×c_top×h×w to N×channels×H×W."""
        above = resize(self.top(top), lateral)  # 1×1 first: fewer positions
        y: Tensor = self.smooth(F.relu(self.norm(self.lateral(lateral) + above)))
        return y

    def fuse_norms(self) -> None:
        """See `jcs_ct.models.fusing`: the norm of a sum scales both; its shift goes with one of them."""
        scale, shift = scale_and_shift(self.norm)
        self.lateral, self.top = absorb(self.lateral, scale, shift), absorb(self.top, scale, torch.zeros_like(shift))
        self.norm = nn.Identity()


class LesionDecoder(nn.Module):
    """From the encoder's pyramid to maps of lesion logits."""

    def __init__(self) -> None:
        super().__init__()
        self.top = DilatedGroups(LEVELS[4], WIDTHS[4])
        self.fuse = nn.ModuleList(SumFusion(LEVELS[i], WIDTHS[i + 1], WIDTHS[i], DEPTHS[i]) for i in range(4))
        self.heads = nn.ModuleList(nn.Conv2d(width, 1, 1) for width in WIDTHS[:4])

    def forward(self, levels: list[Tensor]) -> list[Tensor]:
        """Map the five levels of the pyramid to logits N×1×h×w at strides 2, 4, 8 and 16."""
        return [head(level) for head, level in zip(self.heads, self._decoded(levels), strict=True)]

    def finest(self, levels: list[Tensor]) -> Tensor:
        """Map the five levels to the finest map alone."""
        logits: Tensor = self.heads[0](self._decoded(levels)[0])
        return logits

    def _decoded(self, levels: list[Tensor]) -> list[Tensor]:
        """Return the decoded features at strides 2, 4, 8 and 16."""
        y = self.top(levels[4])
        decoded: list[Tensor] = []
        for i in (3, 2, 1, 0):
            y = self.fuse[i](levels[i], y)
            decoded.insert(0, y)
        return decoded


class LiteNetwork(nn.Module):
    """The network; 3.8 M parameters.

    Raises UsageError where `inputs` is "features": those of the COVID-CS release come from other backbones.
    """

    def __init__(self, inputs: str = "image") -> None:
        super().__init__()
        if inputs != "image":
            raise UsageError("jcs-lite reads images, not stage-1 features", hint="use jcs-single or jcs-joint")
        self.encoder = EfficientNetLite0()
        self.top = LightFeatureModule(LEVELS[4], 128)
        self.fusion = LightFusion(LEVELS[3], 128, FUSED)
        self.context = ConvNorm(FUSED, 96, 3)  # its output is the A of the docstring
        self.evidence = nn.Conv2d(96, 1, 1, bias=False)
        self.gain = nn.Parameter(torch.ones(()))
        self.offset = nn.Parameter(torch.zeros(()))
        self.lesion = LesionDecoder()

    def forward(self, x: Tensor, mapped: Tensor | None = None) -> LiteOutput:
        """Map N×1×H×W (H, W ≥ 32) to the logits, the evidence and the lesion maps. Raises ShapeError as `check`.

        Where `mapped` (N, bool) is given, the maps are of those slices alone: in training, of those with a mask.
        """
        self.check(x)
        levels = self.encoder(x)
        evidence = self.evidence_of(levels)
        flat = evidence.flatten(1).float() * SHARPNESS
        pooled = (torch.logsumexp(flat, dim=1) - math.log(flat.shape[1])) / SHARPNESS
        chosen = levels if mapped is None else [level[mapped] for level in levels]
        maps = [resize(logits, x) for logits in self.lesion(chosen)]
        return LiteOutput(self.gain * pooled + self.offset, evidence, torch.cat(maps, dim=1))

    def check(self, x: Tensor) -> None:
        """Raise ShapeError for what is not N×1×H×W with H and W of at least 32."""
        check_input(x, "the slice", 1, 32)

    def evidence_of(self, levels: list[Tensor]) -> Tensor:
        """Return the evidence N×h×w of the encoder's levels."""
        evidence: Tensor = self.evidence(self.context(self.fusion(levels[3], self.top(levels[4]))))
        return evidence[:, 0]

    def infer(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return logit, evidence and the finest map N×1×H×W, see `jcs_ct.models.InferenceNetwork`."""
        levels = self.encoder(x)
        evidence = self.evidence_of(levels)
        flat = evidence.flatten(1) * SHARPNESS
        highest = flat.amax(dim=1, keepdim=True)  # as in `forward`, without the number of positions as a constant
        pooled = (torch.log(torch.exp(flat - highest).mean(dim=1)) + highest[:, 0]) / SHARPNESS
        return self.gain * pooled + self.offset, evidence, resize(self.lesion.finest(levels), x)

    def published(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return the same with the pooling of `forward`, and the finest of all maps."""
        out: LiteOutput = self(x)
        return out.logit, out.evidence, out.maps[:, :1]

    def explained(self, output: LiteOutput) -> Tensor:
        """Return the logit, N×1."""
        return output.logit[:, None]
