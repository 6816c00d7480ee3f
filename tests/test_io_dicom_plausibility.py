"""What headers and stored values say against a series: patients, ages, bits, padding, and Hounsfield units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dicom_help import edit, pixels, read_only, refused, setting, volume, write_body
from jcs_ct.app.batch import diagnose_cases
from jcs_ct.app.gather import gather
from jcs_ct.core.geometry import Geometry
from jcs_ct.core.warning import code_of
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.io.plausibility import extent_warnings
from jcs_ct.study.settings import Networks, Settings
from study_help import BandNetwork, small_phantom

if TYPE_CHECKING:
    from pathlib import Path

BAND: Any = BandNetwork()


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_body(tmp_path / "ct", spacing=(8.0, 5.0, 4.0), shape=(20, 48, 80))


@pytest.mark.parametrize(
    ("spacing", "unreliable"),
    [
        ((8.0, 0.7, 0.7), set()),
        ((8.1, 0.7, 0.7), {"thick-slices"}),
        ((5.0, 1.5, 1.5), set()),
        ((5.0, 0.7, 1.6), {"coarse-pixels"}),
        ((10.0, 3.0, 3.0), {"thick-slices", "coarse-pixels"}),
    ],
)
def test_thick_slices_and_coarse_pixels_are_not_reliable(
    spacing: tuple[float, float, float], unreliable: set[str]
) -> None:
    geometry = Geometry((40, 512, 512), np.diag([*spacing, 1.0]))
    assert {one.code for one in extent_warnings(geometry) if one.unreliable} == unreliable


@pytest.mark.parametrize("first", [1, 10, 19])
def test_two_patients_in_a_series_are_refused(first: int, files: list[Path]) -> None:
    edit(files, lambda dataset, i: setattr(dataset, "PatientID", "P2" if i >= first else "P1"))
    few = min(first, 20 - first)
    line = refused(files[0].parent)
    assert f"holds images of 2 patients ({few} of 20 have another Patient ID than the rest)" in line
    assert "P1" not in line
    assert "P2" not in line


@pytest.mark.parametrize(("age", "child"), [("003D", True), ("017Y", True), ("018Y", False), ("000Y", False)])
def test_a_child_is_named(age: str, child: bool, files: list[Path]) -> None:
    edit(files, setting(PatientAge=age))
    codes = [code_of(warning) for warning in read_only(files[0].parent).warnings]
    assert codes.count("child") == int(child)


def test_values_that_lie_higher_than_usual_are_read_from_where_they_lie(files: list[Path]) -> None:
    """HighBit (PS3.5 8.1.1): twelve bits that end at bit 15."""
    before = volume(read_only(files[0].parent))

    def higher(dataset: Any, _index: int) -> None:
        dataset.PixelData = (pixels(dataset) << 4).astype("<u2").tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 15

    edit(files, higher)
    assert np.array_equal(volume(read_only(files[0].parent)), before)


def test_padding_within_the_body_stays_tissue(files: list[Path]) -> None:
    before = volume(read_only(files[0].parent))

    def padded(dataset: Any, _index: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 1024 - 850)  # the lungs of the body have -820
        dataset.add_new("PixelPaddingRangeLimit", "US", 1024 - 800)

    edit(files, padded)
    series = read_only(files[0].parent)
    assert np.array_equal(volume(series), before)
    assert "padding-value" in [code_of(warning) for warning in series.warnings]


def test_eight_bits_hold_no_hounsfield_units(files: list[Path]) -> None:
    def short(dataset: Any, _index: int) -> None:
        dataset.PixelData = (pixels(dataset) // 16).astype(np.uint8).tobytes()
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7

    edit(files, short)
    assert "holds 8-bit values, which are not Hounsfield units" in refused(files[0].parent)


@pytest.mark.parametrize(("offset", "said"), [(-150, "too low"), (150, "too high")])
def test_values_far_off_are_refused_before_a_network_sees_them(offset: int, said: str, tmp_path: Path) -> None:
    study = small_phantom()
    hu = (study.hu.astype(np.int32) + offset).clip(-1024, 3071).astype(np.int16)
    write_ct_series(tmp_path / "in", hu, study.spacing, study.origin)
    cases = gather([str(tmp_path / "in")]).cases
    (ended,) = diagnose_cases(cases, Networks(BAND, BAND), Settings(frames=False), tmp_path / "out")
    assert ended.error is not None
    assert "holds no Hounsfield units: the values lie about" in ended.error.message
    assert said in ended.error.message
