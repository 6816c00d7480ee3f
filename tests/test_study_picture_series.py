"""Pictures of several people in one folder: told by names, sizes and contents, and never where a folder is ordinary."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pytest

from jcs_ct.phantom import lung_window, make_phantom
from jcs_ct.study.picture_series import PictureSeriesCheck

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


@lru_cache(maxsize=2)
def chest(seed: int) -> NDArray[np.uint8]:
    """Fourteen slices of a chest, windowed; those of another seed are of another, smaller person."""
    slices = lung_window(make_phantom(slices=20, size=96, seed=seed, lesions=0, spacing=(12.0, 3.0, 3.0)).hu[3:17])
    return slices if not seed else np.pad(slices[:, ::2, ::2], ((0, 0), (38, 10), (24, 24)))


def said(pictures: Iterable[NDArray[np.uint8]], names: Sequence[str] = ()) -> list[str]:
    check = PictureSeriesCheck(names)
    for index, picture in enumerate(pictures):
        check.add(index, picture)
    found = check.warnings()
    assert {one.code for one in found} <= {"mixed-pictures", "copies"}
    return list(found)


@pytest.mark.parametrize("step", [1, 2])
def test_the_slices_of_one_chest_are_one_series(step: int) -> None:
    assert said(chest(0)[::step]) == []


@pytest.mark.parametrize("first", [6, 8])
def test_two_people_are_told_by_their_anatomy(first: int) -> None:
    pictures = [*chest(0)[:first], *chest(1)]
    (line,) = said(pictures)
    assert line == f"the anatomy jumps at picture {first + 1}: another series or patient begins there"


def test_pictures_that_were_picked_here_and_there_are_no_series_to_jump_in() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (9, 64, 64)).astype(np.uint8)
    assert said(noise) == []


def test_few_pictures_are_not_compared() -> None:
    assert said([*chest(0)[:3], *chest(1)[:2]]) == []


def test_two_people_whose_pictures_alternate_are_told() -> None:
    pictures = [picture for pair in zip(chest(0)[::2], chest(1)[1::2], strict=True) for picture in pair]
    assert said(pictures) == [
        "the pictures go on from the one before the last, not from the last: two series or patients alternate"
    ]


def test_copies_are_told() -> None:
    pictures = [*chest(0)[:6], *chest(0)[5:]]
    (line,) = said(pictures)
    assert line == "1 of 15 pictures are copies of others; a study shows each slice once"
    assert said([*chest(0), *(chest(0) + 1), *(chest(0)[:1])])[-1:] != [line]  # one of 29 moves nothing
    assert said([chest(0)[7]] * 9) == ["8 of 9 pictures are copies of others; a study shows each slice once"]


def test_several_sizes_are_told() -> None:
    (line,) = said([chest(0)[4], chest(0)[5], chest(0)[6][:90]])
    assert line == "pictures of 2 sizes: 2 of 3 have 96 × 96 pixels; those of one study have one size"


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["patient1_001", "patient2_001"], "names of 2 kinds: patient 1, 2"),
        (["Pat-01 im-1", "Pat-02 im-1", "Pat-04 im-1", "Pat-07 im-1"], "names of 4 kinds: pat 1, 2, 4 …"),
        (["ser001img00001", "ser001img00002", "ser002img00001"], "names of 2 kinds: ser 1, 2"),
        (["a_study3_slice_9", "a_study4_slice_9"], "names of 2 kinds: study 3, 4"),
        (["anna_1", "anna_2", "bert_1", "bert_2"], "the names count 2 series of pictures, with the same numbers"),
        (["rp_1_85_1_03", "rp_1_85_1_04", "rp_2_77_0_03", "rp_2_77_0_04"], "the names count 2 series"),
    ],
)
def test_names_of_several_series_are_told(names: list[str], part: str) -> None:
    (line,) = said([], names)
    assert line.startswith(part)


@pytest.mark.parametrize(
    "names",
    [
        ["001", "002", "010"],
        ["patient1_001", "patient1_002"],
        ["scan1", "scan2", "scan3"],
        ["case 1", "case 2"],
        ["IM-0001-0001", "IM-0001-0002"],
        ["upper_1", "upper_2", "lower_3", "lower_4"],
        ["left", "right", ""],
        ["showcase3_x1", "showcase4_x1"],
        ["0c1b216c_0149", "3af64cec_0067"],
    ],
)
def test_ordinary_names_say_nothing(names: list[str]) -> None:
    assert said([], names) == []
