"""DICOM SEG: the mask lies on the voxels it was made of, and the file is what the standard says."""

from __future__ import annotations

import itertools
import subprocess
import tracemalloc
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

import dicom_help
from dicom_seg_help import (
    HEAD_FIRST,
    REPORT,
    make_enhanced,
    make_files,
    make_series,
    masks,
    needs,
    read_seg,
    validation_errors,
)
from jcs_ct.core.errors import InputError, OutputError, ShapeError
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source
from jcs_ct.outputs.dicom import write_seg, write_sr

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.core.geometry import CTSeries, Geometry

NAMES: dict[str, Any] = {"model_name": "jcs-lite", "model_version": "0123abcd"}
LABELS = ["COVID-19 lesions", "Right lung", "Left lung"]

# Every way the rows and columns of an axial image can run, in both orders of files; the first is head first, supine,
# and the one with both in-plane directions reversed is prone.
AXIAL = [
    (slices, rows, columns)
    for slices in ((0.0, 0.0, -1.0), (0.0, 0.0, 1.0))
    for x, y in itertools.product((1.0, -1.0), repeat=2)
    for rows, columns in (((0.0, y, 0.0), (x, 0.0, 0.0)), ((x, 0.0, 0.0), (0.0, y, 0.0)))
]


def write(folder: Path, series: CTSeries, **options: Any) -> tuple[Path, tuple[str, ...]]:
    lesion, lungs = masks(series)
    path = folder / "seg.dcm"
    return path, write_seg(path, series, options.pop("lesion", lesion), options.pop("lungs", lungs), **NAMES, **options)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_files(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def seg_path(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, notes = write(tmp_path_factory.mktemp("seg"), make_series(files))
    assert notes == ()
    return path


@pytest.fixture
def seg(seg_path: Path) -> Any:
    return pydicom.dcmread(seg_path)


@pytest.mark.parametrize("direction", AXIAL, ids=str)
def test_the_mask_lies_on_its_voxels(direction: Any, tmp_path: Path) -> None:
    """Masks made by place in mm cover exactly the pixels of the source files that were written by place in mm."""
    files = make_files(tmp_path / "ct", direction)
    path, _ = write(tmp_path, make_series(files))
    found, seg = read_seg(path), pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    places = {
        g.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID: list(
            g.PlanePositionSequence[0].ImagePositionPatient
        )
        for g in seg.PerFrameFunctionalGroupsSequence
    }
    assert list(found) == LABELS
    for file in files:
        image = pydicom.dcmread(file)
        hu = image.pixel_array.astype(int) * int(image.RescaleSlope) + int(image.RescaleIntercept)
        lesion, right, left = (found[label].get(image.SOPInstanceUID, np.zeros(hu.shape, bool)) for label in LABELS)
        assert np.array_equal(lesion, hu == 500)
        assert np.array_equal((right | left) & ~lesion, hu == -800)
        assert not (right & left).any()
        if image.SOPInstanceUID in places:
            assert places[image.SOPInstanceUID] == list(image.ImagePositionPatient)
        assert list(shared.PlaneOrientationSequence[0].ImageOrientationPatient) == list(image.ImageOrientationPatient)
        assert list(shared.PixelMeasuresSequence[0].PixelSpacing) == list(image.PixelSpacing)
    assert shared.PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5
    assert [len(found[label]) for label in LABELS] == [2, 3, 3]  # slices with content, no others
    assert all(mask.any() for frames in found.values() for mask in frames.values())


def test_right_is_right(files: list[Path], seg_path: Path) -> None:
    """In a head-first supine image the patient's right is at low columns."""
    found = read_seg(seg_path)
    assert all(np.nonzero(mask)[1].max() < 9 for mask in found["Right lung"].values())
    assert all(np.nonzero(mask)[1].min() > 9 for mask in found["Left lung"].values())


def test_what_it_says(seg: Any, files: list[Path]) -> None:
    source = pydicom.dcmread(files[0])
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID", "StudyDate"):
        assert seg[keyword].value == source[keyword].value
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.SeriesInstanceUID != source.SeriesInstanceUID
    assert (seg.Modality, seg.Manufacturer, seg.SegmentsOverlap) == ("SEG", "jcs-ct", "YES")
    assert "not a medical device" in seg.ContentDescription
    lesion, right, left = seg.SegmentSequence
    for segment, category, kind in ((lesion, "49755003", "52988006"), (right, "123037004", "39607008")):
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert "Research use only, not a medical device" in segment.SegmentDescription
        assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == category
        assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == kind
    assert lesion.AnatomicRegionSequence[0].CodeValue == "39607008"
    for segment, side in ((right, "24028007"), (left, "7771000")):
        modifier = segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
        assert (modifier.CodeValue, modifier.CodingSchemeDesignator) == (side, "SCT")
    algorithm = lesion.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == ("jcs-lite", "0123abcd")
    assert right.SegmentationAlgorithmIdentificationSequence[0].AlgorithmName == "jcs-ct lungs"
    assert right.SegmentationAlgorithmIdentificationSequence[0].get("AlgorithmFamilyCodeSequence")
    referenced = seg.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == source.SeriesInstanceUID
    known = {item.ReferencedSOPInstanceUID for item in referenced.ReferencedInstanceSequence}
    assert known == {pydicom.dcmread(file).SOPInstanceUID for file in files}


def test_lesions_alone(files: list[Path], tmp_path: Path) -> None:
    series, path = make_series(files), tmp_path / "seg.dcm"
    write_seg(path, series, masks(series)[0], None, model_name="n" * 99, model_version="1")
    seg = pydicom.dcmread(path)
    assert seg.SegmentsOverlap == "NO"
    assert len(seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0].AlgorithmName) == 64
    assert list(read_seg(path)) == LABELS[:1]


def test_nothing_found_is_one_empty_frame(files: list[Path], tmp_path: Path) -> None:
    series = make_series(files)
    nothing = np.zeros(series.geometry.shape[1:], bool)
    path, notes = write(tmp_path, series, lesion=lambda i: nothing)
    assert notes == ("DICOM SEG: nothing found, one empty frame: COVID-19 lesions",)
    found = read_seg(path)
    assert len(found["COVID-19 lesions"]) == 1
    assert not any(mask.any() for mask in found["COVID-19 lesions"].values())
    assert len(found["Right lung"]) == 3
    assert "Nothing was found" in pydicom.dcmread(path).SegmentSequence[0].SegmentDescription

    path, notes = write(
        tmp_path, series, lesion=lambda i: nothing, lungs=lambda i: nothing.view(np.uint8), overwrite=True
    )
    assert len(notes) == 3
    assert pydicom.dcmread(path).NumberOfFrames == 3


def test_every_slice_is_asked_for_once(files: list[Path], tmp_path: Path) -> None:
    series = make_series(files)
    asked: list[int] = []
    lesion, _ = masks(series)

    def counted(index: int) -> Any:
        asked.append(index)
        return lesion(index)

    write(tmp_path, series, lesion=counted)
    assert asked == [0, 1, 2, 3]


def test_whole_or_not_at_all(files: list[Path], tmp_path: Path) -> None:
    series = make_series(files)
    with pytest.raises(ShapeError, match="expected"):
        write(tmp_path, series, lesion=lambda i: np.zeros((3, 3), bool))
    turned = replace(series, axes=replace(series.axes, order=(0, 2, 1)))
    with pytest.raises(ShapeError, match="in the axes of its image"):
        write(tmp_path, turned)
    with pytest.raises(InputError, match="is nifti"):
        write(tmp_path, replace(series, kind="nifti"))
    assert list(tmp_path.iterdir()) == []
    path, _ = write(tmp_path, series)
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write(tmp_path, series)
    assert path.read_bytes() == before


@needs("dciodvfy", "dcmconv", "dcmdump")
def test_enhanced_ct(tmp_path: Path) -> None:
    """One object with shuffled frames: the same masks, each on its frame."""
    files = make_files(tmp_path / "ct", AXIAL[3])
    series = make_series(files)
    whole, order = make_enhanced(files, tmp_path / "enhanced.dcm")
    source = Source("e", "enhanced.dcm", whole, None, Kind.DICOM)
    together = replace(series, sources=(source,) * len(files))
    path, notes = write(tmp_path, together)
    assert notes == ()
    assert validation_errors(path) == []
    lesion, lungs = masks(series)
    uids = [str(pydicom.dcmread(s.path).SOPInstanceUID) for s in series.sources]  # of canonical slices
    uid = pydicom.dcmread(whole).SOPInstanceUID
    found = read_seg(path)
    wanteds: list[Any] = [lesion, lambda i: lungs(i) == 1, lambda i: lungs(i) == 2]
    for label, wanted in zip(LABELS, wanteds, strict=True):
        frames = {f"{uid}/{order.index(uids[i]) + 1}": wanted(i) for i in range(len(series)) if wanted(i).any()}
        assert found[label].keys() == frames.keys()
        for key, mask in frames.items():
            assert np.array_equal(found[label][key], series.axes.to_stored(mask[None])[0])
    write_sr(tmp_path / "sr.dcm", together, REPORT, path)
    assert validation_errors(tmp_path / "sr.dcm") == []
    frame = order.index(uids[REPORT["most_affected"][0] - 1]) + 1
    assert f"(0008,1160) IS [{frame}]" in dump(tmp_path / "sr.dcm")
    with pytest.raises(InputError, match="has 4 frames, the series 3 slices"):
        write(tmp_path / "part", replace(together, sources=together.sources[:3], geometry=part(series)))


@needs("dciodvfy", "dcmconv", "dcmdump")
@pytest.mark.parametrize(
    "parts", [(slice(0, None, 2), slice(1, None, 2)), (slice(0, 3), slice(3, 4))], ids=["mixed", "3+1"]
)
def test_enhanced_ct_in_several_objects(parts: tuple[slice, slice], tmp_path: Path) -> None:
    """Each mask is on its frame of its object, and every object is named once."""
    files = make_files(tmp_path / "ct", AXIAL[3])
    series = make_series(files)
    uids = [str(pydicom.dcmread(s.path).SOPInstanceUID) for s in series.sources]  # of canonical slices
    place: dict[str, tuple[str, int]] = {}
    source_of = {}
    for number, part in enumerate(parts):
        whole, order = make_enhanced(files[part], tmp_path / f"{number}.dcm")
        dataset = pydicom.dcmread(whole)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID(f"1.2.3.{number + 4}")
        dataset.save_as(whole)
        for frame, former in enumerate(order, 1):
            place[former] = (f"1.2.3.{number + 4}", frame)
            source_of[former] = Source(str(number), whole.name, whole, None, Kind.DICOM)
    together = replace(series, sources=tuple(source_of[uid] for uid in uids))
    path, notes = write(tmp_path, together)
    assert notes == ()
    assert validation_errors(path) == []
    lesion, lungs = masks(series)
    found = read_seg(path)
    wanteds: list[Any] = [lesion, lambda i: lungs(i) == 1, lambda i: lungs(i) == 2]
    for label, wanted in zip(LABELS, wanteds, strict=True):
        frames = {"/".join(map(str, place[uids[i]])): wanted(i) for i in range(len(series)) if wanted(i).any()}
        assert found[label].keys() == frames.keys()
        for key, mask in frames.items():
            assert np.array_equal(found[label][key], series.axes.to_stored(mask[None])[0])
    (referenced,) = pydicom.dcmread(path).ReferencedSeriesSequence
    instances = referenced.ReferencedInstanceSequence
    assert sorted(str(item.ReferencedSOPInstanceUID) for item in instances) == ["1.2.3.4", "1.2.3.5"]
    assert {item.ReferencedSOPClassUID for item in instances} == {pydicom.uid.EnhancedCTImageStorage}
    assert b"2.25.18446744073709551615" not in path.read_bytes()  # what stood for them meanwhile
    write_sr(tmp_path / "sr.dcm", together, REPORT, path)
    assert validation_errors(tmp_path / "sr.dcm") == []
    uid, frame = place[uids[REPORT["most_affected"][0] - 1]]
    said = dump(tmp_path / "sr.dcm")
    assert f"(0008,1160) IS [{frame}]" in said
    assert uid in said
    dataset = pydicom.dcmread(tmp_path / "1.dcm")
    dataset.SOPInstanceUID = "1.2.3.4"
    dataset.save_as(tmp_path / "1.dcm")
    with pytest.raises(InputError, match="two objects share one SOPInstanceUID"):
        write(tmp_path / "same", together)


@pytest.mark.parametrize("direction", [AXIAL[0], AXIAL[2], AXIAL[7]], ids=str)
def test_with_the_reader_of_the_package(direction: Any, tmp_path: Path) -> None:
    """The mask of all voxels that are bright as read covers the pixels that are bright as stored."""
    files = dicom_help.write_body(tmp_path / "ct", direction)
    series = dicom_help.read_only(tmp_path / "ct")
    path = tmp_path / "seg.dcm"
    assert write_seg(path, series, lambda i: series.read(i) == 700, None, **NAMES) == ()
    found = read_seg(path)["COVID-19 lesions"]
    total = 0
    for file in files:
        image = pydicom.dcmread(file)
        bright = image.pixel_array == 1724
        assert np.array_equal(found.get(image.SOPInstanceUID, np.zeros(bright.shape, bool)), bright)
        total += int(bright.sum())
    assert total > 50


def dump(path: Path) -> str:
    done = subprocess.run(["dcmdump", str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return done.stdout


def part(series: CTSeries) -> Geometry:
    return replace(series.geometry, shape=(3, *series.geometry.shape[1:]))


@needs("dciodvfy", "dcmconv", "dcmdump", "dcm2xml")
def test_validator_and_toolkit_read_it(seg_path: Path, tmp_path: Path) -> None:
    assert validation_errors(seg_path) == []
    assert dump(seg_path).count("(0062,000b)") == 8 + 1  # a segment number for every frame, and as an index
    subprocess.run(["dcm2xml", str(seg_path), str(tmp_path / "seg.xml")], check=True)
    assert (tmp_path / "seg.xml").stat().st_size > 1000


@needs("dciodvfy", "dcmconv")
@pytest.mark.parametrize("name", ["ricord_axial_248", "lidc_0001_partial", "minimal_header_2"])
def test_real_series(name: str, real_data: Path, tmp_path: Path) -> None:
    series = make_series(sorted((real_data / "dicom" / name).glob("*.dcm")))
    rng = np.random.default_rng(1)
    mask = rng.random(series.geometry.shape[1:]) < 0.3
    wanted = {i: np.roll(mask, i, axis=0) for i in range(0, len(series), 5)}
    path = tmp_path / "seg.dcm"
    write_seg(path, series, lambda i: wanted.get(i, mask & False), None, **NAMES)
    assert validation_errors(path) == []
    uids = [str(pydicom.dcmread(source.path, stop_before_pixels=True).SOPInstanceUID) for source in series.sources]
    found = read_seg(path)["COVID-19 lesions"]
    assert set(found) == {uids[i] for i in wanted}
    assert all(np.array_equal(found[uids[i]], wanted[i]) for i in wanted)


def test_memory_stays_near_the_size_of_the_file(tmp_path: Path) -> None:
    shape = (40, 256, 256)
    files = write_ct_series(tmp_path / "ct", np.zeros(shape, np.int16), (1, 1, 1), (0, 0, 0), direction=HEAD_FIRST)
    series = make_series(files)
    full, path = np.ones(shape[1:], np.uint8), tmp_path / "seg.dcm"
    tracemalloc.start()
    try:
        write_seg(path, series, lambda i: full.view(bool), lambda i: full + i % 2, **NAMES)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert pydicom.dcmread(path).NumberOfFrames == 80
    assert peak < 12e6, f"{peak / 1e6:.1f} MB"  # the array that highdicom would be given takes 7.9, its sums 63 more


def test_it_is_compressed_and_read_by_others(seg_path: Path, files: list[Path]) -> None:
    """pydicom and highdicom here; DCMTK, dciodvfy and Orthanc in the tests that need programs."""
    found = highdicom.seg.segread(seg_path)
    assert found.file_meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian
    uids = [pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for file in files]
    for number, name in enumerate(LABELS, 1):
        mask = found.get_pixels_by_source_instance(
            uids, segment_numbers=[number], assert_missing_frames_are_empty=True, ignore_spatial_locations=True
        )
        own = read_seg(seg_path).get(name, {})
        for uid, frame in zip(uids, mask[..., 0], strict=True):
            assert np.array_equal(frame.astype(bool), own.get(uid, np.zeros(frame.shape, bool)))


def test_pixels_are_deflated_into_a_small_part(tmp_path: Path) -> None:
    series = make_series(make_files(tmp_path / "ct"))
    path, _ = write(tmp_path, series)
    seg = pydicom.dcmread(path)
    assert path.stat().st_size % 2 == 0
    plain = tmp_path / "plain.dcm"
    seg.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    seg.save_as(plain)
    assert path.stat().st_size < 0.35 * plain.stat().st_size  # of headers mostly, as small as these frames are
