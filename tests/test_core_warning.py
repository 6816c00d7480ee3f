"""The table of codes: each of them is emitted by some input, and no input emits one that is not in it."""

from __future__ import annotations

import ast
import re
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from dicom_help import edit, pixels, setting, write_body
from jcs_ct.anatomy.adult_lungs import LungFacts, lung_warnings
from jcs_ct.anatomy.plausibility import VolumeCheck
from jcs_ct.core.geometry import Geometry
from jcs_ct.core.warning import INFORMING, UNRELIABLE, code_of
from jcs_ct.imaging import slice_check
from jcs_ct.io.pictures import decode_slice
from jcs_ct.io.plausibility import extent_warnings
from jcs_ct.io.studies import find_series
from jcs_ct.phantom import lung_window
from jcs_ct.study.packed import PackedMap
from jcs_ct.study.picture_series import PictureSeriesCheck
from jcs_ct.study.result import SliceResult, StudyResult
from study_help import small_phantom

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


ROOT = Path(__file__).parent.parent
ELSEWHERE = {
    "decoder": "test_io_pictures.py::test_what_pillow_warns_of_is_noted",
    "no-lung": "test_app_each_slice.py::test_slices_of_volumes_have_the_flags_of_their_volume",
    "unread-slices": "test_study_scan.py::test_pictures_of_a_folder_are_one_study",
    "trained-on": "test_app_trained_on.py::test_a_diagnosis_says_so",
    "series-passed-over": "test_app_next_series.py::test_the_next_series_is_read_kept_and_told",
}
"""Codes that only whole runs emit, and the tests of them."""


def test_a_code_stands_in_one_table() -> None:
    assert not set(UNRELIABLE) & set(INFORMING)
    assert all({**UNRELIABLE, **INFORMING}.values())


