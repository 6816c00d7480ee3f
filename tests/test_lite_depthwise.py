"""The backward pass of depthwise convolutions in bfloat16 against PyTorch's own in double precision."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from jcs_ct.models.lite import LiteNetwork
from jcs_ct.training.lite.depthwise import FastDepthwise, input_gradient, kernel_gradient, speed_up


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("shape", [(16, 20), (9, 7), (8, 11)])
def test_gradients_are_those_of_pytorch(size: int, stride: int, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 8, *shape, dtype=torch.float64, generator=generator, requires_grad=True)
    w = torch.randn(8, 1, size, size, dtype=torch.float64, generator=generator, requires_grad=True)
    y = F.conv2d(x, w, None, stride, size // 2, 1, 8)
    grad = torch.randn(y.shape, dtype=torch.float64, generator=generator)
    of_x, of_w = torch.autograd.grad(y, (x, w), grad)
    assert torch.allclose(input_gradient(grad, w.detach(), x.shape, stride), of_x, atol=1e-12)
    assert torch.allclose(kernel_gradient(x.detach(), grad, size, stride), of_w, atol=1e-12)


def losses(*, fast: bool, bf16: bool) -> tuple[float, dict[str, Tensor]]:
    torch.manual_seed(0)
    network = LiteNetwork()
    if fast:
        speed_up(network)
    x = torch.rand(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        out = network(x)
    loss = out.logit.float().square().sum() + out.maps.float().square().mean()
    loss.backward()
    return float(loss.detach()), {n: p.grad for n, p in network.named_parameters() if p.grad is not None}


def test_a_network_learns_the_same_in_bfloat16() -> None:
    plain, reference = losses(fast=False, bf16=True)  # the same rounding, PyTorch's own backward pass
    quick, gradients = losses(fast=True, bf16=True)
    assert quick == pytest.approx(plain, rel=1e-3)
    assert gradients.keys() == reference.keys()
    together = torch.cat([g.flatten() for g in gradients.values()])
    expected = torch.cat([g.flatten() for g in reference.values()])
    assert float(F.cosine_similarity(together, expected, dim=0)) > 0.995


def test_nothing_changes_without_autocast() -> None:
    plain, reference = losses(fast=False, bf16=False)
    same, gradients = losses(fast=True, bf16=False)
    assert same == plain
    assert all(torch.equal(gradients[name], reference[name]) for name in reference)


def test_only_depthwise_convolutions_are_touched() -> None:
    network = LiteNetwork()
    names = list(network.state_dict())
    speed_up(network)
    touched = [m for m in network.modules() if isinstance(m, FastDepthwise)]
    assert len(touched) == 16
    assert all(m.groups == m.in_channels for m in touched)
    assert list(network.state_dict()) == names
    dense = network.get_submodule("fusion.smooth.conv")
    assert type(dense) is nn.Conv2d
