"""Each operation of the runtime `native` computes what PyTorch computes in double precision."""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jcs_ct.inference.native import builder
from jcs_ct.inference.native.builder import AVERAGE, INSIDE, MAXIMUM
from jcs_ct.models.layers import SqueezeExcitation
from native_help import Bench, error, exact, layer

if TYPE_CHECKING:
    from jcs_ct.inference.native.build import Library

LIMIT = 1e-5  # float32 against float64, relative to the largest value; a wrong border is off by 1e-1
SIDES = [(1, 1), (1, 9), (7, 2), (4, 4), (5, 17), (13, 22), (24, 25)]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(11)


@pytest.fixture(params=[4, 6])
def tile(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Tiles of 4×4 or 6×6 outputs, whatever the size of a map."""
    found: int = request.param
    monkeypatch.setattr(builder, "WIDE", 1 if found == 6 else 1 << 20)
    return found


def test_tiles_of_both_sizes_are_used(tile: int, kernels: Library) -> None:
    for dilation, channels, expected in ((1, builder.FEW, tile), (2, builder.FEW, 4), (1, builder.FEW + 16, 4)):
        bench = Bench(kernels)
        bench.b.conv(layer(channels, 16, 3, dilation=dilation), bench.given(torch.zeros(channels, 12, 12)))
        assert bench.b.plan._steps[0][0].mode == expected


@pytest.mark.parametrize("dilation", [1, 2, 3, 6, 9])
def test_convolutions_with_winograd(dilation: int, tile: int, kernels: Library) -> None:
    rng = np.random.default_rng(dilation)
    for size in [*SIDES, *rng.integers(1, 40, (6, 2)).tolist()]:
        c_in, c_out, threads = int(rng.integers(17, 70)), int(rng.integers(1, 100)), int(rng.integers(1, 5))
        conv = layer(c_in, c_out, 3, dilation=dilation, bias=bool(rng.integers(2)))
        x, relu = torch.randn(c_in, *size), bool(rng.integers(2))
        expected = exact(conv, x)
        bench = Bench(kernels, threads)
        found = bench.run(bench.b.conv(conv, bench.given(x), relu=relu))
        assert error(expected.relu() if relu else expected, found) < LIMIT, (size, c_in, c_out, threads)


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_many_tiles_and_few_tiles_are_divided(threads: int, tile: int, kernels: Library) -> None:
    """Pieces of tiles whose last is smaller; groups of outputs that are not equal."""
    for c_out, size in ((16, (67, 61)), (96, (67, 61)), (80, (9, 11)), (208, (4, 5)), (1, (3, 3))):
        conv, x = layer(32, c_out, 3), torch.randn(32, *size)
        expected, bench = exact(conv, x), Bench(kernels, threads)
        assert error(expected, bench.run(bench.b.conv(conv, bench.given(x), relu=False))) < LIMIT, (c_out, size)
        conv = layer(48, c_out, 1)
        x = torch.randn(48, *size)
        expected, bench = exact(conv, x), Bench(kernels, threads)
        assert error(expected, bench.run(bench.b.conv(conv, bench.given(x), relu=False))) < LIMIT, (c_out, size)


@pytest.mark.parametrize("kernel", [1, 3])
def test_maps_that_fit_in_no_cache(kernel: int, kernels: Library) -> None:
    """21 MB: what is written to such a map may take another way, and the next operation reads it in another thread."""
    first, second, x = layer(17, 20, kernel), layer(20, 18, kernel), torch.randn(17, 401, 419)
    expected = exact(second, exact(first, x).relu().float())
    bench = Bench(kernels, 3)
    found = bench.run(bench.b.conv(second, bench.b.conv(first, bench.given(x)), relu=False))
    assert error(expected, found) < LIMIT


def randomly(channels: int, size: tuple[int, int]) -> torch.Tensor:
    """Factors C×1×1 for channels of a map, or another map."""
    return torch.rand(channels, *size) + 0.1


@pytest.mark.parametrize("dilation", [1, 3])
def test_winograd_adds_multiplies_and_reorders(dilation: int, tile: int, kernels: Library) -> None:
    """As in the blocks of Res2Net and of the decoder: parts of a wider map are read and written."""
    conv, order, size = layer(52, 40, 3, dilation=dilation), torch.randperm(52).tolist(), (11, 14)
    x, more, factors = torch.randn(52, *size), torch.randn(52, *size), randomly(52, (1, 1))

    bench = Bench(kernels, 2)
    whole = bench.b.plan.new((16, 16, 16, 4, 16, 16, 16, 4, 16, 16, 8), size)
    given, extra = bench.fill(whole.part(0, 4), x), bench.fill(whole.part(4, 4), more)
    out = bench.b.conv(deepcopy(conv), given, whole.part(8, 3), addend=extra, relu=False)
    assert error(exact(conv, x + more), bench.run(out)) < LIMIT

    bench = Bench(kernels)
    out = bench.b.conv(deepcopy(conv), bench.given(x), factors=bench.given(factors), relu=False)
    assert error(exact(conv, x * factors), bench.run(out)) < LIMIT

    bench = Bench(kernels)
    out = bench.b.conv(
        deepcopy(conv), bench.given(x[order]), factors=bench.given(factors[order]), relu=False, order=order
    )
    assert error(exact(conv, x * factors), bench.run(out)) < LIMIT
    bench = Bench(kernels)
    out = bench.b.conv(deepcopy(conv), bench.given(x[order]), relu=False)
    assert error(exact(conv, x), bench.run(out)) > 0.1, "the order counts"


@pytest.mark.parametrize("channels", [20, 528])
def test_products_of_many_and_few_channels(channels: int, kernels: Library) -> None:
    """Outputs are transformed back some blocks at a time, or all at once."""
    conv, x = layer(channels, 150, 3), torch.randn(channels, 9, 10)
    expected, bench = exact(conv, x), Bench(kernels)
    assert error(expected, bench.run(bench.b.conv(conv, bench.given(x), relu=False))) < 3 * LIMIT  # long sums


@pytest.mark.parametrize("size", [(2, 2), (4, 10), (14, 6), (26, 24)])
def test_pooling_within_a_convolution(size: tuple[int, int], tile: int, kernels: Library) -> None:
    """What pooling and halving read is never in memory as a whole, or it is, and what is pooled besides."""
    conv, x = layer(20, 24, 3), torch.randn(20, *size)
    expected = exact(conv, x).relu()
    for whole in (True, False):
        bench = Bench(kernels, 2)
        sides = (size[0] // 2, size[1] // 2)
        most, both = bench.b.plan.new((16, 8), sides), bench.b.plan.new((16, 8, 16), sides)
        half = None if whole else both.part(0, 2)
        out = bench.b.conv(deepcopy(conv), bench.given(x), max_pooled=most, mean_pooled=half)
        assert out.size == (size if whole else sides)
        wanted = expected if whole else F.avg_pool2d(expected[None], 2)[0]
        for of, found in ((out, wanted), (most, F.max_pool2d(expected[None], 2)[0])):
            assert error(found, bench.run(of)) < LIMIT
        spoilt = x.clone()
        spoilt[3, 1, 1] = torch.nan
        bench = Bench(kernels)
        most = bench.b.plan.new((16, 8), sides)
        bench.b.conv(deepcopy(conv), bench.given(spoilt), max_pooled=most)
        assert bench.run(most, rest=False)[:, 0, 0].isnan().all(), "NaN is the greatest"


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("relu", [True, False])
def test_convolutions_of_one_pixel(*, relu: bool, bias: bool, kernels: Library) -> None:
    """Blocks that are filled partially in the middle, as Res2Net's groups of 26 channels are."""
    rng = np.random.default_rng(5)
    for size in [*SIDES, (41, 53)]:
        counts, c_out, threads = (16, 10, 16, 10, 3), int(rng.integers(1, 90)), int(rng.integers(1, 5))
        conv, order, channels = layer(sum(counts), c_out, 1, bias=bias), torch.randperm(55).tolist(), sum(counts)
        x, more, factors = torch.randn(channels, *size), torch.randn(c_out, *size), randomly(channels, (1, 1))
        expected = exact(conv, x * factors) + more
        bench = Bench(kernels, threads)
        out = bench.b.conv(
            conv,
            bench.given(x[order], counts),
            relu=relu,
            addend=bench.given(more),
            factors=bench.given(factors[order]),
            order=order,
        )
        assert error(expected.relu() if relu else expected, bench.run(out)) < LIMIT, (size, c_out, threads)


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (30, 1), (6, 35)])
def test_convolutions_of_one_pixel_beside_padding(size: tuple[int, int], kernels: Library) -> None:
    """Before a stride the result has padding; a map of one row must not be taken for one without rows."""
    conv, x, more = layer(40, 52, 1), torch.randn(40, *size), torch.randn(52, *size)
    expected = exact(conv, x) + more
    bench = Bench(kernels, 2)
    out = bench.b.plan.new((16, 10) * 2, size, padding=1)
    bench.b.conv(conv, bench.given(x), out, relu=False, addend=bench.given(more, (16, 10) * 2))
    assert error(expected, bench.run(out)) < LIMIT


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_convolutions_of_padded_maps(stride: int, kernels: Library) -> None:
    """A stride, or few channels: 3 of an image, 10 and 16."""
    for size in [*SIDES, (30, 131)]:
        for counts in [(3,), (10,), (16,), *([(16, 10), (16, 16, 2)] if stride > 1 else [])]:
            conv, x = layer(sum(counts), 37, 3, stride=stride), torch.randn(sum(counts), *size)
            expected, bench = exact(conv, x).relu(), Bench(kernels, 3)
            assert error(expected, bench.run(bench.b.conv(conv, bench.given(x, counts, padding=1)))) < LIMIT, size


