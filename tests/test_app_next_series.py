"""A study whose first series shows no lungs: the next one is read, and that is said wherever the result is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydicom import dcmread

from jcs_ct.app.batch import diagnose_cases, reusable_cases
from jcs_ct.app.gather import gather
from jcs_ct.core.errors import InputError
from jcs_ct.inference import apply
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.study.settings import Networks, Settings
from report_help import check
from study_help import BandNetwork, mark_all, small_phantom

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from jcs_ct.app.batch import CaseOutcome

BAND: Any = BandNetwork()
STUDY = "1.2.826.0.1.3680043.8.498.78"


def add(folder: Path, number: int, *, lungs: bool) -> Path:
    """Write a series of the study; without lungs it has a slice that looks like lung at first sight, as bowel may."""
    phantom = small_phantom()
    hu, total = phantom.hu.copy(), len(phantom.hu)
    if not lungs:
        hu[phantom.lungs > 0] = 30
        hu[total // 2, ::2][phantom.lungs[total // 2, ::2] > 0] = -800
    for path in write_ct_series(folder / f"s{number}", hu, phantom.spacing, phantom.origin, key=str(number)):
        header = dcmread(path)
        header.StudyInstanceUID, header.SeriesNumber = STUDY, number
        header.SeriesInstanceUID = f"{STUDY}.{number}"
        header.save_as(path)
    return folder / f"s{number}"


def diagnose(folder: Path, **options: Any) -> list[CaseOutcome]:
    cases = gather([str(folder / "in")]).cases
    found = diagnose_cases(cases, Networks(BAND, BAND), Settings(frames=False), folder / "out", **options)
    return list(found)


def test_the_next_series_is_read_kept_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    first = add(tmp_path / "in", 1, lungs=False)
    add(tmp_path / "in", 2, lungs=True)
    (ended,) = diagnose(tmp_path)
    assert ended.report is not None
    check(ended.report)
    read, other = ended.report["input"]["series"]
    assert (read["number"], read["read"], other["number"], other["read"]) == (2, True, 1, False)
    assert other["reason"] == "no lungs were found in it"
    text = "series 2 of this study was read, for in series 1 no lungs were found"
    assert {"code": "series-passed-over", "text": text} in ended.report["cautions"]
    assert text in ended.report["warnings"]
    assert (ended.report["source"]["passed"], ended.report["source"]["files"]) == (1, 48)

    assert [one.status for one in diagnose(tmp_path, resume=True)] == ["kept"]
    path = next(first.iterdir())  # of the series that was passed over: it might show lungs now
    header = dcmread(path)
    header.SeriesDescription = "another"
    header.save_as(path)
    (again,) = diagnose(tmp_path, resume=True)
    assert (again.status, again.note) == ("done", "was made with another input, so it is made again")


def test_what_was_not_touched_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    networks, settings = Networks(BAND, BAND), Settings(frames=False)
    add(tmp_path / "in", 1, lungs=False)
    second = add(tmp_path / "in", 2, lungs=True)
    (ended,) = diagnose(tmp_path)
    assert ended.report is not None

    def again() -> tuple[int, int]:
        known = reusable_cases(tmp_path / "out", networks, settings, {})
        found = gather([str(tmp_path / "in")], known=known)
        return len(found.kept), len(found.cases)

    assert again() == (1, 0)
    assert reusable_cases(tmp_path / "out", networks, Settings("fraction", frames=False), {}) == []
    add(tmp_path / "in", 3, lungs=True)  # the same study has grown
    assert again() == (0, 1)
    (tmp_path / "in" / "s3").rename(tmp_path / "elsewhere")
    assert again() == (1, 0)
    path = next(second.iterdir())
    path.touch()
    assert again() == (0, 1)
    path.unlink()
    assert again() == (0, 1)


def test_a_study_without_lungs_says_that_no_series_shows_them(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        add(tmp_path / "in", number, lungs=False)
    (ended,) = diagnose(tmp_path)
    assert isinstance(ended.error, InputError)
    assert "nor were they in 2 other series of this study" in ended.error.message


def test_what_was_asked_for_is_not_replaced(tmp_path: Path) -> None:
    add(tmp_path / "in", 1, lungs=False)
    add(tmp_path / "in", 2, lungs=True)
    cases = gather([str(tmp_path / "in")], series="1").cases
    (ended,) = diagnose_cases(cases, Networks(BAND, BAND), Settings(frames=False), tmp_path / "out")
    assert ended.error is not None
    assert "other series" not in ended.error.message
