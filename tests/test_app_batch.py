"""`--resume` keeps what the same networks made, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import Timeout

from jcs_ct.app import batch, next_series
from jcs_ct.app.batch import CaseOutcome, Job, diagnose_cases, read_report
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import longer_name, with_stable_names
from jcs_ct.app.locks import case_lock, remove_debris
from jcs_ct.app.summary import as_read_back, place_of_row, summary_row
from jcs_ct.core.errors import OutputError
from jcs_ct.core.types import SliceImage
from jcs_ct.inference import apply
from jcs_ct.models import model_spec
from jcs_ct.phantom import write_pngs
from jcs_ct.study.settings import Networks, Settings
from report_help import check
from study_help import BandNetwork, mark_all, small_phantom

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.study.case import Case

SETTINGS = Settings(frames=False)


class StubNetwork(BandNetwork):
    """Weights of another architecture, or others of the same."""

    def __init__(self, architecture: str, digit: str) -> None:
        super().__init__()
        self.spec = model_spec(architecture)
        self.card = replace(self.card, name="mine", architecture=architecture, weights_sha256=64 * digit)


def networks(screen: str = "1", segment: str | None = None) -> Networks:
    segmenter = None if segment is None else StubNetwork("jcs-single", segment)
    return Networks(StubNetwork("jcs-classifier", screen), segmenter)  # type: ignore[arg-type]


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of pictures beside the folder of results, and networks that find nothing."""
    write_pngs(small_phantom(slices=12, size=64), tmp_path / "study")
    shutil.rmtree(tmp_path / "study" / "masks")
    nothing = np.zeros((64, 64), np.float32)
    found = apply.SliceAttention(
        SliceImage("", "", np.zeros((64, 64, 3), np.uint8)), nothing, 0.25, None, None, None, ""
    )
    monkeypatch.setattr(apply, "explain", lambda *_: found)
    monkeypatch.setattr(apply, "segment", lambda *_: nothing)
    return tmp_path / "out"


def diagnose(out: Path, given: Networks) -> CaseOutcome:
    (ended,) = diagnose_cases(gather([str(out.parent / "study")]).cases, given, SETTINGS, out, resume=True)
    return ended


def edit(out: Path, **values: Any) -> None:
    """Write the report again without its segmenter, as older versions did, and with these fields."""
    path = out / "study" / "report.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    del report["segmenter"]
    path.write_text(json.dumps(report | values), encoding="utf-8")


def test_the_report_names_a_segmenter_of_its_own(out: Path) -> None:
    assert diagnose(out, networks(segment="2")).status == "done"
    report = read_report(out / "study")
    check(report)
    assert report["segmenter"] == {"name": "mine", "architecture": "jcs-single", "weights_sha256": 64 * "2"}
    assert report["model"]["weights_sha256"] == 64 * "1"
    assert report["model"]["notes"][-1] == "lesions by mine (jcs-single)"


@pytest.mark.parametrize("segment", [None, "2"])
def test_the_same_networks_go_on(segment: str | None, out: Path) -> None:
    assert diagnose(out, networks(segment=segment)).status == "done"
    assert diagnose(out, networks(segment=segment)).status == "kept"


@pytest.mark.parametrize(
    ("before", "now"),
    [("2", "3"), (None, "2"), ("2", None)],
    ids=["another segmenter", "a segmenter more", "a segmenter less"],
)
def test_what_other_networks_made_is_made_again(before: str | None, now: str | None, out: Path) -> None:
    assert diagnose(out, networks(segment=before)).status == "done"
    again = diagnose(out, networks(segment=now))
    assert (again.status, again.note) == ("done", "was made with another segmenter, so it is made again")
    other = diagnose(out, networks("4", segment=now))
    assert (other.status, other.note) == ("done", "was made with another weights, so it is made again")
    assert diagnose(out, networks("4", segment=now)).status == "kept"