def test_what_would_read_beyond_a_map_is_refused(kernels: Library) -> None:
    bench = Bench(kernels)
    for conv, channels, padding in (
        (layer(64, 16, 3), (16,), 1),
        (layer(16, 16, 1), (16, 16), 0),
        (layer(3, 16, 3), (3,), 0),
        (layer(32, 16, 3, stride=2), (16, 16), 0),
        (layer(16, 16, 3, dilation=2), (16,), 1),
        (layer(26, 16, 3), (10, 16), 0),
    ):
        with pytest.raises(ValueError, match="does not fit Conv2d"):
            bench.b.conv(conv, bench.b.plan.new(channels, (5, 5), padding))
        assert not conv.weight.is_meta, "nothing was packed and dropped"
    for conv, size in ((layer(32, 16, 3), (5, 6)), (layer(32, 16, 1), (6, 6)), (layer(32, 16, 3, dilation=2), (6, 6))):
        given, small = bench.b.plan.new((16, 16), size), bench.b.plan.new((16,), (3, 3))
        for most, half in ((small, None), (None, small)):
            with pytest.raises(ValueError, match="does not fit Conv2d"):
                bench.b.conv(conv, given, max_pooled=most, mean_pooled=half)
    with pytest.raises(ValueError, match="does not fit SqueezeExcitation"):
        bench.b.attention(SqueezeExcitation(26, 4), bench.b.plan.new((10, 16), (5, 5)))


