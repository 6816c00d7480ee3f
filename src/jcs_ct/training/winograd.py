"""3×3 convolution with fewer multiplications, forward and backward, for training on processors.

Winograd's minimal filtering F(4×4, 3×3) (Lavin and Gray, "Fast algorithms for convolutional neural networks", CVPR
2016): tiles of 6×6 pixels and the kernels are transformed, multiplied, and transformed back: 36 products for 16
outputs instead of 144. The products are 36 matrix multiplications, which PyTorch runs close to the peak of a
processor. In float32 results differ from the direct sum by about 1e-5 of the largest value.

What is large and lives for one call only is kept in work buffers, since fresh memory of this size costs more, page by
page, than the arithmetic on it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

TILE, OUT = 6, 4  # pixels of a tile's side that are read, and written
LEAST_KERNELS, LEAST_SIDE = 128 * 256, 24  # channels in × out, rows or columns: below, the transforms cost more

_INPUT = torch.tensor(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ],
    dtype=torch.float64,
)
_KERNEL = (
    torch.tensor([[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], dtype=torch.float64) / 24
)
_OUTPUT = torch.tensor(
    [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], dtype=torch.float64
)
INPUT, KERNEL, OUTPUT = (torch.kron(m, m).float() for m in (_INPUT, _KERNEL, _OUTPUT))  # 36×36, 36×9, 16×36

_buffers: dict[str, Tensor] = {}


def is_cheaper(x: Tensor, weight: Tensor) -> bool:
    """Tell whether the transforms cost less than they save: wide layers on maps that are not tiny, float32, CPU."""
    return (
        x.device.type == "cpu"
        and x.dtype is torch.float32
        and weight.dtype is torch.float32
        and weight.shape[0] * weight.shape[1] >= LEAST_KERNELS
        and min(x.shape[2:]) >= LEAST_SIDE
        and not torch.is_autocast_enabled("cpu")
    )


def conv3(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return the 3×3 convolution of N×C×H×W with padding 1 and stride 1, in the cheaper of two ways."""
    if not is_cheaper(x, weight):
        return F.conv2d(x, weight, bias, padding=1)
    apply: Any = _Winograd.apply
    y: Tensor = apply(x, weight, bias)
    return y


def _buffer(role: str, *shape: int) -> Tensor:
    """Return a work buffer; what it held is lost."""
    size = math.prod(shape)
    held = _buffers.get(role)
    if held is None or held.numel() < size:
        with torch.inference_mode(False):  # made larger in validation, it is written again by the next training step
            held = _buffers[role] = torch.empty(size)
    return held[:size].view(shape)


def _transformed_kernel(weight: Tensor) -> Tensor:
    c_out, c_in = weight.shape[:2]
    flat = _buffer("kernel", TILE * TILE, c_out * c_in)
    torch.mm(KERNEL, weight.reshape(c_out * c_in, 9).t(), out=flat)
    return flat.view(TILE * TILE, c_out, c_in)


class _Winograd(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        n, c_in, height, width = x.shape
        c_out, rows, columns = weight.shape[0], -(-height // OUT), -(-width // OUT)
        count = n * rows * columns
        padded = F.pad(x, (1, OUT * columns + 1 - width, 1, OUT * rows + 1 - height))
        tiles = _buffer("tiles", TILE, TILE, c_in, n, rows, columns)
        tiles.copy_(padded.unfold(2, TILE, OUT).unfold(3, TILE, OUT).permute(4, 5, 1, 0, 2, 3))
        seen = (INPUT @ tiles.view(TILE * TILE, -1)).view(TILE * TILE, c_in, count)
        product = _buffer("product", TILE * TILE, c_out, count)
        torch.bmm(_transformed_kernel(weight), seen, out=product)
        y = (OUTPUT @ product.view(TILE * TILE, -1)).view(OUT, OUT, c_out, n, rows, columns).permute(3, 2, 4, 0, 5, 1)
        if bias is not None:
            y = y + bias[:, None, None, None, None]
        y = y.reshape(n, c_out, OUT * rows, OUT * columns)[:, :, :height, :width].contiguous()
        ctx.save_for_backward(seen, weight)
        ctx.shape = (n, c_in, height, width, rows, columns)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        gradient: Tensor = gradients[0]
        seen, weight = ctx.saved_tensors
        n, c_in, height, width, rows, columns = ctx.shape
        c_out, count = weight.shape[0], n * rows * columns
        padded = F.pad(gradient, (0, OUT * columns - width, 0, OUT * rows - height))
        tiles = padded.reshape(n, c_out, rows, OUT, columns, OUT).permute(3, 5, 1, 0, 2, 4).reshape(OUT * OUT, -1)
        product = _buffer("product", TILE * TILE, c_out, count)
        torch.mm(OUTPUT.t(), tiles, out=product.view(TILE * TILE, -1))
        to_x = to_weight = to_bias = None
        if ctx.needs_input_grad[0]:
            back = _buffer("tiles", TILE * TILE, c_in, count)
            torch.bmm(_transformed_kernel(weight).transpose(1, 2), product, out=back)
            moved = _buffer("moved", TILE * TILE, c_in * count)
            torch.mm(INPUT.t(), back.view(TILE * TILE, -1), out=moved)
            columns_of = moved.view(TILE * TILE, c_in, n, rows * columns).permute(2, 1, 0, 3).reshape(n, -1, count // n)
            whole = F.fold(columns_of, (OUT * rows + 2, OUT * columns + 2), TILE, stride=OUT)
            to_x = whole[:, :, 1 : 1 + height, 1 : 1 + width].contiguous()
        if ctx.needs_input_grad[1]:
            kernels = _buffer("kernel", TILE * TILE, c_out, c_in)
            torch.bmm(product, seen.transpose(1, 2), out=kernels)
            to_weight = (kernels.view(TILE * TILE, -1).t() @ KERNEL).view(weight.shape)
        if ctx.needs_input_grad[2]:
            to_bias = gradient.sum(dim=(0, 2, 3))
        return to_x, to_weight, to_bias
