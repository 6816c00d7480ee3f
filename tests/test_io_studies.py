"""Which series of which study is read: the stated rules, what overrides them, and what is told of the rest."""

from __future__ import annotations

import io
import shutil
import struct
import zipfile
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest
from PIL import Image

from dicom_help import body, edit, grid, only, pixels, read_only, refused, setting, volume, write_body
from jcs_ct.app.collect import collect, missing
from jcs_ct.app.summary import Summary, as_read_back, last_states, problem_row
from jcs_ct.core.warning import code_of
from jcs_ct.io.dicom.header import image_header
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source
from jcs_ct.io.studies import find_series

if TYPE_CHECKING:
    from jcs_ct.io.studies import FoundSeries

STUDY = "1.2.826.0.1.3680043.8.498.77"
REAL = "dicom"


def add_series(folder: Path, number: int, *, study: str = STUDY, **changes: Any) -> list[Path]:
    """Write a series of one study in a folder of its own."""
    shape = changes.pop("shape", (20, 48, 80))
    spacing = changes.pop("spacing", (8.0, 5.0, 4.0))
    values = {"StudyInstanceUID": study, "SeriesInstanceUID": f"{study}.{number}", "SeriesNumber": number} | changes
    where = folder / f"s{number}"
    where.mkdir(parents=True)
    paths = []
    for name, data in written(shape, spacing):
        paths.append(where / name)
        dataset = pydicom.dcmread(io.BytesIO(data))
        setting(BurnedInAnnotation="NO", **values)(dataset, 0)
        dataset.save_as(paths[-1])
    return paths


