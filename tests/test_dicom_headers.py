"""Headers of source images: what is faulty does not get into SEG and SR, what is there gets there and nowhere else."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from dicom_seg_help import REPORT, edit, make_files, make_series, masks, needs, read_seg, validation_errors
from jcs_ct.core.errors import InputError
from jcs_ct.outputs.dicom import write_seg, write_sr

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.core.geometry import CTSeries

COUNTS = {"COVID-19 lesions": 2, "Right lung": 3, "Left lung": 3}  # frames


def write(folder: Path, series: CTSeries) -> tuple[Path, tuple[str, ...]]:
    path = folder / "seg.dcm"
    return path, write_seg(path, series, *masks(series), model_name="jcs-lite", model_version="0123abcd")


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"PatientID": None, "PatientName": None, "PatientBirthDate": None, "PatientSex": None, "StudyID": None}, ""),
    ({"StudyDate": None, "StudyTime": None, "AccessionNumber": None, "ReferringPhysicianName": None}, ""),
    ({"Manufacturer": "", "BodyPartExamined": None, "Modality": None, "PatientPosition": None}, ""),
    ({"StudyInstanceUID": None}, "StudyInstanceUID is missing"),
    ({"FrameOfReferenceUID": None, "PositionReferenceIndicator": None}, "FrameOfReferenceUID is missing"),
    ({"SliceThickness": None}, "SliceThickness is missing"),
    ({"PatientSex": b"MALE", "StudyDate": b"yesterday ", "PatientAge": b"80"}, "PatientSex, StudyDate, PatientAge"),
    ({"PatientID": b"A" * 80, "StudyID": b"two\\values"}, "PatientID, StudyID"),
    ({"SpacingBetweenSlices": b"0 "}, ""),
    ({"DeidentificationMethod": None}, ""),
]


@pytest.mark.parametrize(("values", "note"), FAULTS, ids=[",".join(values) for values, _ in FAULTS])
@needs("dciodvfy")
def test_faulty_headers_become_a_valid_file(values: dict[str, Any], note: str, tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    for file in files:
        edit(file, **values)
    path, notes = write(tmp_path, make_series(files))
    assert validation_errors(path) == []
    assert note in "".join(notes)
    assert len(notes) == bool(note)
    assert not any("MALE" in line or "AAA" in line for line in notes)  # they go into reports without identity
    assert {label: len(frames) for label, frames in read_seg(path).items()} == COUNTS


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"SOPInstanceUID": None}, "SOPInstanceUID is missing"),
        ({"SeriesInstanceUID": None}, "SeriesInstanceUID is missing"),
        ({"PixelSpacing": None}, "PixelSpacing is missing"),
        ({"ImagePositionPatient": b"1\\2"}, "ImagePositionPatient is missing or invalid"),
        ({"Rows": None}, "Rows is missing"),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "is Secondary Capture"),
        ({"SOPInstanceUID": "1.2.3"}, "two images share"),
        ({"StudyInstanceUID": "1.2.3"}, "StudyInstanceUID differs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_must_not_be_invented(values: dict[str, Any], message: str, tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    series = make_series(files)
    for file in files[1:2] if message.endswith("differs") else files:
        edit(file, **values)
    with pytest.raises(InputError, match=message) as caught:
        write(tmp_path, series)
    assert str(tmp_path / "ct") in caught.value.line()
    assert not (tmp_path / "seg.dcm").exists()


def test_directions_that_differ_in_the_last_digit(tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    for number, file in enumerate(files):
        edit(file, ImageOrientationPatient=[1, 0, 0, 0, 1, f"{number}e-6"], PixelSpacing=["0.75", f"1.2500{number}"])
    path, notes = write(tmp_path, make_series(files))
    assert notes == ()
    assert {label: len(frames) for label, frames in read_seg(path).items()} == COUNTS


def test_a_name_in_one_part_is_not_quoted_anywhere(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    """highdicom would warn of it, with the name; pytest turns warnings into errors here."""
    files = make_files(tmp_path / "ct")
    for file in files:
        edit(file, PatientName="Planted", PatientBirthDate=b"planted!")
    path, notes = write(tmp_path, make_series(files))
    write_sr(tmp_path / "sr.dcm", make_series(files), REPORT, path)
    assert [pydicom.dcmread(tmp_path / name).PatientName for name in ("seg.dcm", "sr.dcm")] == ["Planted", "Planted"]
    (note,) = notes
    assert note.endswith("SEG and SR: PatientBirthDate")
    assert "planted" not in "".join([*capfd.readouterr(), caplog.text]).casefold()


def test_names_of_other_character_sets(tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    for file in files:
        edit(file, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Jürgen", StudyDescription="Thorax für Ärzte")
    path, notes = write(tmp_path, make_series(files))
    assert notes == ()
    seg = pydicom.dcmread(path)
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert (str(seg.PatientName), seg.StudyDescription) == ("Müller^Jürgen", "Thorax für Ärzte")
    assert "Müller^Jürgen".encode() in path.read_bytes()