@pytest.mark.parametrize("threads", [1, 3])
def test_pooling(threads: int, kernels: Library) -> None:
    for size in [*SIDES, (33, 70), (3, 5000)]:
        x = torch.randn(26, *size)
        half = -(-size[0] // 2), -(-size[1] // 2)
        double = x[None].double()
        cases: list[tuple[torch.Tensor, tuple[int, int, int, int]]] = [
            (F.max_pool2d(x[None], 3, 2, 1), (3, 2, 1, MAXIMUM)),
            (F.avg_pool2d(double, 3, 2, 1), (3, 2, 1, AVERAGE)),
            (F.avg_pool2d(double, 3, 1, 1), (3, 1, 1, AVERAGE)),
            (F.avg_pool2d(double, 2, 2, ceil_mode=True, count_include_pad=False), (2, 2, 0, INSIDE)),
            (x[None], (1, 1, 0, MAXIMUM)),
        ]
        if min(size) > 1:
            cases.append((F.max_pool2d(x[None], 2, 2), (2, 2, 0, MAXIMUM)))
        for expected, how in cases:
            after = expected.shape[2], expected.shape[3]
            assert after in (half, size, (size[0] // 2, size[1] // 2))
            bench = Bench(kernels, threads)
            found = bench.run(bench.b.pool(bench.given(x), bench.b.plan.new((16, 10), after), *how))
            assert error(expected[0], found) < 1e-6, (size, how)


@pytest.mark.parametrize("after", [*SIDES, (26, 44), (39, 67), (3, 5000)])
def test_resizing(after: tuple[int, int], kernels: Library) -> None:
    for before in [*SIDES, (26, 44), (37, 29)]:
        x = torch.randn(20, *before)
        expected = F.interpolate(x[None], after, mode="bilinear", align_corners=False)[0]
        bench = Bench(kernels, 2)
        found = bench.run(bench.b.resize(bench.given(x), bench.b.plan.new((16, 4), after)))
        assert error(expected, found) < 2e-6 * max(*before, *after), (before, after)


def test_attention(kernels: Library) -> None:
    for channels, hidden, size in ((48, 5, (1, 1)), (64, 16, (9, 23)), (30, 20, (4, 3)), (144, 70, (31, 2))):
        block = SqueezeExcitation(channels, hidden).requires_grad_(False)
        order, x = torch.randperm(channels).tolist(), torch.randn(channels, *size) + 1
        expected = deepcopy(block).double()(x[None].double())[0]
        bench = Bench(kernels, 2)
        factors = bench.run(bench.b.attention(block, bench.given(x[order]), order), rest=False).flatten()
        assert error(expected[order], x[order] * factors[:channels, None, None]) < LIMIT
        assert x.mean(dim=(1, 2)).std() > 0.01
        assert factors[:channels].std() > 1e-3, "the factors differ, or the order would not show"


def test_nothing_swallows_nan(kernels: Library) -> None:
    x = torch.randn(20, 9, 12)
    x[3, 4, 5] = float("nan")

    def same(found: torch.Tensor, expected: torch.Tensor) -> bool:
        return bool(torch.equal(found.isnan(), expected.isnan())) and bool(expected.isnan().any())

    bench = Bench(kernels)
    found = bench.run(bench.b.pool(bench.given(x), bench.b.plan.new((16, 4), (5, 6)), 3, 2, 1, MAXIMUM))
    assert same(found, F.max_pool2d(x[None], 3, 2, 1)[0])
    conv = layer(20, 8, 1)
    expected, bench = exact(conv, x).relu(), Bench(kernels)
    assert same(bench.run(bench.b.conv(conv, bench.given(x)), rest=False), expected)
    conv = layer(20, 8, 3)
    expected, bench = exact(conv, x).relu(), Bench(kernels)
    found = bench.run(bench.b.conv(conv, bench.given(x)), rest=False)
    assert found[expected.isnan()].isnan().all(), "a tile of Winograd may have more of them"
    block, bench = SqueezeExcitation(20, 4), Bench(kernels)
    assert bench.run(bench.b.attention(block, bench.given(x)), rest=False)[:20].isnan().all()
