"""SEG and SR as a version: UIDs that follow from a key, the same bytes each time, references that still hold."""

from __future__ import annotations

import io
import shutil
from itertools import chain
from typing import TYPE_CHECKING

import pydicom
import pytest

from dicom_seg_help import REPORT, make_files, make_series, masks, read_seg
from jcs_ct.core.errors import InputError
from jcs_ct.outputs.dicom import write_seg, write_sr
from jcs_ct.outputs.dicom.versions import as_version, place

if TYPE_CHECKING:
    from pathlib import Path

PLANES = ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))
KEY, OLD = "a" * 64, "b" * 64


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    series = make_series(make_files(folder / "ct", PLANES))
    write_seg(folder / "seg.dcm", series, *masks(series), model_name="jcs-lite", model_version="0")
    write_sr(folder / "sr.dcm", series, REPORT, folder / "seg.dcm")
    return folder / "seg.dcm", folder / "sr.dcm"


def parsed(data: bytes | None) -> pydicom.Dataset:
    assert data is not None
    return pydicom.dcmread(io.BytesIO(data))


def uids(dataset: pydicom.Dataset) -> list[str]:
    values = (element.value for element in dataset.iterall() if element.VR == "UI" and element.value)
    return [str(uid) for uid in chain.from_iterable([v] if isinstance(v, str) else v for v in values)]


def test_uids_follow_from_the_key(made: tuple[Path, Path]) -> None:
    first, again = (as_version(*made, KEY, 1, None) for _ in range(2))
    assert first == again
    seg, sr = map(parsed, first)
    for dataset, what in ((seg, "seg"), (sr, "sr")):
        assert (dataset.SOPInstanceUID, dataset.SeriesInstanceUID) == (place(KEY, what).sop, place(KEY, what).series)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        assert int(dataset.InstanceNumber) == 1
    other = as_version(*made, OLD, 1, None)
    drawn = {uid for path in made for uid in uids(pydicom.dcmread(path))}
    ours = {uid for data in first for uid in uids(parsed(data))}
    theirs = {uid for data in other for uid in uids(parsed(data))}
    kept = ours & drawn  # of the source and of the standard: all others are derived, and of no other version
    assert ours & theirs == kept
    assert all(uid.startswith("2.25.") for uid in ours - kept)
    assert len(ours) == len(drawn)


def test_references_between_them_hold_and_masks_are_the_same(made: tuple[Path, Path]) -> None:
    seg, sr = map(parsed, as_version(*made, KEY, 1, None))
    old_seg, old_sr = map(pydicom.dcmread, made)
    assert uids(old_sr).count(str(old_seg.SOPInstanceUID)) == uids(sr).count(str(seg.SOPInstanceUID)) > 1
    tracking = [str(item.TrackingUID) for item in seg.SegmentSequence]
    assert all(uids(sr).count(uid) == uids(old_sr).count(str(old.TrackingUID)) > 0
               for uid, old in zip(tracking, old_seg.SegmentSequence, strict=True))  # fmt: skip
    before, now = read_seg(old_seg), read_seg(seg)
    assert before.keys() == now.keys()
    for name in before:
        assert before[name].keys() == now[name].keys()
        assert all((before[name][uid] == now[name][uid]).all() for uid in before[name])
    assert (seg.StudyInstanceUID, seg.PatientID) == (old_seg.StudyInstanceUID, old_seg.PatientID)


def test_a_version_refers_to_the_one_it_replaces(made: tuple[Path, Path]) -> None:
    seg, sr = map(parsed, as_version(*made, KEY, 3, (OLD, True)))
    (study,) = sr.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    assert study.StudyInstanceUID == sr.StudyInstanceUID
    assert series.SeriesInstanceUID == place(OLD, "sr").series
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == place(OLD, "sr").sop
    assert seg.RelatedSeriesSequence[0].SeriesInstanceUID == place(OLD, "seg").series
    assert (int(seg.InstanceNumber), seg.SeriesDescription[-11:]) == (3, ", version 3")
    without = parsed(as_version(*made, KEY, 3, (OLD, False))[0])
    assert "RelatedSeriesSequence" not in without
    alone, report = as_version(None, made[1], KEY, 1, None)
    assert alone is None
    assert parsed(report).SOPInstanceUID == place(KEY, "sr").sop


def test_a_validator_finds_nothing(made: tuple[Path, Path], tmp_path: Path) -> None:
    import subprocess

    if shutil.which("dciodvfy") is None:
        pytest.skip("needs dicom3tools: see tools/system.sh")
    for data, name in zip(as_version(*made, KEY, 2, (OLD, True)), ("seg", "sr"), strict=True):
        assert data is not None
        (tmp_path / name).write_bytes(data)
        said = [subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False).stderr
                for path in (tmp_path / name, dict(zip(("seg", "sr"), made, strict=True))[name])]  # fmt: skip
        errors = [{line for line in text.splitlines() if line.startswith("Error")} for text in said]
        assert errors[0] <= errors[1]  # of what was written, and of what it was made of


def test_what_is_no_dicom_is_named(tmp_path: Path) -> None:
    (tmp_path / "sr.dcm").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not a readable DICOM file"):
        as_version(None, tmp_path / "sr.dcm", KEY, 1, None)
