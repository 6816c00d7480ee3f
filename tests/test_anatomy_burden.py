"""Numbers of lesions: against labelling of the whole volume by SciPy, against numbers worked out by hand, and empty."""

from __future__ import annotations

import sys
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import ConvexHull

from jcs_ct.anatomy import burden as module
from jcs_ct.anatomy.burden import LEFT, RIGHT, SEVERITY_SOURCE, Burden, BurdenCounter, severity
from jcs_ct.core.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPACING = (2.0, 1.0, 0.5)  # a voxel is 1 mm³: 100 of them are 0.1 ml


def count(
    lesion: NDArray[np.bool_],
    lungs: NDArray[np.uint8] | None = None,
    hu: NDArray[np.int16] | None = None,
    spacing: tuple[float, float, float] = SPACING,
) -> Burden:
    lungs = np.full(lesion.shape, RIGHT, np.uint8) if lungs is None else lungs
    hu = np.full(lesion.shape, -500, np.int16) if hu is None else hu
    counter = BurdenCounter(spacing)
    for index in range(len(lesion)):
        counter.add(index, hu[index], lesion[index], lungs[index])
    return counter.result()


def whole(lesion: NDArray[np.bool_], voxel_ml: float) -> tuple[int, float]:
    labels, _ = ndimage.label(lesion, np.ones((3, 3, 3)))
    sizes = np.bincount(labels.ravel())[1:] * voxel_ml
    return int((sizes >= 0.1 - 1e-9).sum()), float(sizes.max(initial=0))


@pytest.mark.parametrize("density", [0.02, 0.05, 0.08, 0.11, 0.2])
@pytest.mark.parametrize("smooth", [0.0, 1.2])
def test_lesions_are_those_of_the_whole_volume(density: float, smooth: float) -> None:
    rng = np.random.default_rng(round(density * 100))
    noise = rng.random((30, 40, 36))
    if smooth:
        noise = ndimage.gaussian_filter(noise, smooth)
    lesion = noise < np.quantile(noise, density)
    for spacing in (SPACING, (5.0, 2.0, 2.0)):
        found = count(lesion, spacing=spacing)
        voxel_ml = float(np.prod(spacing)) / 1000
        number, largest = whole(lesion, voxel_ml)
        assert found.lesions == number
        assert found.largest_ml == pytest.approx(largest)
        assert found.both.lesion_ml == pytest.approx(lesion.sum() * voxel_ml)


def test_shapes_that_split_and_join() -> None:
    lesion = np.zeros((40, 60, 60), bool)
    lesion[5:20, 10:14, 10:14] = lesion[5:20, 10:14, 30:34] = True  # a U: two legs that join at its foot,
    lesion[20, 10:14, 10:34] = True
    lesion[30, 10:14, 10:34] = True  # an n: one bar that splits,
    lesion[31:39, 10:14, 10:14] = lesion[31:39, 10:14, 30:34] = True
    for turn in range(28):  # a spiral, in pieces in most slices,
        angle = turn / 4
        lesion[6 + turn, int(45 + 8 * np.sin(angle)) : int(48 + 8 * np.sin(angle)), 20:24] = True
    lesion[25, 25:30, 25:45], lesion[26, 30:35, 45:55] = True, True  # and two that share a single corner
    number, largest = whole(lesion, 0.001)
    found = count(lesion)
    assert found.lesions == number >= 3
    assert found.largest_ml == pytest.approx(largest)


def test_a_slice_left_out_parts_lesions() -> None:
    lesion = np.ones((20, 20), bool)
    counter, flat = BurdenCounter(SPACING), np.full((20, 20), -500, np.int16)
    for index in (0, 1, 3, 4, 6):
        counter.add(index, flat, lesion, np.full((20, 20), LEFT, np.uint8))
    found = counter.result()
    assert found.lesions == 3
    assert found.largest_ml == pytest.approx(0.8)
    assert (found.first_slice, found.last_slice) == (1, 7)


def test_numbers_by_hand() -> None:
    lungs = np.zeros((6, 20, 40), np.uint8)
    lungs[1:5, 5:15, 4:16], lungs[1:5, 5:15, 24:36] = RIGHT, LEFT  # 4 · 10 · 12 = 480 voxels each
    lesion = np.zeros(lungs.shape, bool)
    lesion[2:4, 5:10, 4:16] = True  # 120 in the right lung
    lesion[3, 10:15, 24:30] = True  # 30 in the left
    hu = np.full(lungs.shape, -850, np.int16)
    hu[2, 5:10, 4:16] = -750  # 60 voxels at the end of ground glass
    hu[3, 5:10, 4:16] = -300  # 60 at its other end
    hu[3, 10:15, 24:30] = 50  # 30 at the end of consolidation
    found = count(lesion, lungs, hu)
    assert found.to_dict() == {
        "lung_ml": pytest.approx(0.96),
        "lesion_ml": pytest.approx(0.15),
        "share": pytest.approx(150 / 960),
        "right": {"lung_ml": pytest.approx(0.48), "lesion_ml": pytest.approx(0.12), "share": pytest.approx(0.25)},
        "left": {"lung_ml": pytest.approx(0.48), "lesion_ml": pytest.approx(0.03), "share": pytest.approx(0.0625)},
        "lesions": 1,  # 0.12 ml; 0.03 ml is too small for one
        "largest_ml": pytest.approx(0.12),
        "first_slice": 3,
        "last_slice": 4,
        "mean_hu": pytest.approx((60 * -750 + 60 * -300 + 30 * 50) / 150),
        "ground_glass_share": pytest.approx(120 / 150),
        "consolidation_share": pytest.approx(30 / 150),
        "severity": {"score": 0, "name": "CT-0", "source": SEVERITY_SOURCE},  # healthy chests reach more than 0.15 ml
        "outside_ml": 0.0,
    }
    assert found.warnings() == ()


