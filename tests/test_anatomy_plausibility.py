"""The check of volumes: a clean phantom passes, and each fault gets its own code, wherever it lies."""

from __future__ import annotations

import pickle
from copy import deepcopy
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jcs_ct.anatomy.adult_lungs import LUNGS_ML, LungFacts, lung_warnings
from jcs_ct.anatomy.lungs import segment_lungs
from jcs_ct.anatomy.plausibility import LEAST_LIKENESS, SOLID, VolumeCheck, enclosed
from jcs_ct.core.warning import UNRELIABLE, CodedWarning, code_of
from jcs_ct.phantom import make_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

ADULT = LungFacts((2000.0, 1800.0), -850.0, 230.0)


@lru_cache(maxsize=1)
def phantom() -> tuple[NDArray[np.int16], tuple[float, float, float]]:
    study = make_phantom(slices=48, size=160, spacing=(5.0, 358 / 160, 358 / 160))
    return study.hu, study.spacing


def judged(hu: NDArray[np.int16], spacing: tuple[float, float, float], lungs: LungFacts = ADULT) -> list[CodedWarning]:
    check = VolumeCheck(spacing)
    for picture in hu:
        check.add(np.ascontiguousarray(picture))
    return check.warnings(lungs)


def codes(hu: NDArray[np.int16], **given: object) -> list[str]:
    spacing = given.pop("spacing", phantom()[1])
    return [w.code for w in judged(hu, spacing, **given)]  # type: ignore[arg-type]


def test_a_clean_chest_passes() -> None:
    assert codes(phantom()[0]) == []


@pytest.mark.parametrize("offset", [-150, -90, -50, 35, 70, 120, 300])
def test_a_shift_of_all_values_is_named(offset: int) -> None:
    hu = (phantom()[0].astype(np.int32) + offset).clip(-1024, 3071).astype(np.int16)
    (warning,) = judged(hu, phantom()[1])
    assert warning.code == "offset"
    assert ("too high" in warning) == (offset > 0)


@pytest.mark.parametrize("offset", [400, 500])
def test_a_large_shift_is_found(offset: int) -> None:
    judge = VolumeCheck(phantom()[1])
    for picture in (phantom()[0].astype(np.int32) + offset).clip(-1024, 3071).astype(np.int16):
        judge.add(picture)
    assert abs(judge.offset() - offset) < 20


@pytest.mark.parametrize("factor", [0.5, 0.8, 1.25, 2.0])
def test_stretched_values_are_named(factor: float) -> None:
    """A wrong slope leaves air where it is, at the stored value 0."""
    hu = ((phantom()[0].astype(np.float64) + 1024) * factor - 1024).clip(-1024, 3071).astype(np.int16)
    assert set(codes(hu)) & {"scale", "offset"}


def test_a_chest_with_hardly_any_fat_and_with_contrast_agent_passes() -> None:
    """Muscle and what contrast agent fills lie as far apart as fat and muscle do: values are not stretched."""
    hu = phantom()[0].copy()
    generator = np.random.default_rng(0)
    tissue = hu > -200
    values = generator.normal(38, 20, np.count_nonzero(tissue))
    filled = generator.random(values.size) < 0.06
    values[filled] = generator.uniform(145, 205, np.count_nonzero(filled))
    hu[tissue] = values.astype(np.int16)
    assert codes(hu) == []


@pytest.mark.parametrize("offset", [-20, -10, 10, 20])
def test_a_shift_that_does_no_harm_is_not_named(offset: int) -> None:
    """Real air lies up to 12 HU off (noise that is cut off at −1024), and soft tissue with contrast agent more."""
    assert codes((phantom()[0].astype(np.int32) + offset).clip(-1024, 3071).astype(np.int16)) == []


@pytest.mark.parametrize("lowest", [-900, -700])
def test_values_that_were_cut_off_are_named(lowest: int) -> None:
    """Soft tissue is right; only what is thinner is gone."""
    assert codes(np.maximum(phantom()[0], np.int16(lowest))) == ["cut-off-air"]


def test_filled_corners_are_no_shift() -> None:
    hu = phantom()[0].copy()
    hu[hu < -950] = -1024
    assert codes(hu) == []


@pytest.mark.parametrize("first", [10, 25, 36])
@pytest.mark.parametrize("count", [1, 4])
def test_blank_slices_inside_are_named(first: int, count: int) -> None:
    hu = phantom()[0].copy()
    hu[first : first + count] = -1000
    (warning,) = judged(hu, phantom()[1])
    assert warning.code == "blank-slices"
    assert (f"slices {first + 1}–{first + count}" if count > 1 else f"slice {first + 1}") in warning


def test_air_above_and_below_the_body_is_no_fault() -> None:
    air = np.full((3, *phantom()[0].shape[1:]), -1000, np.int16)
    assert codes(np.concatenate([air, phantom()[0], air])) == []


