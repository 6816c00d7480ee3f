"""Headers of source images: what is faulty does not get into SEG and SR, what is there gets there and nowhere else."""

from __future__ import annotations

import uuid
import warnings
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

from dicom_seg_help import REPORT, edit, inflated, make_files, make_series, masks, needs, read_seg, validation_errors
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
@needs("dciodvfy", "dcmconv")
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
    assert "Müller^Jürgen".encode() in inflated(path)


ESC = b"\x1b"
NAMES: dict[str, tuple[bytes, bytes, str]] = {  # PS3.5 annexes H to K, and others
    "IR 58": (
        b"\\ISO 2022 IR 58",
        b"Zhang^XiaoDong="
        + ESC
        + b"$)A"
        + "张".encode("gb2312")
        + b"^"
        + ESC
        + b"$)A"
        + "小东".encode("gb2312")
        + b"=",
        "Zhang^XiaoDong=张^小东",
    ),
    "IR 6 and 58": (
        b"ISO 2022 IR 6\\ISO 2022 IR 58",
        b"Li^Na=" + ESC + b"$)A" + "李".encode("gb2312") + b"^" + ESC + b"$)A" + "娜".encode("gb2312"),
        "Li^Na=李^娜",
    ),
    "IR 87": (
        b"\\ISO 2022 IR 87",
        b"Yamada^Tarou=" + ESC + b"$B;3ED" + ESC + b"(B^" + ESC + b"$BB@O:" + ESC + b"(B",
        "Yamada^Tarou=山田^太郎",
    ),
    "IR 13 and 87": (
        b"ISO 2022 IR 13\\ISO 2022 IR 87",
        b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3=" + ESC + b"$B;3ED" + ESC + b"(J^" + ESC + b"$BB@O:" + ESC + b"(J",
        "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎",
    ),
    "IR 13": (b"ISO_IR 13", b"\xd4\xcf\xc0\xde^\xc0\xdb\xb3", "ﾔﾏﾀﾞ^ﾀﾛｳ"),
    "IR 149": (
        b"\\ISO 2022 IR 149",
        b"Hong^Gildong=" + ESC + b"$)C\xfb\xf3^" + ESC + b"$)C\xd1\xce\xd4\xd7",
        "Hong^Gildong=洪^吉洞",
    ),
    "IR 144": (b"ISO_IR 144", "Люксембург^Иван".encode("iso8859_5"), "Люксембург^Иван"),
    "IR 166": (b"ISO_IR 166", "สมชาย^ใจดี".encode("tis_620"), "สมชาย^ใจดี"),
    "GB18030": (b"GB18030", "Wang^XiaoDong=王^小东".encode("gb18030"), "Wang^XiaoDong=王^小东"),
    **{
        f"IR {number}": (f"ISO_IR {number}".encode(), name.encode(codec), name)
        for number, codec, name in (
            ("100", "latin_1", "Müller^Jürgen"),
            ("101", "iso8859_2", "Wałęsa^Łukasz"),
            ("126", "iso8859_7", "Διονυσίου^Διονύσιος"),
            ("127", "iso8859_6", "قباني^لنزار"),
            ("138", "iso8859_8", "שרון^דבורה"),
            ("148", "iso8859_9", "Çavuşoğlu^İbrahim"),
            ("203", "iso8859_15", "Žižek^Šœuvre"),
        )
    },
    "IR 6 and 203": (
        b"ISO 2022 IR 6\\ISO 2022 IR 203",
        b"Zizek=" + ESC + b"-b" + "Žižek".encode("iso8859_15") + b"^" + ESC + b"-b" + "Šœ".encode("iso8859_15"),
        "Zizek=Žižek^Šœ",
    ),
    "IR 144 and 126": (
        b"ISO 2022 IR 144\\ISO 2022 IR 126",
        ESC + b"-L" + "Иван".encode("iso8859_5") + b"=" + ESC + b"-F" + "Διον".encode("iso8859_7"),
        "Иван=Διον",
    ),
    "wide space": (b"ISO_IR 192", "Yamada=山田　太郎".encode(), "Yamada=山田　太郎"),
    "joiner": (b"ISO_IR 192", "کاظمی‌پور^علی".encode(), "کاظمی‌پور^علی"),
}


@pytest.mark.filterwarnings("ignore:Unknown encoding")  # of the tests' own reader
@pytest.mark.parametrize("case", NAMES)
def test_names_of_all_character_sets_arrive(case: str, tmp_path: Path) -> None:
    charset, stored, name = NAMES[case]
    files = make_files(tmp_path / "ct")
    stored, charset = (text + b" " * (len(text) % 2) for text in (stored, charset))
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what stands there meanwhile
            edit(file, PatientName="X" * len(stored), SpecificCharacterSet="Y" * len(charset))
        file.write_bytes(file.read_bytes().replace(b"X" * len(stored), stored).replace(b"Y" * len(charset), charset))
    path, notes = write(tmp_path, make_series(files))
    assert notes == ()
    write_sr(tmp_path / "sr.dcm", make_series(files), REPORT, path)
    for made in (path, tmp_path / "sr.dcm"):
        found = pydicom.dcmread(made)
        assert found.SpecificCharacterSet == "ISO_IR 192"
        assert str(found.PatientName).rstrip("=") == name
        assert name.encode() in inflated(made)


@pytest.mark.filterwarnings("ignore:Unknown encoding")  # of the tests' own reader
@pytest.mark.parametrize(
    ("charset", "stored"), [("ISO_IR 192", b"M\xfcller"), ("KLINGON ", b"M\xfcller")], ids=["no UTF-8", "no such set"]
)
def test_a_name_that_cannot_be_read_is_left_out_and_said(charset: str, stored: bytes, tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    for file in files:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what stands there meanwhile
            edit(file, PatientName="X" * len(stored), SpecificCharacterSet="Y" * 10)
        data = file.read_bytes().replace(b"X" * len(stored), stored)
        file.write_bytes(data.replace(b"Y" * 10, f"{charset:10}".encode()))
    path, notes = write(tmp_path, make_series(files))
    assert notes == ("not valid in the images and left out of SEG and SR: PatientName",)
    assert pydicom.dcmread(path).PatientName == ""


@needs("dciodvfy", "dcmconv")
def test_invalid_uids_that_are_consistent_are_replaced(tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    for number, file in enumerate(files):
        edit(
            file, SOPInstanceUID=f"1.2.03.{number}".encode(), StudyInstanceUID=b"1.2..4", SeriesInstanceUID=b"1.2.007 "
        )
    series = make_series(files)
    path, notes = write(tmp_path, series)
    (note,) = notes
    assert note.startswith(
        "not valid in the images: SOPInstanceUID, StudyInstanceUID, SeriesInstanceUID; SEG and SR have"
    )
    assert "1.2." not in note.replace("2.25.", "")
    seg = pydicom.dcmread(path)

    def derived(text: str) -> str:
        return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, text).int}"

    (referenced,) = seg.ReferencedSeriesSequence
    assert seg.StudyInstanceUID == derived("1.2..4")
    assert referenced.SeriesInstanceUID == derived("1.2.007")
    known = {str(item.ReferencedSOPInstanceUID) for item in referenced.ReferencedInstanceSequence}
    assert known == {derived(f"1.2.03.{number}") for number in range(len(files))}
    assert all(pydicom.uid.UID(uid).is_valid for uid in known)
    assert validation_errors(path) == []
    write_sr(tmp_path / "sr.dcm", series, REPORT, path)
    assert pydicom.dcmread(tmp_path / "sr.dcm").StudyInstanceUID == seg.StudyInstanceUID
    for file in files:
        edit(file, SOPInstanceUID=b"1.2.03.4")
    with pytest.raises(InputError, match="two images share one SOPInstanceUID"):
        write(tmp_path / "same", series)
