"""The same networks, computed with less work while they are trained on a processor.

Parameters, names and results stay what they are (within float32 rounding, see `jcs bench train`); only the order of
the arithmetic changes:

- 3×3 convolutions of wide layers take fewer multiplications (`jcs_ct.training.winograd`);
- where maps are larger than kernels, frozen batch norm scales the kernels: conv(x)·s + t = conv with kernels w·s and
  bias b·s + t;
- so does attention over channels, for one slice at a time, and a 1×1 convolution of two maps reads them where they are
  instead of a concatenated copy.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.models.decoder import AttentiveFusion
from jcs_ct.models.layers import ConvReLU, SqueezeExcitation
from jcs_ct.models.vgg import ConvNormReLU
from jcs_ct.training.winograd import conv3

if TYPE_CHECKING:
    from collections.abc import Callable


def use_fast_layers(network: nn.Module) -> int:
    """Let the network's modules compute in the cheaper way; return how many do. State dict and hooks stay."""
    ways: dict[type[nn.Module], Callable[..., Tensor]] = {
        ConvNormReLU: _conv_norm_relu,
        ConvReLU: _conv_relu,
        AttentiveFusion: _fusion,
    }
    count = 0
    for module in network.modules():
        way = ways.get(type(module))
        if way is not None:
            module.forward = partial(way, module)
            count += 1
    return count


def _conv_norm_relu(block: ConvNormReLU, x: Tensor) -> Tensor:
    if 9 * x.shape[1] > x.shape[2] * x.shape[3]:  # the kernels are larger than the maps
        return F.relu(block.bn(conv3(x, block.conv.weight, block.conv.bias)))
    norm = block.bn
    scale = norm.weight * norm.running_var.rsqrt()
    shift = norm.bias - norm.running_mean * scale
    bias = block.conv.bias
    assert bias is not None  # noqa: S101  # VGG's convolutions have one
    return F.relu(conv3(x, block.conv.weight * scale[:, None, None, None], bias * scale + shift))


def _conv_relu(block: ConvReLU, x: Tensor) -> Tensor:
    if block.conv.kernel_size == (3, 3):
        return F.relu(conv3(x, block.conv.weight, block.conv.bias))
    return F.relu(block.conv(x))


def _attention(block: SqueezeExcitation, means: Tensor) -> Tensor:
    return torch.sigmoid(block.linear2(F.relu(block.linear1(means))))


def _fusion(block: AttentiveFusion, lateral: Tensor, top_down: Tensor) -> Tensor:
    n, half, rows, columns = lateral.shape
    if n != 1 or 18 * half > rows * columns:
        return AttentiveFusion.forward(block, lateral, top_down)
    both = torch.cat([lateral, top_down], dim=1)
    means = both.mean(dim=(2, 3))
    first = block.conv1.conv
    x = F.relu(conv3(both, first.weight * _attention(block.se1, means)[0][:, None, None], first.bias))
    below = means[:, half:]
    weights = _attention(block.se2, torch.cat([x.mean(dim=(2, 3)), below], dim=1))[0]
    reduce = block.reduce_conv.conv
    kernels = reduce.weight * weights[:, None, None]
    split = x.shape[1]
    y = F.conv2d(x, kernels[:, :split], reduce.bias) + F.conv2d(top_down, kernels[:, split:])
    conv2: Tensor = block.conv2(F.relu(y))
    return conv2