def test_areas_of_a_slice() -> None:
    lungs = np.zeros((40, 80), np.uint8)
    lungs[10:30, 5:25] = RIGHT
    lesion = np.zeros(lungs.shape, bool)
    lesion[26:34, 10:18] = True  # four rows in the lung, four below it: half of it is inside
    lesion[14:18, 26:34] = True  # beside the lung, 1 to 4.5 mm away: three of its eight columns are within 2 mm
    lesion[10:12, 70:80] = True  # 22 mm away
    counter = BurdenCounter(SPACING)
    flat = np.full(lungs.shape, -1000, np.int16)
    found = counter.add(4, flat, lesion, lungs)
    assert found.lung_mm2 == pytest.approx((400 + 32 + 12) * 0.5)
    assert found.lesion_mm2 == pytest.approx((64 + 12) * 0.5)
    assert found.share == pytest.approx(76 / 444)
    assert found.ignored_mm2 == pytest.approx((20 + 20) * 0.5)
    empty = counter.add(5, flat, np.zeros_like(lesion), np.zeros_like(lungs))
    assert (empty.lung_mm2, empty.lesion_mm2, empty.share) == (0, 0, None)
    result = counter.result()
    assert result.ignored_ml == pytest.approx(0.04)
    assert result.warnings() == ()  # too little to speak of
    assert (result.ground_glass_share, result.consolidation_share) == (0, 0)  # −1000 HU is neither


def test_consolidation_at_the_pleura_belongs_to_its_lung() -> None:
    lungs = np.zeros((1, 100, 120), np.uint8)
    y, x = np.mgrid[0:100, 0:120]
    full = [((y - 50) / 40) ** 2 + ((x - middle) / 20) ** 2 < 1 for middle in (32, 88)]
    eaten = (y > 62) & full[0]
    lungs[0][full[0] & ~eaten], lungs[0][full[1]] = RIGHT, LEFT
    mostly = full[0] & (y > 52) & (y < 71)  # consolidation: ten rows of lung that was found, and eight behind it
    found = count(mostly[None], lungs, spacing=(1.0, 1.0, 1.0))
    assert found.ignored_ml == 0
    assert found.right.lesion_ml == pytest.approx(mostly.sum() / 1000)
    assert found.right.lung_ml == pytest.approx(((lungs == RIGHT).sum() + (mostly & eaten).sum()) / 1000)
    assert found.left.lesion_ml == 0
    far = np.zeros_like(lungs, bool)
    far[0, :5, 50:70] = True
    found = count(far, lungs, spacing=(1.0, 1.0, 1.0))
    assert found.both.lesion_ml == 0
    assert found.severity == 0
    assert found.ignored_ml == pytest.approx(0.1)
    assert found.warnings() == (
        "0.1 ml of detected lesion lies outside the lungs and was excluded: no volume or share counts it",
    )


def test_a_ring_of_chest_wall_is_cut_to_the_surface() -> None:
    y, x = np.mgrid[0:60, 0:80]
    away = np.hypot(y - 30, x - 40)
    lungs = np.where(away < 12, RIGHT, 0).astype(np.uint8)
    ring = (away >= 12) & (away < 20)  # it touches the lung all around, within 10 mm of its hull
    found = count(ring[None], lungs[None], spacing=(1.0, 1.0, 1.0))
    assert found.both.lesion_ml <= (away < 14.5).sum() / 1000 - (lungs > 0).sum() / 1000
    assert found.ignored_ml >= 0.6 * ring.sum() / 1000
    touching = ring & (away < 13) | (away < 10)
    whole_lung = count(touching[None], lungs[None], spacing=(1.0, 1.0, 1.0))
    assert whole_lung.ignored_ml == 0


def test_a_mark_far_from_every_lung_is_not_held_by_another_one() -> None:
    lungs = np.zeros((1, 60, 60), np.uint8)
    lungs[0, 5:20, 5:20] = RIGHT
    lesion = np.zeros(lungs.shape, bool)
    lesion[0, 8:12, 8:12] = lesion[0, 45:50, 45:50] = True
    found = count(lesion, lungs, spacing=(1.0, 1.0, 1.0))
    assert (found.both.lesion_ml, found.ignored_ml) == pytest.approx((0.016, 0.025))