def test_a_replaced_input_is_not_given_the_result_of_the_one_before(out: Path) -> None:
    assert diagnose(out, networks()).status == "done"
    first, *_, last = sorted((out.parent / "study").iterdir())
    before = read_report(out / "study")["source"]
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    again = diagnose(out, networks())
    assert (again.status, again.note) == ("done", "was made with another input, so it is made again")
    assert read_report(out / "study")["source"]["digest"] != before["digest"]
    first.write_bytes(content)
    assert diagnose(out, networks()).note.startswith("was made with another input")
    assert read_report(out / "study")["source"]["digest"] == before["digest"]


def test_a_file_that_was_only_touched_is_kept(out: Path) -> None:
    assert diagnose(out, networks()).status == "done"
    for path in (out.parent / "study").iterdir():
        os.utime(path, (1, 1))
    assert diagnose(out, networks()).status == "kept"


def test_a_study_that_grew_is_made_again(out: Path) -> None:
    assert diagnose(out, networks()).status == "done"
    last = max((out.parent / "study").iterdir())
    shutil.copyfile(last, last.with_name(f"z{last.name}"))
    assert diagnose(out, networks()).status == "done"
    assert read_report(out / "study")["source"]["files"] == 13


def test_a_case_that_another_run_computes_is_waited_for(out: Path) -> None:
    lock = case_lock(out, "study")
    lock.acquire()
    ended: list[CaseOutcome] = []
    beside = threading.Thread(target=lambda: ended.append(diagnose(out, networks())))
    beside.start()
    beside.join(1)
    assert not ended
    lock.release()
    beside.join(30)
    assert [one.status for one in ended] == ["done"]


def test_a_third_run_waits_for_the_second_that_waited_for_the_first(out: Path) -> None:
    """A lock's file that the first run removed would let the second and the third hold one each."""
    first, second, third = (case_lock(out, "study") for _ in range(3))
    handed = threading.Event()

    def wait() -> None:
        with second:
            handed.set()
            done.wait(30)

    done = threading.Event()
    first.acquire()
    beside = threading.Thread(target=wait)
    beside.start()
    first.release()
    assert handed.wait(30)
    try:
        with pytest.raises(Timeout):
            third.acquire(blocking=False)
    finally:
        done.set()
        beside.join(30)


def test_only_what_no_run_writes_any_more_is_removed(out: Path) -> None:
    killed, old, live = out / ".a.b.12.part", out / ".a.b.12.old.part", out / ".study.34.part"
    foreign = out / ".mine.part"  # not of this program
    for folder in (killed, old, live, foreign, out / "a.b"):
        folder.mkdir(parents=True)
    with case_lock(out, "study"):
        assert remove_debris(out) == 2
        assert [path.exists() for path in (killed, old, live, foreign)] == [False, False, True, True]
    assert remove_debris(out) == 1
    assert [path.exists() for path in (live, foreign)] == [False, True]


def test_a_result_that_was_about_to_be_replaced_gets_its_place_back(out: Path) -> None:
    (out / ".a.12.old.part").mkdir(parents=True)
    (out / ".a.12.old.part" / "report.json").write_text("{}")
    assert remove_debris(out) == 0
    assert (out / "a" / "report.json").read_text() == "{}"


def chest_at(out: Path, place: str) -> list[Case]:
    """Return the case of a copy of the study, with the name that a run would give it now; each has bytes of its own."""
    folder = out.parent / place / "study"
    if not folder.exists():
        shutil.copytree(out.parent / "study", folder)
        min(folder.iterdir()).unlink()
        for path in sorted(folder.iterdir())[: len(place)]:
            path.unlink()
    return with_stable_names(gather([str(folder)]).cases, out)


