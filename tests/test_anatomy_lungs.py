"""Lungs: against the phantom's truth, with things planted in it, and against masks of real volumes; turned, cut …"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy import ndimage

from jcs_ct.anatomy.lungs import LEFT, RIGHT, Lungs, Reducer, reduce_slice, resize_labels, segment_lungs
from jcs_ct.anatomy.lungs.morphology import ball, dilate, dilate_in_slices, is_in, label_sizes, opening
from jcs_ct.anatomy.lungs.order import head_is_last
from jcs_ct.phantom import PhantomStudy, make_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SPACING = (5.0, 2.8, 2.8)


@lru_cache(maxsize=2)
def phantom(lesions: int = 0) -> PhantomStudy:
    return make_phantom(slices=54, size=128, seed=3, lesions=lesions, spacing=SPACING)


def dice(found: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float(2 * (found & truth).sum() / max(1, found.sum() + truth.sum()))


def sides(found: NDArray[np.uint8], truth: NDArray[np.uint8]) -> float:
    return min(dice(found == side, truth == side) for side in (RIGHT, LEFT))


def test_both_lungs_of_the_phantom() -> None:
    found = segment_lungs(phantom().hu, SPACING)
    assert found.dtype == np.uint8
    assert sides(found, phantom().lungs) > 0.98


def test_opacities_belong_to_the_lungs() -> None:
    study = phantom(30)
    found = segment_lungs(study.hu, SPACING)
    assert sides(found, study.lungs) > 0.97
    assert (found[study.lesions] > 0).mean() > 0.9


@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("radius", [12, 18, 24])
def test_consolidation_at_the_pleura(side: int, radius: float) -> None:
    """Half a ball of soft tissue at the wall."""
    hu, lungs = phantom().hu.copy(), phantom().lungs
    lung = lungs == side
    place = np.argwhere(lung[27])
    edge = place[:, 1] * (1 if side == LEFT else -1)
    centre = np.array([27, *place[edge == edge.max()].mean(axis=0)])
    distance = np.sqrt((((np.moveaxis(np.indices(lung.shape), 0, -1) - centre) * SPACING) ** 2).sum(axis=-1))
    planted = lung & (distance < radius)
    assert planted.sum() * np.prod(SPACING) / 1000 > 1.5  # ml
    hu[planted] = 45
    found = segment_lungs(hu, SPACING)
    assert (found[planted] == side).mean() > 0.75
    assert sides(found, lungs) > 0.985


def test_a_nodule_and_vessels() -> None:
    hu, lungs = phantom().hu.copy(), phantom().lungs
    depth = ndimage.distance_transform_edt(lungs == LEFT, sampling=SPACING)
    centre = np.unravel_index(depth.argmax(), depth.shape)
    grid = np.moveaxis(np.indices(lungs.shape), 0, -1) - np.array(centre)
    nodule = ((grid * SPACING) ** 2).sum(axis=-1) < 8**2
    hu[nodule] = 60
    found = segment_lungs(hu, SPACING)
    assert (found[nodule] == LEFT).all()


def test_pictures_turned_by_half() -> None:
    """Sides go by the columns alone, which canonical axes have set: nothing counts on the back being below."""
    found = segment_lungs(np.ascontiguousarray(phantom().hu[:, ::-1, ::-1]), SPACING)
    swapped = np.array([0, LEFT, RIGHT], np.uint8)[phantom().lungs[:, ::-1, ::-1]]
    assert sides(found, swapped) > 0.97


def test_prone_patients() -> None:
    """The couch lies in front of the chest then."""
    study = phantom()
    row = int(np.argmax((study.hu[27] > -300).sum(axis=1) > 20))  # the skin in front
    back = 128 - int(np.argmax((study.hu[27, ::-1] > -300).sum(axis=1) > 20))
    hu = np.concatenate([study.hu[:, :back], np.full((54, 128 - back, 128), -1000, np.int16)], axis=1)
    couch = study.hu[:, back:][:, ::-1][:, -row:]
    hu[:, row - couch.shape[1] : row] = couch
    assert sides(segment_lungs(hu, SPACING), study.lungs) > 0.98


@pytest.mark.parametrize(("step", "least"), [(2, 0.965), (3, 0.94)])
def test_thick_slices(step: int, least: float) -> None:
    spacing = (SPACING[0] * step, *SPACING[1:])
    assert sides(segment_lungs(phantom().hu[::step], spacing), phantom().lungs[::step]) > least


def test_thin_slices_and_small_pixels_come_back_on_their_own_grid() -> None:
    study = make_phantom(slices=200, size=128, seed=1, lesions=0, spacing=(1.35, 2.8, 2.8))
    assert sides(segment_lungs(study.hu, study.spacing), study.lungs) > 0.98
    fine = make_phantom(slices=20, size=512, seed=1, lesions=0, spacing=(13.5, 0.7, 0.7))
    reducer = Reducer((20, 512, 512), fine.spacing)
    for index in reversed(range(20)):
        reducer.add(index, fine.hu[index])
    assert reducer.sums.nbytes == 20 * 128 * 128 * 4
    assert Reducer((401, 512, 512), (0.75, 0.7, 0.7)).sums.shape == (134, 128, 128)  # thin slices take no more
    lungs = reducer.find()
    found = np.stack([lungs.slice(index) for index in range(20)])
    assert found.shape == fine.lungs.shape
    assert sides(found, fine.lungs) > 0.95


def test_a_field_of_view_that_cuts_the_lungs() -> None:
    cut = np.s_[:, 14:100, 18:110]
    study = phantom()
    assert (study.lungs[cut][:, :, 0] > 0).any()
    assert sides(segment_lungs(np.ascontiguousarray(study.hu[cut]), SPACING), study.lungs[cut]) > 0.96
    circle = np.hypot(*(np.mgrid[0:128, 0:128] - 63.5)) < 44
    hu = np.where(circle, study.hu, np.int16(-1024))
    truth = np.where(circle, study.lungs, 0)
    assert (truth.sum(), 0) < (study.lungs.sum(), 1)
    assert sides(segment_lungs(hu, SPACING), truth) > 0.94


@pytest.mark.parametrize("part", [np.s_[:25], np.s_[15:30], np.s_[30:]])
def test_partial_chests(part: slice) -> None:
    found = segment_lungs(phantom().hu[part], SPACING)
    assert sides(found, phantom().lungs[part]) > 0.96


def test_one_lung_alone() -> None:
    hu = phantom().hu.copy()
    hu[phantom().lungs == RIGHT] = 40
    found = segment_lungs(hu, SPACING)
    assert not (found == RIGHT).any()
    assert dice(found == LEFT, phantom().lungs == LEFT) > 0.97


def test_lungs_that_touch_are_parted() -> None:
    hu, lungs = phantom().hu.copy(), phantom().lungs
    middle = np.s_[18:30, 34:44, 50:78]  # a bridge of lung in front of the heart
    joined = ndimage.binary_closing(lungs[middle] > 0, np.ones((1, 1, 15)))
    hu[middle][joined | True] = -840
    labels, _ = ndimage.label((hu < -400) & ((lungs > 0) | (hu == -840)))
    assert labels[lungs == RIGHT].max() == labels[lungs == LEFT].max()  # they do touch
    found = segment_lungs(hu, SPACING)
    away = np.ones(lungs.shape, bool)
    away[middle] = False
    assert sides(np.where(away, found, 0), np.where(away, lungs, 0)) > 0.97


SPACINGS = [(2.5, 2.8, 2.8), (5.0, 3.1, 2.7), (18.0, 2.5, 2.5), (1.7, 1.7, 1.7)]


@pytest.mark.parametrize("spacing", SPACINGS)
@pytest.mark.parametrize("shape", [(13, 24, 21), (1, 17, 30), (40, 3, 5)])
@pytest.mark.parametrize("share", [0.002, 0.3, 0.98])
def test_shapes_are_those_of_scipy(
    spacing: tuple[float, float, float], shape: tuple[int, int, int], share: float
) -> None:
    mask = np.random.default_rng(1).random(shape) < share
    diamond = ndimage.generate_binary_structure(2, 1)[None]
    for radius in (2.0, 6.0, 12.0):
        sphere = ball(radius, spacing)
        for outside in (False, True):
            expected = ndimage.binary_dilation(mask, sphere, border_value=outside)
            assert np.array_equal(dilate(mask, sphere, outside=outside), expected)
        assert np.array_equal(opening(mask, sphere), ndimage.binary_opening(mask, sphere))
        if mask.any():
            far = ndimage.distance_transform_edt(~mask, sampling=spacing)
            unsure = np.isclose(far, radius, rtol=1e-12)
            assert np.array_equal(dilate(mask, sphere) | unsure, (far <= radius) | unsure)
    for pixels in (1, 2, 5):
        expected = ndimage.binary_dilation(mask, diamond, iterations=pixels)
        assert np.array_equal(dilate_in_slices(mask, pixels), expected)
        assert np.array_equal(dilate_in_slices(mask[0], pixels), expected[0])


def test_shapes_of_nothing_and_everything() -> None:
    sphere = ball(6.0, (2.5, 2.8, 2.8))
    for mask in (np.zeros((6, 7, 8), bool), np.ones((6, 7, 8), bool)):
        assert np.array_equal(dilate(mask, sphere), mask)
        assert np.array_equal(opening(mask, sphere), ndimage.binary_opening(mask, sphere))


def test_labels_are_counted_and_chosen_as_numpy_does() -> None:
    labels, count = ndimage.label(np.random.default_rng(0).random((9, 31, 22)) < 0.2)
    assert np.array_equal(label_sizes(labels, count), np.bincount(labels.ravel()))
    chosen = np.array([2, 3, count])
    assert np.array_equal(is_in(labels, chosen), np.isin(labels, chosen))


@pytest.mark.parametrize("value", [-1024, -1000, 40])
def test_nothing_is_found_in_nothing(value: int) -> None:
    reducer = Reducer((20, 64, 64), SPACING)
    for index in range(20):
        reducer.add(index, np.full((64, 64), value, np.int16))
    lungs = reducer.find()
    assert not lungs.slice(3).any()
    assert lungs.slice(3).shape == (64, 64)
    assert lungs.reason == "no lungs: 0 ml of aerated lung found, 150 ml are expected"


@pytest.mark.parametrize(("first", "last", "fill"), [(1, 0, -1024), (0, 1, -1024), (3, 4, -1000), (3, 3, -990)])
def test_slices_that_show_nothing_open_no_way_out_of_the_lungs(first: int, last: int, fill: int) -> None:
    """Air in the trachea and in the gut goes on to both ends: blank slices there joined lungs and surroundings."""
    hu = phantom().hu.copy()
    hu[:, 60:64, 62:66] = np.minimum(hu[:, 60:64, 62:66], -900)  # a pipe from the first slice to the last
    padded = np.pad(hu, ((first, last), (0, 0), (0, 0)), constant_values=fill)
    found, clean = segment_lungs(padded, SPACING), segment_lungs(hu, SPACING)
    assert np.array_equal(found[first : len(padded) - last], clean)
    assert not found[:first].any()
    assert not found[len(padded) - last :].any()


def test_a_slice_that_shows_nothing_has_no_part_in_a_voxel() -> None:
    """Two slices a voxel: of the first voxel only the second slice counts."""
    reducer = Reducer((4, 16, 16), (1.25, 2.5, 2.5))
    for index, value in enumerate((-1024, 40, 40, 60)):
        small = reducer.add(index, np.full((16, 16), value, np.int16))
        assert np.array_equal(small, np.full((16, 16), value))
    assert reducer.sums[:, 0, 0].tolist() == [1064, 2148]
    reducer.find()
    assert reducer.sums.size == 0


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (slice(None, None, -1), True),
        (slice(None), False),
        (slice(20, None), False),  # without the trachea above the lungs nothing is sure
        (slice(53, 19, -1), False),
        (slice(0, 30), False),
        (slice(29, None, -1), True),
    ],
)
def test_head_and_feet_exchanged(part: slice, expected: bool) -> None:
    hu = phantom().hu[part]
    reducer = Reducer((len(hu), *hu.shape[1:]), SPACING)
    for index, one in enumerate(hu):
        reducer.add(index, one)
    assert reducer.find().head_last is expected


@pytest.mark.parametrize(("length", "wide", "expected"), [(10, 0.5, True), (9, 0.5, False), (10, 1.1, False)])
def test_head_and_feet_need_a_long_trachea_and_narrow_lungs(length: int, wide: float, expected: bool) -> None:
    """Gas below the lungs looks like a trachea of up to 42 mm; lungs of a part may be narrower at their lower end."""
    hu, lungs = np.full((40, 64, 96), 40, np.int16), np.zeros((40, 64, 96), bool)
    for index in range(30):
        off = round(20 * (1 + (wide - 1) * index / 29))
        for middle in (48 - off, 48 + off):
            lungs[index, 24:40, middle - 5 : middle + 6] = True
    hu[lungs] = -850
    hu[30 : 30 + length, 30:36, 45:51] = -1000
    assert head_is_last(hu, lungs, (5.0, 2.5, 2.5), []) is expected
    assert head_is_last(hu, lungs, (5.0, 2.5, 2.5), [(i, hu[i] < -950) for i in range(10)]) is False


def test_a_body_without_lungs() -> None:
    hu = phantom().hu.copy()
    hu[phantom().lungs > 0] = 40  # the trachea, the couch and the air around it stay
    assert not segment_lungs(hu, SPACING).any()


def test_one_slice_and_tiny_volumes() -> None:
    found = segment_lungs(phantom().hu[27:28], (10.0, 2.8, 2.8))
    assert sides(found, phantom().lungs[27:28]) > 0.95
    for shape in ((1, 1, 1), (2, 3, 5)):
        assert not segment_lungs(np.full(shape, -850, np.int16), SPACING).any()


def test_reducing_is_a_block_mean() -> None:
    hu = np.random.default_rng(0).integers(-1024, 3000, (13, 18)).astype(np.int16)
    small = reduce_slice(hu, (4, 3))
    assert small.shape == (4, 6)
    assert small[1, 2] == np.rint(hu[4:8, 6:9].mean())
    assert small[3, 0] == np.rint(hu[12, :3].mean())
    assert reduce_slice(hu, (1, 1)) is hu


def test_labels_come_back_where_they_were() -> None:
    y, x = np.mgrid[0:128, 0:131]
    labels = np.zeros((128, 131), np.uint8)
    labels[np.hypot(y - 60, x - 40) < 25], labels[np.hypot(y - 60, x - 95) < 28] = RIGHT, LEFT
    small = np.zeros((32, 33), np.uint8)
    for side in (RIGHT, LEFT):
        small[reduce_slice(((labels == side) * 1000).astype(np.int16), (4, 4)) >= 500] = side
    back = resize_labels(small, (4, 4), labels.shape)
    assert back.shape == labels.shape
    assert sides(back, labels) > 0.97
    for side in (RIGHT, LEFT):
        assert np.abs(np.subtract(*(ndimage.center_of_mass(a == side) for a in (back, labels)))).max() < 0.4
    assert not resize_labels(np.zeros((4, 4), np.uint8), (4, 4), (15, 16)).any()


@pytest.mark.parametrize(("factor", "shape"), [((4, 4), (128, 126)), ((2, 8), (63, 256)), ((1, 4), (32, 125))])
def test_labels_are_those_of_the_products_with_matrices_of_weights(factor: tuple[int, int], shape: Any) -> None:
    """Of powers of two every sum is exact, so that ties are the same too."""
    rng, counts = np.random.default_rng(0), [-(-n // f) for n, f in zip(shape, factor, strict=True)]
    labels = rng.integers(0, 3, counts).astype(np.uint8)
    matrices = []
    for length, f, count in zip(shape, factor, counts, strict=True):
        places = np.clip((np.arange(length) + 0.5) / f - 0.5, 0, count - 1)
        matrices.append(np.maximum(0, 1 - np.abs(places[:, None] - np.arange(count))))
    right, left = (matrices[0] @ (labels == side).astype(float) @ matrices[1].T for side in (RIGHT, LEFT))
    expected = np.where(right + left < 0.5, 0, np.where(right >= left, RIGHT, LEFT))
    np.testing.assert_array_equal(resize_labels(labels, factor, shape), expected)
    alone = np.zeros_like(labels)  # what lies at one place, and its reach
    alone[counts[0] // 2 :, -1] = LEFT
    half = matrices[0] @ (alone == LEFT).astype(float) @ matrices[1].T >= 0.5
    np.testing.assert_array_equal(resize_labels(alone, factor, shape), np.where(half, LEFT, 0))


def test_slices_between_reduced_ones_are_interpolated() -> None:
    labels = np.zeros((3, 1, 9), np.uint8)
    for index, end in enumerate((3, 5, 7)):
        labels[index, 0, :end] = LEFT
    lungs = Lungs(labels, (2, 1, 1), (6, 1, 9))
    widths = [int((lungs.slice(index) == LEFT).sum()) for index in range(6)]
    assert widths[0] == 3
    assert widths[-1] == 7
    assert widths == sorted(widths)


def test_real_lungs(real_data: Path) -> None:
    import nibabel

    for name in ("id001", "id002"):
        stored, truth = (
            np.asanyarray(nibabel.load(real_data / f"nifti/{name}-128x128x64{end}.nii.gz").dataobj)  # type: ignore[attr-defined]
            for end in ("", "-msk")
        )
        spacing = nibabel.load(real_data / f"nifti/{name}-128x128x64.nii.gz").header.get_zooms()[::-1]  # type: ignore[attr-defined]
        hu = np.rint(stored).clip(-1024, 3071).astype(np.int16).transpose(2, 1, 0)[::-1, ::-1]  # LAS
        found = segment_lungs(hu, tuple(float(mm) for mm in spacing))  # type: ignore[arg-type]
        score = dice(found > 0, truth.transpose(2, 1, 0)[::-1, ::-1] > 128)
        print(f"{name}: Dice {score:.4f}")
        assert score > 0.975
        middles = [ndimage.center_of_mass(found == side)[2] for side in (RIGHT, LEFT)]
        assert middles[0] < 64 < middles[1]


def test_the_abdomen_has_no_lungs(real_data: Path) -> None:
    import nibabel

    image = nibabel.load(real_data / "nifti/abdomen_totalseg.nii.gz")
    hu = np.asanyarray(image.dataobj).clip(-1024, 3071).astype(np.int16).transpose(2, 1, 0)[::-1, ::-1, ::-1]  # type: ignore[attr-defined]
    assert not segment_lungs(hu, (3.0, 3.0, 3.0)).any()
