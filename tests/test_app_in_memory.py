"""What a Python program holds is diagnosed as its files are, to the last digit; anything else is refused."""

from __future__ import annotations

import asyncio
import copy
import gzip
import io
import json
import logging
import multiprocessing
import os
import pickle
import tarfile
import threading
import warnings
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest
import torch
from PIL import Image

import jcs_ct
from jcs_ct import Diagnoser
from jcs_ct.app import forked
from jcs_ct.app.in_memory import case_of_object
from jcs_ct.core.errors import InputError, JcsError, UsageError
from jcs_ct.imaging.window import to_grey
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.outputs.dicom.headers import read_headers
from study_help import marked_volume, small_phantom, write_lite
from volumes_help import write_metaimage, write_nrrd

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct import CaseResult

nib: Any = nibabel
SPACING = (10.0, 2.796875, 2.796875)  # what 32 bits hold
ORIGIN = (-178.0, -179.5, 120.25)
SECRET = "Planted^Name"


class Study(SimpleNamespace):
    """One volume in every form."""

    folder: Path
    hu: NDArray[np.int16]
    affine: NDArray[np.float64]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    top = tmp_path_factory.mktemp("held")
    hu, _ = marked_volume(small_phantom())
    files = write_ct_series(top / "dicom", hu, SPACING, ORIGIN)
    affine = np.diag([0.0, 0.0, 0.0, 1.0])  # (slice, row, column) → RAS
    affine[2, 0], affine[1, 1], affine[0, 2] = -SPACING[0], -SPACING[1], -SPACING[2]
    affine[:3, 3] = -ORIGIN[0], -ORIGIN[1], ORIGIN[2]
    return Study(top=top, folder=top / "dicom", files=files, hu=hu, affine=affine)


@pytest.fixture(scope="module")
def diagnoser(tmp_path_factory: pytest.TempPathFactory) -> Diagnoser:
    return Diagnoser(write_lite(tmp_path_factory.mktemp("weights")), runtime="torch")


@pytest.fixture(scope="module")
def expected(study: Study, diagnoser: Diagnoser) -> CaseResult:
    return diagnoser(study.folder)


def numbers(result: CaseResult) -> dict[str, Any]:
    keys = ("verdict", "burden", "slices", "most_affected")
    found: dict[str, Any] = {key: result.report[key] for key in keys}
    return found | {
        "exact": [(s.probability, s.lung_mm2, s.lesion_mm2, s.lesion_share) for s in result.slices],
        "spacing": result.report["input"]["spacing_mm"],
    }


def assert_equal(result: CaseResult, expected: CaseResult, *, place: bool = True) -> None:
    found, wanted = numbers(result), numbers(expected)
    if not place:
        found["slices"] = [dict(row) | {"z_mm": None} for row in found["slices"]]
        wanted["slices"] = [dict(row) | {"z_mm": None} for row in wanted["slices"]]
    assert found == wanted
    assert np.array_equal(result.lesion, expected.lesion)
    assert np.array_equal(result.study.attention, expected.study.attention)


def ras(study: Study) -> Any:
    """The volume as (column, row, slice)."""
    return nib.Nifti1Image(study.hu.transpose(2, 1, 0), study.affine[:, (2, 1, 0, 3)])


class Image3D:
    """Stands for `SimpleITK.Image`; its class is renamed below."""

    def __init__(self, values: NDArray[Any], direction: list[float], spacing: list[float], origin: list[float]) -> None:
        self.values, self.direction, self.spacing, self.origin = values, direction, spacing, origin

    def GetDimension(self) -> int:  # noqa: N802
        return self.values.ndim

    def GetNumberOfComponentsPerPixel(self) -> int:  # noqa: N802
        return 1

    def GetPixelIDTypeAsString(self) -> str:  # noqa: N802
        return "16-bit signed integer"

    def GetSize(self) -> tuple[int, ...]:  # noqa: N802
        return self.values.shape[::-1]

    def GetDirection(self) -> list[float]:  # noqa: N802
        return self.direction

    def GetSpacing(self) -> list[float]:  # noqa: N802
        return self.spacing

    def GetOrigin(self) -> list[float]:  # noqa: N802
        return self.origin


