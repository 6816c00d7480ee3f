"""Segmentation scores against independent implementations, on random and degenerate pairs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics import (
    Counts,
    count,
    e_measure_adaptive,
    e_measure_curve,
    hausdorff95,
    mean_absolute_error,
    pixel_counts,
    release_iou,
    release_mae,
    s_measure,
    weighted_f,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

Pair = tuple["NDArray[np.float64]", "NDArray[np.bool_]"]


def pairs() -> Iterator[tuple[str, Pair]]:
    rng = np.random.default_rng(3)
    rows, columns = np.mgrid[0:41, 0:33]
    for i in range(5):
        centre = rng.uniform(5, 28, 2)
        mask = np.hypot(rows - centre[0], columns - centre[1]) < rng.uniform(3, 12)
        probability = np.clip(0.7 * np.roll(mask, i, 0) + rng.normal(0.1, 0.2, mask.shape), 0, 1)
        yield f"disc{i}", (np.floor(255 * probability) / 255, mask)
        yield f"noise{i}", (rng.random((20 + i, 17)), rng.random((20 + i, 17)) > 0.1 + 0.2 * i)
    shape = (12, 15)
    empty, full, one = np.zeros(shape, bool), np.ones(shape, bool), np.zeros(shape, bool)
    one[4, 9] = True
    corner, half = np.zeros(shape, bool), np.zeros(shape, bool)
    corner[-1, -1] = True
    half[:6] = True
    noise = rng.random(shape)
    for name, mask in {"empty": empty, "full": full, "one": one, "corner": corner, "half": half}.items():
        for value in (0.0, 0.3, 0.5, 1.0):
            yield f"{name} mask, p = {value}", (np.full(shape, value), mask)
        yield f"{name} mask, noise", (noise, mask)
        yield f"{name} mask, itself", (mask.astype(np.float64), mask)
        yield f"{name} mask, inverse", (1.0 - mask, mask)
        yield f"{name} mask, one pixel", (one.astype(np.float64), mask)


PAIRS = dict(pairs())
every_pair = pytest.mark.parametrize("pair", PAIRS.values(), ids=PAIRS)


@every_pair
def test_overlap_is_that_of_scikit_learn(pair: Pair) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    p, mask = pair
    truth, found = mask.ravel(), (p >= 0.5).ravel()
    counts = pixel_counts(p, mask)
    matrix = metrics.confusion_matrix(truth, found, labels=[False, True])
    assert [[counts.tn, counts.fp], [counts.fn, counts.tp]] == matrix.tolist()
    assert counts.total == mask.size
    scores, nan = counts.scores(), np.nan
    expected = {
        "dice": metrics.f1_score(truth, found, zero_division=nan),
        "iou": metrics.jaccard_score(truth, found, zero_division=0) if (truth | found).any() else nan,
        "sensitivity": metrics.recall_score(truth, found, zero_division=nan),
        "precision": metrics.precision_score(truth, found, zero_division=nan),
        "specificity": metrics.recall_score(~truth, ~found, zero_division=nan),
    }
    background = metrics.jaccard_score(~truth, ~found, zero_division=0) if (~truth | ~found).any() else nan
    expected["miou"] = (expected["iou"] + background) / 2
    assert scores == pytest.approx(expected, abs=1e-12, nan_ok=True)
    assert mean_absolute_error(p, mask) == pytest.approx(
        metrics.mean_absolute_error(mask.ravel(), p.ravel()), abs=1e-12
    )


@every_pair
def test_dice_and_hausdorff_are_those_of_monai(pair: Pair) -> None:
    torch, metrics = pytest.importorskip("torch"), pytest.importorskip("monai.metrics")
    p, mask = pair
    found = p >= 0.5
    one_hot = [torch.from_numpy(a)[None, None].float() for a in (found, mask)]
    # MONAI leaves every empty mask out; ours counts a false alarm on one as 0.
    dice = metrics.compute_dice(*one_hot, ignore_empty=True).item()
    ours = pixel_counts(p, mask).scores()["dice"]
    assert ours == pytest.approx(0.0 if not mask.any() and found.any() else dice, abs=1e-6, nan_ok=True)
    for spacing in ((1.0, 1.0), (0.7, 1.3)):
        if mask.any() and found.any():
            theirs = metrics.compute_hausdorff_distance(
                *one_hot, include_background=True, percentile=95, spacing=list(spacing)
            ).item()
            # MONAI takes the percentile in single precision: a rank of 113.05 is one of 113.0500031.
            assert hausdorff95(found, mask, spacing) == pytest.approx(theirs, rel=1e-5, abs=1e-6)
        else:
            assert math.isnan(hausdorff95(found, mask, spacing))


@every_pair
def test_hausdorff_is_the_percentile_of_all_distances_between_outlines(pair: Pair) -> None:
    segmentation = pytest.importorskip("skimage.segmentation")
    distance = pytest.importorskip("scipy.spatial.distance")
    p, mask = pair
    found, spacing = p >= 0.5, (0.7, 1.3)
    if mask.any() and found.any():
        outlines = [
            # Padded, since scikit-image does not take the end of the slice for the end of a region.
            np.argwhere(segmentation.find_boundaries(np.pad(a, 1), connectivity=1, mode="inner")) * spacing
            for a in (found, mask)
        ]
        between = distance.cdist(*outlines)
        expected = max(np.percentile(between.min(axis=axis), 95) for axis in (0, 1))
        assert hausdorff95(found, mask, spacing) == pytest.approx(expected, abs=1e-9)


@every_pair
@pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning", "ignore:invalid value:RuntimeWarning")
def test_structure_measures_are_those_of_pysodmetrics(pair: Pair) -> None:
    sod = pytest.importorskip("py_sod_metrics")
    p, mask = pair
    s, e, f = sod.Smeasure(), sod.Emeasure(), sod.WeightedFmeasure()
    for measure in (s, e, f):
        measure.step(p, mask, normalize=False)
    expected = s.get_results()["sm"]
    if math.isnan(expected):  # theirs divides by the size of a quadrant that is empty
        assert mask[-1].any() or mask[:, -1].any()
    else:
        assert s_measure(p, mask) == pytest.approx(expected, abs=1e-6)
    assert_allclose(e_measure_curve(p, mask), e.get_results()["em"]["curve"], rtol=0, atol=1e-6)
    assert e_measure_adaptive(p, mask) == pytest.approx(e.get_results()["em"]["adp"], abs=1e-6)
    if mask.any():
        assert weighted_f(p, mask) == pytest.approx(f.get_results()["wfm"], abs=1e-6)


def test_pooled_counts_are_those_of_all_pixels_at_once() -> None:
    jaccard = pytest.importorskip("sklearn.metrics").jaccard_score
    some = [PAIRS[f"disc{i}"] for i in range(5)]
    pooled = sum((pixel_counts(p, m) for p, m in some), Counts())
    truth, found = (
        np.concatenate([a.ravel() for a in side]) for side in ([m for _, m in some], [p >= 0.5 for p, _ in some])
    )
    assert pooled.scores()["iou"] == pytest.approx(jaccard(truth, found), abs=1e-12)
    assert pooled.accuracy() == pytest.approx(float((truth == found).mean()))
    weights = np.arange(truth.size) % 3
    repeated = count(np.repeat(truth, weights), np.repeat(found, weights))
    assert vars(count(truth, found, weights)) == pytest.approx(vars(repeated))


def test_the_policy_for_empty_masks() -> None:
    nothing, something = np.zeros((6, 6)), np.zeros((6, 6))
    something[2, 3] = 1
    both = pixel_counts(nothing, nothing)
    assert all(math.isnan(both.scores()[k]) for k in ("dice", "iou", "miou", "sensitivity", "precision"))
    assert both.scores()["specificity"] == 1
    assert set(both.scores("one").values()) == {1.0}
    assert math.isnan(hausdorff95(nothing, nothing))
    assert hausdorff95(nothing, nothing, empty="one") == 0
    assert math.isnan(weighted_f(nothing, nothing))
    assert weighted_f(nothing, nothing, "one") == 1
    for policy in ("exclude", "one"):
        false_alarm = pixel_counts(something, nothing).scores(policy)
        assert [false_alarm[k] for k in ("dice", "iou", "precision")] == [0, 0, 0]
        assert math.isnan(false_alarm["sensitivity"])
        missed = pixel_counts(nothing, something).scores(policy)
        assert [missed[k] for k in ("dice", "iou", "sensitivity")] == [0, 0, 0]
        assert math.isnan(missed["precision"])
        assert weighted_f(something, nothing, policy) == 0
        assert math.isnan(hausdorff95(something, nothing, empty=policy))
    full = np.ones((3, 3))
    assert math.isnan(pixel_counts(full, full).scores()["miou"])
    assert pixel_counts(full, full).scores("one")["miou"] == 1
    assert math.isnan(Counts().accuracy())


def test_a_single_pixel_is_a_slice() -> None:
    one = np.ones((1, 1))
    assert s_measure(one, one) == 1
    assert e_measure_curve(one, one).max() == 1
    assert weighted_f(one, one) == pytest.approx(1)
    assert hausdorff95(one, one) == 0


def test_a_perfect_map_has_perfect_scores() -> None:
    mask = PAIRS["disc1"][1]
    p = mask.astype(np.float64)
    assert pixel_counts(p, mask).scores() == dict.fromkeys(pixel_counts(p, mask).scores(), 1.0)
    assert s_measure(p, mask) == pytest.approx(1)
    assert weighted_f(p, mask) == pytest.approx(1)
    assert e_measure_adaptive(p, mask) == pytest.approx(mask.size / (mask.size - 1))
    assert hausdorff95(p, mask) == 0


def test_arguments_that_cannot_be_scored_are_named() -> None:
    p, mask = PAIRS["disc0"]
    for wrong in (p[1:], p[None], np.zeros((0, 3))):
        with pytest.raises(ShapeError, match="same shape"):
            pixel_counts(wrong, mask)
        with pytest.raises(ShapeError, match="same shape"):
            hausdorff95(wrong, mask)
    for wrong in (p + 1, p * np.nan, p - 1):
        with pytest.raises(ShapeError, match="0 to 1 without NaN is expected"):
            s_measure(wrong, mask)
    with pytest.raises(UsageError, match="more than 0 and at most 1"):
        pixel_counts(p, mask, 0)
    with pytest.raises(UsageError, match="known: exclude, one"):
        Counts().scores("zero")  # type: ignore[arg-type]
    for spacing in ((0.0, 1.0), (1.0, math.inf)):
        with pytest.raises(UsageError, match="two positive numbers"):
            hausdorff95(p, mask, spacing)


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_the_releases_evaluator_takes_tensors_of_any_device(device: str, golden: dict[str, NDArray[Any]]) -> None:
    torch = pytest.importorskip("torch")
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    p, masks = (torch.from_numpy(golden[f"evaluator_{name}"]).to(device) for name in ("probs", "masks"))
    assert release_iou(p.requires_grad_(), masks) == pytest.approx(float(golden["evaluator_iou"]), abs=1e-6)
    assert release_mae(p, masks) == pytest.approx(float(golden["evaluator_mae"]), abs=1e-6)
