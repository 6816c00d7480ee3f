"""What inference needs of a network, and nothing else: batch norm folded into convolutions, one lesion map.

In evaluation mode batch norm is y = x·s + t with fixed s and t, so that norm(conv(x)) is a convolution with kernels
w·s and bias b·s + t. That holds for the frozen norms of the published backbones (s = weight / sqrt(running_var), no
epsilon) and for ordinary ones (s = weight / sqrt(running_var + eps)). Factors are computed in double precision.

Every runtime but `torch` starts from here, and the plain network stays as it is: the copy shares what is not folded.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from jcs_ct.core.errors import UsageError
from jcs_ct.models.efficientnet import ConvNorm
from jcs_ct.models.layers import FrozenBatchNorm2d, resize
from jcs_ct.models.lite import SHARPNESS, LightFeatureModule, LiteNetwork
from jcs_ct.models.res2net import Bottle2neck, Res2Net101, Res2NetClassifier
from jcs_ct.models.segmenter import ConvBatchNormReLU, JointSegmenter, Segmenter
from jcs_ct.models.vgg import ConvNormReLU

if TYPE_CHECKING:
    from collections.abc import Iterator

    Norm = FrozenBatchNorm2d | nn.BatchNorm2d

OUTPUTS = {
    "segmentation": ("lesion",),
    "classification": ("logits", "evidence"),
    "lite": ("logit", "evidence", "lesion"),
}
"""Names of what `Inference` returns, by task: N×1×H×W logits of lesion, N×2 logits, N logits, N×h×w evidence.

The evidence of a classifier is its last feature map A weighted by the row w of its linear layer for COVID-19. Behind
global average pooling the gradient of that logit is w / (h·w) everywhere, so that Grad-CAM is ReLU(w·A) / (h·w)."""


def scale_and_shift(norm: Norm) -> tuple[Tensor, Tensor]:
    """Return s and t of a norm in evaluation mode, float64, C each."""
    mean, variance = cast("Tensor", norm.running_mean).double(), cast("Tensor", norm.running_var).double()
    epsilon = 0.0 if isinstance(norm, FrozenBatchNorm2d) else norm.eps
    scale = norm.weight.double() / torch.sqrt(variance + epsilon)
    return scale, norm.bias.double() - mean * scale


def absorb(conv: nn.Conv2d, scale: Tensor, shift: Tensor) -> nn.Conv2d:
    """Return a convolution that computes conv(x)·scale + shift, with parameters of its own."""
    bias = 0.0 if conv.bias is None else conv.bias.double() * scale
    folded = copy.copy(conv)  # shallow: geometry is kept, the tensors are replaced
    folded._parameters = {  # `copy` shares the table of parameters with the original
        "weight": nn.Parameter((conv.weight.double() * scale[:, None, None, None]).float(), requires_grad=False),
        "bias": nn.Parameter((bias + shift).float(), requires_grad=False),
    }
    return folded


def _pairs(module: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module, str]]:
    """Yield (owner, name) of every convolution of a module's own and of the norm behind it."""
    if isinstance(module, (ConvNormReLU, ConvBatchNormReLU)):
        yield module, "conv", module, "bn"
    elif isinstance(module, ConvNorm):
        yield module, "conv", module, "norm"
    elif isinstance(module, Bottle2neck):
        yield module, "conv1", module, "bn1"
        yield module, "conv3", module, "bn3"
        for i in range(len(module.convs)):
            yield module.convs, str(i), module.bns, str(i)
        if module.downsample is not None:
            yield module.downsample, "1", module.downsample, "2"
    elif isinstance(module, Res2Net101):
        yield module.conv1, "0", module.conv1, "1"
        yield module.conv1, "3", module.conv1, "4"
        yield module.conv1, "6", module, "bn1"


