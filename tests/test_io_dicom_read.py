"""DICOM in: every orientation, every encoding, HU and padding, and each refusal with its reason."""

from __future__ import annotations

import io
import itertools
import random
import shutil
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gdcm
import numpy as np
import pydicom
import pytest
from pydicom.uid import UID, generate_uid

from dicom_help import (
    CENTRE,
    HEAD_FIRST,
    SHAPE,
    SPACING,
    body,
    edit,
    grid,
    pixels,
    read_only,
    refused,
    setting,
    volume,
    write_body,
)
from jcs_ct.app.in_memory import case_of_object
from jcs_ct.core.errors import InputError
from jcs_ct.core.geometry import CANONICAL
from jcs_ct.core.warning import code_of
from jcs_ct.datasets.slices import open_volume
from jcs_ct.io.dicom import read as dicom_read
from jcs_ct.io.files.sources import Source
from jcs_ct.io.studies import find_series

if TYPE_CHECKING:
    from collections.abc import Callable

    from dicom_help import Vector
    from jcs_ct.core.geometry import CTSeries


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_body(tmp_path_factory.mktemp("written"))


@pytest.fixture
def files(written: list[Path], tmp_path: Path) -> list[Path]:
    """The files of a good series, to be spoilt."""
    folder = tmp_path / "series"
    folder.mkdir()
    return [Path(shutil.copy(path, folder)) for path in written]


def check_against_body(series: CTSeries) -> None:
    geometry = series.geometry
    directions = geometry.affine[:3, :3] / np.array(geometry.spacing)
    np.testing.assert_allclose(directions.T, CANONICAL, atol=1e-6)
    np.testing.assert_array_equal(volume(series), body(grid(geometry.shape, geometry.affine)))


# --- geometry --------------------------------------------------------------------------------------------------------

_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)


def _minus(v: Vector) -> Vector:
    return (-v[0] + 0.0, -v[1] + 0.0, -v[2] + 0.0)


_SLICES = {"head first": _minus(_Z), "feet first": _Z}
_PLANES = {  # rows run along …, columns along …
    f"{a}{b}": (rows, columns)
    for (a, rows), (b, columns) in itertools.permutations(
        {"+x": _X, "-x": _minus(_X), "+y": _Y, "-y": _minus(_Y)}.items(), 2
    )
    if abs(rows[0]) != abs(columns[0])
}


COARSE = ["slice-distance", "coarse-pixels"]  # of the body that is written here: 8 mm slices, 5 × 4 mm pixels


@pytest.mark.parametrize("plane", _PLANES)
@pytest.mark.parametrize("slices", _SLICES)
def test_every_orientation_ends_canonical(slices: str, plane: str, tmp_path: Path) -> None:
    """Supine, prone, both decubitus positions and mirrored planes, head and feet first: 16 ways to store one body."""
    rows, columns = _PLANES[plane]
    series = read_only(write_body(tmp_path, (_SLICES[slices], rows, columns))[0].parent)
    turned = abs(rows[0]) > 0.5  # rows run along x: the image is turned by 90°
    assert series.geometry.shape == ((20, 80, 48) if turned else SHAPE)
    assert series.geometry.spacing == pytest.approx((8, 4, 5) if turned else SPACING)
    assert series.warnings[0] == "the header says that the images hold burned-in text; it may name the patient"
    assert [code_of(warning) for warning in series.warnings] == ["burnt-in-text", *COARSE]
    check_against_body(series)
    # The way back: stored rows and columns are those of the file.
    stored = series.axes.to_stored(volume(series))
    for source, picture in zip(series.sources, stored, strict=True):
        np.testing.assert_array_equal(picture, pixels(pydicom.dcmread(source.path)).astype(int) - 1024)


def test_order_names_and_packing_do_not_matter(files: list[Path], tmp_path: Path) -> None:
    before = read_only(files[0].parent)
    expected = volume(before)
    names = [f"{i:03d}" for i in range(len(files))]
    random.Random(3).shuffle(names)
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path, name in zip(files, names, strict=True):
            data = edit([path], setting(InstanceNumber=int(name) + 1))[0].read_bytes()  # numbers lie
            archive.writestr(f"a/{int(name) % 3}/{name}", data)
    after = read_only(tmp_path / "study.zip")
    assert after.name == before.name
    assert after.geometry.shape == before.geometry.shape
    np.testing.assert_array_equal(after.geometry.affine, before.geometry.affine)
    np.testing.assert_array_equal(volume(after), expected)


def test_an_oblique_stack_is_read_and_flagged(tmp_path: Path) -> None:
    a = np.deg2rad(10)
    direction = ((0.0, np.sin(a), -np.cos(a)), (0.0, np.cos(a), np.sin(a)), (1.0, 0.0, 0.0))
    series = read_only(write_body(tmp_path, direction)[0].parent)
    assert "the slices are oblique: 10° off axial" in series.warnings
    geometry = series.geometry
    positions = grid(geometry.shape, geometry.affine)
    agree = (volume(series) == body(positions)).mean()
    assert agree > 0.999  # header positions are rounded
    assert geometry.voxel_ml == pytest.approx(0.16)


