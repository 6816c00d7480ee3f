"""The phantom: anatomy in its place, Hounsfield units in their ranges, and the same bits for the same seed."""

from __future__ import annotations

import hashlib
import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from jcs_ct.core.errors import OutputError, UsageError
from jcs_ct.phantom import PhantomStudy, lung_window, make_phantom, write_pngs

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def ill() -> PhantomStudy:
    return make_phantom(slices=12, size=128, seed=1)


@pytest.fixture(scope="module")
def healthy() -> PhantomStudy:
    return make_phantom(slices=12, size=128, seed=1, lesions=0)


def test_types_shapes_and_ranges(ill: PhantomStudy) -> None:
    assert ill.hu.shape == ill.lungs.shape == ill.lesions.shape == (12, 128, 128)
    assert [str(a.dtype) for a in (ill.hu, ill.lungs, ill.lesions)] == ["int16", "uint8", "bool"]
    assert ill.hu.min() >= -1024
    assert ill.hu.max() <= 3071
    assert ill.spacing == (5.0, 0.7, 0.7)
    assert set(np.unique(ill.lungs)) == {0, 1, 2}


def test_geometry_runs_from_head_to_feet(ill: PhantomStudy) -> None:
    slices, rows, columns = ill.direction
    last = np.array(ill.origin) + 11 * ill.spacing[0] * np.array(slices)
    assert ill.origin[2] == 55
    assert last[2] == 0  # z, towards the head, falls
    assert (rows, columns) == ((0, 1, 0), (1, 0, 0))
    assert ill.origin[:2] == pytest.approx((-63.5 * 0.7, -63.5 * 0.7))
    narrow = [int(np.ptp(np.flatnonzero((hu > -300).any(0)))) for hu in ill.hu[[0, -1], 32:]]
    assert narrow[0] < narrow[1]  # shoulders out of the field: the chest widens towards its base


def test_two_lungs_filled_with_air(healthy: PhantomStudy) -> None:
    assert ndimage.label(healthy.lungs > 0)[1] == 2
    for side in (1, 2):
        lung = healthy.hu[healthy.lungs == side]
        assert -880 < np.median(lung) < -800
        assert (healthy.lungs == side).sum() > 0.05 * healthy.hu.size
    # As a threshold sees it: air that is neither outside the body nor in the trachea is lung, apart from vessels.
    aerated = ndimage.median_filter(healthy.hu, (1, 3, 3)) < -600
    inside = ndimage.binary_erosion(healthy.lungs > 0, np.ones((1, 3, 3)))
    assert aerated[inside].mean() > 0.95


def test_the_right_lung_is_at_the_images_left(ill: PhantomStudy) -> None:
    columns = np.indices(ill.lungs.shape)[2]
    assert columns[ill.lungs == 1].max() < 64 <= columns[ill.lungs == 2].min()
    # The heart takes room from the left lung, the liver stands higher than what is under the left dome.
    heart = slice(7, 9)
    assert (ill.lungs[heart] == 2).sum() < (ill.lungs[heart] == 1).sum()
    dome = ill.lungs[9, 61]
    assert dome[41] == 0
    assert dome[-42] == 0  # the heart
    assert dome[94] == 2


def test_organs_have_their_hounsfield_units(healthy: PhantomStudy) -> None:
    def mean(at: int, x: float, y: float) -> float:
        """Return the mean of 3×3 pixels at a place given in mm of the reference frame."""
        row, column = (round(mm / 2.8 + 63.5) for mm in (y, x))
        return float(healthy.hu[at, row - 1 : row + 2, column - 1 : column + 2].mean())

    assert mean(2, 0, 8) < -900  # trachea
    assert 0 < mean(7, 20, -26) < 90  # heart
    assert 20 < mean(11, -62, -6) < 100  # liver
    assert healthy.hu[:, 80:90, 60:68].max(axis=(1, 2)).min() > 300  # a bone of the spine on every slice
    assert mean(5, -160, -150) < -950  # air beside the body
    grain = healthy.hu[0, 10:30].astype(float)
    assert 8 < grain.std() < 25
    assert np.corrcoef(grain[:, 1:].ravel(), grain[:, :-1].ravel())[0, 1] > 0.2  # neighbours share their noise


def test_lesions_are_dense_and_mostly_low_and_behind(ill: PhantomStudy, healthy: PhantomStudy) -> None:
    assert not healthy.lesions.any()
    assert not (ill.lesions & (ill.lungs == 0)).any()
    assert 0.005 < ill.lesions.sum() / (ill.lungs > 0).sum() < 0.25
    inner = ndimage.binary_erosion(ill.lesions, np.ones((1, 3, 3)))
    inside = ill.hu[inner]
    assert -700 < np.median(inside) < 60
    assert np.quantile(inside, 0.02) > -800
    assert np.quantile(inside, 0.98) < 150
    # Same vessels, same noise: without its opacities the ill phantom is the healthy one.
    assert np.array_equal(ill.lungs, healthy.lungs)
    far = ~ndimage.binary_dilation(ill.lesions, np.ones((3, 9, 9)))
    assert (ill.hu[far] == healthy.hu[far]).mean() > 0.99
    many = make_phantom(slices=12, size=64, seed=3, lesions=60)
    lung, lesion = np.argwhere(many.lungs > 0).mean(0), np.argwhere(many.lesions).mean(0)
    assert lesion[0] > lung[0]
    assert lesion[1] > lung[1]


