"""From a source to a result: the only place where the order of the stages is written.

Everything works on one slice at a time, so that memory does not depend on how many there are. A slice that fails
becomes an `Outcome` with its error, and the others go on.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
from scipy.special import expit, softmax

from jcs_ct.core.errors import InputError, JcsError, UsageError, unforeseen
from jcs_ct.core.types import METHODS, SliceDiagnosis, SliceImage, StageOneFeatures
from jcs_ct.imaging.recipes import prepare, recipe, resize_map, restore
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.inference import attention as attention
from jcs_ct.io.features import dequantise, quantise, read_features
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.pictures import read_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from jcs_ct.imaging.recipes import Placement
    from jcs_ct.inference import Network
    from jcs_ct.inference.network import OnePass
    from jcs_ct.io.files.sources import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one source: a value, or the error that stopped it.

    Attributes:
        source: The input.
        value: What `work` returned, or None.
        error: The problem, or None.
        details: The traceback of a problem that was not foreseen, else "".
    """

    source: Source
    value: T | None
    error: JcsError | None
    details: str = ""


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


def each(sources: Iterable[Source], work: Callable[[Source], T]) -> Iterator[Outcome[T]]:
    """Do `work` for every source, one after the other; yield an outcome each, errors included."""
    for source in sources:
        try:
            yield Outcome(source, work(source), None)
        except JcsError as error:
            yield Outcome(source, None, error)
        except Exception as error:  # noqa: BLE001  # whatever one case meets, the others must still finish
            yield Outcome(source, None, unforeseen(error, source.label), traceback.format_exc())


def read(source: Source, network: Network | None = None) -> SliceImage | StageOneFeatures:
    """Read a source as a picture, or as stage-1 features if it is a feature file and `network` can take them.

    Raises:
        InputError: See `read_slice` and `read_features`.
    """
    if source.kind is not Kind.MAT:
        return read_slice(source)
    if network is None or not network.spec.outputs:
        raise InputError("holds stage-1 features, a picture of a slice is needed here", path=source.label)
    return read_features(source.read(), source.name, source.label, network.spec.feature_arrays)


def read_image(source: Source) -> SliceImage:
    """Read a source that must be a picture. Raises InputError."""
    item = read(source)
    assert isinstance(item, SliceImage)  # noqa: S101  # without a network nothing else comes
    return item


def guard(item: SliceImage | StageOneFeatures, *, strict: bool = False) -> tuple[str, ...]:
    """Return what speaks against a lung-windowed axial chest slice, as `diagnose` says it; nothing of features.

    Args:
        item: What is about to go through a network.
        strict: Whether a slice with a flag is refused.

    Raises:
        InputError: It has a flag, and `strict`.
    """
    flags = check_slice(item.pixels) if isinstance(item, SliceImage) else ()
    if flags and strict:
        raise InputError(
            flagged(flags), path=item.source, hint="give lung-windowed axial slices, or leave --strict out"
        )
    return flags


def flagged(flags: Sequence[str]) -> str:
    """Return the flags of a slice as one line."""
    return f"may be no lung-windowed axial chest slice: {'; '.join(flags)}"


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


def diagnose_slice(image: SliceImage, network: Network, *, guard: bool = True) -> SliceDiagnosis:
    """Return probability, attention and lesion map of a slice out of one pass of `jcs-lite`, see `diagnose_slices`."""
    return diagnose_slices([image], network, guard=guard)[0]


def diagnose_slices(images: Sequence[SliceImage], network: Network, *, guard: bool = True) -> list[SliceDiagnosis]:
    """Return probability, attention and lesion map of slices out of one pass of `jcs-lite`.

    Args:
        images: The slices; they go through the network together, which pays on a GPU (`Network.batch`).
        network: `jcs-lite`.
        guard: Whether to ask if this is a chest slice at all; of a volume that is known before.

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
    diagnosed = []
    for image, (_, placement), found in zip(images, prepared, passes, strict=True):
        probability, attended = _classified(found, placement)
        diagnosed.append(
            SliceDiagnosis(
                image,
                probability,
                probability >= network.covid_threshold,
                restore(_sigmoid(found.lesion), placement),
                attended,
                placement.crop,
                check_slice(image.pixels) if guard else (),
            )
        )
    return diagnosed


def screen_slice(image: SliceImage, network: Network) -> tuple[float, NDArray[np.float32]]:
    """Return probability and attention of a slice out of one pass of `jcs-lite`: the lesions stay where they are."""
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
        found = attention.attend(
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
