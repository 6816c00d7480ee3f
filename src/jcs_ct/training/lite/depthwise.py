"""Depthwise convolutions whose backward pass is fast in bfloat16 on a processor.

PyTorch's kernels (oneDNN) are fast for the gradient of 3×3 depthwise kernels of stride 1, and 5 to 40 times slower for
5×5 kernels and for stride 2 in bfloat16. Both come down to the fast case: the gradient of a 5×5 kernel is that of four
overlapping 3×3 windows, the gradient with stride 2 that of the four phases of the input.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def three_by_three(x: Tensor, grad: Tensor) -> Tensor:
    """Return the kernel gradient, C×1×3×3, of an unpadded depthwise 3×3 convolution of stride 1.

    `x` is N×C×(h+2)×(w+2), `grad` N×C×h×w.
    """
    channels = x.shape[1]
    x = x.contiguous(memory_format=torch.channels_last)
    weight = x.new_empty(channels, 1, 3, 3)
    found: tuple[Any, Tensor, Any] = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], [0, 0], [1, 1], False, [0, 0], channels, [False, True, False]
    )
    return found[1]


def widened(x: Tensor, top: int, bottom: int, left: int, right: int) -> Tensor:
    """Return `x` within zeros, channels last; `F.pad` takes five times as long for it in bfloat16."""
    n, channels, h, w = x.shape
    shape = (n, channels, h + top + bottom, w + left + right)
    wide = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last).zero_()
    wide[:, :, top : top + h, left : left + w] = x
    return wide


def input_gradient(grad: Tensor, weight: Tensor, shape: torch.Size, stride: int) -> Tensor:
    """Return the gradient of the input, N×C×H×W (`shape`), of a depthwise convolution with padding size // 2.

    `grad` is that of the output, N×C×h×w; `weight` C×1×size×size with size 3 or 5; the stride 1 or 2.
    """
    size, channels = weight.shape[2], weight.shape[0]
    half, (h, w) = size // 2, grad.shape[2:]
    if stride == 1:
        return F.conv2d(grad, weight.flip(2, 3), None, 1, half, 1, channels)
    wide = torch.zeros((shape[0], channels, 2 * h + 4, 2 * w + 4), dtype=grad.dtype, device=grad.device)
    wide = wide.contiguous(memory_format=torch.channels_last)
    for top in (0, 1):
        for left in (0, 1):
            taps = weight.new_zeros(channels, 1, 3, 3)
            phase = weight[:, :, top::2, left::2]
            taps[:, :, : phase.shape[2], : phase.shape[3]] = phase
            wide[:, :, top::2, left::2] = F.conv2d(grad, taps.flip(2, 3), None, 1, 2, 1, channels)
    return wide[:, :, half : half + shape[2], half : half + shape[3]]


def kernel_gradient(x: Tensor, grad: Tensor, size: int, stride: int) -> Tensor:
    """Return the gradient, C×1×size×size, of a depthwise kernel of size 3 or 5, stride 1 or 2 and padding size // 2.

    `x` is the input, N×C×H×W, `grad` the gradient of the output.
    """
    half, (h, w) = size // 2, grad.shape[2:]
    weight = grad.new_zeros(x.shape[1], 1, size, size)
    # Rows and columns that no tap reaches are zeros: they let every window and every phase have the same size.
    below, right = (stride * h + 4 - x.shape[2] - half, stride * w + 4 - x.shape[3] - half)
    padded = widened(x, half, below, half, right)
    if stride == 1:
        for top in range(0, size - 2, 2):
            for left in range(0, size - 2, 2):
                window = padded[:, :, top : top + h + 2, left : left + w + 2]
                weight[:, :, top : top + 3, left : left + 3] = three_by_three(window, grad)
        return weight
    for top in (0, 1):
        for left in (0, 1):
            phase = padded[:, :, top::2, left::2][:, :, : h + 2, : w + 2]
            rows, columns = weight[:, :, top::2, left::2].shape[2:]
            weight[:, :, top::2, left::2] = three_by_three(phase, grad)[:, :, :rows, :columns]
    return weight


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[2] // 2, 1, x.shape[1])

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        size = weight.shape[2]
        back: Tensor | None = None
        if ctx.needs_input_grad[0]:
            back = input_gradient(grad, weight, x.shape, ctx.stride)
        return back, kernel_gradient(x, grad, size, ctx.stride), None


class FastDepthwise(nn.Conv2d):
    """A depthwise convolution (size 3 or 5, stride 1 or 2) with the backward pass of this module under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        """Map N×C×H×W to N×C×ceil(H/stride)×ceil(W/stride)."""
        if not torch.is_autocast_enabled("cpu") or not torch.is_grad_enabled() or not self.weight.requires_grad:
            return super().forward(x)
        kind = torch.get_autocast_dtype("cpu")
        with torch.autocast("cpu", enabled=False):
            apply: Any = _Depthwise.apply
            y: Tensor = apply(x.to(kind), self.weight.to(kind), self.stride[0])
            return y


def speed_up(network: nn.Module) -> None:
    """Give every depthwise convolution of `network` this backward pass; parameters and names stay as they are."""
    for module in network.modules():
        if (
            type(module) is nn.Conv2d
            and module.groups == module.in_channels > 1
            and module.kernel_size in ((3, 3), (5, 5))
        ):
            module.__class__ = FastDepthwise
