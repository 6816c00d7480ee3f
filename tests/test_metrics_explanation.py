"""Explanation scores against plain formulas, and against Quantus where it is installed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.metrics import energy_inside, map_dice, perturb, pointing_game

if TYPE_CHECKING:
    from numpy.typing import NDArray


def pair(seed: int) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    rng = np.random.default_rng(seed)
    mask = np.zeros((24, 24), bool)
    mask[3 + seed : 12 + seed, 5:14] = True
    return rng.random((24, 24)) ** 2 + 0.6 * mask * rng.random(), mask


PAIRS = [pair(seed) for seed in range(6)]


@pytest.mark.parametrize("data", PAIRS)
def test_plain_formulas(data: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    dice = pytest.importorskip("sklearn.metrics").f1_score
    attention, mask = data
    assert pointing_game(attention, mask) == mask[np.unravel_index(attention.argmax(), mask.shape)]
    assert energy_inside(attention, mask) == pytest.approx((attention * mask).sum() / attention.sum(), abs=1e-12)
    found = map_dice(attention, mask, (0.25, 0.5))
    assert found == pytest.approx({t: dice(mask.ravel(), (attention >= t).ravel()) for t in (0.25, 0.5)}, abs=1e-12)


@pytest.mark.parametrize("data", PAIRS)
@pytest.mark.filterwarnings("ignore")
def test_quantus(data: tuple[NDArray[np.float64], NDArray[np.bool_]]) -> None:
    quantus, torch = pytest.importorskip("quantus"), pytest.importorskip("torch")
    attention, mask = data
    given: dict[str, Any] = {
        "model": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(576, 2)),
        "x_batch": np.zeros((1, 1, 24, 24), np.float32),
        "y_batch": np.zeros(1, int),
        "a_batch": attention[None, None],
        "s_batch": mask[None, None],
    }
    options: dict[str, Any] = {"disable_warnings": True, "abs": False, "normalise": False}
    assert [pointing_game(attention, mask)] == [float(v) for v in quantus.PointingGame(**options)(**given)]
    assert [energy_inside(attention, mask)] == pytest.approx(
        quantus.RelevanceMassAccuracy(**options)(**given), abs=1e-6
    )


def test_degenerate_maps_gain_nothing() -> None:
    _, mask = PAIRS[0]
    zero, flat, share = np.zeros(mask.shape), np.full(mask.shape, 0.5), float(mask.mean())
    assert pointing_game(zero, mask) == energy_inside(zero, mask) == 0
    assert pointing_game(flat, mask) == energy_inside(flat, mask) == pytest.approx(share)
    assert set(map_dice(zero, mask).values()) == {0.0}
    assert pointing_game(mask * 1.0, mask) == energy_inside(mask * 1.0, mask) == 1
    nothing = np.zeros(mask.shape, bool)
    for score in (pointing_game(flat, nothing), energy_inside(flat, nothing), *map_dice(flat, nothing).values()):
        assert math.isnan(score)
    beside = np.zeros(mask.shape)
    beside[3, 3] = 1  # two pixels from the mask
    assert [pointing_game(beside, mask, t) for t in (0, 1.9, 2)] == [0, 0, 1]


def test_deletion_and_insertion_follow_a_linear_model() -> None:
    trapezoid = pytest.importorskip("scipy.integrate").trapezoid
    rng = np.random.default_rng(1)
    pixels = rng.integers(50, 200, (20, 16, 3)).astype(np.uint8)
    attention = rng.permutation(320).reshape(20, 16) / 320
    sizes: list[int] = []

    def model(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        sizes.append(len(batch))
        return np.asarray(batch[..., 0].mean(axis=(1, 2)) / 255)

    found = perturb(pixels, attention, model, steps=7, batch=3)
    assert sizes == [3, 3, 2, 3, 3, 2]
    order = np.argsort(-attention.ravel())
    plain = []
    for share in found.share:
        picture = pixels[..., 0].ravel().astype(float)
        picture[order[: round(share * 320)]] = 0
        plain.append(picture.mean() / 255)
    assert_allclose(found.deletion, plain, atol=1e-12)
    assert found.deletion_area == pytest.approx(trapezoid(plain, found.share), abs=1e-12)
    assert found.deletion[-1] == 0
    assert found.insertion[-1] == found.deletion[0]
    assert found.share[[0, -1]].tolist() == [0, 1]
    assert perturb(pixels, attention, lambda batch: np.full(len(batch), 0.4)).insertion_area == pytest.approx(0.4)
    filled = perturb(pixels, attention, model, steps=1, fill=255)
    assert filled.deletion[-1] == 1


def test_a_good_map_deletes_fast_and_inserts_fast() -> None:
    pixels = np.full((32, 32, 3), 40, np.uint8)
    pixels[8:16, 8:16] = 220
    good = np.zeros((32, 32))
    good[8:16, 8:16] = 1

    def model(batch: NDArray[np.uint8]) -> NDArray[np.float64]:
        return np.asarray(batch[:, 8:16, 8:16, 0].mean(axis=(1, 2)) / 255)

    right, wrong = (perturb(pixels, a, model) for a in (good, 1 - good))
    assert right.deletion_area < wrong.deletion_area
    assert right.insertion_area > wrong.insertion_area


def test_arguments_that_cannot_be_scored_are_named() -> None:
    attention, mask = PAIRS[0]
    with pytest.raises(ShapeError, match="same shape"):
        energy_inside(attention[1:], mask)
    for wrong in (-attention, attention * np.nan):
        with pytest.raises(ShapeError, match="negative, NaN or infinite"):
            pointing_game(wrong, mask)
    with pytest.raises(UsageError, match="more than 0 and at most 1"):
        map_dice(attention, mask, [0])
    pixels = np.zeros((24, 24, 3), np.uint8)
    with pytest.raises(ShapeError, match="uint8 rows×columns×3"):
        perturb(pixels[..., 0], attention, lambda batch: np.zeros(len(batch)))
    for numbers in ({"steps": 0}, {"batch": 0}, {"fill": 256}):
        with pytest.raises(UsageError, match="expected"):
            perturb(pixels, attention, lambda batch: np.zeros(len(batch)), **numbers)