Image3D.__name__, Image3D.__module__ = "Image", "SimpleITK.SimpleITK"


def as_simpleitk(study: Study, monkeypatch: pytest.MonkeyPatch) -> Any:
    library = SimpleNamespace(GetArrayViewFromImage=lambda image: image.values)
    monkeypatch.setitem(__import__("sys").modules, "SimpleITK", library)
    direction = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0]
    return Image3D(study.hu, direction, [SPACING[2], SPACING[1], SPACING[0]], list(ORIGIN))


def packed(study: Study) -> Path:
    path: Path = study.top / "study.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(study.folder, "study")
    return path


def gzipped(study: Study) -> list[Path]:
    folder = study.top / "gz"
    folder.mkdir(exist_ok=True)
    for file in study.files:
        (folder / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    return sorted(folder.iterdir())


def nifti(study: Study) -> Path:
    nib.save(ras(study), study.top / "ct.nii.gz")
    path: Path = study.top / "ct.nii.gz"
    return path


def metaimage(study: Study, name: str, **options: Any) -> Path:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ study.affine[:, (2, 1, 0, 3)]
    return write_metaimage(study.top / name, study.hu.transpose(2, 1, 0), lps, **options)


def nrrd(study: Study, name: str = "ct.nrrd") -> Path:
    lps = np.diag([-1.0, -1.0, 1.0, 1.0]) @ study.affine[:, (2, 1, 0, 3)]
    return write_nrrd(study.top / name, study.hu.transpose(2, 1, 0), lps)


def shuffled(study: Study) -> list[pydicom.Dataset]:
    datasets: list[pydicom.Dataset] = [pydicom.dcmread(file) for file in study.files]
    return datasets[7:] + datasets[:7]


def bare(study: Study) -> list[pydicom.Dataset]:
    """Data sets as a program makes them: without a header of a file, and with values that were set."""
    made = []
    for file in study.files:
        dataset = pydicom.Dataset()
        dataset.update({element.tag: element for element in pydicom.dcmread(file)})
        made.append(dataset)
    return made


def compressed(study: Study) -> list[pydicom.Dataset]:
    made: list[pydicom.Dataset] = []
    for file in study.files:
        dataset = pydicom.dcmread(file)
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
        made.append(dataset)
    return made


FORMS: dict[str, Callable[[Study], Any]] = {
    "path as text": lambda study: str(study.folder),
    "paths": lambda study: list(study.files),
    "tar.gz": packed,
    "dcm.gz": gzipped,
    "NIfTI": nifti,
    "mha": lambda study: metaimage(study, "a.mha", packed=True),
    "mhd": lambda study: metaimage(study, "b.mhd"),
    "nrrd": nrrd,
    "nhdr": lambda study: nrrd(study, "d.nhdr"),
    "data sets": shuffled,
    "bare data sets": bare,
    "compressed data sets": compressed,
    "SimpleITK": lambda study: real_simpleitk(study),
    "nibabel": ras,
    "nibabel from a file": lambda study: nib.load(nifti(study)),
    "array": lambda study: study.hu,
    "nibabel of real numbers": lambda study: nib.Nifti1Image(ras(study).get_fdata(), ras(study).affine),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_numbers(
    form: str, study: Study, diagnoser: Diagnoser, expected: CaseResult, tmp_path: Path
) -> None:
    place: dict[str, Any] = {"affine": study.affine} if form == "array" else {}
    result = diagnoser(FORMS[form](study), **place)
    assert_equal(result, expected)
    if form in {"data sets", "nibabel", "mhd"}:
        files = {file.name for file in result.save(tmp_path).iterdir()}
        assert {"report.json", "report.html", "lesions.nii.gz", "lungs.nii.gz", "attention.nii.gz"} <= files
        assert ({"seg.dcm", "sr.dcm"} <= files) == (form == "data sets")


def test_arrays(study: Study, diagnoser: Diagnoser, expected: CaseResult, tmp_path: Path) -> None:
    result = diagnoser(study.hu.astype(np.float64), spacing=SPACING)
    assert_equal(result, expected, place=False)
    turned = study.hu[::-1, :, ::-1].transpose(1, 2, 0)  # (row, column, slice), to the head and the patient's right
    affine = study.affine @ np.array([[0, 0, -1, 23], [1, 0, 0, 0], [0, -1, 0, 127], [0, 0, 0, 1.0]])
    result = diagnoser(turned, affine=affine)
    assert_equal(result, expected)
    found = nib.load(result.save(tmp_path) / "lesions.nii.gz")
    assert np.array_equal(np.asarray(found.dataobj), expected.lesion[::-1, :, ::-1].transpose(1, 2, 0))
    assert found.affine == pytest.approx(affine)


def test_arrays_may_change_afterwards(study: Study, diagnoser: Diagnoser, tmp_path: Path) -> None:
    values = study.hu.copy()
    result = diagnoser(values, spacing=SPACING)
    case: Any = result.study.case
    first = case.slice(5).image.pixels
    values[:] = 0
    assert np.array_equal(case.slice(5).image.pixels, first)


def test_simpleitk(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the library is not installed; the form "SimpleITK" above goes through a network."""
    found, place = slices(as_simpleitk(study, monkeypatch))
    expected, where = slices(study.folder)
    assert np.array_equal(found, expected)
    assert np.array_equal(place, where)


def real_simpleitk(study: Study) -> Any:
    image = pytest.importorskip("SimpleITK").GetImageFromArray(study.hu)
    image.SetSpacing([SPACING[2], SPACING[1], SPACING[0]])
    image.SetOrigin(ORIGIN)
    image.SetDirection([1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, -1.0])
    return image


def slices(given: Any) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    series = case_of_object(given).series
    assert series is not None
    return np.stack([series.read(index) for index in range(len(series))]), series.geometry.affine


@pytest.mark.parametrize("kind", ["int16", "int64", "float32", "float64"])
@pytest.mark.parametrize(
    "direction",
    [
        [1, 0, 0, 0, 1, 0, 0, 0, -1],
        [-1, 0, 0, 0, -1, 0, 0, 0, 1],
        [0, 0, 1, 1, 0, 0, 0, 1, 0],
        [1, 0, 0, 0, 0.96, 0.28, 0, -0.28, 0.96],
    ],
    ids=str,
)
def test_images_and_files_of_the_real_simpleitk(
    direction: list[float], kind: str, study: Study, tmp_path: Path
) -> None:
    """Whatever it writes gives the numbers of the image itself, which are those of nibabel's image."""
    library = pytest.importorskip("SimpleITK")
    hu = study.hu[:, ::8, ::8].astype(kind)
    image = library.GetImageFromArray(hu)
    image.SetSpacing([11.0, 12.0, 10.0])
    image.SetOrigin([-20.0, 30.0, -40.0])
    image.SetDirection([float(part) for part in direction])
    values, affine = slices(image)
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = np.reshape(direction, (3, 3)) * [11.0, 12.0, 10.0], [-20.0, 30.0, -40.0]
    twin = nib.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps, dtype=kind)
    forms = [twin]
    for name in ("a.mha", "b.mhd", "c.nrrd", "d.nhdr", "e.nii.gz", "f.hdr"):
        library.WriteImage(image, str(tmp_path / name), name[0] in "bc")
        forms.append(tmp_path / name)
    for form in forms:
        found, place = slices(form)
        assert np.array_equal(found, values)
        assert np.allclose(place, affine, atol=1e-4)


def test_images_of_simpleitk_that_are_no_volume(study: Study) -> None:
    library = pytest.importorskip("SimpleITK")
    image = library.GetImageFromArray(study.hu[:, ::8, ::8])
    for odd in (library.JoinSeries([image, image]), library.Compose([image, image]), image[:, :, 3], library.Image()):
        with pytest.raises(InputError, match="is not a volume with one value for each voxel"):
            case_of_object(odd)
    for odd in (library.sitkLabelUInt8, library.sitkComplexFloat32):
        with pytest.raises(InputError, match="values of another type"):
            case_of_object(library.Cast(image > 0, odd))
    with pytest.raises(InputError, match="as a mask or a label map"):
        case_of_object(image > 0)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "I;16", "F"])
