"""Volumes and folders of pictures that lie wrong, in other windows, or of several sizes, are not called reliable."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from jcs_ct.app.batch import diagnose_cases
from jcs_ct.app.gather import gather
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.inference import apply
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import lung_window, make_phantom
from jcs_ct.study.settings import Networks, Settings
from study_help import BandNetwork, mark_all, small_phantom

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

BAND: Any = BandNetwork()
TURNS: dict[str, tuple[Callable[[Any], Any], bool]] = {
    "upright": (lambda volume: volume, False),
    "upside down": (lambda volume: volume[:, ::-1], True),
    "turned": (lambda volume: volume.transpose(0, 2, 1), True),
}


@pytest.fixture(autouse=True)
def marked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)


def codes(folder: Path) -> tuple[set[str], bool]:
    """Return the codes of what is said of a study, and whether its verdict is called reliable."""
    networks = Networks(BAND, BAND)
    (ended,) = diagnose_cases(gather([str(folder / "in")]).cases, networks, Settings(frames=False), folder / "out")
    assert ended.report is not None, ended.error
    return {one["code"] for one in ended.report["cautions"]}, ended.report["verdict"]["reliable"]


def write(folder: Path, pictures: list[NDArray[np.uint8]]) -> None:
    (folder / "in").mkdir()
    for i, picture in enumerate(pictures):
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / "in" / f"{i:02d}.png")


@pytest.mark.parametrize("how", TURNS)
def test_a_volume_that_lies_wrong_is_named(how: str, tmp_path: Path) -> None:
    change, wrong = TURNS[how]
    study = small_phantom()
    write_ct_series(tmp_path / "in", np.ascontiguousarray(change(study.hu)), study.spacing, study.origin)
    assert ("turned" in codes(tmp_path)[0]) is wrong


@pytest.mark.parametrize("how", TURNS)
def test_pictures_that_lie_wrong_are_named(how: str, tmp_path: Path) -> None:
    change, wrong = TURNS[how]
    write(tmp_path, list(lung_window(change(small_phantom().hu[4:18]))))
    found, reliable = codes(tmp_path)
    assert ("turned" in found, reliable) == (wrong, not wrong)


def test_pictures_of_which_every_second_one_lies_wrong_are_named(tmp_path: Path) -> None:
    pictures = list(lung_window(small_phantom().hu[4:18]))
    write(tmp_path, [picture[::-1] if i % 2 else picture for i, picture in enumerate(pictures)])
    found, reliable = codes(tmp_path)
    assert ("turned" in found, reliable) == (True, False)


def test_pictures_of_several_sizes_are_named(tmp_path: Path) -> None:
    pictures = list(lung_window(small_phantom().hu[4:18]))
    write(tmp_path, [*pictures[:-2], *(picture[::2, ::2] for picture in pictures[-2:])])
    found, reliable = codes(tmp_path)
    assert ("mixed-pictures" in found, reliable) == (True, False)


def test_a_soft_tissue_window_is_flagged() -> None:
    """Lungs are as black as the air around the body then: seen as such, or not seen at all."""
    seen = []
    for hu in make_phantom(slices=28, size=200, seed=0, spacing=(8.0, 1.45, 1.45)).hu[8:22]:
        soft = ((hu.astype(float) + 160) / 400 * 255).clip(0, 255).astype(np.uint8)
        seen += [flag.code for flag in check_slice(np.repeat(soft[..., None], 3, axis=2))]
        assert check_slice(np.repeat(lung_window(hu)[..., None], 3, axis=2)) == ()
    assert len(seen) == 14
    assert set(seen) == {"black-lungs", "no-lungs-in-slice"}