@lru_cache
def written(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> list[tuple[str, bytes]]:
    """Write the body once and keep the files."""
    with TemporaryDirectory() as folder:
        paths = write_body(Path(folder), spacing=spacing, shape=shape)
        return [(path.name, path.read_bytes()) for path in paths]


def numbers(found: FoundSeries) -> list[int | None]:
    return [row.number for row in found.rows if row.chosen]


def reasons(found: FoundSeries) -> dict[int | None, str]:
    return {row.number: row.reason for row in found.others}


# --- choice ----------------------------------------------------------------------------------------------------------

DERIVED = ["DERIVED", "SECONDARY", "AXIAL"]
THIN = (4.0, 5.0, 4.0)


@pytest.mark.parametrize(
    ("first", "second", "chosen", "reason"),
    [
        ({"shape": (40, 48, 80), "spacing": THIN, "ImageType": DERIVED}, {}, 2, "is derived, series 2 is original"),
        ({}, {"shape": (40, 48, 80), "spacing": THIN}, 2, "has fewer slices than series 2"),
        ({"SliceThickness": "8"}, {"SliceThickness": "6"}, 2, "is thicker than series 2"),
        ({}, {}, 1, "comes after series 1"),
        ({"Modality": "PT"}, {}, 2, "is PT, not CT"),
        ({}, {"Modality": "PT"}, 1, "is PT, not CT"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, {}, 2, "is a localizer"),
        ({"RescaleType": "Z_EFF"}, {}, 2, "holds non-HU values (RescaleType Z_EFF)"),
    ],
)
def test_the_rules_of_choice(
    first: dict[str, Any], second: dict[str, Any], chosen: int, reason: str, tmp_path: Path
) -> None:
    add_series(tmp_path, 1, **first)
    add_series(tmp_path, 2, **second)
    found = find_series([tmp_path])
    only(found)
    assert numbers(found) == [chosen]
    (row,) = found.others
    assert row.reason.startswith(reason)


def test_a_series_that_shows_lung_goes_first(tmp_path: Path) -> None:
    """A longer series of the abdomen in the same study does not win, whatever its header says."""

    def filled(dataset: Any, _index: int) -> None:
        stored = pixels(dataset)
        stored[stored == 1024 - 820] = 1024 + 40
        dataset.PixelData = stored.tobytes()

    edit(add_series(tmp_path, 1, shape=(40, 48, 80), spacing=THIN), filled)
    add_series(tmp_path, 2)
    found = find_series([tmp_path])
    assert numbers(found) == [2]
    assert reasons(found) == {1: "shows no lung, series 2 does"}


def test_the_next_series_is_taken_where_one_fails(tmp_path: Path) -> None:
    broken = add_series(tmp_path, 1, shape=(40, 48, 80), spacing=THIN)
    broken[20].write_bytes(broken[20].read_bytes()[:-600])
    add_series(tmp_path, 2)
    found = find_series([tmp_path])
    assert numbers(found) == [2]
    assert reasons(found)[1] == "is cut short in 1 of 40 images, the first ct_020.dcm"


@pytest.mark.parametrize("by", ["uid", "number", "description", "case"])
def test_a_series_can_be_asked_for(by: str, tmp_path: Path) -> None:
    add_series(tmp_path, 1)
    paths = add_series(tmp_path, 7, ImageType=DERIVED, SeriesDescription="Lung 2.0 B70f")
    first = find_series([tmp_path])
    assert numbers(first) == [1]
    asked = {
        "uid": str(pydicom.dcmread(paths[0]).SeriesInstanceUID),
        "number": "7",
        "description": "lung 2.0 b70F",
        "case": first.others[0].name,
    }[by]
    found = find_series([tmp_path], series=asked)
    only(found)
    assert numbers(found) == [7]
    assert reasons(found) == {1: "another series was asked for"}


def test_asking_does_not_make_it_readable(tmp_path: Path) -> None:
    add_series(tmp_path, 1)
    add_series(tmp_path, 2, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assert "series 2, 20 images: is a localizer" in refused(tmp_path, series="2")
    line = refused(tmp_path, series="9")
    assert "no series is called 9; series numbers here: 1, 2" in line
    assert "jcs inspect" in line


def test_every_study_without_the_series_that_was_asked_for_is_named(tmp_path: Path) -> None:
    for study, number in (("1.2.3", 1), ("1.2.4", 2), ("1.2.5", 3)):
        add_series(tmp_path, number, study=study)
    found = find_series([tmp_path], series="2")
    assert numbers(found) == [2]
    assert {(p.study, p.message) for p in found.problems} == {
        ("1.2.3", "no series is called 2; series numbers here: 1"),
        ("1.2.5", "no series is called 2; series numbers here: 3"),
    }


def test_refused_studies_of_one_folder_are_told_apart(tmp_path: Path) -> None:
    for study, number in (("1.2.3", 1), ("1.2.4", 2)):
        for path in add_series(tmp_path, number, study=study, Modality="MR"):
            path.rename(tmp_path / f"{number}-{path.name}")
    problems = find_series([tmp_path]).problems
    assert [(problem.path, problem.study) for problem in problems] == [
        (str(tmp_path), "1.2.3"),
        (str(tmp_path), "1.2.4"),
    ]
    rows = [as_read_back(problem_row(problem)) for problem in problems]
    assert last_states([*rows, *rows]) == rows
    assert len({row["study"] for row in rows}) == 2
    assert not {"1.2.3", "1.2.4"} & {row["study"] for row in rows}  # hashed
    assert problem_row(problems[0], keep_identity=True)["study"] == "1.2.3"
    Summary(tmp_path / "share").add(*rows)
    collected = collect([tmp_path / "share"], tmp_path / "all")
    assert [row["study"] for row in collected.rows] == [row["study"] for row in rows]
    assert missing([str(tmp_path)], tmp_path / "all") == ([], [])
    Summary(tmp_path / "one").add(rows[0])
    (left,) = missing([str(tmp_path)], tmp_path / "one")[1]
    assert left.study == "1.2.4"


# --- studies ---------------------------------------------------------------------------------------------------------


def test_several_studies_in_nested_folders_and_a_zip(tmp_path: Path) -> None:
    for study in ("1.2.3.1", "1.2.3.2", "1.2.3.3"):
        add_series(tmp_path / "all" / study[-1], 1, study=study)
        add_series(tmp_path / "all" / study[-1], 2, study=study, shape=(21, 48, 80))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for path in sorted((tmp_path / "all").rglob("*.dcm")):
            archive.write(path, path.relative_to(tmp_path))
    found = find_series([tmp_path / "all"])
    packed = find_series([tmp_path / "all.zip"])
    assert numbers(found) == numbers(packed) == [2, 2, 2]
    assert [row.study for row in found.rows] == [1, 1, 2, 2, 3, 3]
    assert [s.name for s in found.series] == [s.name for s in packed.series]
    assert len({s.name for s in found.series}) == 3
    assert all(s.name.startswith("study-") and len(s.name) == 14 for s in found.series)
    assert found.series[0].label == str(tmp_path / "all/1/s2/ct_000.dcm")
    assert packed.series[0].label == f"{tmp_path / 'all.zip'}!all/1/s2/ct_000.dcm"
    for a, b in zip(found.series, packed.series, strict=True):
        np.testing.assert_array_equal(a.read(3), b.read(3))
    both = find_series([tmp_path / "all", tmp_path / "all.zip"])  # every image twice
    assert len(both.series) == 3
    assert [len(s) for s in both.series] == [21, 21, 21]
    assert sum("21 images in the series twice" in note for note in both.notes) == 3


def test_one_bad_study_is_one_line_and_the_others_go_on(tmp_path: Path) -> None:
    add_series(tmp_path / "a", 1, study="1.2.3.1", Modality="MR")
    add_series(tmp_path / "a", 2, study="1.2.3.1", Modality="MR", shape=(30, 48, 80))
    add_series(tmp_path / "b", 1, study="1.2.3.2")
    (tmp_path / "c.dcm").write_bytes(b"")
    found = find_series([tmp_path])
    assert len(found.series) == 1
    lines = [problem.line() for problem in found.problems]
    assert len(lines) == 2
    assert "c.dcm: is an empty file (0 bytes); DICOM, NIfTI, MetaImage, NRRD or slices" in lines[0]
    assert "series 2, 30 images: is MR, not CT; nor can 1 other series of this study be read" in lines[1]


def test_missing_uids_are_told_apart_by_folder(tmp_path: Path) -> None:
    for name in ("a", "b"):
        edit(add_series(tmp_path / name, 1), setting(SeriesInstanceUID=None, StudyInstanceUID=None))
    edit(list((tmp_path / "b").rglob("*.dcm")), lambda d, i: setattr(d, "SOPInstanceUID", f"1.2.3.{i + 1}"))
    found = find_series([tmp_path])
    assert [len(series) for series in found.series] == [20, 20]
    assert len({series.name for series in found.series}) == 2


def test_the_same_uid_in_two_studies_gives_two_names(tmp_path: Path) -> None:
    for index in (1, 2):
        paths = add_series(tmp_path / str(index), 1, study=f"1.2.3.{index}")
        edit(paths, setting(SeriesInstanceUID="1.2.3"))
    a, b = find_series([tmp_path]).series
    assert b.name == a.name  # the command tells them apart by where they lie


def test_other_objects_in_a_series_are_skipped_with_a_note(tmp_path: Path) -> None:
    paths = add_series(tmp_path, 1)
    report = pydicom.dcmread(paths[0])
    report.SOPClassUID, report.Modality = pydicom.uid.EnhancedSRStorage, "SR"
    for keyword in ("Rows", "Columns", "PixelData"):
        delattr(report, keyword)
    report.save_as(tmp_path / "report.dcm")
    localizer = edit([Path(shutil.copy(paths[0], tmp_path / "localizer.dcm"))], setting(ImageType=["ORIGINAL"] * 2))
    edit(localizer, setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"], Rows=48, SOPInstanceUID="1.2.3.7"))
    found = find_series([tmp_path])
    assert len(only(found)) == 20
    assert any("report.dcm: 1 object in a series of images skipped (SR)" in note for note in found.notes)
    assert any("1 localizer or screen shot in the series left out" in note for note in found.notes)


def test_nothing_but_reports_is_a_problem(tmp_path: Path) -> None:
    (path,) = add_series(tmp_path, 1)[:1]
    report = pydicom.dcmread(path)
    report.SOPClassUID, report.Modality = pydicom.uid.EnhancedSRStorage, "SR"
    report.save_as(path)
    assert "no CT volume to work on" in refused(path)
    assert "holds no CT images, only SR" in refused(path)


# --- other kinds -----------------------------------------------------------------------------------------------------


def png() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_pictures_and_other_files_beside_a_study(tmp_path: Path) -> None:
    add_series(tmp_path, 1)
    (tmp_path / "key.png").write_bytes(png())
    (tmp_path / "readme.txt").write_text("text")
    found = find_series([tmp_path])
    only(found)
    assert [source.name for source in found.pictures] == ["key"]
    assert any("skipped 1 other file (1 TEXT): readme.txt" in note for note in found.notes)


def test_a_folder_of_something_else_says_what_is_expected(tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_bytes(b"%PDF-1.4")
    assert "holds no CT study, only 1 other file (1 PDF): a.pdf; DICOM, NIfTI, MetaImage, NRRD or slices" in refused(
        tmp_path
    )
    assert "does not exist" in refused(tmp_path / "nowhere")


def nifti(path: Path, hu: Any, affine: Any) -> Path:
    """A NIfTI-1 file by hand: LPS affine in, RAS in the file."""
    ras = np.diag([-1.0, -1, 1, 1]) @ affine
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, *hu.shape[::-1], 1, 1, 1, 1)
    struct.pack_into("<hh", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, *np.linalg.norm(affine[:3, 2::-1], axis=0), 0, 0, 0, 0)
    struct.pack_into("<fff", header, 108, 352, 1, 0)
    header[123] = 2
    struct.pack_into("<hh", header, 252, 0, 1)
    struct.pack_into("<12f", header, 280, *ras[:3, [2, 1, 0, 3]].ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(bytes(header) + hu.astype("<i2").tobytes())
    return path


def test_nifti_and_dicom_in_one_call(tmp_path: Path) -> None:
    pytest.importorskip("jcs_ct.io.nifti.volume")
    series = read_only(add_series(tmp_path / "d", 1)[0].parent)
    affine = series.geometry.affine
    nifti(tmp_path / "n.nii", body(grid(series.geometry.shape, affine)), affine)
    found = find_series([tmp_path])
    assert not found.problems, found.problems
    assert [one.kind for one in found.series] == ["dicom", "nifti"]
    np.testing.assert_array_equal(volume(found.series[0]), volume(found.series[1]))
    (tmp_path / "bad.nii").write_bytes((tmp_path / "n.nii").read_bytes()[:400])
    found = find_series([tmp_path])
    assert len(found.series) == 2
    (problem,) = found.problems
    assert "bad.nii" in problem.line()
    assert found.others[0].reason


def test_headers_take_whatever_comes() -> None:
    """Values that cannot be converted are missing ones."""
    source = Source("x", "x", Path("x"), None, Kind.DICOM)
    odd: dict[str, Any] = {
        "ImagePositionPatient": ["a", "b", "c"],
        "PixelSpacing": [0.5],
        "ImageOrientationPatient": [float("nan")] * 6,
        "Rows": "many",
        "PixelPaddingValue": 70000,
        "SeriesNumber": "",
        "KVP": "a lot",
    }
    header = image_header(source, None, odd.get)
    assert (header.position, header.spacing, header.orientation, header.rows) == (None, None, None, 0)
    assert header.padding == (70000 % 65536,) * 2
    assert header.facts == {}
    assert not header.is_image


# --- real studies ----------------------------------------------------------------------------------------------------


def test_the_real_chest(real_data: Path) -> None:
    series = read_only(real_data / REAL / "ricord_axial_248")
    assert series.geometry.shape == (248, 512, 512)
    assert series.geometry.spacing == pytest.approx((1.25, 0.703125, 0.703125))
    assert (series.geometry.position(0), series.geometry.position(247)) == pytest.approx((288.25, -20.5))
    assert series.warnings == ()
    hu = series.read(124)
    assert hu.min() == -1024
    assert hu.dtype == np.int16
    raw = pydicom.dcmread(series.sources[124].path)  # stored upright, so nothing is turned
    expected = np.maximum(raw.pixel_array.astype(int) - 1024, -1024)
    np.testing.assert_array_equal(hu, np.minimum(expected, 3071))


REFUSED = {
    "ricord_sagittal_20": ["20 images: is a sagittal reformat; axial slices are expected"],
    "ge_head_tilt_uneven_gaps": ["28 images: was scanned with a tilted gantry", "18.5°", "uneven gaps", "HEAD"],
    "philips_localizer": ["I10: series 100, 1 image: is a localizer"],
}
FLAGGED = {
    "lidc_0001_partial": (16, ["partial chest: 40 mm along the body, a whole one has at least 150"]),
    "minimal_header_2": (2, ["Modality is missing", "few slices: 2", "partial chest: 2 mm"]),
    "highdicom_ct_seg_sr": (1, ["few slices: 1", "partial chest: 5 mm", "no lung in the slices looked at"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_real_studies_that_are_refused(name: str, real_data: Path) -> None:
    line = refused(real_data / REAL / name)
    for text in REFUSED[name]:
        assert text in line


@pytest.mark.parametrize("name", FLAGGED)
def test_real_studies_that_are_flagged(name: str, real_data: Path) -> None:
    slices, texts = FLAGGED[name]
    found = find_series([real_data / REAL / name])
    series = only(found)
    assert len(series) == slices
    assert len(series.warnings) == len(texts)
    for warning, text in zip(series.warnings, texts, strict=True):
        assert text in warning
    if name.endswith("seg_sr"):
        assert any("sr_document.dcm: 1 object in a series of images skipped (SR)" in note for note in found.notes)
        assert [row.reason for row in found.others] == ["holds no CT images, only SEG"]


def test_all_real_studies_at_once(real_data: Path) -> None:
    found = find_series([real_data / REAL])
    assert len(found.series) == 9
    assert len(found.problems) == 3


# --- images that do not fit, series that are torn --------------------------------------------------------------------


def codes(found: FoundSeries) -> list[str]:
    return [code_of(warning) for warning in only(found).warnings]


def test_an_image_of_another_size_is_left_out_on_demand(tmp_path: Path) -> None:
    paths = add_series(tmp_path, 1)
    odd = pydicom.dcmread(paths[0])
    odd.Rows, odd.PixelData, odd.SOPInstanceUID = 24, odd.PixelData[: len(odd.PixelData) // 2], f"{STUDY}.9.9"
    odd.save_as(tmp_path / "s1" / "odd.dcm")
    (problem,) = find_series([tmp_path]).problems
    assert "mixes grids: 1 of 21 images differ in size" in problem.message
    assert "--drop-odd" in str(problem.hint)
    found = find_series([tmp_path], drop_odd=True)
    assert len(only(found)) == 20
    assert "dropped-images" in codes(found)
    assert "dropped-images" not in codes(find_series(paths))


def test_a_missing_slice_stays_missing_when_its_odd_image_is_left_out(tmp_path: Path) -> None:
    paths = add_series(tmp_path, 1)
    odd = pydicom.dcmread(paths[10])
    odd.Rows, odd.PixelData = 24, odd.PixelData[: len(odd.PixelData) // 2]
    odd.save_as(paths[10])
    (problem,) = find_series([tmp_path], drop_odd=True).problems
    assert "lacks 1 slice" in problem.message


@pytest.mark.parametrize(("doubled", "dropped"), [(1, True), (2, True), (3, False), (20, False)])
def test_positions_that_are_there_twice(doubled: int, dropped: bool, tmp_path: Path) -> None:
    """A tenth of the series at most: else two acquisitions share it, and which one is meant cannot be told."""
    for i, path in enumerate(add_series(tmp_path, 1)[:doubled]):
        other = pydicom.dcmread(path)
        other.PixelData, other.SOPInstanceUID = (pixels(other) ^ 1).tobytes(), f"{STUDY}.9.{i}"
        other.save_as(path.with_name(f"z{i}.dcm"))
    (problem,) = find_series([tmp_path]).problems
    assert f"has different images at the same position ({doubled}," in problem.message
    assert ("--drop-odd" in str(problem.hint)) is dropped
    found = find_series([tmp_path], drop_odd=True)
    assert bool(found.series) is dropped
    if dropped:
        assert (len(only(found)), codes(found).count("dropped-images")) == (20, 1)


def test_slices_with_a_series_each_are_joined_by_their_positions(tmp_path: Path) -> None:
    paths = add_series(tmp_path, 1)
    whole = volume(only(find_series(paths)))
    edit(paths, lambda dataset, i: setattr(dataset, "SeriesInstanceUID", f"{STUDY}.1.{i}"))
    found = find_series([tmp_path])
    assert np.array_equal(volume(only(found)), whole)
    assert "joined-series" in codes(found)
    edit(paths[:1], setting(ConvolutionKernel="SHARP"))
    assert len(only(find_series([tmp_path]))) == 19
    assert "slice" in only(find_series([tmp_path])).others[0].reason


def test_a_doubled_position_among_joined_slices_is_told_as_in_any_series(tmp_path: Path) -> None:
    paths = add_series(tmp_path, 1)
    edit(paths, lambda dataset, i: setattr(dataset, "SeriesInstanceUID", f"{STUDY}.1.{i}"))
    twice = pydicom.dcmread(paths[3])
    twice.SeriesInstanceUID = f"{STUDY}.1.99"
    twice.save_as(tmp_path / "s1" / "twice.dcm")
    found = find_series([tmp_path])
    assert len(only(found)) == 20
    assert any("1 image in the series twice, read once" in note for note in found.notes)
    other = pydicom.dcmread(paths[9]).PixelData
    edit([tmp_path / "s1" / "twice.dcm"], setting(PixelData=other))
    (problem,) = find_series([tmp_path]).problems
    assert "has different images at the same position (1, " in problem.message
    assert "--drop-odd" in str(problem.hint)
    assert len(only(find_series([tmp_path], drop_odd=True))) == 20


def test_slices_that_cannot_be_joined_are_explained(tmp_path: Path) -> None:
    paths = add_series(tmp_path, 1)[:4]
    for path in (tmp_path / "s1").iterdir():
        path.unlink() if path not in paths else None
    edit(paths, lambda dataset, i: setattr(dataset, "SeriesInstanceUID", f"{STUDY}.1.{i}"))
    edit(paths, lambda dataset, i: setattr(dataset, "SeriesDescription", f"slice {i}"))
    found = find_series([tmp_path])
    assert len(only(found)) == 1
    assert any("4 series of one slice each were not joined" in note for note in found.notes)
