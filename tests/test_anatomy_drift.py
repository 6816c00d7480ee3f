"""Values that drift along the body: told where fat or air shows it too, and not where only organs are enhanced."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jcs_ct.anatomy.drift import DriftCheck
from jcs_ct.anatomy.levels import BINS, MIDDLES, counted
from jcs_ct.anatomy.plausibility import SOLID, VolumeCheck, enclosed
from jcs_ct.phantom import make_phantom

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from jcs_ct.core.warning import CodedWarning

SLICES, SPACING = 30, (8.0, 358 / 128, 358 / 128)


@lru_cache(maxsize=1)
def chest() -> NDArray[np.int32]:
    return make_phantom(slices=SLICES, size=128, spacing=SPACING).hu.astype(np.int32)


def drifting(hu: NDArray[np.int32], first: float, last: float) -> NDArray[np.int32]:
    return hu + np.rint(np.linspace(first, last, len(hu))).astype(np.int32)[:, None, None]


def judged(hu: NDArray[Any]) -> list[CodedWarning]:
    check = DriftCheck()
    for one in hu.clip(-1024, 3071).astype(np.int16):
        body = (one > SOLID) | enclosed(one > SOLID)
        around = one[~body]
        check.add(counted(one), counted(around[around > -1024]), around.size)
    return check.warnings()


@pytest.mark.parametrize(("first", "last"), [(-30, 30), (30, -30), (0, 60), (0, -60), (60, 0), (-60, 0), (-20, 20)])
def test_a_drift_is_named_with_its_size(first: float, last: float) -> None:
    (warning,) = judged(drifting(chest(), first, last))
    assert warning.code == "drift"
    before, _, rest = warning.partition("about ")
    size, way, *_ = rest.split(" HU ")[0], rest.split(" HU ")[1].split()[0]
    assert before == "the values drift along the body: soft tissue lies "
    assert abs(int(size) - abs(last - first)) <= 8
    assert way == ("higher" if last > first else "lower")
    assert warning.endswith(f"{way} in the last slice than in the first")


@pytest.mark.parametrize(("first", "last"), [(0, 0), (-10, 10), (10, -10), (20, 0), (40, 40), (-40, -40)])
def test_a_small_drift_and_a_shift_of_all_are_none(first: float, last: float) -> None:
    assert judged(drifting(chest(), first, last)) == []


def test_the_check_of_volumes_says_so() -> None:
    check = VolumeCheck(SPACING)
    for one in drifting(chest(), 30, -30).clip(-1024, 3071).astype(np.int16):
        check.add(one)
    assert [one.code for one in check.warnings(None)] == ["drift"]


def test_contrast_agent_in_organs_is_no_drift() -> None:
    """Muscle and fat stay where they are, while liver and heart reach as much of a slice as muscle has."""
    hu = chest().copy()
    lower = hu[SLICES // 2 :]
    lower[(lower > 0) & (lower < 110)] += 70
    assert judged(hu) == []


@pytest.mark.parametrize(("air_too", "named"), [(True, True), (False, False)])
def test_without_fat_the_air_around_the_body_decides(air_too: bool, named: bool) -> None:
    hu = chest().copy()
    hu[(hu > -300) & (hu < 20)] = 45
    moved = drifting(hu, 0, 60)
    if not air_too:
        moved[hu < -900] = hu[hu < -900]
    assert [one.code for one in judged(moved)] == (["drift"] if named else [])
    moved[hu < -900] = -1024
    assert judged(moved) == []  # cut off: nothing else tells a drift from contrast agent


@pytest.mark.parametrize(("slices", "named"), [(12, True), (11, False)])
def test_a_few_slices_are_too_few(slices: int, named: bool) -> None:
    part = chest()[4 : 4 + slices]
    assert [one.code for one in judged(drifting(part, 30, -30))] == (["drift"] if named else [])


def test_slices_without_tissue_have_no_say() -> None:
    """Six slices of air at each end, after the drift."""
    hu = np.pad(drifting(chest(), 30, -30), ((6, 6), (0, 0), (0, 0)), constant_values=-1000)
    assert [one.code for one in judged(hu)] == ["drift"]
    assert judged(np.full((20, 64, 64), -1000)) == []


def test_a_histogram_has_numpys_counts() -> None:
    values = np.random.default_rng(0).integers(-1024, 992, 5000).astype(np.int16)
    assert np.array_equal(counted(values), np.histogram(values, np.arange(-1024, 1000, 8))[0])
    assert (MIDDLES[0], MIDDLES[-1], len(MIDDLES)) == (-1020, 988, BINS)
    assert counted(np.array([-3000, -1024, 992, 3071], np.int16)).sum() == 2  # the thinner one in the first bin
