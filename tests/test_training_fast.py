"""The cheaper ways of training compute what the plain ones compute; and the benchmark that compares the two."""

from __future__ import annotations

import json
import platform

import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional as F

from jcs_ct.bench import training as benchmark
from jcs_ct.cli.bench import bench
from jcs_ct.core.errors import JcsError
from jcs_ct.core.memory import reuse_freed_blocks
from jcs_ct.models import build_model
from jcs_ct.models.decoder import AttentiveFusion
from jcs_ct.models.vgg import ConvNormReLU
from jcs_ct.training import winograd
from jcs_ct.training.fast import use_fast_layers
from jcs_ct.training.losses import release_loss


@pytest.mark.parametrize("shape", [(1, 256, 128, 32, 32), (2, 128, 256, 25, 30), (1, 192, 192, 24, 41)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_winograd_is_the_convolution(shape: tuple[int, ...], with_bias: bool) -> None:
    n, c_in, c_out, height, width = shape
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, c_in, height, width, generator=generator).requires_grad_()
    weight = (torch.randn(c_out, c_in, 3, 3, generator=generator) / 48).requires_grad_()
    bias = torch.randn(c_out, generator=generator).requires_grad_() if with_bias else None
    upstream = torch.randn(n, c_out, height, width, generator=generator)
    assert winograd.is_cheaper(x, weight)
    given = [t for t in (x, weight, bias) if t is not None]
    found = winograd.conv3(x, weight, bias)
    ours = (found, *torch.autograd.grad(found, given, upstream))
    exact = F.conv2d(x.double(), weight.double(), None if bias is None else bias.double(), padding=1)
    theirs = (exact, *torch.autograd.grad(exact, given, upstream.double()))
    for a, b in zip(ours, theirs, strict=True):
        assert float((a - b).detach().abs().max() / b.detach().abs().max()) < 3e-5


def test_winograd_leaves_small_layers_and_other_types_alone() -> None:
    weight = torch.zeros(256, 256, 3, 3)
    assert not winograd.is_cheaper(torch.zeros(1, 256, 16, 16), weight)
    assert not winograd.is_cheaper(torch.zeros(1, 64, 64, 64), torch.zeros(64, 64, 3, 3))
    assert not winograd.is_cheaper(torch.zeros(1, 256, 32, 32, dtype=torch.float64), weight.double())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not winograd.is_cheaper(torch.zeros(1, 256, 32, 32), weight)


def test_work_buffers_do_not_leak_between_layers() -> None:
    """Two layers in one graph share the buffers; the first one's backward must not see the second one's values."""
    x = torch.randn(1, 256, 24, 24, requires_grad=True)
    weights = [torch.randn(256, 256, 3, 3) / 48 for _ in range(2)]
    gradients = []
    for conv in (winograd.conv3, lambda x, w, b: F.conv2d(x, w, b, padding=1)):
        y = conv(conv(x, weights[0], None).relu(), weights[1], None)
        gradients.append(torch.autograd.grad(y.square().sum(), x)[0])
    assert float((gradients[0] - gradients[1]).abs().max() / gradients[1].abs().max()) < 1e-4


@pytest.mark.parametrize("slices", [1, 2])
def test_modules_compute_the_same_with_frozen_norm_and_attention_folded(slices: int) -> None:
    torch.manual_seed(0)
    block, fusion = ConvNormReLU(3, 8), AttentiveFusion(8)
    for tensor in (block.bn.weight, block.bn.bias, block.bn.running_mean, block.bn.running_var):
        tensor.copy_(torch.rand(8) + 0.5)
    x = torch.rand(slices, 3, 16, 16)
    plain = fusion(block(x)[:, :4], block(x)[:, 4:])
    expected = torch.autograd.grad(plain.square().sum(), [*block.parameters(), *fusion.parameters()])
    assert use_fast_layers(torch.nn.ModuleList([block, fusion])) == 5  # with the three convolutions in the fusion
    quick = fusion(block(x)[:, :4], block(x)[:, 4:])
    torch.testing.assert_close(quick, plain, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(quick.square().sum(), [*block.parameters(), *fusion.parameters()])
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_whole_step_of_the_published_network_is_the_same() -> None:
    torch.manual_seed(0)
    network = build_model("jcs-single").train()
    names = list(network.state_dict())
    x, mask = torch.rand(1, 3, 192, 192), (torch.rand(1, 192, 192) > 0.8).float()
    results = []
    for _ in range(2):
        network.zero_grad()
        loss = release_loss(network(x), mask)
        loss.backward()
        results.append((float(loss.detach()), {n: p.grad.clone() for n, p in network.named_parameters()}))  # type: ignore[union-attr]
        assert use_fast_layers(network) > 30
    assert list(network.state_dict()) == names
    (plain, gradients), (quick, others) = results
    assert quick == pytest.approx(plain, rel=1e-6)
    for name, gradient in gradients.items():
        assert float((others[name] - gradient).norm()) <= 1e-3 * float(gradient.norm()) + 1e-9, name


def test_memory_is_kept_where_the_library_can() -> None:
    assert reuse_freed_blocks() is (platform.libc_ver()[0] == "glibc")


@pytest.fixture
def speed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A result without the minutes it takes to get it."""

    def measure(network: str, size: int, batch: int, steps: int, turns: int, say: object) -> benchmark.TrainSpeed:
        seconds = {"plain": [2.0, 3.0, 2.0], "jcs train": [1.0, 2.0, 1.6]}
        shares, peaks = dict.fromkeys(benchmark.WAYS, 0.01), dict.fromkeys(benchmark.WAYS, 2**30)
        return benchmark.TrainSpeed(network, size, batch, 2, seconds, shares, peaks, 1e-7)

    monkeypatch.setattr(benchmark, "measure", measure)


@pytest.mark.usefixtures("speed")
def test_the_report(speed: None) -> None:
    text = CliRunner().invoke(bench, ["train", "--quiet"]).output
    assert "| plain | 0.500 | 2.000 (2.000–3.000) | 1.0% | 1024 MiB |" in text
    assert "1.50 times faster; losses differ by 1.0e-07" in text
    found = json.loads(CliRunner().invoke(bench, ["train", "--quiet", "--json"]).output)
    assert found["ratio"] == 1.5
    assert found["ways"]["jcs train"]["slices_per_second"] == 1 / 1.6


def test_both_ways_are_measured_in_turn() -> None:
    said: list[str] = []
    found = benchmark.measure("jcs-single", 64, 1, 1, 1, said.append)
    assert [len(s) for s in found.seconds.values()] == [1, 1]
    assert [text.split(",")[1].split(":")[0].strip() for text in said] == ["plain", "jcs train"] * 2
    assert found.difference <= benchmark.TOLERANCE
    assert all(0 <= share <= 1 for share in found.waiting.values())


def test_ways_that_differ_are_named() -> None:
    assert benchmark.agreement((7.0, 6.0), (7.0, 6.00006)) == pytest.approx(1e-5)
    for other in (6.01, float("nan")):
        with pytest.raises(JcsError, match="do not compute the same"):
            benchmark.agreement((7.0, 6.0), (7.0, other))


def test_a_process_that_ends_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "_plain", print)
    with pytest.raises(JcsError, match="'plain' cannot be measured: its process ended early"):
        benchmark.measure("jcs-single", 64, 1, 1, 1, lambda text: None)