def test_between_the_lungs_the_nearer_one_counts() -> None:
    lungs = np.zeros((1, 30, 60), np.uint8)
    lungs[0, :, 10:24], lungs[0, :, 36:50] = RIGHT, LEFT
    lesion = np.zeros(lungs.shape, bool)
    lesion[0, :, 20:28] = True  # half of it lies in the right lung
    found = count(lesion, lungs, spacing=(1.0, 1.0, 1.0))
    assert [found.right.lesion_ml, found.left.lesion_ml] == pytest.approx([0.24, 0])


def test_the_neighbourhood_is_the_convex_hull() -> None:
    rng = np.random.default_rng(3)
    lung = np.zeros((60, 70), bool)
    lung[tuple((15 + rng.random((2, 25)) * 30).astype(int))] = True
    points = np.argwhere(lung)
    hull = ConvexHull(points)
    grid = np.argwhere(np.ones_like(lung))
    beyond = (hull.equations[:, :2] @ grid.T + hull.equations[:, 2:]).max(axis=0).reshape(lung.shape)
    near = module._neighbourhood(lung, (slice(None), slice(None)), (1.0, 1.0))
    away = ndimage.distance_transform_edt(beyond > 1e-9)
    assert near[away <= module.NEAR_MM - 1].all()
    assert not near[away > module.NEAR_MM + 1].any()


@pytest.mark.parametrize("slices", [0, 5])
def test_nothing_found_divides_by_nothing(slices: int) -> None:
    empty = np.zeros((slices, 12, 12), np.uint8)
    with np.errstate(all="raise"):
        found = count(empty.astype(bool), empty)
    assert found.both == module.Part(None, 0.0, None)
    values = found.to_dict()
    assert values["lesions"] == 0
    assert [values[k] for k in ("severity", "mean_hu", "largest_ml", "first_slice", "ground_glass_share")] == [None] * 5
    assert found.warnings() == ("no lungs were found: volumes and shares of the lungs are not known",)


def test_lungs_without_lesions_and_one_lung_alone() -> None:
    lungs = np.full((3, 10, 10), LEFT, np.uint8)
    found = count(np.zeros(lungs.shape, bool), lungs)
    assert found.severity == 0
    assert found.both.share == found.left.share == 0
    assert (found.right.lung_ml, found.right.share) == (0, None)


def test_lesions_without_lungs_are_ignored() -> None:
    lesion = np.ones((3, 10, 10), bool)
    found = count(lesion, np.zeros(lesion.shape, np.uint8))
    assert found.both == module.Part(None, 0.0, None)
    assert found.ignored_ml == pytest.approx(0.3)
    assert len(found.warnings()) == 2


@pytest.mark.parametrize(
    ("share", "grade"),
    [(0, 0), (1e-6, 1), (0.2499, 1), (0.25, 2), (0.4999, 2), (0.5, 3), (0.75, 3), (0.7501, 4), (1, 4)],
)
def test_severity(share: float, grade: int) -> None:
    assert severity(share, 5000 * share if share > 1e-3 else module.HEALTHY_ML) == grade


def test_what_healthy_chests_reach_is_no_grade() -> None:
    assert severity(0.3, module.HEALTHY_ML - 1e-6) == 0
    assert severity(0.0002, module.HEALTHY_ML) == 1


def test_what_does_not_fit_is_refused() -> None:
    counter = BurdenCounter(SPACING)
    hu, lesion, lungs = np.zeros((4, 4), np.int16), np.zeros((4, 4), bool), np.zeros((4, 4), np.uint8)
    counter.add(1, hu, lesion, lungs)
    with pytest.raises(ShapeError, match="slice 1 comes after slice 1"):
        counter.add(1, hu, lesion, lungs)
    with pytest.raises(ShapeError, match=r"\(4, 4\), \(4, 5\) and \(4, 4\)"):
        counter.add(2, hu, np.zeros((4, 5), bool), lungs)


def test_a_sheared_voxel_counts_by_its_determinant() -> None:
    counter = BurdenCounter((2.0, 1.0, 1.0), voxel_ml=0.0015)
    counter.add(0, np.zeros((4, 4), np.int16), np.ones((4, 4), bool), np.full((4, 4), RIGHT, np.uint8))
    assert counter.result().both.lesion_ml == pytest.approx(16 * 0.0015)


def test_memory_does_not_grow_with_the_slices() -> None:
    rng = np.random.default_rng(1)
    slices = [rng.random((96, 96)) < 0.1 for _ in range(4)]  # thousands of specks, new ones in each
    hu, lungs = np.zeros((96, 96), np.int16), np.full((96, 96), RIGHT, np.uint8)
    counter = BurdenCounter(SPACING)

    def held(start: int, stop: int) -> int:
        for index in range(start, stop):
            counter.add(index, hu, slices[index % 4], lungs)
        return tracemalloc.get_traced_memory()[0]

    tracemalloc.start()
    try:
        first, second = held(0, 300), held(300, 500)  # caches of the libraries are full by then
    finally:
        tracemalloc.stop()
    assert second - first < sys.getsizeof(hu) + 4_000
