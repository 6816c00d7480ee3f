"""Recipes, their exact way back, and the 8-bit filter against OpenCV."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.imaging.recipes import MEAN, RECIPES, STD, prepare, recipe, resize_map, restore
from jcs_ct.imaging.resampling import resize_bilinear_8bit

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHAPES = [(512, 512), (320, 281), (630, 500), (37, 53), (1024, 700), (1022, 1024), (32, 128), (2, 2), (1, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [(512, 512), (352, 352), (256, 256), (511, 513)])
def test_8bit_bilinear_is_opencv_to_the_bit(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(sum(shape)).integers(0, 256, (*shape, 3), dtype=np.uint8)
    theirs: Any = cv2.resize(pixels, size[::-1], interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(resize_bilinear_8bit(pixels, *size), theirs)


@pytest.mark.parametrize(("rows", "columns"), [(512, 512), (300, 400), (400, 300), (257, 301), (101, 256)])
def test_classification_is_resize_256_and_centre_crop_224(rows: int, columns: int) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (rows, columns, 3), dtype=np.uint8)
    values, placement = prepare(pixels, RECIPES["release-classification"])
    longer = int(256 * max(rows, columns) / min(rows, columns))
    size = (256, longer) if rows < columns else (longer, 256)
    picture = np.asarray(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
    top, left = int(round((size[0] - 224) / 2.0)), int(round((size[1] - 224) / 2.0))  # noqa: RUF046
    expected = (picture[top : top + 224, left : left + 224] / 255 - MEAN) / STD
    np.testing.assert_allclose(values, expected.transpose(2, 0, 1), rtol=0, atol=1e-6)
    assert placement.resized == size
    assert not placement.whole


def test_the_whole_slice_recipe_crops_nothing() -> None:
    pixels = np.zeros((300, 400, 3), dtype=np.uint8)
    values, placement = prepare(pixels, RECIPES["whole-slice-classification"])
    assert values.shape == (3, 256, 341)
    assert placement.whole
    assert placement.seen == (0, 0, 300, 400)


@pytest.mark.parametrize("name", list(RECIPES))
@pytest.mark.parametrize("shape", [(512, 512), (300, 400), (64, 48), (700, 512)])
def test_a_landmark_comes_back_to_its_place(name: str, shape: tuple[int, int]) -> None:
    """A bright disc in the slice, taken through the recipe and back, lies where it was: no flip, no shift."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    centre = (shape[0] * 0.4, shape[1] * 0.55)
    disc = np.hypot(rows - centre[0], columns - centre[1]) < min(shape) / 10
    pixels = np.repeat((255 * disc).astype(np.uint8)[:, :, None], 3, axis=2)
    values, placement = prepare(pixels, RECIPES[name])
    grey = (values[0] + 1) / 2 if RECIPES[name].lung_crop else values[0] * STD[0] + MEAN[0]
    back = restore(grey, placement)
    assert back.shape == shape
    assert back.dtype == np.float32
    weight = back.astype(np.float64)
    found = (weight * rows).sum() / weight.sum(), (weight * columns).sum() / weight.sum()
    np.testing.assert_allclose(found, (rows[disc].mean(), columns[disc].mean()), atol=0.35)
    agreement = ((back > 0.5) == disc).mean()
    assert agreement > 0.995


def test_what_the_crop_left_out_is_zero() -> None:
    pixels = np.zeros((512, 512, 3), dtype=np.uint8)
    _, placement = prepare(pixels, RECIPES["release-classification"])
    back = restore(np.ones((7, 7), dtype=np.float32), placement)
    assert placement.seen == (32.0, 32.0, 480.0, 480.0)
    assert not back[:32].any()
    assert not back[:, 480:].any()
    assert (back[34:478, 34:478] == 1).all()


def test_a_map_keeps_its_range_and_an_equal_grid_is_untouched() -> None:
    values = np.random.default_rng(0).random((40, 50), dtype=np.float32)
    assert resize_map(values, (40, 50)) is values
    for shape in ((17, 23), (200, 90)):
        resized = resize_map(values, shape)
        assert resized.shape == shape
        assert values.min() <= resized.min() <= resized.max() <= values.max()


@pytest.mark.parametrize(
    ("given", "shape"),
    [((20, 24), (512, 512)), ((100, 17), (546, 121)), ((80, 96), (301, 397)), ((600, 90), (50, 700)), ((5, 2), (9, 2))],
)
def test_a_map_is_resized_as_torch_does_it_at_once_and_by_one_thread(
    given: tuple[int, int], shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts that torch computes without its other threads, whose waiting was a third of a study's processor time."""
    values = np.random.default_rng(sum(shape)).random(given, np.float32)
    whole: Any = functional.interpolate
    expected = whole(
        torch.from_numpy(values)[None, None], size=shape, mode="bilinear", align_corners=False, antialias=True
    )
    made: list[tuple[int, int]] = []

    def seen(*arguments: Any, size: tuple[int, int], **more: Any) -> Any:
        made.append(size)
        return whole(*arguments, size=size, **more)

    monkeypatch.setattr(functional, "interpolate", seen)
    found = resize_map(values, shape)
    np.testing.assert_array_equal(found, expected[0, 0].numpy().clip(values.min(), values.max()))
    assert max(rows * columns for rows, columns in made) <= 2**15
    assert min(columns for _, columns in made) > 1  # of one column torch gives another result
    assert found.flags.c_contiguous


@pytest.mark.parametrize(
    "pixels",
    [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)],
)
def test_wrong_pixels_are_refused(pixels: NDArray[Any]) -> None:
    with pytest.raises(ShapeError, match="rows×columns×3 is expected"):
        prepare(pixels, RECIPES["release-segmentation"])


def test_an_unknown_recipe_lists_the_known() -> None:
    assert recipe("release-segmentation").at(256).size == 256
    with pytest.raises(UsageError, match="known: release-segmentation"):
        recipe("lung-window")
