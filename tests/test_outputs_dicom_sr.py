"""DICOM SR: every number of the report, tied to its segment or image, and no claim that anybody checked it."""

from __future__ import annotations

import copy
import re
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dcmtk_help import dcmtk
from dicom_seg_help import REPORT, edit, make_files, make_series, masks, needs, validation_errors
from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.outputs.dicom import write_seg, write_sr
from jcs_ct.outputs.report.words import explanation
from report_help import check

PAGE = Path(__file__).resolve().parent.parent / "docs/tutorials/orthanc.md"


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return make_files(tmp_path_factory.mktemp("series"))


@pytest.fixture(scope="module")
def seg_path(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path, series = tmp_path_factory.mktemp("seg") / "seg.dcm", make_series(files)
    write_seg(path, series, *masks(series), model_name="jcs-lite", model_version="0")
    return path


@pytest.fixture(scope="module")
def sr_path(files: list[Path], seg_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sr") / "sr.dcm"
    assert write_sr(path, make_series(files), REPORT, seg_path) == ()
    return path


def changed(**parts: Any) -> dict[str, Any]:
    """Return the report with some entries of its parts changed."""
    report = copy.deepcopy(REPORT)
    for name, value in parts.items():
        report[name] = report[name] | value if isinstance(value, dict) else value
    return report


def name_of(item: Any) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def read_groups(document: Any) -> dict[str, dict[str, Any]]:
    """Return tracking identifier → concept → value of every group of measurements, read with pydicom alone."""
    (container,) = (i for i in document.ContentSequence if name_of(i) == "Imaging Measurements")
    groups: dict[str, dict[str, Any]] = {}
    for group in container.ContentSequence:
        values: dict[str, Any] = {}
        for item in group.ContentSequence:
            if item.ValueType == "NUM":
                measured = item.MeasuredValueSequence[0]
                value: Any = (float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue)
                assert measured.MeasurementUnitsCodeSequence[0].CodingSchemeDesignator == "UCUM"
            elif item.ValueType == "CODE":
                value = item.ConceptCodeSequence[0].CodeMeaning
            elif item.ValueType == "IMAGE":
                value = item.ReferencedSOPSequence[0]
            else:
                value = item.get("TextValue") or item.get("UID")
            values[name_of(item)] = value
        groups[values["Tracking Identifier"]] = values
    return groups


def comment(document: Any) -> str:
    return str(next(i.TextValue for i in document.ContentSequence if name_of(i) == "Comment"))


def test_every_number_of_the_report(sr_path: Path) -> None:
    groups = read_groups(pydicom.dcmread(sr_path))
    patient = groups["jcs-ct: patient"]
    assert patient["Probability of COVID-19"] == (0.91, "1")
    assert (patient["Score of the patient rule"], patient["Limit of the patient rule"]) == ((0.93, "1"), (0.5, "1"))
    assert patient["Disease caused by SARS-CoV-2 (COVID-19)"] == "Positive"
    assert patient["Verdict reliable according to the checks of the study"] == "No"
    assert patient["Severity"] == "moderate"
    assert patient["Severity score from the share of the lung that is lesion"] == (2, "1")
    assert patient["Algorithm Name"] == "jcs-lite"
    assert patient["Algorithm Version"] == "ab" * 32
    lesions = groups["jcs-ct: COVID-19 lesions"]
    assert lesions["Volume"] == (612.25, "mL")
    assert lesions["Share of the lung volume that is lesion"] == (15.3, "%")
    assert lesions["Number of lesions"] == (12, "1")
    assert lesions["Volume of the largest lesion"] == (300.5, "mL")
    assert lesions["Mean Attenuation Coefficient"] == (-512.5, "[hnsf'U]")
    assert lesions["Ground-glass share of the lesion volume"] == (75, "%")
    assert lesions["Consolidation share of the lesion volume"] == (25, "%")
    right, left = groups["jcs-ct: Right lung"], groups["jcs-ct: Left lung"]
    assert (right["Volume"], left["Volume"]) == ((2100, "mL"), (1900, "mL"))
    assert (right["Volume of lesions in the lung"], left["Volume of lesions in the lung"]) == (
        (412, "mL"),
        (200.25, "mL"),
    )
    assert left["Share of the lung volume that is lesion"] == (10.5, "%")


def test_groups_refer_to_segments_and_images(sr_path: Path, seg_path: Path, files: list[Path]) -> None:
    document, seg = pydicom.dcmread(sr_path), pydicom.dcmread(seg_path)
    groups = read_groups(document)
    for segment, name in enumerate(("COVID-19 lesions", "Right lung", "Left lung"), 1):
        group = groups[f"jcs-ct: {name}"]
        reference = group["Referenced Segment"]
        assert reference.ReferencedSOPInstanceUID == seg.SOPInstanceUID
        assert reference.ReferencedSegmentNumber == segment
        assert group["Tracking Unique Identifier"] == seg.SegmentSequence[segment - 1].TrackingUID
    by_place = sorted((pydicom.dcmread(f) for f in files), key=lambda image: -float(image.ImagePositionPatient[2]))
    for index in (3, 2):
        group = groups[f"jcs-ct: slice {index} from the head"]
        assert group["Source of Measurement"].ReferencedSOPInstanceUID == by_place[index - 1].SOPInstanceUID
        assert group["Probability of COVID-19"] == (index / 10, "1")
        assert group["Area"] == (10 * index, "mm2")
    evidence = {
        item.ReferencedSOPInstanceUID
        for study in document.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert evidence == {seg.SOPInstanceUID} | {image.SOPInstanceUID for image in by_place}


def test_nobody_checked_it(sr_path: Path, files: list[Path]) -> None:
    document, source = pydicom.dcmread(sr_path), pydicom.dcmread(files[0])
    assert (document.CompletionFlag, document.VerificationFlag) == ("PARTIAL", "UNVERIFIED")
    assert document.PreliminaryFlag == "PRELIMINARY"
    assert "VerifyingObserverSequence" not in document
    (observer,) = (i for i in document.ContentSequence if name_of(i) == "Observer Type")
    assert observer.ConceptCodeSequence[0].CodeMeaning == "Device"
    text = comment(document)
    for words in (
        "Research use only, not a medical device",
        "not verified",
        "calibrated",
        "0.91 ≥ 0.5",
        "Do not rely on this result",
    ):
        assert words in text
    assert "the chest is cut off" in text
    assert "partial chest" in text
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "StudyTime"):
        assert document[keyword].value == source[keyword].value
    assert (document.Manufacturer, document.Modality) == ("jcs-ct", "SR")


def test_a_negative_patient_has_no_finding_of_the_disease(files: list[Path], seg_path: Path, tmp_path: Path) -> None:
    report = changed(verdict={"positive": False, "probability": None, "reliable": True, "reasons": []})
    write_sr(tmp_path / "sr.dcm", make_series(files), report, seg_path)
    document = pydicom.dcmread(tmp_path / "sr.dcm")
    patient = read_groups(document)["jcs-ct: patient"]
    assert patient["Disease caused by SARS-CoV-2 (COVID-19)"] == "Negative"
    assert "Probability of COVID-19" not in patient  # rules that count have none
    assert "Finding" not in patient
    assert "Do not rely" not in comment(document)
    assert "No check rules this result out." in comment(document)


def test_a_verdict_between_is_indeterminate(files: list[Path], seg_path: Path, tmp_path: Path) -> None:
    report = changed(
        verdict={"positive": False, "call": "indeterminate", "interval": [0.3, 0.8], "confidence": 0.8, "studies": 16}
    )
    write_sr(tmp_path / "sr.dcm", make_series(files), report, seg_path)
    document = pydicom.dcmread(tmp_path / "sr.dcm")
    assert read_groups(document)["jcs-ct: patient"]["Disease caused by SARS-CoV-2 (COVID-19)"] == "Indeterminate"
    assert "The result is too close to the threshold to call." in comment(document)


def test_every_reservation_of_the_page_stands_in_it(files: list[Path], seg_path: Path, tmp_path: Path) -> None:
    slices = copy.deepcopy(REPORT["slices"])
    slices[1]["flags"] = ["no lungs were found"]
    report = changed(
        verdict={"positive": False}, model={"notes": ["for adults only"], "trained_on": "12 slices"}, slices=slices
    )
    report["warnings"] = ["partial chest", *report["verdict"]["reasons"]]
    write_sr(tmp_path / "sr.dcm", make_series(files), report, seg_path)
    lines = comment(pydicom.dcmread(tmp_path / "sr.dcm")).splitlines()
    for sentence in explanation(report):
        assert sentence in lines
    assert "This result does not rule out COVID-19." in lines
    assert lines[lines.index("Do not rely on this result:") + 1] == "- the chest is cut off"
    assert lines.count("Note: partial chest") == 1
    assert "Note: the chest is cut off" not in lines
    assert {"Slice 2: no lungs were found", "jcs-lite: trained on 12 slices", "jcs-lite: for adults only"} <= set(lines)
    assert "No check rules this result out." not in lines


@needs("dciodvfy", "dcmconv", "dsrdump")
@pytest.mark.parametrize("case", ["all", "no burden", "no seg", "no lungs", "nothing found", "few values", "odd words"])
def test_valid(case: str, files: list[Path], seg_path: Path, tmp_path: Path) -> None:
    series, report, seg = make_series(files), REPORT, seg_path
    lesion, lungs = masks(series)
    if case == "no burden":
        report = changed(burden=None, most_affected=[])
    elif case in {"no lungs", "nothing found"}:
        seg = tmp_path / "seg.dcm"
        nothing = np.zeros(series.geometry.shape[1:], bool)
        empty = case == "nothing found"
        write_seg(
            seg,
            series,
            (lambda i: nothing) if empty else lesion,
            lungs if empty else None,
            model_name="x",
            model_version="1",
        )
    elif case == "few values":
        none = {"lung_ml": None, "lesion_ml": 0, "share": None}  # no lungs found
        report = changed(burden=none | {"severity": None, "left": none, "right": none}, verdict={"probability": None})
        report["burden"] |= dict.fromkeys(("mean_hu", "largest_ml", "ground_glass_share", "consolidation_share"))
        report["slices"][2] |= {"lesion_mm2": None, "lesion_share": None}
    elif case == "odd words":
        report = changed(warnings=["Änderung\n日本", "x" * 3000], model={"name": "n" * 300})
        report["burden"]["severity"]["name"] = "very " * 30
    check(report)
    path = tmp_path / "sr.dcm"
    write_sr(path, series, report, None if case in {"no burden", "no seg"} else seg)
    assert validation_errors(path) == []
    dump = subprocess.run(["dsrdump", str(path)], capture_output=True, text=True, check=True)
    assert "Comprehensive SR Document" in dump.stdout
    assert "UNVERIFIED" in dump.stdout
    groups = read_groups(pydicom.dcmread(path))
    refer = {name for name, group in groups.items() if "Referenced Segment" in group}
    expected = {"jcs-ct: COVID-19 lesions", "jcs-ct: Right lung", "jcs-ct: Left lung"}
    if case == "no lungs":
        expected = {"jcs-ct: COVID-19 lesions"}
    assert refer == (set() if case in {"no burden", "no seg"} else expected)
    if case == "no seg":
        assert groups["jcs-ct: right lung"]["Volume"] == (2100, "mL")


@needs("dciodvfy", "dcmconv")
@pytest.mark.parametrize("keyword", ["PatientID", "PatientName", "StudyInstanceUID", "FrameOfReferenceUID", "StudyID"])
def test_missing_headers(keyword: str, tmp_path: Path) -> None:
    files = make_files(tmp_path / "ct")
    for file in files:
        edit(file, **{keyword: None})
    series, seg, path = make_series(files), tmp_path / "seg.dcm", tmp_path / "sr.dcm"
    notes = write_seg(seg, series, *masks(series), model_name="x", model_version="1")
    assert write_sr(path, series, REPORT, seg) == notes
    assert validation_errors(path) == []
    assert pydicom.dcmread(path).StudyInstanceUID == pydicom.dcmread(seg).StudyInstanceUID


@needs("dciodvfy", "dcmconv")
@pytest.mark.parametrize("name", ["ricord_axial_248", "minimal_header_2"])
def test_real_series(name: str, real_data: Path, tmp_path: Path) -> None:
    series = make_series(sorted((real_data / "dicom" / name).glob("*.dcm")))
    mask = np.ones(series.geometry.shape[1:], bool)
    write_seg(tmp_path / "seg.dcm", series, lambda i: mask, None, model_name="x", model_version="1")
    write_sr(tmp_path / "sr.dcm", series, REPORT | {"most_affected": [1]}, tmp_path / "seg.dcm")
    assert validation_errors(tmp_path / "sr.dcm") == []


def test_refused(files: list[Path], seg_path: Path, sr_path: Path, tmp_path: Path) -> None:
    other = make_series(make_files(tmp_path / "other", ((0.0, 0.0, 1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))))
    path = tmp_path / "sr.dcm"
    with pytest.raises(InputError, match="another series"):
        write_sr(path, other, REPORT, seg_path)
    with pytest.raises(InputError, match="is not a readable DICOM SEG"):
        write_sr(path, make_series(files), REPORT, sr_path)
    with pytest.raises(InputError, match="is not a readable DICOM SEG"):
        write_sr(path, make_series(files), REPORT, tmp_path / "missing.dcm")
    assert not path.exists()
    path.write_text("mine")
    with pytest.raises(OutputError, match="exists already"):
        write_sr(path, make_series(files), REPORT, seg_path)
    assert path.read_text() == "mine"


@needs("storescu", "storescp")
def test_the_documented_command_sends_both_files_to_a_pacs(seg_path: Path, sr_path: Path, tmp_path: Path) -> None:
    """A PACS that takes nothing deflated, as `storescp` does unless told to: the SEG arrives whole, and unpacked."""
    command = re.search(r"^storescu .*$", PAGE.read_text(encoding="utf-8"), re.M)
    assert command is not None
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        port = str(one.getsockname()[1])
    places = {"storescu": dcmtk("storescu"), "TITLE": "PACS", "HOST": "127.0.0.1", "PORT": port}
    places |= {"results/*/seg.dcm": str(seg_path), "results/*/sr.dcm": str(sr_path)}
    words = [places.get(word, word) for word in command.group().split()]
    assert set(places.values()) <= set(words)
    with subprocess.Popen([dcmtk("storescp"), "-od", str(tmp_path), port]) as pacs:
        try:
            until = time.monotonic() + 20
            while time.monotonic() < until:
                with closing(socket.socket()) as one:
                    if not one.connect_ex(("127.0.0.1", int(port))):
                        break
                time.sleep(0.02)
            done = subprocess.run(words, capture_output=True, text=True, check=False)
        finally:
            pacs.terminate()
    assert (done.returncode, done.stderr) == (0, "")
    arrived = {file.Modality: file for file in map(pydicom.dcmread, tmp_path.iterdir())}
    assert arrived.keys() == {"SEG", "SR"}
    assert arrived["SEG"].PixelData == pydicom.dcmread(seg_path).PixelData
    assert arrived["SEG"].file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