def test_vessels_taper_towards_the_pleura(healthy: PhantomStudy) -> None:
    depth = np.stack([ndimage.distance_transform_edt(lung > 0) for lung in healthy.lungs])
    # Below −500 HU there are vessels only; the outermost pixel is shared with the chest wall.
    bright = healthy.hu > -500
    deep, shallow = bright[depth > 9].mean(), bright[(depth > 1.5) & (depth < 3)].mean()
    assert 0.01 < deep < 0.2
    assert shallow < deep / 2


def test_same_seed_same_bits() -> None:
    study = make_phantom(slices=5, size=64, seed=5, lesions=4)
    digest = hashlib.sha256(study.hu.astype("<i2").tobytes() + study.lungs.tobytes() + study.lesions.tobytes())
    # Also with numpy 1.26 and with AVX switched off. Change it only together with the anatomy.
    assert digest.hexdigest()[:16] == "4ae524165db6cd15"
    other = make_phantom(slices=5, size=64, seed=6, lesions=4)
    assert not np.array_equal(study.hu, other.hu)


def test_spacing_only_scales() -> None:
    near, far = make_phantom(2, 64), make_phantom(2, 64, spacing=(1.25, 5.0, 5.5))
    assert np.array_equal(near.hu, far.hu)
    assert far.spacing == (1.25, 5.0, 5.5)
    assert far.origin == (-31.5 * 5.5, -31.5 * 5.0, 1.25)


@pytest.mark.parametrize("slices", [1, 2, 3])
def test_few_slices_still_show_a_lesion(slices: int) -> None:
    study = make_phantom(slices, 64, seed=2, lesions=2)
    assert study.lesions.any()
    assert {1, 2} <= set(np.unique(study.lungs))


@pytest.mark.parametrize(
    "wrong", [{"slices": 0}, {"slices": 1000}, {"size": 63}, {"seed": -1}, {"lesions": 101}, {"spacing": (5, 0, 1)}]
)
def test_arguments_out_of_range(wrong: dict[str, int]) -> None:
    with pytest.raises(UsageError, match=f"phantom: {next(iter(wrong))} is"):
        make_phantom(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [64, 128, 512])
def test_every_slice_says_phantom_outside_the_body(size: int) -> None:
    study = make_phantom(3, size, seed=4, lesions=1)
    bodies = study.hu > -300
    scale = max(1, size // 256)
    corner = bodies[:, : 10 * scale, : 44 * scale]
    assert all(np.array_equal(first, second) for first, second in itertools.pairwise(corner))
    # 7 letters; each is in one piece, and nothing of the body reaches the corner.
    assert ndimage.label(corner[0], np.ones((3, 3)))[1] == 7
    assert not bodies[:, 10 * scale, : 44 * scale].any()


def test_lung_window() -> None:
    hu = np.array([-1024, -1350, -600, 150, 3071, -1344], np.int16)
    grey = lung_window(hu)
    assert grey.dtype == np.uint8
    assert grey.tolist() == [55, 0, 128, 255, 255, 1]
    assert lung_window(hu, center=40, width=400).tolist() == [0, 0, 0, 198, 255, 0]
    with pytest.raises(UsageError, match="window width"):
        lung_window(hu, width=0)


def test_pngs(ill: PhantomStudy, tmp_path: Path) -> None:
    paths = write_pngs(ill, tmp_path / "out")
    assert [p.name for p in paths] == [f"phantom_{i:03d}.png" for i in range(12)]
    for index, path in enumerate(paths):
        with Image.open(path) as image, Image.open(path.parent / "masks" / path.name) as mask:
            assert image.mode == mask.mode == "L"
            assert image.info["Software"] == "jcs-ct"
            assert "PHANTOM" in image.info["Description"]
            assert "PHANTOM" in mask.info["Description"]
            assert np.array_equal(np.asarray(image), lung_window(ill.hu[index]))
            assert np.array_equal(np.asarray(mask) == 255, ill.lesions[index])
            assert np.isin(np.asarray(mask), (0, 255)).all()
    before = paths[0].read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_pngs(ill, tmp_path / "out")
    write_pngs(ill, tmp_path / "out", overwrite=True)
    assert paths[0].read_bytes() == before
    assert len(list((tmp_path / "out").rglob("*"))) == 25  # nothing else is left behind
