"""Classification scores, intervals and patient rules against independent implementations."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit, logit

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics import (
    Scored,
    average,
    bootstrap,
    calibration_error,
    compare,
    reliability,
    roc_auc,
)
from jcs_ct.metrics.bootstrap import resample_weights
from jcs_ct.study.rules import RULES, Count, Fraction, TopK, rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Sample = tuple[NDArray[np.int_], NDArray[np.float64]]


def sample(seed: int) -> Sample:
    rng = np.random.default_rng(seed)
    labels = (rng.random(90) < 0.15 + 0.2 * seed).astype(int)
    labels[:2] = 0, 1
    scores = (0.3 * labels + 0.7 * rng.random(90)).clip(0, 1)
    return labels, np.round(scores, 1 if seed % 2 else 6)  # odd ones with many ties


SAMPLES = [sample(seed) for seed in range(4)]
SAMPLES += [
    (np.array([0, 1]), np.array([0.5, 0.5])),
    (np.array([0, 1, 1]), np.zeros(3)),
    (np.array([1, 0]), np.array([0.0, 0.9])),
    (np.array([0, 1, 0, 1]), np.full(4, 0.7)),
]
every_sample = pytest.mark.parametrize("data", SAMPLES, ids=range(len(SAMPLES)))


@every_sample
def test_scores_are_those_of_scikit_learn(data: Sample) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    labels, scores = data
    weights = np.random.default_rng(0).integers(0, 4, len(labels))
    weights[:2] = 1, 2  # both classes are drawn
    for w in (None, weights):
        assert roc_auc(labels, scores, w) == pytest.approx(
            metrics.roc_auc_score(labels, scores, sample_weight=w), abs=1e-9
        )
        expected = metrics.average_precision_score(labels, scores, sample_weight=w)
        assert Scored(labels, scores).rank(w).average_precision() == pytest.approx(expected, abs=1e-9)
        counts = Scored(labels, scores).counts(0.5, w)
        matrix = metrics.confusion_matrix(labels, scores >= 0.5, labels=[0, 1], sample_weight=w)
        assert_allclose([[counts.tn, counts.fp], [counts.fn, counts.tp]], matrix, atol=1e-9)
    x, y = Scored(labels, scores).rank().roc()
    expected_x, expected_y, _ = metrics.roc_curve(labels, scores, drop_intermediate=False)
    assert_allclose([x, y], [expected_x, expected_y], atol=1e-12)
    recall, precision = Scored(labels, scores).rank().precision_recall()
    expected_precision, expected_recall, _ = metrics.precision_recall_curve(labels, scores)
    assert_allclose([recall[::-1], precision[::-1]], [expected_recall[:-1], expected_precision[:-1]], atol=1e-12)


@every_sample
def test_scores_are_those_of_torchmetrics(data: Sample) -> None:
    torch, functional = pytest.importorskip("torch"), pytest.importorskip("torchmetrics.functional.classification")
    labels, scores = torch.from_numpy(data[0]), torch.from_numpy(data[1])
    assert roc_auc(*data) == pytest.approx(functional.binary_auroc(scores, labels).item(), abs=1e-6)
    # A probability that lies on an edge is not in single precision; theirs has a bin of its own for 1.
    p = data[1] * 0.96 + 0.013
    for bins in (10, 15):
        expected = functional.binary_calibration_error(torch.from_numpy(p), labels, n_bins=bins).item()
        assert calibration_error(data[0], p, bins) == pytest.approx(expected, abs=1e-6)


@every_sample
def test_reliability_is_that_of_scikit_learn(data: Sample) -> None:
    curve = pytest.importorskip("sklearn.calibration").calibration_curve
    p = data[1] * 0.96 + 0.013
    bins = reliability(data[0], p, 8)
    observed, stated = curve(data[0], p, n_bins=8)
    known = bins.weight > 0
    assert_allclose([bins.observed[known], bins.stated[known]], [observed, stated], atol=1e-12)
    assert bins.weight.sum() == len(p)
    weights = np.arange(1, len(p) + 1)
    repeated = calibration_error(np.repeat(data[0], weights), np.repeat(p, weights))
    assert calibration_error(data[0], p, weights=weights) == pytest.approx(repeated, abs=1e-9)


@pytest.mark.parametrize("label", [0, 1])
def test_one_class_only_leaves_the_ranking_undefined(label: int) -> None:
    labels, scores = np.full(5, label), np.linspace(0, 1, 5)
    assert math.isnan(roc_auc(labels, scores))
    precision = Scored(labels, scores).rank().average_precision()
    assert precision == pytest.approx(1) if label else math.isnan(precision)
    counts = Scored(labels, scores).counts(0.5)
    assert math.isnan(counts.specificity() if label else counts.sensitivity())
    assert calibration_error([1], [1.0]) == 0
    assert calibration_error([0, 1], [0.0, 1.0]) == 0


def test_labels_and_scores_that_cannot_be_used_are_named() -> None:
    for labels, scores in (([], []), ([0, 1], [0.5]), ([[0, 1]], [[0.1, 0.2]])):
        with pytest.raises(ShapeError, match="two lists of the same length"):
            Scored(labels, scores)
    with pytest.raises(ShapeError, match="0 and 1 are expected"):
        Scored([0, 2], [0.1, 0.2])
    with pytest.raises(ShapeError, match="finite ones are expected"):
        Scored([0, 1], [0.1, math.nan])
    with pytest.raises(ShapeError, match="0 to 1 is expected"):
        calibration_error([0, 1], [0.1, 1.2])
    with pytest.raises(UsageError, match="at least 1"):
        calibration_error([0, 1], [0.1, 0.2], 0)


def test_intervals_are_those_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(5).gamma(2, size=60)
    ours = bootstrap(lambda w: {"mean": average(values, w)}, range(60), resamples=4000)["mean"]
    theirs = stats.bootstrap((values,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(1))
    assert ours.value == pytest.approx(values.mean())
    width = ours.high - ours.low
    assert ours.low == pytest.approx(theirs.confidence_interval.low, abs=0.06 * width)
    assert ours.high == pytest.approx(theirs.confidence_interval.high, abs=0.06 * width)


def test_groups_are_drawn_whole_and_the_seed_repeats_them() -> None:
    groups = ["a", "b", "a", "c", "c", "c"]
    drawn = np.array(list(resample_weights(groups, 50, 3)))
    assert (drawn[:, 0] == drawn[:, 2]).all()
    assert (drawn[:, [0, 1, 3]].sum(axis=1) == 3).all()
    assert (drawn == np.array(list(resample_weights(groups, 50, 3)))).all()
    assert (drawn != np.array(list(resample_weights(groups, 50, 4)))).any()
    # Ten equal slices of a patient say no more than one.
    values = np.random.default_rng(0).random(20)
    single = bootstrap(lambda w: {"x": average(values, w)}, range(20), resamples=200)["x"]
    tenfold = bootstrap(
        lambda w: {"x": average(np.repeat(values, 10), w)}, np.repeat(range(20), 10).tolist(), resamples=200
    )["x"]
    assert vars(tenfold) == pytest.approx(vars(single))


def test_undefined_resamples_are_left_out_and_counted() -> None:
    scored = Scored([0, 1, 1], [0.1, 0.8, 0.3])
    found = bootstrap(lambda w: {"auc": scored.rank(w).auc()}, "abc", resamples=300)["auc"]
    assert 0 < found.undefined < 300
    assert found.low == found.high == 1
    one_group = bootstrap(lambda w: {"auc": scored.rank(w).auc()}, "aaa", resamples=5)["auc"]
    assert one_group.value == 1
    assert math.isnan(one_group.low)
    assert math.isnan(bootstrap(lambda w: {"x": math.nan}, "ab", resamples=3)["x"].high)
    assert math.isnan(average(np.array([math.nan])))
    with pytest.raises(UsageError, match="nothing to resample"):
        bootstrap(lambda w: {"x": 1.0}, [])
    for resamples, confidence in ((-1, 0.95), (1, 1.0)):
        with pytest.raises(UsageError, match="between 0 and 1"):
            bootstrap(lambda w: {"x": 1.0}, "ab", resamples=resamples, confidence=confidence)


def test_a_paired_comparison_is_the_interval_of_the_differences() -> None:
    rng = np.random.default_rng(2)
    a = rng.random(40)
    b = a - 0.1 + 0.02 * rng.normal(size=40)
    found = compare(lambda w: {"x": average(a, w), "y": 0.0}, lambda w: {"x": average(b, w)}, range(40), resamples=500)
    paired = bootstrap(lambda w: {"x": average(a - b, w)}, range(40), resamples=500)["x"]
    assert found.keys() == {"x"}
    assert vars(found["x"]) == pytest.approx({**vars(paired), "above": 1.0})
    itself = compare(lambda w: {"x": average(a, w)}, lambda w: {"x": average(a, w)}, range(40), resamples=50)["x"]
    assert (itself.value, itself.low, itself.high, itself.above) == (0, 0, 0, 0.5)
    undefined = compare(lambda w: {"x": math.nan}, lambda w: {"x": 0.0}, "ab", resamples=5)["x"]
    assert math.isnan(undefined.above)


def test_the_releases_rule_counts_more_than_18_slices() -> None:
    for positives, verdict in ((18, False), (19, True)):
        p = [0.9] * positives + [0.1] * 500
        found = Count()(p)
        assert (found.positive, found.score, found.limit) == (verdict, positives, 19)
    assert not Count()([1.0] * 18).positive  # every slice of a short study
    assert Fraction()([1.0] * 18).positive
    assert Fraction()([0.5] + [0.1] * 9).positive
    assert not Fraction()([0.5] + [0.1] * 10).positive


def test_top_k_is_the_mean_log_odds_of_the_highest_slices() -> None:
    p = np.random.default_rng(0).random(40)
    top = np.sort(p)[-4:]
    assert TopK().evidence(p) == pytest.approx(np.mean(np.log(top / (1 - top))))
    assert TopK()([0.3]).score == pytest.approx(0.3)
    assert TopK()([0.5]).positive
    assert TopK(slope=2, intercept=-1)([0.5]).score == pytest.approx(1 / (1 + math.e))
    assert 0 < TopK()([0.0] * 3).score < TopK()([1.0, 0.0, 0.0]).score < 1


def test_a_fit_on_patients_says_nothing_of_a_single_slice_and_little_of_few() -> None:
    rule = TopK(slope=1.4, intercept=-2.7, fitted_from=8)
    assert rule([0.87]).score == pytest.approx(0.87)  # there was nothing to choose the highest from
    full = replace(rule, fitted_from=1)
    scores = [rule([0.87] * n).score for n in range(1, 10)]
    assert scores == sorted(scores, reverse=True)
    assert scores[6] > scores[7] == scores[8] == pytest.approx(full([0.87] * 8).score)
    assert rule([0.87, 0.87]).score == pytest.approx(expit((1 + 0.4 / 3) * logit(0.87) - 2.7 / 3))  # log 2 / log 8


def test_top_k_is_fitted_as_scikit_learn_fits_a_sigmoid() -> None:
    calibration = pytest.importorskip("sklearn.calibration")
    rng = np.random.default_rng(4)
    labels = [int(i % 3 == 0) for i in range(60)]
    patients = [1 / (1 + np.exp(-(2.0 * y - 0.5 + 2 * rng.normal(size=25)))) for y in labels]
    fitted = TopK().fit(patients, labels)
    x = np.array([TopK().evidence(p) for p in patients])
    expected = calibration._SigmoidCalibration().fit(x, np.array(labels)).predict(x)
    assert_allclose([fitted(p).score for p in patients], expected, atol=1e-3)
    assert 0 < fitted.slope < 20
    separable = TopK().fit([[0.1], [0.2], [0.8], [0.9]], [0, 0, 1, 1])
    assert 0 < separable.slope < 10
    assert TopK().fit([[0.9], [0.1]], [0, 1]).slope == 0
    for wrong in ([1, 1], [0, 0], [0, 1, 1]):
        with pytest.raises(UsageError, match="both classes"):
            TopK().fit([[0.1], [0.2]], wrong)


def test_rules_have_names_and_refuse_what_is_no_probability() -> None:
    assert {name: rule(name).name for name in RULES} == dict(zip(RULES, RULES, strict=True))
    with pytest.raises(UsageError, match="known: release-count, fraction, top-k"):
        rule("majority")
    for name in RULES:
        with pytest.raises(ShapeError, match="at least one"):
            rule(name)([])
        for wrong in ([0.5, 1.5], [math.nan]):
            with pytest.raises(ShapeError, match="0 to 1 without NaN"):
                rule(name)(wrong)
