"""Losses, schedule and the release's evaluator beyond the golden numbers: independent formulas and known faults."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics import release_iou, release_mae
from jcs_ct.training.losses import f_measure_loss, release_loss
from jcs_ct.training.schedule import poly_lr


def test_release_loss_is_cross_entropy_plus_monai_dice() -> None:
    from monai.losses import DiceLoss

    torch.manual_seed(0)
    logits, target = torch.randn(3, 5, 20, 30), (torch.rand(3, 20, 30) > 0.7).float()
    dice = DiceLoss(sigmoid=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5)
    expected = sum(
        F.binary_cross_entropy(m.sigmoid(), target) + dice(m[:, None], target[:, None]) for m in logits.unbind(dim=1)
    )
    torch.testing.assert_close(release_loss(logits, target), expected, rtol=1e-5, atol=1e-6)


def test_f_measure_loss_is_fbeta_of_hard_masks() -> None:
    from sklearn.metrics import fbeta_score

    rng = np.random.default_rng(0)
    target, found = rng.random((2, 8, 9)) > 0.5, rng.random((2, 8, 9)) > 0.5
    logits = torch.from_numpy(np.where(found, 50.0, -50.0).astype(np.float32))[:, None].expand(2, 5, 8, 9)
    loss = f_measure_loss(logits, torch.from_numpy(target.astype(np.float32)))
    expected = 5 * np.mean(
        [1 - fbeta_score(t.ravel(), f.ravel(), beta=math.sqrt(0.3)) for t, f in zip(target, found, strict=True)]
    )
    assert float(loss) == pytest.approx(expected, abs=1e-5)


def test_an_empty_mask_gives_a_finite_loss_and_gradient() -> None:
    logits = torch.full((1, 5, 4, 4), -30.0, requires_grad=True)
    for loss in (release_loss(logits, torch.zeros(1, 4, 4)), f_measure_loss(logits, torch.zeros(1, 4, 4))):
        (gradient,) = torch.autograd.grad(loss, logits)
        assert torch.isfinite(loss)
        assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("shape", [(2, 4, 4), (1, 4, 5), (4, 4)])
def test_shapes_that_do_not_belong_together_are_named(shape: tuple[int, ...]) -> None:
    for loss in (release_loss, f_measure_loss):
        with pytest.raises(ShapeError, match="N×K×H×W and N×H×W are expected"):
            loss(torch.zeros(1, 5, 4, 4), torch.zeros(shape))


def test_a_long_first_epoch_warms_up_for_200_iterations_only() -> None:
    rates = [poly_lr(i, 3000, 500) for i in range(3000)]
    assert rates[0] == pytest.approx(2.5e-5 * 0.1045)
    assert rates[199] == pytest.approx(2.5e-5)
    assert rates[200] == pytest.approx(2.5e-5 * (1 - 200 / 3000) ** 0.9)
    assert all(a > b for a, b in pairwise(rates[200:]))
    for outside in (-1, 3000):
        with pytest.raises(UsageError, match="0 to 2999 is expected"):
            poly_lr(outside, 3000, 500)


def test_the_releases_evaluator_has_the_faults_it_is_known_for() -> None:
    half = np.zeros((1, 10, 10), np.uint8)
    half[:, :5] = 1
    assert release_iou(half.astype(np.float32), half) == 0  # a perfect mask
    empty = np.zeros((1, 10, 10))
    assert math.isnan(release_iou(empty, empty))
    assert release_mae(half.astype(np.float32), half) == 0
    for wrong in (np.zeros((10, 10)), np.zeros((0, 10, 10)), np.zeros((2, 10, 10))):
        with pytest.raises(ShapeError, match="same shape"):
            release_iou(wrong, half)


def test_the_releases_iou_is_the_jaccard_index_at_its_threshold() -> None:
    from sklearn.metrics import jaccard_score

    rng = np.random.default_rng(1)
    probabilities, masks = rng.random((4, 12, 9)) ** 3, rng.random((4, 12, 9)) > 0.6
    expected = np.mean(
        [jaccard_score(m.ravel(), (p > 2 * p.mean()).ravel()) for p, m in zip(probabilities, masks, strict=True)]
    )
    assert release_iou(probabilities, masks) == pytest.approx(expected, abs=1e-12)
