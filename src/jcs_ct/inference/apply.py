"""One slice through a network: prepared by the recipe of the weights, and the maps brought back to its own grid."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import expit, softmax

from jcs_ct.core.errors import UsageError
from jcs_ct.core.types import METHODS, SliceImage, StageOneFeatures
from jcs_ct.imaging.recipes import prepare, recipe, resize_map, restore
from jcs_ct.inference import attention
from jcs_ct.io.features import dequantise, quantise

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.imaging.recipes import Placement
    from jcs_ct.inference import Network
    from jcs_ct.inference.network import OnePass


class SliceDiagnosis(NamedTuple):
    """What one pass of a network gives for a slice. Maps are on the slice's own grid.

    Attributes:
        probability: Of COVID-19, calibrated, in [0, 1].
        attention: float32, rows × columns in [0, 1]: where the evidence for COVID-19 is; 0 outside of the lung field.
        lesion: float32, rows × columns: probability of lesion; 0 outside of the lung field.
    """

    probability: float
    attention: NDArray[np.float32]
    lesion: NDArray[np.float32]


@dataclass(frozen=True)
class SliceAttention:
    """What `explain` found on one slice.

    Attributes:
        image: The slice.
        map: float32, rows × columns of the slice, in [0, 1].
        probability: COVID-19 probability of a classifier; None for a segmenter.
        lesion: Lesion probability of a segmenter on the grid of the slice; None for a classifier.
        seen: What the network saw: (top, left, bottom, right) in pixels, or None for the whole slice.
        degenerate: Why the map is empty, or None.
        layer: The module that was explained.
    """

    image: SliceImage
    map: NDArray[np.float32]
    probability: float | None
    lesion: NDArray[np.float32] | None
    seen: tuple[float, float, float, float] | None
    degenerate: str | None
    layer: str


def _feature_arrays(item: StageOneFeatures, network: Network) -> list[NDArray[np.float32]]:
    held = {"vgg": item.vgg, "res2net": item.res2net}
    return [dequantise(array) for which in network.spec.feature_arrays if (array := held[which]) is not None]


def segment(item: SliceImage | StageOneFeatures, network: Network) -> NDArray[np.float32]:
    """Return the lesion probability of a slice: float32 in [0, 1], rows × columns of the slice.

    For stage-1 features the grid is that of the VGG features.
    """
    if isinstance(item, StageOneFeatures):
        return _sigmoid(network.logits(_feature_arrays(item, network), "features")[0])
    values, placement = prepare(item.pixels, recipe(network.card.recipe))
    lesion = network.one_pass(values).lesion if network.spec.one_pass else network.logits([values])[0]
    return restore(_sigmoid(lesion), placement)


def classify(item: SliceImage | StageOneFeatures, network: Network) -> float:
    """Return the COVID-19 probability of a slice."""
    if isinstance(item, StageOneFeatures):
        return _softmax(network.logits(_feature_arrays(item, network), "features"))
    values, _ = prepare(item.pixels, recipe(network.card.recipe))
    if network.spec.one_pass:
        return float(expit(network.one_pass(values).logit))
    return _softmax(network.logits([values]))


def diagnose_slice(image: SliceImage, network: Network) -> SliceDiagnosis:
    """Return probability, attention and lesion map of a slice out of one pass, see `diagnose_slices`."""
    return diagnose_slices([image], network)[0]


def diagnose_slices(images: Sequence[SliceImage], network: Network) -> list[SliceDiagnosis]:
    """Return probability, attention and lesion map of slices out of one pass of `jcs-lite`.

    Args:
        images: The slices; they go through the network together, which pays on a GPU (`Network.batch`).
        network: One that gives everything in one pass (`ModelSpec.one_pass`).

    Raises:
        UsageError: Another network.
    """
    if not network.spec.one_pass:
        raise UsageError(
            f"{network.card.name} is {network.spec.name}, which does one task",
            hint="diagnose needs jcs-lite; `jcs segment`, `jcs classify` and `jcs explain` run this one",
        )
    prepared = [prepare(image.pixels, recipe(network.card.recipe)) for image in images]
    passes = network.passes([values for values, _ in prepared])
    return [
        SliceDiagnosis(*_classified(found, placement), restore(_sigmoid(found.lesion), placement))
        for (_, placement), found in zip(prepared, passes, strict=True)
    ]


def screen_slice(image: SliceImage, network: Network) -> tuple[float, NDArray[np.float32]]:
    """Return probability and attention of a slice, of a network that gives a probability; no lesions are drawn."""
    if not network.spec.one_pass:
        found = explain(image, network, "grad-cam")
        assert found.probability is not None  # noqa: S101  # a classifier gives one
        return found.probability, found.map
    values, placement = prepare(image.pixels, recipe(network.card.recipe))
    return _classified(network.one_pass(values), placement)


def _classified(found: OnePass, placement: Placement) -> tuple[float, NDArray[np.float32]]:
    return float(expit(found.logit)), restore(attention.of_evidence(found.evidence), placement)


def explain(image: SliceImage, network: Network, method: str, layer: str | None = None) -> SliceAttention:
    """Return the attention map of a slice on its own grid.

    Args:
        image: The slice.
        network: A classifier or a segmenter.
        method: "grad-cam" or "layer-cam" on the whole slice (of `jcs-lite`: on the lung field), or "grad-cam-release":
            on the centre crop that the release shows to the classifier, scaled there; 0 outside.
        layer: Dotted name of a module; default: the network's own.

    Raises:
        UsageError: Unknown method or layer, or "grad-cam-release" of a segmenter.
    """
    if method not in METHODS:
        raise UsageError(f"no attention method is called {method!r}", hint=f"known: {', '.join(METHODS)}")
    spec, as_released = network.spec, method == "grad-cam-release"
    if as_released and not spec.classifies_only:
        raise UsageError("grad-cam-release explains a classifier", hint="use --method grad-cam for this network")
    whole = network.card.recipe.replace("release-classification", "whole-slice-classification")  # and its size
    how = recipe(network.card.recipe if as_released or not spec.classifies_only else whole)
    values, placement = prepare(image.pixels, how)
    if layer == "":
        raise UsageError("the name of the layer is empty", hint=f"leave it out for {spec.attention}")
    layer = spec.attention if layer is None else layer
    answer = attention.class_answer() if spec.gives_probability else attention.lesion_answer(network.threshold)
    own = spec.classifies_only and layer == spec.attention and method != "layer-cam"
    passed = network.class_pass(values) if own else None
    if passed is not None:  # a runtime without gradients; its pass holds what Grad-CAM comes to
        found = attention.of_class_evidence(*passed)
    else:
        module: Any = network.module()
        found = attention.attention_of_slice(
            module,
            network.tensors([values]),
            layer,
            answer,
            "layer-cam" if method == "layer-cam" else "grad-cam",
            module.explained,
        )
    network.finite(found.output)
    network.finite(found.raw)
    probability = None
    if spec.one_pass:  # as every command says it: the map is of the slice, the probability of its mirror image too
        probability = float(expit(network.one_pass(values).logit))
    elif spec.classifies_only:
        probability = _softmax(found.output)
    if as_released:  # scaled on the grid of the crop, as the release does, then brought to the slice
        values = restore(found.scaled(resize_map(found.raw, placement.crop[2:])), placement)
    else:
        values = found.scaled(restore(found.raw, placement))
    return SliceAttention(
        image,
        values,
        probability,
        None if spec.gives_probability else restore(_sigmoid(found.output[0]), placement),
        None if placement.whole else placement.seen,
        found.degenerate,
        layer,
    )


def features(image: SliceImage, network: Network, *, half: bool = False) -> dict[str, NDArray[np.uint8]]:
    """Return the quantised stage-1 features of a slice: "vgg" and/or "res2net", uint8 64×H×W.

    Args:
        image: The slice.
        network: Any network; one backbone gives its own features, the joint segmenter both.
        half: From a picture of half the side length (256×256).

    Raises:
        UsageError: `half` with a classifier, whose features have one size.
    """
    how = recipe(network.card.recipe)
    if half and network.spec.classifies_only:
        raise UsageError("a classifier's features have one size, 64×112×112", hint="leave --half out")
    values, _ = prepare(image.pixels, how.at(how.size // 2) if half else how)
    return {which: quantise(array) for which, array in network.stage_one(values).items()}


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    result: NDArray[np.float32] = expit(logits)
    return result


def _softmax(logits: NDArray[np.float32]) -> float:
    return float(softmax(logits.astype(np.float64))[1])
