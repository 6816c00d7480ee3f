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
from jcs_ct.io.studies import find_series
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
    (line,) = [warning for warning in series.warnings if code_of(warning) == "padding"]
    assert line.startswith(
        "the header calls -850 to -800 HU padding, which 47 % of the body has; only what lies around"
    )


def padding_of(low: int, high: int | None) -> Any:
    """A change for `edit`: padding in HU; the body's stored values are 1024 higher."""

    def change(dataset: Any, _index: int) -> None:
        dataset.add_new("PixelPaddingValue", "US", 1024 + low)
        if high is not None:
            dataset.add_new("PixelPaddingRangeLimit", "US", 1024 + high)

    return change


@pytest.mark.parametrize(
    ("low", "high", "code"),
    [
        (-100, 120, "padding"),  # all soft tissue, which reaches the edge of pictures that cut the body
        (-850, -800, "padding"),
        (-1024, -801, "padding"),
        (40, None, "padding-value"),
        (-1000, None, ""),
        (-1024, -990, ""),
    ],
)
@pytest.mark.parametrize("cut", [False, True])
def test_no_range_of_padding_makes_air_within_the_body(
    low: int, high: int | None, code: str, cut: bool, files: list[Path]
) -> None:
    if cut:  # the body reaches the edges, and its lungs do

        def crop(dataset: Any, _index: int) -> None:
            noise = np.random.default_rng(_index).normal(0, 12, (48, 40))
            part = np.rint(pixels(dataset)[:, 20:60] + noise).clip(0, 4095).astype(np.uint16)
            dataset.Rows, dataset.Columns, dataset.PixelData = *part.shape, part.tobytes()

        edit(files, crop)
    before = volume(read_only(files[0].parent))
    after = read_only(edit(files, padding_of(low, high))[0].parent)
    changed = volume(after) != before
    assert not changed[before > -950].any()
    assert [code_of(w) for w in after.warnings if code_of(w).startswith("padding")] == [code] * bool(code)


@pytest.mark.parametrize("value", [0, 300])
def test_padding_around_the_circle_of_the_scan_is_air_without_a_word_of_the_body(value: int, files: list[Path]) -> None:
    rows, columns = np.mgrid[-24:24, -40:40] + 0.5
    corners = (rows / 24) ** 2 + (columns / 40) ** 2 > 1.2

    def fill(dataset: Any, index: int) -> None:
        stored = pixels(dataset)
        stored[corners] = 1024 + value
        dataset.PixelData = stored.tobytes()
        padding_of(value, None)(dataset, index)

    before = volume(read_only(files[0].parent))
    series = read_only(edit(files, fill)[0].parent)
    expected = before.copy()
    expected[:, corners] = -1024
    assert np.array_equal(volume(series), expected)
    assert "padding" not in [code_of(warning) for warning in series.warnings]


def test_one_slice_whose_padding_covers_the_lungs_is_told(files: list[Path]) -> None:
    edit(files[7:8], padding_of(-850, -800))
    assert "padding" in [code_of(warning) for warning in read_only(files[0].parent).warnings]


def upper_half(**values: Any) -> Any:
    """A change for `edit`: of the first ten images."""
    change = setting(**values)
    return lambda dataset, index: change(dataset, index) if index < 10 else None


@pytest.mark.parametrize(
    ("change", "code", "unreliable"),
    [
        ({"PatientName": "DOE^JANE"}, "mixed-patients", True),
        ({"PatientName": None}, "mixed-patients", True),
        ({"PatientBirthDate": "19500101"}, "mixed-patients", True),
        ({"PatientID": None}, "mixed-patients", True),
        ({"FrameOfReferenceUID": "1.2.3"}, "mixed-references", True),
        ({"ManufacturerModelName": "Other"}, "mixed-scanners", True),
        ({"ConvolutionKernel": "B70f"}, "mixed-kernels", False),
        ({"KVP": "80"}, "mixed-kvp", False),
        ({"SliceThickness": "3"}, "mixed-thickness", False),
        ({"BitsStored": 13, "HighBit": 12}, "mixed-bits", False),
    ],
)
def test_what_changes_within_a_series_is_told(
    change: dict[str, Any], code: str, unreliable: bool, files: list[Path]
) -> None:
    same = {"PatientName": "Roe^Jane", "PatientBirthDate": "19400101", "FrameOfReferenceUID": "1.2.4", "KVP": "120"}
    edit(files, setting(**same, ConvolutionKernel="B31f", ManufacturerModelName="One", PatientID="P1"))
    before = read_only(files[0].parent)
    assert not [w for w in before.warnings if code_of(w).startswith("mixed")]
    after = read_only(edit(files, upper_half(**change))[0].parent)
    (line,) = [w for w in after.warnings if code_of(w).startswith("mixed")]
    assert (code_of(line), getattr(line, "unreliable", None)) == (code, unreliable)
    assert "jane" not in line.lower()
    assert "1950" not in line
    assert np.array_equal(volume(after), volume(before))


def test_a_name_in_two_spellings_is_one_patient(files: list[Path]) -> None:
    names = ("Doe^John^^^", "DOE^JOHN", "doe, john", "Doe John")
    edit(files, lambda dataset, i: setattr(dataset, "PatientName", names[i % 4]))
    assert not [w for w in read_only(files[0].parent).warnings if code_of(w) == "mixed-patients"]


def test_a_frame_of_reference_for_every_file_says_nothing(files: list[Path]) -> None:
    edit(files, lambda dataset, i: setattr(dataset, "FrameOfReferenceUID", f"1.2.{i + 1}"))
    assert not [w for w in read_only(files[0].parent).warnings if code_of(w) == "mixed-references"]


def test_a_series_in_two_studies_is_told_in_both(files: list[Path]) -> None:
    edit(files, upper_half(StudyInstanceUID="1.2.9"))
    found = find_series([files[0].parent]).series
    assert [len(one) for one in found] == [10, 10]
    assert all("mixed-studies" in [code_of(w) for w in one.warnings] for one in found)


@pytest.mark.parametrize("by", [-100, -60, 12])
def test_an_intercept_that_makes_a_step_is_told(by: int, files: list[Path]) -> None:
    """The stored values go on, the Hounsfield units do not: too small a step for the pixels to show by themselves."""
    edit(files, upper_half(RescaleIntercept=-1024 + by))
    (line,) = [w for w in read_only(files[0].parent).warnings if code_of(w) == "rescale-jump"]
    assert line.endswith("the stored values go on: slice 11")


def test_a_rescale_of_each_slice_that_gives_one_scale_is_right(files: list[Path]) -> None:
    """As PET has it, and some CT: the stored values jump, the Hounsfield units go on."""
    before = volume(read_only(files[0].parent))

    def scaled(dataset: Any, index: int) -> None:
        slope, intercept = (1, 0.5)[index % 2], -1024 + 7 * index
        hu = pixels(dataset).astype(np.float64) - 1024
        dataset.RescaleSlope, dataset.RescaleIntercept = slope, intercept
        dataset.PixelRepresentation = 1
        dataset.BitsStored, dataset.HighBit = 16, 15
        dataset.PixelData = np.rint((hu - intercept) / slope).astype("<i2").tobytes()

    series = read_only(edit(files, scaled)[0].parent)
    assert np.array_equal(volume(series), before)
    assert [code_of(w) for w in series.warnings if "rescale" in code_of(w)] == ["mixed-rescale"]


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
