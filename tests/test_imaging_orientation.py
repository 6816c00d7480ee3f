"""How a picture lies, and where the slice is on it: phantoms turned, inverted and framed, and real slices."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw

from jcs_ct.imaging.lung_box import content_box, find_lung_box
from jcs_ct.imaging.orientation import ORIENTATIONS, orientation_probabilities, ranks, sure_orientation
from jcs_ct.imaging.slice_check import MISORIENTED, check_slice
from jcs_ct.phantom import lung_window, make_phantom

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Picture = NDArray[np.uint8]

FORMS: dict[str, tuple[Callable[[Picture], Picture], str]] = {
    "as it is": (lambda p: p, "upright"),
    "mirrored": (lambda p: p[:, ::-1], "upright"),
    "brighter": (lambda p: (p // 2 + 100).astype(np.uint8), "upright"),
    "to the left": (lambda p: np.rot90(p, 1), "turned"),
    "to the right": (lambda p: np.rot90(p, 3), "turned"),
    "half a turn": (lambda p: np.rot90(p, 2), "upside down"),
    "on its head": (np.flipud, "upside down"),
    "inverted": (lambda p: 255 - p, "inverted"),
    "inverted and turned": (lambda p: 255 - np.rot90(p), "inverted"),
}


@pytest.fixture(scope="module")
def slices(real_data: Path) -> list[Picture]:
    """Every ninth slice of a set with masks and every sixtieth of those with labels."""
    paths = sorted((real_data / "ct100" / "images").iterdir())[::9]
    paths += sorted((real_data / "ct_classification" / "images").glob("[msu]*"))[::60]
    return [np.asarray(Image.open(path).convert("L")) for path in paths]


@pytest.mark.parametrize("form", FORMS)
def test_real_slices_lie_as_they_were_put(form: str, slices: list[Picture]) -> None:
    change, expected = FORMS[form]
    answers = [orientation_probabilities(np.ascontiguousarray(change(picture))) for picture in slices]
    found = [sure_orientation(p) for p in answers]
    assert found.count(expected) >= (0.97 if expected == "upright" else 0.85) * len(found), found
    assert set(found) <= set(ORIENTATIONS)


@pytest.mark.parametrize("form", [name for name, (_, answer) in FORMS.items() if answer != "upright"])
def test_what_does_not_lie_right_is_flagged(form: str, slices: list[Picture]) -> None:
    change, answer = FORMS[form]
    flagged = [MISORIENTED[answer] in check_slice(rgb(change(picture))) for picture in slices]
    assert np.mean(flagged) > 0.8


def test_ranks_do_not_depend_on_the_window() -> None:
    picture = np.random.default_rng(0).integers(0, 120, (32, 32)).astype(np.uint8)
    np.testing.assert_array_equal(ranks(picture), ranks(picture * 2))
    assert ranks(picture).shape == (1024,)
    assert np.abs(ranks(picture)).max() <= 1


def rgb(grey: Picture) -> Picture:
    return np.repeat(np.ascontiguousarray(grey)[:, :, None], 3, axis=2)


def phantom() -> Picture:
    return lung_window(make_phantom(slices=12, size=256).hu[6])


def on_page(picture: Picture, value: int = 240) -> Picture:
    page = Image.new("L", (picture.shape[1] + 190, picture.shape[0] + 150), value)
    ImageDraw.Draw(page).rectangle((0, 0, 90, page.height), fill=90)
    page.paste(Image.fromarray(picture), (130, 60))
    return np.asarray(page)


FRAMES: dict[str, tuple[Callable[[Picture], Picture], tuple[int, int]]] = {
    "white border": (lambda p: np.pad(p, 25, constant_values=255), (25, 25)),
    "black padding": (lambda p: np.pad(p, 120, constant_values=0), (120, 120)),
    "border in padding": (lambda p: np.pad(np.pad(p, 9, constant_values=255), 40, constant_values=0), (49, 49)),
    "a viewer's window": (on_page, (60, 130)),
    "a dark page": (lambda p: on_page(p, 35), (60, 130)),
}


@pytest.mark.parametrize("frame", FRAMES)
def test_a_frame_does_not_move_the_box_of_the_lungs(frame: str) -> None:
    put, (down, across) = FRAMES[frame]
    picture = phantom()
    before, after = find_lung_box(picture), find_lung_box(np.ascontiguousarray(put(picture)))
    assert before != content_box(picture)
    top, left, rows, columns = after
    assert np.abs(np.subtract((top - down, left - across, rows, columns), before)).max() <= 2


def test_a_picture_without_a_frame_is_its_own_content() -> None:
    noise = np.random.default_rng(1).integers(0, 255, (90, 120)).astype(np.uint8)
    assert content_box(noise) == (0, 0, 90, 120)
    assert content_box(np.zeros((40, 50), np.uint8)) == (0, 0, 40, 50)