@pytest.mark.parametrize(("end", "places"), [("first", "slices 1–3"), ("last", "slices 46–48")])
def test_blank_slices_at_an_end_are_lost_where_lung_lies_beside_them(end: str, places: str) -> None:
    lost = slice(3) if end == "first" else slice(45, 48)
    hu, areas = phantom()[0].copy(), 400.0 * np.minimum(np.arange(48), np.arange(48)[::-1])
    hu[lost], areas[lost] = -1024, 0
    (warning,) = judged(hu, phantom()[1], ADULT._replace(areas_mm2=areas.tolist()))
    assert (warning.code, str(warning)) == ("blank-slices", f"nothing is seen in {places}, and lung is next to them")
    areas[[3, 44]] = 250  # the very apex, or the recess behind the liver
    assert judged(hu, phantom()[1], ADULT._replace(areas_mm2=areas.tolist())) == []


@pytest.mark.parametrize(("value", "rows"), [(0, 40), (-600, 40), (700, 40), (-1024, 40), (3071, 40)])
def test_what_was_painted_over_is_named(value: int, rows: int) -> None:
    hu = phantom()[0].copy()
    hu[20:24, 60 : 60 + rows, 35:65] = value
    warnings = judged(hu, phantom()[1])
    (warning,) = [w for w in warnings if w.code == "flat-areas"]
    cm2 = (rows - 1) * 29 * (358 / 160) ** 2 / 100
    assert warning == (
        f"areas of one value lie within the body in slices 21–24 (up to {cm2:.0f} cm² of {value} HU): "
        "were they masked or painted over?"
    )


@pytest.mark.parametrize("value", [-1024, 3071])
def test_gas_and_metal_whose_values_are_cut_off_are_not_painted(value: int) -> None:
    """They are no rectangles: a stomach, a prosthesis."""
    y, x = np.mgrid[:160, :160]
    hu = phantom()[0].copy()
    hu[20:24, (y - 80) ** 2 + (x - 80) ** 2 < 14**2] = value
    assert "flat-areas" not in codes(hu)
    hu[20:24, (y - 80) ** 2 + (x - 80) ** 2 < 14**2] = 0
    assert "flat-areas" in codes(hu)


def test_a_small_even_area_is_chance() -> None:
    hu = phantom()[0].copy()
    hu[20, 60:69, 40:49] = 0  # 8 × 8 whole squares of 5 mm²: 3.2 cm²
    assert "flat-areas" not in codes(hu)


@pytest.mark.parametrize("first", [12, 24])
@pytest.mark.parametrize("change", ["mirrored", "turned", "from elsewhere"])
def test_slices_that_do_not_continue_their_neighbours_are_named(first: int, change: str) -> None:
    clean = phantom()[0]
    hu = clean.copy()
    part = slice(first, first + 6)
    if change == "mirrored":
        hu[part] = clean[part, ::-1]
    elif change == "turned":
        hu[part] = clean[part].transpose(0, 2, 1)
    else:
        hu[part] = clean[(part.start + 20) % 40 : (part.start + 20) % 40 + 6]
    assert "foreign-slices" in codes(hu)


@pytest.mark.parametrize("shift", [-60, 60])
def test_a_step_in_the_values_is_named(shift: int) -> None:
    hu = phantom()[0].copy()
    hu[20:30] = hu[20:30] + shift
    assert set(codes(hu)) & {"level-jump", "foreign-slices"}


def test_a_small_step_is_named_for_what_it_is() -> None:
    hu = phantom()[0].copy()
    hu[20:30] = hu[20:30] + 35
    assert codes(hu) == ["level-jump"]


@pytest.mark.parametrize("shift", [-20, 20])
def test_a_step_of_tissue_and_air_alike_is_named(shift: int) -> None:
    """Anatomy shifts soft tissue by up to 20 HU, but never the air around the body as much."""
    hu = phantom()[0].copy()
    hu[20:30] = (hu[20:30] + shift).clip(-1024, 3071)
    assert codes(hu) == ["level-jump"]


@pytest.mark.parametrize("where", ["tissue", "air"])
def test_a_small_step_of_one_of_them_is_anatomy(where: str) -> None:
    hu = phantom()[0].copy()
    part = hu[20:30] > -300 if where == "tissue" else hu[20:30] < -950
    hu[20:30][part] += 18
    assert codes(hu) == []


@pytest.mark.parametrize("count", [4, 6])
def test_missing_slices_are_named(count: int) -> None:
    assert codes(np.delete(phantom()[0], range(34, 34 + count), axis=0)) == ["foreign-slices"]