def test_small_shears_keep_their_positions(files: list[Path]) -> None:
    """0.5° is read, and voxels stay where the header puts them."""

    def shear(dataset: Any, index: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + index * 8 * np.tan(np.deg2rad(0.5)), z]

    series = read_only(edit(files, shear)[0].parent)
    last = pydicom.dcmread(files[-1]).ImagePositionPatient
    np.testing.assert_allclose((series.geometry.affine @ [len(files) - 1, 0, 0, 1])[:3], last, atol=1e-6)


# --- values ----------------------------------------------------------------------------------------------------------


def test_slope_and_intercept_are_taken_slice_by_slice(files: list[Path]) -> None:
    def rescale(dataset: Any, index: int) -> None:
        stored = pixels(dataset)
        if index % 2:
            dataset.RescaleSlope = "0.5"
            dataset.PixelData = (stored * 2).astype("<u2").tobytes()
        else:
            dataset.RescaleIntercept = "-1030"
            dataset.PixelData = (stored + 6).astype("<u2").tobytes()

    check_against_body(read_only(edit(files, rescale)[0].parent))


def test_signed_values_and_unused_bits(files: list[Path]) -> None:
    def sign(dataset: Any, index: int) -> None:
        hu = pixels(dataset).astype(int) - 1024
        dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"
        stored = hu & 0xFFF
        if index % 3 == 0:
            stored = stored | 0x5000  # what older scanners keep overlays in
        dataset.PixelData = stored.astype("<u2").tobytes()

    check_against_body(read_only(edit(files, sign)[0].parent))


@pytest.mark.parametrize(
    ("padding", "limit", "gone"),
    [(-2000, None, {-2000}), (63536, None, {-2000}), (300, 310, {300, 305, 310}), (310, 300, {300, 305, 310})],
)
def test_padding_is_clipped(padding: int, limit: int | None, gone: set[int], files: list[Path]) -> None:
    def pad(dataset: Any, _index: int) -> None:
        hu = pixels(dataset).astype(int) - 1024
        hu[:3, :7] = [-2000, 299, 300, 305, 310, 311, -1500]
        dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation, dataset.RescaleIntercept = 16, 15, 1, "0"
        dataset.PixelData = hu.astype("<i2").tobytes()
        for tag, value in ((0x00280120, padding), (0x00280121, limit)):
            if value is not None:
                dataset.add_new(tag, "US" if value > 32767 else "SS", value)

    series = read_only(edit(files, pad)[0].parent)
    expected = [-1024 if v in gone else max(v, -1024) for v in (-2000, 299, 300, 305, 310, 311, -1500)]
    assert series.read(4)[0, :7].tolist() == expected
    assert series.read(4).dtype == np.int16
    flagged = any("padding value stands for 300 HU, which tissue has too" in warning for warning in series.warnings)
    assert flagged == (limit is not None)


def test_values_above_the_range_are_clipped(files: list[Path]) -> None:
    def bright(dataset: Any, _index: int) -> None:
        stored = pixels(dataset)
        stored[3, 3] = 20000
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 16, 15, stored.tobytes()

    assert read_only(edit(files, bright)[0].parent).read(0)[3, 3] == 3071


# --- encodings -------------------------------------------------------------------------------------------------------


def transcode(paths: list[Path], syntax: int) -> None:
    for path in paths:
        reader = gdcm.ImageReader()
        reader.SetFileName(str(path))
        assert reader.Read()
        change = gdcm.ImageChangeTransferSyntax()
        change.SetTransferSyntax(gdcm.TransferSyntax(syntax))
        change.SetInput(reader.GetImage())
        assert change.Change()
        writer = gdcm.ImageWriter()
        writer.SetFileName(str(path))
        writer.SetFile(reader.GetFile())
        writer.SetImage(change.GetOutput())
        assert writer.Write()


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        ("JPEGLosslessProcess14_1", "1.2.840.10008.1.2.4.70"),
        ("JPEGLSLossless", "1.2.840.10008.1.2.4.80"),
        ("JPEG2000Lossless", "1.2.840.10008.1.2.4.90"),
        ("RLELossless", "1.2.840.10008.1.2.5"),
        ("ImplicitVRLittleEndian", "1.2.840.10008.1.2"),
        ("DeflatedExplicitVRLittleEndian", "1.2.840.10008.1.2.1.99"),
    ],
)
def test_compressed_files_give_the_same_values(name: str, uid: str, files: list[Path]) -> None:
    if name.startswith("Deflated"):
        for path in files:
            dataset = pydicom.dcmread(path)
            dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(uid)
            dataset.save_as(path, implicit_vr=False, little_endian=True)
    else:
        transcode(files, getattr(gdcm.TransferSyntax, name))
    assert pydicom.dcmread(files[0]).file_meta.TransferSyntaxUID == uid
    check_against_body(read_only(files[0].parent))