def test_pictures(mode: str, study: Study, diagnoser: Diagnoser, tmp_path: Path) -> None:
    pictures = []
    for index in range(8, 14):
        grey = to_grey(study.hu[index])
        if mode == "I;16":
            pictures.append(Image.fromarray(grey.astype(np.uint16) * 257))
        elif mode == "F":
            pictures.append(Image.fromarray(grey.astype(np.float32) / np.float32(255)))
        else:
            pictures.append(Image.fromarray(grey).convert(mode))
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number, picture in enumerate(pictures):
        picture.save(folder / f"{number}.{'tif' if mode == 'F' else 'png'}")
    result, from_files = diagnoser(pictures), diagnoser(folder)
    assert [s.probability for s in result.slices] == [s.probability for s in from_files.slices]
    assert [s.flags for s in result.slices] == [s.flags for s in from_files.slices]
    assert result.verdict == from_files.verdict
    assert [s.name for s in result.slices] == [f"picture-{number}" for number in range(1, 7)]
    for picture in pictures:
        picture.close()
    assert len(list((result.save(tmp_path / "out") / "overlays").iterdir())) == 6


class Odd:
    """Something whose text names a patient."""

    def __repr__(self) -> str:
        return SECRET

    __str__ = __repr__


class OddPath(Odd):
    """Something that says that it is a path, and is none."""

    def __fspath__(self) -> str:
        raise RuntimeError(SECRET)


