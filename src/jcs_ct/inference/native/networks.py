"""The published networks as operations, in the order of their forwards (`jcs_ct.models`), norms fused.

Concatenations cost nothing: maps that are concatenated are written side by side, and where the order of channels
differs from the layer's, the layer's weights are reordered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jcs_ct.inference.native.builder import AVERAGE, INSIDE, MAXIMUM, strided
from jcs_ct.inference.native.plan import LANES, blocks_of
from jcs_ct.models import res2net, vgg

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from jcs_ct.inference.native.builder import Builder
    from jcs_ct.inference.native.plan import Map
    from jcs_ct.models.layers import EnhancedFeatureModule
    from jcs_ct.models.res2net import Bottle2neck


def segmenter(b: Builder, net: Any, inputs: list[Map], size: tuple[int, int]) -> Map:
    """Return the logits of lesion (1 channel, rows × columns of `size`).

    Args:
        b: Where operations are added.
        net: `jcs-single` or `jcs-joint`, fused.
        inputs: The image, with padding of 1, or stage-1 features.
        size: Of the result.
    """
    joined = _joined(b, net, inputs[-1]) if hasattr(net, "res2net") else []
    levels = _vgg(b, net.vgg16, inputs[0], joined)
    levels[-1] = _enhanced(b, net.gpd, levels[-1])
    coarsest = _enhanced(b, net.gpd1, _halved(b, levels[-1]))
    if joined:
        levels = _fused(b, net, levels, joined, inputs[-1])
    logits = b.conv(net.cls1, _decoder(b, net.fpn, [*levels, coarsest]), relu=False)
    return logits if logits.size == size else b.resize(logits, b.plan.new(logits.counts, size))


def classifier(b: Builder, net: Any, inputs: list[Map], _size: tuple[int, int]) -> Map:
    """Return the deepest map of Res2Net-101, 2048 channels, of an image with padding of 1 or of stage-1 features."""
    return _res2net(b, net, inputs[0], [None] * 5)[-1]


def lesion(_net: Any, found: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the logits of lesion, 1×H×W, out of the memory of a segmenter's result."""
    return [found[0, :, :, 0][None].copy()]


