"""The lung field and the input guard: phantoms pass, what is no chest slice is named, real sets as measured."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import skimage.data
from PIL import Image
from skimage.filters import threshold_otsu

from jcs_ct.datasets.masks import read_mask
from jcs_ct.imaging.lung_box import find_lung_box, lung_regions, otsu
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.phantom import PhantomStudy, lung_window, make_phantom

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return make_phantom(slices=12, size=256)


def rgb(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[:, :, None], 3, axis=2)


def test_otsu_is_scikit_images() -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        picture = np.concatenate([rng.normal(60, 15, 900), rng.normal(170, 25, 700)]).clip(0, 255).astype(np.uint8)
        assert abs(otsu(picture) - threshold_otsu(picture)) <= 1


@pytest.mark.parametrize("index", range(2, 11))
def test_the_field_holds_the_lungs(study: PhantomStudy, index: int) -> None:
    top, left, rows, columns = find_lung_box(lung_window(study.hu[index]))
    lungs = study.lungs[index] > 0
    assert lungs[top : top + rows, left : left + columns].sum() >= 0.97 * lungs.sum()
    assert rows * columns < 0.9 * lungs.size


def test_padding_around_the_scan_is_no_lung(study: PhantomStudy) -> None:
    picture = lung_window(study.hu[6]) // 2 + 60
    y, x = np.ogrid[:256, :256]
    padded = np.where((y - 128) ** 2 + (x - 128) ** 2 < 126**2, picture, 0).astype(np.uint8)
    top, left, rows, columns = find_lung_box(padded)
    assert (rows, columns) != padded.shape
    assert (study.lungs[6] > 0)[top : top + rows, left : left + columns].sum() >= 0.97 * (study.lungs[6] > 0).sum()


@pytest.mark.parametrize("index", range(3, 10))
@pytest.mark.parametrize(("down", "across"), [(1, 0), (4, 2), (2, 3)])
def test_the_field_moves_with_the_body_pixel_by_pixel(study: PhantomStudy, index: int, down: int, across: int) -> None:
    picture = lung_window(study.hu[index])
    top, left, rows, columns = find_lung_box(picture)
    assert (rows, columns) != picture.shape
    moved = np.roll(picture, (down, across), axis=(0, 1))  # what is rolled over is air
    assert find_lung_box(moved) == (top + down, left + across, rows, columns)


@pytest.mark.parametrize("index", range(3, 10))
def test_air_within_a_table_is_no_lung(study: PhantomStudy, index: int) -> None:
    picture = lung_window(study.hu[index])
    lying = np.concatenate([picture, np.tile(picture[20:40], (4, 1))])  # more of the air above the body, below it
    tabled = lying.copy()
    tabled[-70:-20, 40:-40] = 240
    tabled[-66:-24, 44:-44] = lying[-66:-24, 44:-44]  # a hollow of 42 × 168 pixels
    assert find_lung_box(tabled) == find_lung_box(lying)


@pytest.mark.parametrize("index", range(3, 10))
def test_air_between_the_body_and_a_table_is_no_lung(study: PhantomStudy, index: int) -> None:
    picture = lung_window(study.hu[index])
    lying = np.concatenate([picture, np.tile(picture[20:40], (3, 1))])
    tabled = lying.copy()
    tabled[-50:-46, :120] = tabled[-8:-4, :120] = tabled[-50:-4, 116:120] = 240  # the end of a table, cut at one side
    assert find_lung_box(tabled) == find_lung_box(lying)


@pytest.mark.parametrize("index", range(3, 10))
def test_little_contrast_moves_the_field_by_little(study: PhantomStudy, index: int) -> None:
    picture = lung_window(study.hu[index])
    before, after = find_lung_box(picture), find_lung_box(picture // 24)
    assert max(abs(a - b) for a, b in zip(before, after, strict=True)) <= 8


def test_lungs_at_the_edge_stay_below_gas() -> None:
    picture = np.full((120, 200), 220, np.uint8)
    picture[60:110, :70] = picture[60:110, 130:] = 90  # lungs, cut at both sides
    picture[10:30, 80:120] = 20  # gas in a bowel
    regions = lung_regions(picture)
    assert regions[80, 20]
    assert regions[80, 180]


@pytest.mark.parametrize("index", range(3, 10))
def test_text_beside_the_body_leaves_the_field_where_it_is(study: PhantomStudy, index: int) -> None:
    picture = lung_window(study.hu[index])
    written = picture.copy()
    written[4:30:3, 4:60] = 255
    assert find_lung_box(written) == find_lung_box(picture)


@pytest.mark.parametrize(
    "picture",
    [
        np.zeros((64, 64), np.uint8),
        np.full((40, 90), 200, np.uint8),
        np.tile(np.arange(200, dtype=np.uint8), (100, 1)),
        np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8),
        np.array([[7]], np.uint8),
    ],
)
def test_where_no_lungs_are_the_field_is_the_whole_slice(picture: np.ndarray) -> None:
    assert find_lung_box(picture) == (0, 0, *picture.shape)
    assert not lung_regions(picture).any()


@pytest.mark.parametrize("index", range(2, 11))
def test_phantom_slices_pass(study: PhantomStudy, index: int) -> None:
    assert check_slice(rgb(lung_window(study.hu[index]))) == ()


def test_what_is_no_chest_slice_is_named() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 256)).astype(np.uint8)
    assert any("rough as noise" in flag for flag in check_slice(rgb(noise)))
    assert any("coloured" in flag for flag in check_slice(skimage.data.astronaut()))
    assert any("no lungs" in flag for flag in check_slice(rgb(np.full((128, 128), 180, np.uint8))))
    assert any("grey values" in flag for flag in check_slice(rgb(np.full((128, 128), 180, np.uint8))))


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (255, 255, 0)])
def test_what_is_drawn_over_the_lungs_in_colour_is_named(study: PhantomStudy, colour: tuple[int, int, int]) -> None:
    clean = rgb(lung_window(study.hu[6]))
    side = len(clean)
    painted, labelled = clean.copy(), clean.copy()
    painted[side * 4 // 10 : side * 6 // 10, side // 4 : side * 3 // 10] = colour
    labelled[: side // 25, : side // 6] = colour  # text of a viewer, beside the body
    assert [flag.code for flag in check_slice(painted)] == ["coloured"]
    assert check_slice(labelled) == ()


@pytest.mark.parametrize("name", ["coffee", "chelsea", "camera", "brick", "text", "page", "moon"])
def test_photographs_are_flagged(name: str) -> None:
    picture = getattr(skimage.data, name)()
    assert check_slice(picture if picture.ndim == 3 else rgb(picture))


def test_lesions_lie_in_the_field(real_data: Path) -> None:
    outside = []
    for path in sorted((real_data / "ct100" / "images").iterdir()):
        mask = read_mask(path.parent.parent / "masks" / path.name.replace("tr_im", "tr_mask"))
        if mask.any():
            top, left, rows, columns = find_lung_box(np.asarray(Image.open(path).convert("L")))
            outside.append(1 - mask[top : top + rows, left : left + columns].sum() / mask.sum())
    assert len(outside) == 80
    assert np.mean(outside) < 0.01


@pytest.mark.parametrize(("source", "most"), [("sarscov2", 0.02), ("mosmed", 0.02), ("ucsd", 0.1)])
def test_few_real_slices_are_flagged(real_data: Path, source: str, most: float) -> None:
    paths = sorted((real_data / "ct_classification" / "images").glob(f"{source}_*"))[::7]
    assert len(paths) > 50
    flagged = [path for path in paths if check_slice(np.asarray(Image.open(path).convert("RGB")))]
    assert len(flagged) <= most * len(paths), flagged
