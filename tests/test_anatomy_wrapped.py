"""Values that ran over the end of their range: holes of air in bone are counted exactly, and told from chance."""

from __future__ import annotations

import numpy as np
import pytest

from jcs_ct.anatomy.plausibility import VolumeCheck
from jcs_ct.anatomy.wrapped import Holes, holes_in_bone
from jcs_ct.phantom import make_phantom

SPACING = (8.0, 358 / 160, 358 / 160)


@pytest.mark.parametrize(
    ("rows", "holes", "dense"),
    [
        ([[0, 900, -948, 700, 0]], 1, 1),
        ([[900], [-948], [700]], 1, 1),
        ([[501, -501, 501]], 1, 0),
        ([[500, -501, 501]], 0, 0),
        ([[501, -500, 501]], 0, 0),
        ([[900, -948, -948, 900]], 0, 2),
        ([[900, -948], [900, 0]], 0, 2),  # the end of a row and the begin of the next one are no neighbours
        ([[0, 900, -948], [900, 0, 0]], 0, 2),
        ([[0, 900, 0], [900, -948, 900], [0, 900, 0]], 2, 4),  # in its row and in its column
        ([[-948, 900, -948]], 0, 1),
        ([[900, -948]], 0, 1),
        ([[40]], 0, 0),
    ],
)
def test_air_between_bone_is_counted_in_rows_and_columns(rows: list[list[int]], holes: int, dense: int) -> None:
    assert holes_in_bone(np.array(rows, np.int16)) == Holes(holes, dense)


@pytest.mark.parametrize(
    ("counted", "wrapped"),
    [((20, 13_333), True), ((20, 13_334), False), ((19, 0), False), ((20, 0), True), ((61, 40_000), True)],
)
def test_a_few_holes_are_chance_or_metal(counted: tuple[int, int], wrapped: bool) -> None:
    """Real volumes have up to 24 of them in 51,297 dense voxels."""
    assert Holes(*counted).wrapped == wrapped
    assert not Holes(24, 51_297).wrapped


def test_bone_that_wrapped_round_is_named_with_its_slices() -> None:
    hu = make_phantom(slices=28, size=160, spacing=SPACING).hu.astype(np.int32)
    hu = np.where(hu > 200, 200 + (hu - 200) * 3, hu)  # bone as hard as that of real volumes
    wrapped = hu.copy()
    wrapped[6:22] = np.where(hu[6:22] > 1023, hu[6:22] - 2048, hu[6:22])
    assert (wrapped != hu).any(axis=(1, 2)).tolist() == [6 <= i < 22 for i in range(28)]
    warnings = []
    for volume in (hu, wrapped):
        check = VolumeCheck(SPACING)
        for one in volume.astype(np.int16):
            check.add(one)
        warnings.append(check.warnings(None))
    clean, found = warnings
    assert clean == []
    (warning,) = found
    count = sum(holes_in_bone(one.astype(np.int16)).holes for one in wrapped)
    assert warning.code == "wrapped"
    assert warning.startswith(f"bone has {count} voxels of air within it in slices 7–")
    assert warning.endswith(": did large values wrap round to low ones?")
