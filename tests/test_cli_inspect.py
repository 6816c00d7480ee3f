"""`jcs inspect`: the table, the JSON and the exit status."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from dicom_help import edit, setting, write_body
from jcs_ct.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", *map(str, arguments)])
    return int(stop.value.code or 0)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two series: one to read, one of MR."""
    write_body(tmp_path / "study/ct", key="a")
    edit(write_body(tmp_path / "study/mr", key="b"), setting(Modality="MR", SeriesNumber=2))
    for path in (tmp_path / "study").rglob("*.dcm"):
        edit([path], setting(StudyInstanceUID="1.2.3", PatientName="Zaphod", SeriesDescription="Zaphod lung"))
    return tmp_path / "study"


def test_the_table_says_what_is_read_and_why_not(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study) == 0
    said = capsys.readouterr()
    head, *lines = said.out.splitlines()
    assert head.split() == ["study", "case", "kind", "modality", "series", "orientation", "slices", "spacing", "(mm)",
                            "size", "read"]  # fmt: skip
    assert lines[0].split()[2:7] == ["dicom", "CT", "1", "axial", "20"]
    assert " ".join(lines[0].split()).endswith("20 8 × 5 × 4 48 × 80 yes")
    assert lines[1] == f"    file: {study / 'ct/ct_000.dcm'}"
    assert lines[2] == "    note: the header says that the images hold burned-in text; it may name the patient"
    assert [line.split(":")[1] for line in lines[3:5]] == [" thick slices", " coarse pixels"]
    assert lines[5].split()[2:7] == ["dicom", "MR", "2", "axial", "20"]
    assert lines[5].endswith("no")
    assert lines[7] == "    not read: is MR, not CT"
    assert len(lines) == 8
    assert said.err.endswith("jcs: 1 series can be read\n")
    assert "Zaphod" not in said.out + said.err


def test_json(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study, "--json", "--quiet") == 0
    said = capsys.readouterr()
    assert said.err == ""
    result = json.loads(said.out)
    (case,) = result["cases"]
    (other,) = result["others"]
    assert case["spacing"] == pytest.approx([8, 5, 4])
    assert case["chosen"] is True
    assert case["facts"]["patient position"] == "HFS"
    assert (other["reason"], other["chosen"]) == ("is MR, not CT", False)
    assert "Zaphod" not in said.out


def test_exit_status(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(study / "mr") == 2
    assert "jcs: error:" in capsys.readouterr().err
    (tmp_path / "study/bad.dcm").write_bytes(b"nothing")
    assert run(study) == 1
    assert "bad.dcm: is a text file" in capsys.readouterr().err
    assert run(tmp_path / "nowhere") == 2
    assert run(study, "--series", "9") == 2
    assert "no series is called 9" in capsys.readouterr().err
    (tmp_path / "study/bad.dcm").unlink()
    assert run(study, "--series", "1") == 0
    assert run() == 2


def test_gaps_are_allowed_on_demand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_body(tmp_path)[5].unlink()
    assert run(tmp_path) == 2
    assert "--allow-gaps" in capsys.readouterr().err
    assert run(tmp_path, "--allow-gaps") == 0
    assert "note: lacks 1 slice: after slice 5" in capsys.readouterr().out