def test_every_code_in_the_source_is_in_the_table() -> None:
    """Literal codes; those that are put together are emitted below."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "CodedWarning":
                found |= {
                    n.value for n in ast.walk(node.args[0]) if isinstance(n, ast.Constant) and isinstance(n.value, str)
                }
    assert len(found) > 40
    assert found <= {*UNRELIABLE, *INFORMING}


def of_volumes() -> Iterator[str]:
    study = small_phantom()
    blank, mirrored, stepped, painted, hard = (study.hu.copy() for _ in range(5))
    drift = np.linspace(-30, 30, len(study.hu))[:, None, None]
    hard[hard > 150] = 900
    hard[:, ::3][hard[:, ::3] > 150] = -948
    side = study.hu.shape[1]
    painted[8:12, side * 2 // 5 : side * 3 // 5, side // 5 : side * 2 // 5] = 0
    blank[12], mirrored[10:14], stepped[12:] = -1000, study.hu[10:14, ::-1, ::-1], study.hu[12:] + 35
    down, rows, columns = study.spacing
    for hu, factor in (
        (study.hu + 120, 1), ((study.hu + 1024) // 2 - 1024, 1), (np.maximum(study.hu, -700), 1), (blank, 1),
        (mirrored, 1), (stepped, 1), (painted, 1), (hard, 1), (study.hu + drift, 1), (study.hu, 0.5), (study.hu, 1.8),
    ):  # fmt: skip
        check = VolumeCheck((down, rows * factor, columns * factor))
        for one in hu.astype(np.int16):
            check.add(np.ascontiguousarray(one))
        yield from map(code_of, check.warnings(None))
    for facts in (LungFacts((50.0, 500.0), -300.0, 50.0), LungFacts((6e3, 6e3), -850.0, 200.0, (), True)):
        yield from map(code_of, lung_warnings(facts, 1e6))
    for shape, mm in (((5, 64, 64), (2.0, 2.0, 2.0)), ((30, 64, 64), (6.0, 1.0, 1.0)), ((30, 64, 64), (9.0, 1.0, 1.0))):
        yield from map(code_of, extent_warnings(Geometry(shape, np.diag([*mm, 1.0]))))


def of_headers(folder: Path) -> Iterator[str]:
    def series(name: str, **values: Any) -> list[Path]:
        return edit(write_body(folder / name, shape=(20, 24, 40), spacing=(8.0, 10.0, 8.0)), setting(**values))

    def read(name: str, **options: Any) -> Iterator[str]:
        found = find_series([folder / name], **options)
        assert found.series, found.problems
        yield from (code_of(warning) for one in found.series for warning in one.warnings)

    files = series(
        "much", ImageType=["DERIVED", "PRIMARY", "AXIAL"], RescaleType="US", PhotometricInterpretation="MONOCHROME1",
        BurnedInAnnotation="YES", LossyImageCompression="01", GantryDetectorTilt="9", SliceThickness="2",
        BodyPartExamined="ABDOMEN", PatientAge="003D", PatientID="A", FrameOfReferenceUID="1.2", KVP="120",
        ManufacturerModelName="M", ConvolutionKernel="K",
    )  # fmt: skip
    other = setting(
        PatientName="B", FrameOfReferenceUID="1.3", KVP="80", ManufacturerModelName="N", ConvolutionKernel="L",
        SliceThickness="3", BitsStored=14, HighBit=13, RescaleIntercept=-1124,
    )  # fmt: skip
    edit(files[:9], other)
    edit(files[:1], lambda d, _: d.add_new("PixelPaddingValue", "US", 1064))
    edit(files[3:4], lambda d, _: d.add_new("PixelPaddingValue", "US", 150))
    edit(files[3:4], lambda d, _: d.add_new("PixelPaddingRangeLimit", "US", 400))
    files[15].unlink()
    yield from read("much", allow_gaps=True)

    def bare(dataset: Any, _index: int) -> None:
        dataset.PixelData = (pixels(dataset).astype(np.int32) - 1024).astype("<i2").tobytes()
        dataset.PixelRepresentation = 1
        del dataset.RescaleSlope, dataset.RescaleIntercept, dataset.Modality

    edit(series("bare"), bare)
    yield from read("bare")
    edit(series("torn"), lambda d, i: setattr(d, "SeriesInstanceUID", f"1.2.3.{i + 1}"))
    yield from read("torn")
    edit(series("divided")[:9], setting(StudyInstanceUID="1.2.9"))
    yield from read("divided")
    edit(series("odd")[:1], setting(PixelSpacing=[9.0, 9.0]))
    yield from read("odd", drop_odd=True)
    solid = series("solid")
    edit(
        solid,
        lambda d, _: setattr(d, "PixelData", np.where(pixels(d) < 500, pixels(d) // 40 * 0 + 24, pixels(d)).tobytes()),
    )
    yield from read("solid")
    turn = np.radians(8)
    direction = ((0.0, np.sin(turn), -np.cos(turn)), (0.0, np.cos(turn), np.sin(turn)), (1.0, 0.0, 0.0))
    write_body(folder / "oblique", direction, shape=(20, 24, 40), spacing=(8.0, 10.0, 8.0))
    yield from read("oblique")


def of_nifti(folder: Path) -> Iterator[str]:
    library: Any = nibabel
    hu, mm = small_phantom().hu.transpose(2, 1, 0), small_phantom().spacing
    grid = np.diag([-mm[2], -mm[1], -mm[0], 1.0])
    turn, angle = np.eye(4), np.radians(12)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    shear, moved = np.eye(4), np.eye(4)
    shear[1, 2], moved[0, 3] = 0.1, 3.0
    for name, affine in (("turned", turn @ grid), ("sheared", shear @ grid), ("moved", grid)):
        image = library.Nifti1Image(hu, affine)
        if name == "moved":
            image.set_qform(moved @ grid, 1)
            image.set_sform(grid, 1)
        library.save(image, folder / f"{name}.nii")
        yield from (code_of(w) for one in find_series([folder / f"{name}.nii"]).series for w in one.warnings)


def of_pictures(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    grey = lung_window(small_phantom().hu[12])
    colours = np.repeat(grey[..., None], 3, axis=2)
    for picture, options in (
        (Image.fromarray(np.dstack([colours, np.where(grey > 90, 255, 9).astype(np.uint8)])), {}),
        (Image.fromarray(grey.astype(np.uint16) * 257), {}),
        (Image.fromarray((colours * [1.0, 0.2, 0.2]).astype(np.uint8)), {}),
        (Image.fromarray(((grey > 90) * 200).astype(np.uint8)), {}),
        (Image.fromarray(grey), {"exif": _turned()}),
    ):
        file = BytesIO()
        picture.save(file, "PNG", **options)
        yield from map(code_of, decode_slice(file.getvalue(), "a", "a").notes)
    for one in (255 - colours, np.ascontiguousarray(np.rot90(colours))):
        yield from map(code_of, slice_check.check_slice(one))
    usual = slice_check.measure_picture(colours)
    for change in (
        {"colour": 99.0, "levels": 3, "roughness": 0.9}, {"lung": 0.0}, {"lung": 0.9}, {"inside": 1.0},
        {"contrast": 1.0}, {"parts": 99}, {"sides": 0.0},
    ):  # fmt: skip
        measured = slice_check.PictureMeasurements(**{**vars(usual), **change})
        monkeypatch.setattr(slice_check, "measure_picture", lambda _, m=measured: m)
        yield from map(code_of, slice_check.check_slice(colours))
    series = PictureSeriesCheck(["patient1_1", "patient2_1"])
    for index in range(2):
        series.add(index, grey)
    yield from map(code_of, series.warnings())


def _turned() -> Image.Exif:
    exif = Image.Exif()
    exif[274] = 3
    return exif


def of_studies() -> Iterator[str]:
    nothing = PackedMap((0, 0))
    slices = tuple(
        SliceResult(i, "", None, 0.5, True, None, None, None, ("a flag",), nothing, nothing) for i in range(1, 9)
    )
    study: Any = object.__new__(StudyResult)
    object.__setattr__(study, "slices", slices)
    object.__setattr__(study, "warnings", ())
    yield from map(code_of, study.doubts())


def test_every_code_is_emitted_by_some_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    emitted: set[str] = set()
    groups: tuple[Iterable[str], ...] = (
        of_volumes(), of_headers(tmp_path), of_nifti(tmp_path), of_pictures(monkeypatch), of_studies(),
    )  # fmt: skip
    for group in groups:
        emitted |= set(group)
    assert emitted | set(ELSEWHERE) == {*UNRELIABLE, *INFORMING}


@pytest.mark.parametrize("code", ELSEWHERE)
def test_codes_of_whole_runs_have_tests(code: str) -> None:
    file, _, name = ELSEWHERE[code].partition("::")
    assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(encoding="utf-8"), re.MULTILINE)