def classes(net: Any, found: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """Return the logits, 2, and the evidence, h×w, out of the memory of a classifier's deepest map."""
    deepest = found.transpose(0, 3, 1, 2).reshape(-1, *found.shape[1:3]).astype(np.float64)
    weight = net.fc.weight.detach().numpy().astype(np.float64)
    logits = weight @ deepest.mean(axis=(1, 2))
    return [logits.astype(np.float32), np.tensordot(weight[1], deepest, 1).astype(np.float32)]


class NetworkPlan(NamedTuple):
    """How a network is executed.

    Attributes:
        add: Adds its operations, and returns the map that holds the result.
        read: Returns the outputs of one slice, in the order of the table, out of the memory of that map.
    """

    add: Callable[[Builder, Any, list[Map], tuple[int, int]], Map]
    read: Callable[[Any, NDArray[np.float32]], list[NDArray[np.float32]]]


PLANS = {"segmenter": NetworkPlan(segmenter, lesion), "classifier": NetworkPlan(classifier, classes)}


def _halved(b: Builder, x: Map) -> Map:
    return b.pool(x, b.plan.new(x.counts, (x.size[0] // 2, x.size[1] // 2)), 2, 2, 0, MAXIMUM)


def _vgg(b: Builder, net: Any, x: Map, joined: list[Map]) -> list[Map]:
    """Return five levels: of some, what `joined` needs is written there at once, and they are never there whole."""
    levels = [x] if net.first_stage else []
    pooled: Map | None = None
    for stage in range(net.first_stage, len(vgg.STAGES)):
        if stage in vgg.POOLED:
            x = pooled or _halved(b, x)
        channels, half = blocks_of(vgg.CHANNELS[stage]), None
        for k in range(1, len(vgg.STAGES[stage])):
            x = b.conv(net.get_submodule(f"conv{stage + 1}_{k}").conv, x)
        pooled = None
        if stage + 1 in vgg.POOLED and not any(n % 2 for n in x.size):
            pooled = b.plan.new(channels, (x.size[0] // 2, x.size[1] // 2))
            if joined and joined[stage].size == pooled.size:
                half = joined[stage].part(0, len(channels))
        x = b.conv(
            net.get_submodule(f"conv{stage + 1}_{len(vgg.STAGES[stage])}").conv, x, max_pooled=pooled, mean_pooled=half
        )
        levels.append(x)
    return levels


def _enhanced(b: Builder, module: EnhancedFeatureModule, x: Map) -> Map:
    wide = b.conv(module.expand_conv.conv, x)
    out = b.plan.new(wide.counts, wide.size)
    step = len(wide.counts) // len(module.dilation_convs)
    convs: Any = module.dilation_convs
    for i, conv in enumerate(convs):
        b.conv(conv, wide.part(i * step, step), out.part(i * step, step))
    factors = b.attention(module.se_block, out)
    return b.conv(module.end_conv.conv, b.conv(module.reduce_conv.conv, out, factors=factors))


def _bottleneck(b: Builder, block: Bottle2neck, x: Map, out: Map | None) -> Map:
    convs: Any = block.convs
    width, stride = convs[0].in_channels, block.stride
    size, channels, groups = strided(x.size, stride), blocks_of(width), len(convs) + 1
    step = len(channels)
    shortcut = x
    if block.downsample is not None:
        layer: Any = block.downsample[1]
        pooled = x if stride == 1 else b.pool(x, b.plan.new(x.counts, size), stride, stride, 0, INSIDE)
        shortcut = b.conv(layer, pooled, relu=False)
    if block.first:
        wide = b.plan.new(channels * groups, x.size, padding=1 if stride > 1 else 0)
        found = b.plan.new(channels * groups, size)
        last = found.part(0, step)
    else:  # the fourth group is passed on as it is: it lies before the results of the others
        wide = b.plan.new(channels * (2 * groups - 1), x.size)
        found = wide.part((groups - 1) * step, groups * step)
    b.conv(block.conv1, x, wide.part(0, groups * step))
    if block.first:
        b.pool(wide.part((groups - 1) * step, step), last, 3, stride, 1, AVERAGE)
    for i, conv in enumerate(convs):
        before = None if i == 0 or block.first else found.part(i * step, step)
        b.conv(conv, wide.part(i * step, step), found.part((i + 1) * step, step), addend=before)
    order = [*range(width * (groups - 1), width * groups), *range(width * (groups - 1))]
    return b.conv(block.conv3, found, out, addend=shortcut, order=order)


def _res2net(b: Builder, net: Any, x: Map, outputs: list[Map | None]) -> list[Map]:
    """Return five levels, which are written to `outputs` where there are such."""
    if not net.from_features:
        x = b.conv(net.conv1[3], b.conv(net.conv1[0], x))
        x = b.conv(net.conv1[6], x, outputs[0])
    levels = [x]
    x = b.pool(x, b.plan.new(x.counts, strided(x.size, 2)), 3, 2, 1, MAXIMUM)
    for layer in range(1, len(res2net.BLOCKS) + 1):
        blocks = net.get_submodule(f"layer{layer}")
        for i, block in enumerate(blocks):
            x = _bottleneck(b, block, x, outputs[layer] if i == len(blocks) - 1 else None)
        levels.append(x)
    return levels


def _joined(b: Builder, net: Any, image: Map) -> list[Map]:
    """Return five maps, each for a level of VGG and, behind it, one of Res2Net, in whose size both are."""
    size = image.size if net.res2net.from_features else strided(image.size, 2)
    joined: list[Map] = []
    for first, second in zip(vgg.CHANNELS, res2net.CHANNELS, strict=True):
        joined.append(b.plan.new(blocks_of(first) + blocks_of(second), size))
        size = strided(size, 2)
    return joined


def _fused(b: Builder, net: Any, levels: list[Map], joined: list[Map], image: Map) -> list[Map]:
    for level, both in zip(levels, joined, strict=True):
        if level.buffer is not both.buffer:
            b.resize(level, both.part(0, len(level.counts)))
    outputs = [m.part(len(a.counts), len(m.counts) - len(a.counts)) for m, a in zip(joined, levels, strict=True)]
    _res2net(b, net.res2net, image, list(outputs))
    if net.res2net.from_features:  # the first level came from outside
        b.pool(image, outputs[0], 1, 1, 0, MAXIMUM)
    fused = []
    for i, x in enumerate(joined):
        for modules in (net.fuse.cat_modules, net.fuse.se_modules, net.fuse.fuse_modules):
            x = b.conv(modules[i].conv, x)
        fused.append(x)
    return fused


def _decoder(b: Builder, fpn: Any, levels: list[Map]) -> Map:
    previous = b.conv(fpn.fuse[-1].conv, b.conv(fpn.inners_a[-1].conv, levels[-1]))
    for i in range(len(levels) - 2, -1, -1):
        x, fuse = levels[i], fpn.fuse[i]
        channels = fuse.conv1.conv.out_channels
        half, step = channels // 2, channels // 2 // LANES
        # one memory for the result, the top-down and the lateral map: both concatenations lie side by side in it
        whole = b.plan.new(blocks_of(2 * channels), x.size)
        b.resize(b.conv(fpn.inners_b[i].conv, previous), whole.part(2 * step, step))
        b.conv(fpn.inners_a[i].conv, x, whole.part(3 * step, step))
        both, three = whole.part(2 * step, 2 * step), whole.part(0, 3 * step)
        order = [*range(half, channels), *range(half)]
        factors = b.attention(fuse.se1, both, order)
        b.conv(fuse.conv1.conv, both, whole.part(0, 2 * step), factors=factors, order=order)
        factors = b.attention(fuse.se2, three)
        previous = b.conv(fuse.conv2.conv, b.conv(fuse.reduce_conv.conv, three, factors=factors))
    return previous