def folded(network: nn.Module) -> nn.Module:
    """Return a copy of a network in evaluation mode whose norms are folded; the original is not touched.

    Raises:
        UsageError: A norm is left over: the network has a block that is not known here.
    """
    duplicate = _copied(network).eval()
    for module in list(duplicate.modules()):
        for conv_owner, conv_name, norm_owner, norm_name in _pairs(module):
            conv, norm = getattr(conv_owner, conv_name), getattr(norm_owner, norm_name)
            setattr(conv_owner, conv_name, absorb(conv, *scale_and_shift(norm)))
            setattr(norm_owner, norm_name, nn.Identity())
        if isinstance(module, LightFeatureModule):  # one norm behind four convolutions side by side
            parts = [part.chunk(len(module.dilated)) for part in scale_and_shift(module.norm)]
            module.dilated = nn.ModuleList(
                absorb(cast("nn.Conv2d", conv), scale, shift)
                for conv, scale, shift in zip(module.dilated, *parts, strict=True)
            )
            module.norm = cast("Any", nn.Identity())
    left = [name for name, m in duplicate.named_modules() if isinstance(m, (FrozenBatchNorm2d, nn.BatchNorm2d))]
    if left:
        raise UsageError(f"batch norm {left[0]} is in a block that cannot be folded", hint="use --runtime torch")
    return duplicate


def _copied(module: nn.Module) -> nn.Module:
    """Return a copy with modules and parameters of its own, which use the memory of the original."""
    memory: dict[int, Any] = {id(t): nn.Parameter(t.detach(), requires_grad=False) for t in module.parameters()}
    memory |= {id(t): t.detach() for t in module.buffers()}
    return copy.deepcopy(module, memory)


class Inference(nn.Module):
    """A network with the outputs that inference uses, as a tuple of tensors (`OUTPUTS`).

    The forward has no checks and no sizes turned into constants, so that it can be traced for other sizes.

    Args:
        network: `jcs-single`, `jcs-joint`, `jcs-classifier` or `jcs-lite`, for images or for stage-1 features.
        fold: Whether to fold norms; without, it computes as the network does.

    Raises:
        UsageError: Another network.
    """

    def __init__(self, network: nn.Module, *, fold: bool = True) -> None:
        super().__init__()
        if not isinstance(network, (Segmenter, Res2NetClassifier, LiteNetwork)):
            raise UsageError(
                f"{type(network).__name__} has no result of its own", hint="backbones run on --runtime torch only"
            )
        self.network = (folded(network) if fold else network).eval()
        self.evidence: nn.Module | None = _evidence(network) if isinstance(network, Res2NetClassifier) else None
        self.eval()  # exporters put a network back into the mode they found: a new module's is training

    @property
    def outputs(self) -> tuple[str, ...]:
        """The names of what comes out."""
        if isinstance(self.network, Segmenter):
            return OUTPUTS["segmentation"]
        return OUTPUTS["lite" if isinstance(self.network, LiteNetwork) else "classification"]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs by the order of their names."""
        network: Any = self.network
        size = (inputs[0].shape[2], inputs[0].shape[3])
        if isinstance(network, Segmenter):
            levels = network.encode(inputs[0])
            if isinstance(network, JointSegmenter):
                fused = network.fuse(levels[:-1], network.res2net.pyramid(inputs[-1]))
                levels = [*fused, levels[-1]]
            finest = network.fpn(levels)[0]
            return (resize(network.get_submodule("cls1")(finest), size),)
        if isinstance(network, LiteNetwork):
            return self._lite(network, inputs[0], size)
        deepest = network.pyramid(inputs[0])[-1]
        assert self.evidence is not None  # noqa: S101  # a classifier
        return network.fc(deepest.mean(dim=(2, 3))), self.evidence(deepest).squeeze(1)

    @staticmethod
    def _lite(network: Any, x: Tensor, size: tuple[int, int]) -> tuple[Tensor, ...]:
        levels = network.encoder(x)
        y = network.top(levels[4])
        y2 = network.fuse[2](levels[3], y)
        y0 = network.fuse[0](levels[1], network.fuse[1](levels[2], y2))
        evidence = network.evidence(network.context(y2))[:, 0]
        flat = evidence.flatten(1) * SHARPNESS
        highest = flat.amax(dim=1, keepdim=True)  # log-mean-exp without the number of positions as a constant
        pooled = (torch.log(torch.exp(flat - highest).mean(dim=1)) + highest[:, 0]) / SHARPNESS
        lesion = resize(network.lesion[0](y0), size)
        return network.gain * pooled + network.offset, evidence, lesion


def _evidence(network: Res2NetClassifier) -> nn.Conv2d:
    weight = network.fc.weight.detach()
    with torch.device("meta"):
        layer = nn.Conv2d(weight.shape[1], 1, 1, bias=False)
    layer.weight = nn.Parameter(weight[1][None, :, None, None].clone(), requires_grad=False)
    return layer