def header_only() -> pydicom.Dataset:
    dataset = pydicom.Dataset()
    dataset.PatientName, dataset.SOPClassUID, dataset.Modality = SECRET, pydicom.uid.CTImageStorage, "CT"
    return dataset


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "object": (Odd, "this input cannot be diagnosed; expected is a path or a list of paths"),
    "no path": (OddPath, "this path cannot be used; expected is a path or a list of paths"),
    "no path in a list": (lambda: ["a", OddPath()], "this path cannot be used"),
    "dict": (lambda: {SECRET: header_only()}, "this input cannot be diagnosed"),
    "None": (lambda: None, "this input cannot be diagnosed"),
    "bytes": (lambda: SECRET.encode(), "this input cannot be diagnosed"),
    "mixed": (lambda: [header_only(), "path"], "a list of what cannot be diagnosed together"),
    "list of objects": (lambda: [Odd(), Odd()], "a list of what cannot be diagnosed together"),
    "list of arrays": (lambda: [np.zeros((9, 9))] * 3, "a list of what cannot be diagnosed together"),
    "empty list": (list, "the list of what to diagnose is empty"),
    "data set": (header_only, ""),
    "data sets": (lambda: [header_only(), header_only()], ""),
    "array": (lambda: np.zeros((9, 64, 64), np.int16), "an array says nothing of its voxels"),
    "array of names": (lambda: np.array([SECRET]), "the array: holds values of another type"),
    "tensor": (lambda: torch.zeros(9, 64, 64), "this input cannot be diagnosed"),
    "table": (lambda: pd.DataFrame({SECRET: [SECRET]}), "this input cannot be diagnosed"),
    "open file": (lambda: io.BytesIO(SECRET.encode()), "this input cannot be diagnosed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_types_are_refused_without_a_word_of_the_value(case: str) -> None:
    make, text = REFUSED[case]
    with pytest.raises(JcsError) as caught:
        jcs_ct.diagnose(make())
    error: BaseException | None = caught.value
    assert text in str(error)
    while error is not None:  # nor in what a traceback shows beside it
        assert SECRET not in str(error)
        assert "Planted" not in repr(error)
        error = None if error.__suppress_context__ else error.__cause__ or error.__context__


ONES = np.zeros((9, 64, 64), np.int16)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"spacing": "333"}, "spacing is not three numbers"),  # three characters that are numbers
        ({"spacing": {1.0, 2.0, 3.0}}, "spacing is not three numbers"),  # in no order
        ({"spacing": (-5, 1, 1)}, "spacing is impossible: voxels of -5 × 1 × 1 mm"),  # head and feet exchanged
        ({"affine": np.eye(4) * (1 + 1j)}, "affine is not a 4×4 matrix from indices to mm"),
        ({"spacing": (5, 1, 1), "series": 2}, "series is not a text"),
    ],
)
def test_ways_that_are_none_are_refused(given: dict[str, Any], text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UsageError) as caught:
            case_of_object(ONES, **given)
    assert (caught.value.message, bool(caught.value.hint)) == (text, True)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"model": 5}, "model is no name or file of weights, and no list of them"),
        ({"model": b"jcs-lite"}, "model is no name or file of weights, and no list of them"),
        ({"model": ["jcs-lite", 5]}, "model is no name or file of weights, and no list of them"),
        ({"segment": ["never"]}, "segment is none of always, positive, never"),
        ({"language": ["en"]}, "the report has no language ['en']"),
    ],
)
def test_settings_that_are_none_are_refused(given: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Diagnoser(**given)
    assert (caught.value.message, bool(caught.value.hint)) == (text, True)


def test_values_are_not_logged(study: Study, caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """pydicom logs what it doubts, with the value."""
    datasets = [pydicom.dcmread(file) for file in study.files]
    for dataset in datasets:
        for tag, representation in ((0x00101010, "AS"), (0x00080060, "CS"), (0x0020000D, "UI"), (0x00081030, "LO")):
            value = SECRET.encode() * (6 if representation == "LO" else 1)
            raw = pydicom.dataelem.RawDataElement(
                pydicom.tag.Tag(tag), representation, len(value), value, 0, False, True
            )
            dataset[tag] = raw
    caplog.set_level(0)
    with pytest.raises(InputError, match="is of another kind, not CT"):
        case_of_object(datasets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for dataset in datasets:
            dataset.Modality = "CT"
    caplog.clear()
    series = case_of_object(datasets).series
    assert series is not None
    headers = read_headers(series)
    assert "not valid in the images and left out of SEG and SR: PatientAge, StudyDescription" in headers.notes
    assert SECRET not in caplog.text
    logging.getLogger("pydicom").warning("said by others")
    assert "said by others" in caplog.text


ARRAYS: dict[str, tuple[Callable[[NDArray[np.int16]], Any], dict[str, Any], str]] = {
    "both": (lambda hu: hu, {"spacing": SPACING, "affine": np.eye(4)}, "both was given"),
    "two numbers": (lambda hu: hu, {"spacing": (1, 2)}, "spacing is not three numbers"),
    "one number": (lambda hu: hu, {"spacing": 3}, "spacing is not three numbers"),
    "negative": (lambda hu: hu, {"spacing": (-1, 0, 1)}, "spacing is impossible"),
    "3×3": (lambda hu: hu, {"affine": np.eye(3)}, "affine is not a 4×4 matrix"),
    "words": (lambda hu: hu, {"affine": "RAS"}, "affine is not a 4×4 matrix"),
    "flat": (lambda hu: hu, {"affine": np.diag([2.0, 2, 0, 1])}, "impossible orientation"),
    "slice": (lambda hu: hu[0], {"spacing": SPACING}, "has 2 axes"),
    "channels": (lambda hu: hu[..., None], {"spacing": SPACING}, "has 4 axes"),
    "mask": (lambda hu: hu > 0, {"spacing": SPACING}, "values of another type"),
    "complex": (lambda hu: hu.astype(complex), {"spacing": SPACING}, "values of another type"),
    "objects": (lambda hu: hu.astype(object), {"spacing": SPACING}, "values of another type"),
    "masked": (lambda hu: np.ma.masked_less(hu, -900), {"spacing": SPACING}, "is masked"),
    "labels": (lambda hu: (hu > 0).astype(np.int16), {"spacing": SPACING}, "as a mask or a label map"),
    "8 bits": (lambda hu: to_grey(hu), {"spacing": SPACING}, "windowed to 8 bits"),
    "NaN": (lambda hu: np.where(hu > 0, np.nan, hu), {"spacing": SPACING}, "are not numbers"),
    "empty": (lambda hu: hu[:0], {"spacing": SPACING}, "claims to hold 0 × 128 × 128 voxels"),
    "a path with spacing": (lambda _hu: "ct.nii", {"spacing": SPACING}, "belong to arrays"),
    "series": (lambda hu: hu, {"spacing": SPACING, "series": "3"}, "series chooses among"),
}


@pytest.mark.parametrize("case", ARRAYS)
def test_arrays_that_are_refused(case: str, study: Study) -> None:
    make, options, text = ARRAYS[case]
    with pytest.raises((UsageError, InputError), match=text):
        case_of_object(make(study.hu), **options)


def test_images_that_are_refused(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    image = ras(study)
    with pytest.raises(InputError, match="does not say how it lies"):
        case_of_object(nib.Nifti1Image(np.asarray(image.dataobj), None))
    with pytest.raises(InputError, match="does not say how it lies"):
        case_of_object(nib.AnalyzeImage(np.asarray(image.dataobj), image.affine))
    with pytest.raises(InputError, match="holds 2 volumes"):
        case_of_object(nib.Nifti1Image(np.stack([image.dataobj] * 2, axis=3), image.affine))
    flat = as_simpleitk(study, monkeypatch)
    flat.values = flat.values[0]
    with pytest.raises(InputError, match="not a volume with one value for each voxel"):
        case_of_object(flat)
    stack = Image.new("L", (64, 64))
    stack.n_frames = 3  # type: ignore[attr-defined]
    with pytest.raises(InputError, match="picture 1: holds 3 pictures"):
        case_of_object(stack)


def test_a_nibabel_image_whose_affine_was_changed(study: Study) -> None:
    image = ras(study)
    image.affine[0, 3] += 5  # nibabel writes this one, whatever the header says
    series = case_of_object(image).series
    assert series is not None
    assert series.geometry.affine[0, 3] == pytest.approx(ORIGIN[0] - 5)


def test_data_sets_of_two_studies_need_a_choice(study: Study, tmp_path: Path) -> None:
    other = write_ct_series(tmp_path, study.hu + np.int16(1), SPACING, ORIGIN, key="other")
    datasets = [pydicom.dcmread(file) for file in (*study.files, *other)]
    with pytest.raises(InputError, match="holds 2 studies"):
        case_of_object(datasets)
    assert len(case_of_object(datasets, series=str(datasets[-1].SeriesInstanceUID))) == 24


def test_a_path_that_is_named_is_not_left_out(study: Study, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"missing\.dcm: does not exist"):
        case_of_object([*study.files, tmp_path / "missing.dcm"])
    (tmp_path / "empty.dcm").touch()
    with pytest.raises(InputError, match=r"empty\.dcm: is an empty file"):
        case_of_object([*study.files, tmp_path / "empty.dcm"])


def test_data_sets_are_not_changed(study: Study) -> None:
    datasets = shuffled(study)
    before = [(str(d), str(d.file_meta)) for d in map(copy.deepcopy, datasets)]
    case_of_object(datasets)
    assert [(str(d), str(d.file_meta)) for d in datasets] == before


@pytest.mark.parametrize("form", ["path", "NIfTI", "data sets", "array", "pictures"])
def test_results_are_pickled_and_copied(form: str, study: Study, diagnoser: Diagnoser, tmp_path: Path) -> None:
    if form == "pictures":
        result = diagnoser([Image.fromarray(to_grey(hu)) for hu in study.hu[8:12]])
    elif form == "array":
        result = diagnoser(study.hu, spacing=SPACING)
    else:
        result = diagnoser({"path": lambda _: study.folder, "NIfTI": nifti, "data sets": shuffled}[form](study))
    folder = result.save(tmp_path / "first")
    for number, twin in enumerate((pickle.loads(pickle.dumps(result)), copy.deepcopy(result))):
        assert twin.report == result.report
        assert twin.verdict == result.verdict
        assert twin.slices == result.slices
        assert twin.study.clock.seconds["network"] == result.study.clock.seconds["network"]
        again = twin.save(tmp_path / str(number))
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*"))
        assert sorted(str(file.relative_to(again)) for file in again.rglob("*")) == names
        for name in names:
            if name.endswith((".nii.gz", ".png", ".csv")):
                assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_a_diagnoser_loads_its_weights_once(
    study: Study, tmp_path: Path, expected: CaseResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jcs_ct.app import diagnose as module

    opened: list[Any] = []
    real = vars(module)["open_network"]
    monkeypatch.setattr(module, "open_network", lambda *args: opened.append(args) or real(*args))  # type: ignore[func-returns-value]
    one = Diagnoser(write_lite(tmp_path), runtime="torch")
    assert_equal(one(study.folder), expected)
    assert_equal(one(shuffled(study)), expected)
    assert len(opened) == 1
    twin = pickle.loads(pickle.dumps(one))
    assert len(opened) == 2
    assert_equal(twin(study.folder), expected)


def test_the_report_is_in_the_language_of_the_diagnoser(study: Study, tmp_path: Path) -> None:
    made = Diagnoser(write_lite(tmp_path), runtime="torch", language="de")
    for name, one in (("own", made), ("pickled", pickle.loads(pickle.dumps(made)))):
        folder = one(study.folder).save(tmp_path / name)
        assert '<html lang="de">' in (folder / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"model": []}, "no model"),
        ({"segment": "often"}, "segment is none of"),
        ({"rule": "most"}, "no patient rule"),
        ({"language": "tlh"}, "no language 'tlh'"),
    ],
)
def test_arguments_of_a_diagnoser(options: dict[str, Any], text: str) -> None:
    with pytest.raises(UsageError, match=text):
        Diagnoser(**options)


def test_threads_and_asyncio(study: Study, diagnoser: Diagnoser, expected: CaseResult) -> None:
    found: list[CaseResult] = []
    threads = [threading.Thread(target=lambda: found.append(diagnoser(shuffled(study)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def both() -> list[CaseResult]:
        return list(await asyncio.gather(*(asyncio.to_thread(diagnoser, study.folder) for _ in range(2))))

    found += asyncio.run(both())
    assert len(found) == 4
    for result in found:
        assert_equal(result, expected)


def answer(work: Callable[[], Any]) -> Any:
    """What a forked child says of `work`, or nothing after a minute."""
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            text = json.dumps(work())
        except Exception as error:  # noqa: BLE001
            text = json.dumps(f"{type(error).__name__}: {error}")
        os.write(send, text.encode())
        os._exit(0)
    os.close(send)
    timer = threading.Timer(120, os.kill, (child, 9))
    timer.start()
    with os.fdopen(receive) as file:
        said = file.read()
    timer.cancel()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_is_told(study: Study, diagnoser: Diagnoser, expected: CaseResult) -> None:
    for work in (
        lambda: diagnoser(study.folder).verdict.score,
        lambda: jcs_ct.diagnose(study.folder).verdict.score,
        lambda: Diagnoser().__class__.__name__,
    ):
        assert "UsageError: this process was forked from one that had used jcs-ct already" in answer(work)
    assert_equal(diagnoser(study.folder), expected)  # the parent goes on


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_of_a_process_that_used_pytorch_answers(
    study: Study, tmp_path: Path, expected: CaseResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked._state, "used", False)  # PyTorch's threads are alive in this process all the same
    weights = write_lite(tmp_path)
    found = answer(lambda: [s.probability for s in Diagnoser(weights, runtime="torch")(study.folder).slices])
    assert found == [s.probability for s in expected.slices]


def test_a_result_from_a_spawned_process(study: Study, diagnoser: Diagnoser, expected: CaseResult) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert_equal(pool.apply(diagnoser, (study.folder,)), expected)