def test_a_large_step_of_soft_tissue_alone_is_named() -> None:
    hu = phantom()[0].copy()
    hu[20:30][hu[20:30] > -150] += 35
    assert codes(hu) == ["level-jump"]


def test_a_change_that_is_too_large_is_named() -> None:
    """Slices that are alike, and still further from one another than those around them."""
    hu = phantom()[0].copy()
    hu[24] = np.roll(hu[24], 6, axis=1)
    judge = VolumeCheck(phantom()[1])
    for picture in hu:
        judge.add(picture)
    assert min(one.likeness for one in judge.slices) > LEAST_LIKENESS
    assert "foreign-slices" in [w.code for w in judge.warnings(ADULT)]


def test_neighbours_that_are_not_alike_are_named() -> None:
    """Where every slice is another one, each change is as large as the usual one."""
    hu = phantom()[0].copy()
    hu[::2] = hu[::2, ::-1, ::-1]
    judge = VolumeCheck(phantom()[1])
    for picture in hu:
        judge.add(np.ascontiguousarray(picture))
    assert min(one.likeness for one in judge.slices) < LEAST_LIKENESS
    assert "foreign-slices" in [w.code for w in judge.warnings(ADULT)]


def test_a_body_of_a_childs_size_is_named() -> None:
    down, rows, columns = phantom()[1]
    assert codes(phantom()[0], spacing=(down, rows / 2, columns / 2), lungs=ADULT._replace(ml=(700.0, 600.0))) == [
        "child"
    ]


def test_a_body_larger_than_adults_is_named() -> None:
    down, rows, columns = phantom()[1]
    assert codes(phantom()[0], spacing=(down, rows * 1.8, columns * 1.8)) == ["body-size"]


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"ml": (2000.0, 100.0)}, "one-lung"),
        ({"ml": (100.0, 2000.0)}, "one-lung"),
        ({"ml": (5000.0, 5500.0)}, "lung-volume"),
        ({"ml": (400.0, 450.0)}, "lung-volume"),
        ({"median_hu": -970.0}, "lung-density"),
        ({"median_hu": -390.0}, "lung-density"),
        ({"height_mm": 90.0}, "lung-height"),
        ({"height_mm": 430.0}, "lung-height"),
        ({"head_last": True}, "head-feet"),
    ],
)
def test_lungs_unlike_those_of_adults_are_named(change: dict[str, Any], expected: str) -> None:
    assert [w.code for w in lung_warnings(ADULT._replace(**change), 20_000)] == [expected]
    assert LUNGS_ML[0] < sum(ADULT.ml) < LUNGS_ML[1]


@pytest.mark.parametrize("body_ml", [6_000, 100_000])
def test_lungs_that_do_not_fit_the_body_are_named(body_ml: float) -> None:
    assert [w.code for w in lung_warnings(ADULT, body_ml)] == ["lung-share"]
    assert lung_warnings(ADULT, 15_000) == []


def test_lungs_lie_within_the_body() -> None:
    """They are sought there, so that no check of it is needed."""
    hu, spacing = phantom()
    lungs = segment_lungs(hu, spacing) > 0
    body = np.stack([(one > SOLID) | enclosed(one > SOLID) for one in hu])
    assert lungs.any()
    assert not (lungs & ~body).any()


def test_a_part_of_a_chest_is_not_judged_by_its_lungs() -> None:
    assert codes(phantom()[0][:10], lungs=LungFacts((300.0, 250.0), -850.0, 50.0)) == []


def test_a_coded_warning_is_a_line_that_keeps_its_code() -> None:
    warning = CodedWarning("gaps", "lacks 2 slices")
    assert warning == "lacks 2 slices"
    assert (code_of(pickle.loads(pickle.dumps(warning))), code_of(deepcopy(warning))) == ("gaps", "gaps")
    assert warning.unreliable
    assert not CodedWarning("lossy", "was compressed with loss").unreliable
    assert code_of("a plain line") == "note"
    assert all(meaning for meaning in UNRELIABLE.values())


@pytest.mark.parametrize(
    ("areas", "said"),
    [
        ([0, 5000, 14000, 20000, 9000, 2600], ""),  # a whole chest whose recesses go on a little
        ([12100, 14000, 20000, 11900], "the first slice with 121 cm²"),
        ([0, 5000, 20000, 18000], "the last slice with 180 cm²"),
        ([12200, 20000, 18000], "the first slice with 122 cm² and the last slice with 180 cm²"),
    ],
)
def test_lungs_that_go_on_beyond_an_end_are_part_of_a_chest(areas: list[float], said: str) -> None:
    found = lung_warnings(ADULT._replace(areas_mm2=areas), 15_000.0)
    text = f"partial chest: the lungs go on beyond {said}; 200 cm² at their widest"
    assert [(w.code, str(w)) for w in found] == ([("partial-chest", text)] if said else [])
