"""The synthetic CT series: valid DICOM, the right voxels at the right places, the same bytes for the same seed."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from jcs_ct.core.errors import OutputError, UsageError
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import make_phantom, write_dicom

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.phantom import PhantomStudy

DCIODVFY = shutil.which("dciodvfy")


@pytest.fixture(scope="module")
def study() -> PhantomStudy:
    return make_phantom(slices=3, size=64, seed=9, lesions=2, spacing=(2.5, 5.125, 4.75))


@pytest.fixture(scope="module")
def paths(study: PhantomStudy, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_dicom(study, tmp_path_factory.mktemp("dicom"))


@pytest.fixture(scope="module")
def images(paths: list[Path]) -> list[Any]:
    return [pydicom.dcmread(path) for path in paths]


def test_voxels_and_places(study: PhantomStudy, paths: list[Path], images: list[Any]) -> None:
    assert [path.name for path in paths] == ["phantom_000.dcm", "phantom_001.dcm", "phantom_002.dcm"]
    for index, image in enumerate(images):
        hu = image.pixel_array.astype(int) * image.RescaleSlope + image.RescaleIntercept
        assert np.array_equal(hu, study.hu[index])
        assert image.InstanceNumber == index + 1
        x, y, z = image.ImagePositionPatient
        assert (x, y) == pytest.approx((-31.5 * 4.75, -31.5 * 5.125))
        assert z == pytest.approx(5 - 2.5 * index)  # from head to feet
        assert image.SliceLocation == z
        assert list(image.ImageOrientationPatient) == [1, 0, 0, 0, 1, 0]
        assert list(image.PixelSpacing) == [5.125, 4.75]
        assert image.SliceThickness == image.SpacingBetweenSlices == 2.5
        assert (image.WindowCenter, image.WindowWidth) == (-600, 1500)
        assert image.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert image.SOPClassUID == image.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.2"
        assert image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID


def test_it_says_phantom_and_names_nobody(images: list[Any]) -> None:
    for image in images:
        assert list(image.ImageType) == ["ORIGINAL", "PRIMARY", "AXIAL"]
        assert image.PatientName == "PHANTOM^NO PATIENT"
        assert image.PatientID == "PHANTOM"
        assert image.Manufacturer == "jcs-ct phantom"
        assert image.BurnedInAnnotation == "YES"
        assert all("PHANTOM" in image[k].value for k in ("SeriesDescription", "StudyDescription", "ImageComments"))
        assert not image.PatientBirthDate
        assert not image.PatientSex


def test_one_series_with_its_own_uids(study: PhantomStudy, images: list[Any], tmp_path: Path) -> None:
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        assert len({image[keyword].value for image in images}) == 1
    uids = {image.SOPInstanceUID for image in images} | {images[0].StudyInstanceUID, images[0].SeriesInstanceUID}
    assert len(uids) == 5
    assert all(pydicom.uid.UID(uid).is_valid for uid in uids)
    other = write_ct_series(tmp_path, study.hu[:1], study.spacing, study.origin, key="another")
    assert pydicom.dcmread(other[0]).StudyInstanceUID not in uids


def test_same_study_same_bytes(study: PhantomStudy, paths: list[Path], tmp_path: Path) -> None:
    again = write_dicom(study, tmp_path)
    assert [path.read_bytes() for path in again] == [path.read_bytes() for path in paths]
    first, second = (path.read_bytes() for path in paths[:2])
    assert first != second
    with pytest.raises(OutputError, match="exists already"):
        write_dicom(study, tmp_path)
    write_dicom(study, tmp_path, overwrite=True)
    assert len(list(tmp_path.iterdir())) == 3


def test_slices_follow_the_direction(study: PhantomStudy, tmp_path: Path) -> None:
    upwards = ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
    written = write_ct_series(tmp_path, study.hu, (1.1, 1.0, 1.0), (1 / 3, -0.0, -200.0), direction=upwards)
    positions = [pydicom.dcmread(path).ImagePositionPatient for path in written]
    assert [p[2] for p in positions] == [-200, -198.9, -197.8]
    assert positions[0][0] == 0.333333
    assert str(positions[0][1]) == "0"
    assert all(a[2] < b[2] for a, b in itertools.pairwise(positions))


@pytest.mark.skipif(DCIODVFY is None, reason="needs dciodvfy (Debian: dicom3tools)")
def test_dciodvfy_finds_no_error(paths: list[Path]) -> None:
    for path in paths:
        run = subprocess.run([str(DCIODVFY), "-new", path], capture_output=True, text=True, check=False)
        said = run.stdout + run.stderr
        assert run.returncode == 0, said
        assert "Error" not in said, said


@pytest.mark.parametrize(
    ("hu", "spacing"),
    [
        (np.zeros((4, 4), np.int16), (1.0, 1.0, 1.0)),
        (np.zeros((1, 4, 4), np.float32), (1.0, 1.0, 1.0)),
        (np.zeros((0, 4, 4), np.int16), (1.0, 1.0, 1.0)),
        (np.full((1, 4, 4), 3072, np.int16), (1.0, 1.0, 1.0)),
        (np.full((1, 4, 4), -1025, np.int16), (1.0, 1.0, 1.0)),
        (np.zeros((1, 4, 4), np.int16), (1.0, 0.0, 1.0)),
    ],
)
def test_unusable_volumes(hu: Any, spacing: tuple[float, float, float], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="CT series"):
        write_ct_series(tmp_path, hu, spacing, (0.0, 0.0, 0.0))
    assert not list(tmp_path.iterdir())