@pytest.mark.parametrize("implicit", [True, False])
def test_files_without_preamble_are_read(implicit: bool, files: list[Path]) -> None:
    for path in files:
        dataset = pydicom.dcmread(path)
        bare = pydicom.Dataset(dataset)
        data = io.BytesIO()
        bare.save_as(data, implicit_vr=implicit, little_endian=True)
        assert data.getvalue()[:2] == b"\x08\0"
        path.write_bytes(data.getvalue())
    check_against_body(read_only(files[0].parent))


def test_long_headers_are_read_to_their_end(files: list[Path], tmp_path: Path) -> None:
    """What is needed may stand behind a large private element, on disk and in an archive."""

    def bulge(dataset: Any, _index: int) -> None:
        dataset.add_new(0x00090010, "LO", "PRIVATE")
        dataset.add_new(0x00091001, "OB", bytes(100_000))

    edit(files, bulge)
    check_against_body(read_only(files[0].parent))
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files:
            archive.write(path, path.name)
    check_against_body(read_only(tmp_path / "study.zip"))


def test_an_unknown_compression_is_named(files: list[Path]) -> None:
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.9.9\0"))
    assert "is compressed in a way that is not read here (unknown transfer syntax)" in refused(files[0].parent)


def test_a_missing_decoder_is_named(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    transcode(files, gdcm.TransferSyntax.JPEG2000Lossless)
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    line = refused(files[0].parent)
    assert "is compressed (JPEG 2000 Image Compression (Lossless Only)), and no plug-in that decodes it" in line
    assert "pip install python-gdcm" in line


def test_damaged_pixels_are_named(files: list[Path]) -> None:
    transcode(files, gdcm.TransferSyntax.JPEGLosslessProcess14_1)
    series = read_only(files[0].parent)
    data = files[7].read_bytes()
    files[7].write_bytes(data[:-900])
    with pytest.raises(InputError, match=r"ct_007\.dcm: lacks its pixels, or is cut short"):
        series.read(7)
    start = data.index(b"\xff\xd8")
    files[7].write_bytes(data[:start] + bytes(len(data) - start - 8) + data[-8:])
    with pytest.raises(InputError, match=r"ct_007\.dcm: pixels cannot be decoded \(JPEG Lossless") as error:
        series.read(7)
    assert "\n" not in error.value.line()
    series.read(8)


@pytest.mark.parametrize("packed", [False, True])
def test_cut_files_are_seen_before_anything_is_computed(packed: bool, files: list[Path]) -> None:
    if packed:
        transcode(files, gdcm.TransferSyntax.JPEGLSLossless)
    files[3].write_bytes(files[3].read_bytes()[:-20])
    assert "is cut short in 1 of 20 images, the first ct_003.dcm" in refused(files[0].parent)


def test_files_cut_later_are_named(files: list[Path]) -> None:
    series = read_only(files[0].parent)
    files[3].write_bytes(files[3].read_bytes()[:-500])
    with pytest.raises(InputError, match=r"ct_003\.dcm: pixels cannot be read") as error:
        series.read(3)
    assert "\n" not in error.value.line()


# --- duplicates, gaps ------------------------------------------------------------------------------------------------


def test_images_that_are_there_twice_are_read_once(files: list[Path]) -> None:
    shutil.copy(files[4], files[4].parent / "again.dcm")
    edit([Path(shutil.copy(files[9], files[9].parent / "other.dcm"))], setting(SOPInstanceUID="1.2.3.9"))
    found = find_series([files[0].parent])
    (series,) = found.series
    assert len(series) == 20
    assert any(note.endswith(": 2 images in the series twice, read once") for note in found.notes)


def test_different_images_at_one_place_are_refused(files: list[Path]) -> None:
    def shine(dataset: Any, _index: int) -> None:
        dataset.SOPInstanceUID = "1.2.3.4"
        stored = pixels(dataset)
        stored[0, 0] += 1
        dataset.PixelData = stored.tobytes()

    edit([Path(shutil.copy(files[4], files[4].parent / "phase2.dcm"))], shine)
    line = refused(files[0].parent)
    assert "has different images at the same position (1, the first at z = -256.0 mm)" in line
    assert "give one acquisition" in line


def test_missing_slices_are_refused_or_told(files: list[Path]) -> None:
    for index in (5, 6, 15):
        files[index].unlink()
    line = refused(files[0].parent)
    assert "17 images: lacks 3 slices: after slice 5 (z = -256.0 mm), slice 13 (z = -336.0 mm); slices lie 8 mm" in line
    assert "use --allow-gaps" in line
    series = read_only(files[0].parent, allow_gaps=True)
    assert "lacks 3 slices" in series.warnings[0]
    assert series.geometry.position(0) == pytest.approx(-224)
    assert series.geometry.position(16) == pytest.approx(-376)


def test_uneven_distances_are_refused(files: list[Path]) -> None:
    def move(dataset: Any, index: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, z - max(0, index - 14) * 3]

    edit(files, move)
    assert "has uneven gaps between slices (8 to 11 mm): after slice 15" in refused(files[0].parent)


def test_rounded_positions_are_even(tmp_path: Path) -> None:
    """0.625 mm written with one decimal: steps of 0.6 and 0.7."""
    paths = write_body(tmp_path, spacing=(0.625, 5.0, 4.0), shape=(40, 48, 80))

    def rounded(dataset: Any, _index: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, round(float(z), 1)]

    series = read_only(edit(paths, rounded)[0].parent)
    assert series.geometry.spacing[0] == pytest.approx(0.625, abs=0.003)
    assert "partial chest: 25 mm along the body, a whole one has at least 150" in series.warnings


# --- refusals and warnings -------------------------------------------------------------------------------------------


def _tilted(dataset: Any, index: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x, y + index * 8 * np.tan(np.deg2rad(15)), z]


def _shifted(dataset: Any, index: int) -> None:
    x, y, z = dataset.ImagePositionPatient
    dataset.ImagePositionPatient = [x + 3 * (index % 2), y, z]


def _narrow(dataset: Any, index: int) -> None:
    if index == 3:
        dataset.PixelSpacing = ["4.9", "4"]


def _turned(dataset: Any, index: int) -> None:
    if index == 3:
        dataset.ImageOrientationPatient = ["0", "1", "0", "0", "0", "-1"]


def _grey(dataset: Any, _index: int) -> None:
    dataset.PixelData = (pixels(dataset) // 16).astype("<u2").tobytes()
    dataset.RescaleIntercept = "0"


def _no_tissue(dataset: Any, _index: int) -> None:
    dataset.RescaleIntercept = "-2048"


def _inverted(dataset: Any, _index: int) -> None:
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.PixelData = (3000 - pixels(dataset)).astype("<u2").tobytes()


def _no_lung(dataset: Any, _index: int) -> None:
    stored = pixels(dataset)
    stored[stored == 1024 - 820] = 1024 + 40
    dataset.PixelData, dataset.BodyPartExamined = stored.tobytes(), "ABDOMEN"


SCREEN = "1.2.840.10008.5.1.4.1.1.7"
REFUSALS: dict[str, tuple[Callable[[Any, int], None], str]] = {
    "MR": (setting(Modality="MR", SOPClassUID="1.2.840.10008.5.1.4.1.1.4"), "is MR, not CT"),
    "MR without a word": (
        setting(Modality=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.4"),
        "does not say that it is CT",
    ),
    "localizer": (setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "is a localizer"),
    "secondary capture": (setting(SOPClassUID=SCREEN), "is a secondary capture"),
    "MIP": (setting(ImageType=["DERIVED", "PRIMARY", "AXIAL", "MIP"]), "is a projection through many slices"),
    "coronal": (setting(ImageOrientationPatient=["1", "0", "0", "0", "0", "-1"]), "is a coronal; axial slices"),
    "sagittal reformat": (
        setting(ImageOrientationPatient=["0", "1", "0", "0", "0", "-1"], ImageType=["DERIVED", "SECONDARY"]),
        "is a sagittal reformat; axial slices",
    ),
    "oblique": (setting(ImageOrientationPatient=["1", "0", "0", "0", "0.7", "-0.7"]), "is an oblique; axial slices"),
    "tilt": (_tilted, "tilted gantry: the slices stand 15.0° off their stack, at most 1° is read"),
    "shift": (_shifted, "has slices shifted sideways by 2.8 mm"),
    "pixel spacing": (_narrow, "mixes grids: 1 of 20 images differ in pixel spacing"),
    "orientation": (_turned, "mixes grids: 1 of 20 images differ in orientation"),
    "no position": (setting(ImagePositionPatient=None), "lacks a valid ImagePositionPatient in 20 of 20 images ("),
    "no spacing": (setting(PixelSpacing=["0", "0"]), "lacks a valid PixelSpacing"),
    "skewed axes": (setting(ImageOrientationPatient=["1", "0", "0", "1", "0", "0"]), "lacks a valid ImageOrientation"),
    "colour": (setting(PhotometricInterpretation="PALETTE COLOR"), "holds colour or palette pixels"),
    "electron density": (setting(RescaleType="ED"), "holds non-HU values (RescaleType ED)"),
    "0 to 255": (_grey, "holds no Hounsfield units: values from 1 to"),
    "intercept twice": (_no_tissue, "and no soft tissue (0) in them"),
    "inverted": (_inverted, "holds inverted values or none of CT: it is bright"),
    "abdomen": (_no_lung, "is no chest: the header says ABDOMEN, and the slices show no lung"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_must_not_be_read_is_refused(case: str, files: list[Path]) -> None:
    change, reason = REFUSALS[case]
    edit(files, change)
    line = refused(files[0].parent)
    assert reason in line
    assert line.startswith(f"{files[0].parent}: series 1, 20 images: ")
    assert line.endswith(")")  # what to do


def raw(keyword: str, value: bytes, *, first: bool = False) -> Callable[[Any, int], None]:
    """A change for `edit`: the bytes of an element, as a faulty writer has them."""

    def change(dataset: Any, index: int) -> None:
        if first and index:
            return
        tag = pydicom.tag.Tag(keyword)
        padded = value + b" " * (len(value) % 2)
        dataset[tag] = pydicom.dataelem.RawDataElement(tag, "DS", len(padded), padded, 0, False, True)

    return change


def missing_in_one(dataset: Any, index: int) -> None:
    if index == 4:
        del dataset.RescaleSlope


RESCALED: dict[str, tuple[Callable[[Any, int], None], str]] = {
    "intercept twice": (
        raw("RescaleIntercept", b"-1024\\-1024"),
        "RescaleIntercept that is not one number in 20 of 20",
    ),
    "intercept three times": (raw("RescaleIntercept", b"-1024\\0\\1"), "RescaleIntercept that is not one number"),
    "intercept of words": (raw("RescaleIntercept", b"minus 1024"), "RescaleIntercept that is not one number"),
    "intercept with a comma": (raw("RescaleIntercept", b"-1024,0"), "RescaleIntercept that is not one number"),
    "intercept infinite": (raw("RescaleIntercept", b"inf"), "RescaleIntercept that is not one number"),
    "slope twice": (raw("RescaleSlope", b"1\\1"), "RescaleSlope that is not one number in 20 of 20 images"),
    "slope twice in one": (raw("RescaleSlope", b"1\\1", first=True), "RescaleSlope that is not one number in 1 of 20"),
    "no intercept": (setting(RescaleIntercept=None), "lacks RescaleIntercept, and the stored values are none"),
    "an empty intercept": (raw("RescaleIntercept", b""), "lacks RescaleIntercept, and the stored values are none"),
    "neither": (
        setting(RescaleIntercept=None, RescaleSlope=None),
        "lacks RescaleSlope and RescaleIntercept, and the stored values are none: it holds no Hounsfield units",
    ),
    "no slope in one": (missing_in_one, "lacks RescaleSlope in 1 of 20 images, the first ct_004.dcm"),
}


@pytest.mark.parametrize("case", RESCALED)
def test_a_faulty_rescale_is_named(case: str, files: list[Path]) -> None:
    change, text = RESCALED[case]
    edit(files, change)
    assert text in refused(files[0].parent)


@pytest.mark.parametrize("keyword", ["RescaleIntercept", "RescaleSlope"])
def test_a_faulty_rescale_of_frames_is_named(keyword: str, files: list[Path], tmp_path: Path) -> None:
    path = enhanced(files, tmp_path / "enhanced.dcm")
    dataset = pydicom.dcmread(path)
    item = dataset.PerFrameFunctionalGroupsSequence[3].PixelValueTransformationSequence[0]
    setattr(item, keyword, ["1", "1"])
    dataset.save_as(path)
    assert f"has a {keyword} that is not one number in 1 of 20 images" in refused(path)


def test_a_number_of_frames_that_is_none_is_named(files: list[Path]) -> None:
    edit(files, raw("NumberOfFrames", b"x"))
    line = refused(files[0].parent)
    assert line.endswith("has a NumberOfFrames that is not one number (correct it in the header, or export it again)")
    edit(files, raw("NumberOfFrames", b""))  # it is optional in such images
    assert read_only(files[0].parent).read(3).shape == (48, 80)


def test_an_image_without_pixels_is_named(files: list[Path]) -> None:
    edit(files[7:8], setting(PixelData=b""))
    with pytest.raises(InputError, match=r"ct_007\.dcm: lacks its pixels, or is cut short \(copy it again\)$"):
        read_only(files[0].parent).read(7)


def test_a_plain_image_of_many_frames(files: list[Path], tmp_path: Path) -> None:
    images = [pydicom.dcmread(path) for path in files]
    whole = images[0]
    whole.PixelData = b"".join(image.PixelData for image in images)
    whole.NumberOfFrames = len(images)
    whole.save_as(tmp_path / "many.dcm")
    line = refused(tmp_path / "many.dcm")
    assert "holds 20 frames in one plain CT image, which does not say where each of them lies" in line
    edit(files, setting(NumberOfFrames=1))
    check_against_body(read_only(files[0].parent))


def encapsulated(paths: list[Path], syntax: str, frame: bytes) -> None:
    for path in paths:
        dataset = pydicom.dcmread(path)
        dataset.file_meta.TransferSyntaxUID = UID(syntax)
        dataset.PixelData = pydicom.encaps.encapsulate([frame])
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        dataset.save_as(path)


HTJ2K = [f"1.2.840.10008.1.2.4.{number}" for number in (201, 202, 203)]


@pytest.mark.parametrize("syntax", HTJ2K)
def test_high_throughput_jpeg_2000(syntax: str, files: list[Path]) -> None:
    pytest.importorskip("openjpeg")
    expected = read_only(files[0].parent).read(9)
    encapsulated(files, syntax, (Path(__file__).parent / "golden" / "phantom_slice.j2c").read_bytes())
    series = read_only(files[0].parent)
    assert np.array_equal(series.read(9), expected)
    assert np.array_equal(series.read(0), expected)  # the same frame in every image


@pytest.mark.parametrize("syntax", HTJ2K)
def test_high_throughput_jpeg_2000_without_a_decoder(
    syntax: str, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda self: False))
    encapsulated(files, syntax, b"\xff\x4f\xff\x51" + bytes(60))
    line = refused(files[0].parent)
    assert "is compressed (High-Throughput JPEG 2000" in line
    assert "no plug-in that decodes it is installed (pip install pylibjpeg pylibjpeg-openjpeg" in line


@pytest.mark.parametrize(
    ("number", "name"),
    [
        ("4.92", "JPEG 2000 Part 2 Multi-component Image Compression (Lossless Only)"),
        ("4.110", "JPEG XL Lossless"),
        ("4.111", "JPEG XL JPEG Recompression"),
        ("4.112", "JPEG XL"),
        ("4.205", "JPIP HTJ2K Referenced Deflate"),
    ],
)
def test_a_compression_that_is_not_read_is_named(number: str, name: str, files: list[Path]) -> None:
    syntax = f"1.2.840.10008.1.2.{number}"
    stand_in = HTJ2K[0] if len(syntax) == len(HTJ2K[0]) else "1.2.840.10008.1.2.4.90"
    encapsulated(files, stand_in, bytes(64))  # pydicom writes no syntax that it does not know
    for path in files:
        path.write_bytes(path.read_bytes().replace(stand_in.encode(), syntax.encode()))
    assert f"is compressed in a way that is not read here ({name}) (export it uncompressed)" in refused(files[0].parent)


def test_the_private_syntax_of_ge(files: list[Path]) -> None:
    for path in files:
        dataset = pydicom.dcmread(path)
        dataset.PixelData = pixels(dataset).astype(">u2").tobytes()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID("1.2.840.113619.5.2")
        pydicom.dcmwrite(path, dataset, enforce_file_format=False, implicit_vr=True, little_endian=True)
    line = refused(files[0].parent)
    assert "is stored in GE's private transfer syntax (pixels in big endian" in line
    assert line.endswith("(export it as Explicit VR Little Endian)")


def directory(folder: Path, names: list[list[str]]) -> Path:
    """Write a DICOMDIR that names these files."""
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = pydicom.uid.MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3.4.5")
    made.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    records = [pydicom.Dataset()]
    records[0].DirectoryRecordType, records[0].PatientName = "PATIENT", "Planted"
    for parts in names:
        record = pydicom.Dataset()
        record.DirectoryRecordType = "IMAGE"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of names that the standard does not allow
            record.ReferencedFileID = parts
        records.append(record)
    made.DirectoryRecordSequence = records
    made.preamble = bytes(128)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(folder / "DICOMDIR", made, enforce_file_format=False)
    return folder / "DICOMDIR"


def test_a_dicomdir_is_followed(files: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "disc"
    (folder / "images").mkdir(parents=True)
    names = []
    for number, path in enumerate(files):
        shutil.copy(path, folder / "images" / f"im{number}")
        names.append(["IMAGES", f"IM{number}"])
    path = directory(folder, [*names, ["IMAGES", "IM99"], ["..", "series", files[0].name]])
    found = find_series([path])
    assert not found.problems
    check_against_body(found.series[0])
    assert [note.removeprefix(f"{path}: ") for note in found.notes] == [
        f"2 files of 22 that it names not found: IMAGES/IM99, ../series/{files[0].name}",
        "followed to 20 files that it names",
    ]
    directory(folder, names)
    both = find_series([folder])  # the folder has them all
    check_against_body(both.series[0])
    assert list(both.notes) == ["1 file without an image skipped (DICOMDIR)"]


WARNINGS: dict[str, tuple[Callable[[Any, int], None], str]] = {
    "Modality": (setting(Modality=None), "Modality is missing"),
    "HEAD": (setting(BodyPartExamined="HEAD"), "the header says HEAD, but the slices show lung"),
    "derived": (setting(ImageType=["DERIVED", "PRIMARY", "AXIAL"]), "the slices are derived"),
    "lossy": (setting(LossyImageCompression="01"), "was compressed with loss"),
    "tilt in the header": (setting(GantryDetectorTilt="-12"), "gantry was tilted by -12°, the positions do not show"),
    "no slope": (setting(RescaleSlope=None), "RescaleSlope is missing; 1 is taken"),
    "unspecified": (setting(RescaleType="US"), "RescaleType US"),
    "MONOCHROME1": (setting(PhotometricInterpretation="MONOCHROME1"), "MONOCHROME1"),
    "thin": (setting(SliceThickness="1"), "slices of 1 mm lie 8 mm apart: 88 % of the lung was not imaged"),
    "burnt in": (setting(BurnedInAnnotation="YES"), "images hold burned-in text"),
}


@pytest.mark.parametrize("case", WARNINGS)
def test_what_limits_a_study_is_told(case: str, files: list[Path]) -> None:
    change, text = WARNINGS[case]
    edit(files, setting(BurnedInAnnotation="NO"))
    assert [code_of(w) for w in read_only(files[0].parent).warnings] == COARSE
    edit(files, change)
    series = read_only(files[0].parent)
    (warning,) = (w for w in series.warnings if code_of(w) not in COARSE or text in w)
    assert text in warning
    check_against_body(series)


@pytest.mark.parametrize("unit", ["HU", "Hounsfield Unit", "Houndsfield Unit", "HOUNSFIELD", ""])
def test_ways_to_write_hounsfield_units(unit: str, files: list[Path]) -> None:
    edit(files, setting(RescaleType=unit))
    read_only(files[0].parent)


def test_no_lung_is_flagged_where_the_header_promises_a_chest(files: list[Path]) -> None:
    edit(files, _no_lung)
    edit(files, setting(BodyPartExamined="CHEST"))
    assert "no lung in the slices looked at: is it a chest?" in read_only(files[0].parent).warnings


def test_a_single_slice_is_read_with_warnings(files: list[Path]) -> None:
    series = read_only(files[8])
    assert series.geometry.shape == (1, 48, 80)
    assert series.geometry.spacing == pytest.approx(SPACING)
    assert "few slices: 1" in series.warnings


def test_damaged_and_foreign_headers(files: list[Path], tmp_path: Path) -> None:
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "x.dcm").write_bytes(bytes(128) + b"DICM" + bytes(200))
    (bad / "cut.dcm").write_bytes(files[0].read_bytes()[:700])
    found = find_series([bad])
    assert not found.series
    assert found.problems
    assert all("\n" not in problem.line() for problem in found.problems)


# --- what is read, and what never leaves -----------------------------------------------------------------------------


def test_only_three_slices_are_read_before_they_are_asked_for(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole: list[str] = []
    read = Source.read

    def counted(source: Source, size: int | None = None) -> bytes:
        whole.extend([source.label] if size is None else [])
        return read(source, size)

    monkeypatch.setattr(Source, "read", counted)
    series = read_only(files[0].parent)
    assert len(whole) == 3
    series.read(0)
    assert len(whole) == 4


def test_facts_are_told_and_patients_are_not(files: list[Path]) -> None:
    planted = "Zaphod"
    edit(
        files,
        setting(
            PatientName=f"{planted}^B",
            PatientID=f"{planted}1",
            PatientBirthDate="19420208",
            AccessionNumber=f"{planted}2",
            InstitutionName=f"{planted} Hospital",
            StudyDescription=planted,
            SeriesDescription=planted,
            ReferringPhysicianName=planted,
            StudyDate="20210203",
            ContrastBolusAgent=f"{planted} 350",
            RescaleType="HU",
        ),
    )
    found = find_series([files[0].parent])
    (series,) = found.series
    assert series.facts == {
        "manufacturer": "jcs-ct phantom",
        "model": "jcs-ct phantom",
        "kernel": "PHANTOM",
        "kVp": "120",
        "slice thickness (mm)": "8",
        "patient position": "HFS",
        "body part": "CHEST",
        "contrast": "yes",
        "study year": "2021",
    }
    uid = pydicom.dcmread(files[0]).SeriesInstanceUID
    for value in (repr(found), repr(series.warnings)):
        assert planted not in value
        assert "19420208" not in value
        assert uid not in value
    # Typed into fields that messages would quote.
    edit(files, setting(RescaleType=planted, BodyPartExamined=planted.upper(), Modality=f"{planted.upper()} X"))
    found = find_series([files[0].parent])
    assert planted.casefold() not in "".join([*map(str, found.problems), *found.notes, repr(found.rows)]).casefold()


# --- enhanced CT -----------------------------------------------------------------------------------------------------


def enhanced(paths: list[Path], target: Path) -> Path:
    """Write the images of a series as one enhanced CT (PS3.3 A.38), frames shuffled."""
    images = [pydicom.dcmread(path) for path in paths]
    random.Random(5).shuffle(images)
    whole = images[0].copy()
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["enhanced"])
    whole.NumberOfFrames = len(images)

    def item(**values: Any) -> pydicom.Dataset:
        dataset = pydicom.Dataset()
        for keyword, value in values.items():
            setattr(dataset, keyword, value)
        return dataset

    measures = item(PixelSpacing=whole.PixelSpacing, SliceThickness=whole.SliceThickness)
    orientation = item(ImageOrientationPatient=whole.ImageOrientationPatient)
    shared = item(PixelMeasuresSequence=[measures], PlaneOrientationSequence=[orientation])
    frames = []
    for index, image in enumerate(images):
        shift = index % 2
        frames.append(
            item(
                PlanePositionSequence=[item(ImagePositionPatient=image.ImagePositionPatient)],
                PixelValueTransformationSequence=[
                    item(RescaleSlope="1", RescaleIntercept=str(-1024 - shift), RescaleType="HU")
                ],
                CTImageFrameTypeSequence=[item(FrameType=["ORIGINAL", "PRIMARY", "AXIAL", "NONE"])],
            )
        )
    whole.PixelData = b"".join((pixels(i) + k % 2).astype("<u2").tobytes() for k, i in enumerate(images))
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], frames
    for keyword in (
        *("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"),
        *("RescaleSlope", "RescaleIntercept", "RescaleType"),
    ):
        delattr(whole, keyword)
    whole.save_as(target)
    return target


@pytest.mark.parametrize("packed", [False, True])
def test_enhanced_ct_gives_the_same_volume(
    packed: bool, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = enhanced(files, tmp_path / "enhanced.dcm")
    if packed:
        dataset = pydicom.dcmread(path)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        dataset.save_as(path)
    series = read_only(path)
    check_against_body(series)
    assert len(set(series.sources)) == 1
    monkeypatch.setattr(dicom_read, "_whole", None)
    series.read(3)  # the file is at hand since the slices before


def in_parts(paths: list[Path], folder: Path, *parts: slice) -> list[Path]:
    """Write the images as one enhanced CT that is divided into files, a concatenation."""
    folder.mkdir()
    made = []
    for number, part in enumerate(parts, 1):
        path = enhanced(paths[part], folder / f"{number}.dcm")
        change = setting(
            SOPInstanceUID=f"1.2.3.{number}",
            ConcatenationUID="1.2.3.99",
            InConcatenationNumber=number,
            InConcatenationTotalNumber=len(parts),
            ConcatenationFrameOffsetNumber=part.start,
        )
        made += edit([path], change)
    return made


def test_a_concatenation_is_one_volume_through_every_door(files: list[Path], tmp_path: Path) -> None:
    parts = in_parts(files, tmp_path / "parts", slice(0, 3), slice(3, 4), slice(4, 20))
    expected = volume(read_only(files[0].parent))
    check_against_body(read_only(tmp_path / "parts"))
    held = case_of_object([pydicom.dcmread(path) for path in reversed(parts)]).series
    data = open_volume(str(tmp_path / "parts"))  # of `data check` and `evaluate`
    assert held is not None
    for series in (held, data):
        assert np.array_equal(volume(series), expected)


def test_a_part_of_a_concatenation_that_is_missing_is_named(files: list[Path], tmp_path: Path) -> None:
    """It may hold the end of the chest, where no gap shows."""
    parts = in_parts(files, tmp_path / "parts", slice(0, 8), slice(8, 14), slice(14, 20))
    parts[2].unlink()
    text = "lacks 1 of the 3 files that an object was divided into: number 3"
    assert text in refused(tmp_path / "parts")
    assert text in read_only(tmp_path / "parts", allow_gaps=True).warnings
    parts[0].unlink()
    edit([parts[1]], setting(InConcatenationTotalNumber=60000))
    assert "lacks 59999 of the 60000 files that an object was divided into: number 1, 3, 4, 5, 6 …" in refused(parts[1])
    edit([parts[1]], setting(InConcatenationTotalNumber=None))
    assert "lacks 1 of the 2 files that an object was divided into: number 1" in refused(parts[1])


def test_an_enhanced_ct_that_is_replaced_is_read_again(files: list[Path], tmp_path: Path) -> None:
    path = enhanced(files, tmp_path / "enhanced.dcm")
    before = read_only(path).read(3)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = np.full(len(dataset.PixelData) // 2, 900, "<u2").tobytes()
    series = read_only(path)
    assert np.array_equal(series.read(3), before)
    dataset.save_as(path)
    assert np.ptp(series.read(3)) <= 1


def test_the_centre_of_the_test_body_is_off_the_origin() -> None:
    """Else a sign that got lost in a position would not be seen."""
    assert np.abs(CENTRE).min() > 1
    assert HEAD_FIRST == CANONICAL