@pytest.mark.parametrize("resume", [False, True])
def test_a_name_that_another_run_gave_to_another_input_meanwhile_is_not_taken(resume: bool, out: Path) -> None:
    ours, theirs = chest_at(out, "a"), chest_at(out, "bb")
    assert [case.name for case in (*ours, *theirs)] == ["study", "study"]  # both runs saw it free
    (first,) = diagnose_cases(ours, networks(), SETTINGS, out)
    before = read_report(out / "study")
    with case_lock(out, "study"):  # and the other is still at it
        job = Job(networks(), SETTINGS, out, resume=resume)
        with job.held(theirs[0], wait=False) as mine:
            assert mine is None
    with job.held(theirs[0]) as mine:
        assert mine is not None
        second = job.run(mine)
    assert (first.status, second.status) == ("done", "done")
    assert second.name == longer_name(theirs[0])
    assert read_report(out / "study") == before
    assert read_report(out / second.name)["source"]["path"] == str(out.parent / "bb" / "study")
    assert [one.name for place in ("a", "bb") for one in chest_at(out, place)] == ["study", second.name]


def test_what_another_run_finished_meanwhile_is_taken_as_it_is(out: Path) -> None:
    ours = chest_at(out, "a")
    job = Job(networks(), SETTINGS, out)  # began when there was nothing
    (first,) = diagnose_cases(chest_at(out, "a"), networks(), SETTINGS, out)
    assert (first.status, job.run(ours[0]).status) == ("done", "kept")
    other = Job(networks("4"), SETTINGS, out).run(ours[0])
    assert other.error is not None
    assert "was written by another run in the meantime, and was made with another weights" in other.error.message
    late = Job(networks(), SETTINGS, out, there_before=frozenset({"study"})).run(ours[0])
    assert late.error is not None
    assert "exists already" in late.error.message


def test_an_input_that_changes_while_it_is_read_gets_no_result(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = next_series.examine_with_lungs

    def changing(case: Case, *rest: Any) -> Any:
        found = real(case, *rest)
        min((out.parent / "study").iterdir()).write_bytes(max((out.parent / "study").iterdir()).read_bytes())
        return found

    monkeypatch.setattr(batch, "examine_with_lungs", changing)
    ended = diagnose(out, networks())
    assert ended.error is not None
    assert "was changed while it was read" in ended.error.message
    assert not (out / "study").exists()
    monkeypatch.undo()


def test_a_relative_path_belongs_to_the_folder_where_it_was_given(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same words, given in two folders, are two inputs."""
    for place in ("a", "bb"):
        chest_at(out, place)

    def run_in(place: str) -> tuple[CaseOutcome, str]:
        monkeypatch.chdir(out.parent / place)
        cases = with_stable_names(gather(["study"]).cases, out)
        (ended,) = diagnose_cases(cases, networks(), SETTINGS, out, resume=True)
        return ended, place_of_row(as_read_back(summary_row(ended)))

    (first, one), (second, two) = run_in("a"), run_in("bb")
    assert [ended.status for ended in (first, second)] == ["done", "done"]
    assert first.name == "study" != second.name
    assert [one, two] == [str(out.parent / place / "study") for place in ("a", "bb")]
    source = read_report(out / "study")["source"]
    assert (source["path"], source["started_in"]) == ("study", str(out.parent / "a"))
    assert [run_in(place)[0].status for place in ("a", "bb")] == ["kept", "kept"]


def test_older_reports_are_read(out: Path) -> None:
    diagnose(out, networks())
    edit(out)
    assert "segmenter" not in read_report(out / "study")
    check(read_report(out / "study"))
    assert diagnose(out, networks()).status == "kept"


def test_a_report_that_does_not_say_what_it_was_made_from_is_made_again(out: Path) -> None:
    diagnose(out, networks())
    edit(out, source=None)
    assert diagnose(out, networks()).note == "was made with another input, so it is made again"


def test_a_network_that_does_both_is_no_segmenter_of_its_own(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    lite: Any = BandNetwork()
    assert diagnose(out, Networks(lite, lite)).status == "done"
    assert read_report(out / "study")["segmenter"] is None
    assert diagnose(out, Networks(lite, lite)).status == "kept"


@pytest.mark.parametrize("value", ["jcs-single", {}, 3])
def test_what_is_no_report_is_refused(value: Any, out: Path) -> None:
    diagnose(out, networks())
    edit(out, segmenter=value)
    with pytest.raises(OutputError, match="not the report of a study"):
        read_report(out / "study")
