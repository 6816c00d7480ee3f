"""The table of a folder of results: whole after every line, one line an input, no formula."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from jcs_ct.app.summary import COLUMNS, Summary, as_read_back, last_states
from jcs_ct.outputs.spreadsheet import cell

if TYPE_CHECKING:
    from pathlib import Path


def rows(out: Path) -> list[dict[str, str]]:
    with (out / "summary.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_a_line_is_there_as_soon_as_it_is_added(tmp_path: Path) -> None:
    summary = Summary(tmp_path / "out")
    summary.add({"case": "a", "status": "done", "positive": True})
    assert rows(tmp_path / "out")[0] | {"case": "a", "status": "done", "positive": "True"} == rows(tmp_path / "out")[0]
    assert tuple(rows(tmp_path / "out")[0]) == COLUMNS


def test_the_last_state_of_an_input_is_kept_and_lines_of_earlier_runs_too(tmp_path: Path) -> None:
    Summary(tmp_path).add({"case": "old", "status": "done"})
    second = Summary(tmp_path)
    second.add({"case": "a", "status": "failed"})
    second.add({"status": "failed", "path": "x.nii", "problem": "is damaged"})
    second.add({"status": "failed", "path": "x.nii", "problem": "is damaged still"})
    second.add({"case": "a", "status": "done"})
    second.put_in_order()
    found = [(r["case"], r["status"], r["problem"]) for r in rows(tmp_path)]
    assert found == [("old", "done", ""), ("a", "done", ""), ("", "failed", "is damaged still")]


def test_two_writers_lose_no_line(tmp_path: Path) -> None:
    def write(start: int) -> None:
        summary = Summary(tmp_path)
        for i in range(start, start + 20):
            summary.add({"case": f"c{i}", "status": "done"})
            if i % 5 == 0:
                summary.put_in_order()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, (0, 20)))
    assert sorted(r["case"] for r in rows(tmp_path)) == sorted(f"c{i}" for i in range(40))


def test_a_line_that_a_killed_run_left_half_written_is_dropped(tmp_path: Path) -> None:
    summary = Summary(tmp_path)
    summary.add({"case": "a", "status": "done"})
    with (tmp_path / "summary.csv").open("a", encoding="utf-8") as file:
        file.write("b,do")
    summary.add({"case": "c", "status": "done"})
    assert [r["case"] for r in summary.put_in_order()] == ["a", "c"]


def test_an_input_has_one_line_whether_it_was_read_or_not(tmp_path: Path) -> None:
    summary = Summary(tmp_path)
    summary.add({"status": "failed", "path": "x/a.nii", "problem": "is damaged"})
    summary.add({"case": "a", "status": "done", "path": str((tmp_path / "x/../b.zip").absolute())})
    summary.add({"case": "a-2", "status": "done", "path": str(tmp_path / "b.zip")})
    assert [r["case"] for r in summary.put_in_order()] == ["", "a", "a-2"]
    summary.add({"case": "x", "status": "done", "path": "x/a.nii"})
    assert [r["case"] for r in summary.put_in_order()] == ["a", "a-2", "x"]
    summary.add({"case": "a", "status": "done", "path": str(tmp_path / "moved.nii")})
    summary.add({"status": "failed", "path": str(tmp_path / "b.zip"), "problem": "is damaged"})
    found = [(r["case"], r["problem"]) for r in summary.put_in_order()]
    assert found == [("a", ""), ("x", ""), ("", "is damaged")]


def test_what_a_killed_run_left_of_the_table_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".summary.csv.abc.part").write_bytes(b"case,st")
    Summary(tmp_path).put_in_order()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".summary.lock", "summary.csv"]


def test_a_table_of_other_columns_is_set_aside_before_anything_is_written(tmp_path: Path) -> None:
    said: list[str] = []
    for number, name in ((1, "summary.old.csv"), (2, "summary.old-2.csv")):
        old = f"case,status\nold {number},done\n"
        (tmp_path / "summary.csv").write_text(old)
        Summary(tmp_path, said.append).add({"case": "a", "status": "done"})
        assert (tmp_path / name).read_text() == old
        assert [r["case"] for r in rows(tmp_path)] == ["a"]
        assert name in said[-1]
    assert len(said) == 2


def test_a_line_that_was_cut_within_quotes_swallows_no_other(tmp_path: Path) -> None:
    summary = Summary(tmp_path)
    summary.add({"case": "a", "status": "done", "path": 'x, "y"\nz'})
    with (tmp_path / "summary.csv").open("a", encoding="utf-8") as file:
        file.write('b,failed,"is, damaged\n')
    summary.add({"case": "c", "status": "done"})
    assert [(r["case"], r["path"]) for r in summary.put_in_order()] == [("a", 'x, "y"\nz'), ("c", "")]


def test_paths_come_back_as_they_are(tmp_path: Path) -> None:
    paths = ["=1+1", "'quoted", "a\udcffb", "-5"]
    summary = Summary(tmp_path)
    summary.add(*({"status": "failed", "path": path, "started_in": "/x"} for path in paths))
    for _ in range(2):
        assert [r["path"] for r in summary.put_in_order()] == paths
    assert b"'=1+1" in (tmp_path / "summary.csv").read_bytes()


def line(case: str, path: str, status: str = "done", **more: str) -> dict[str, str]:
    return as_read_back({"case": case, "path": path, "status": status, "kind": "dicom" if more else "nifti"} | more)


@pytest.mark.parametrize(
    ("old", "new", "same"),
    [
        (line("", "/d", "failed", study="1"), line("", "/d", "failed", study="2"), False),
        (line("", "/d", "failed", study="1"), line("", "/d", "failed", study="1"), True),
        (line("", "/d", "failed", study="1"), line("s", "/d", study="1", series="3"), True),
        (line("", "/d", "failed", study="1"), line("s", "/d", study="2", series="3"), False),
        (line("", "/d", "failed"), line("s", "/d", study="2", series="3"), True),
        (line("s", "/d", study="2", series="3"), line("t", "/d", study="2", series="4"), False),
        (line("chest", "/d/chest"), line("chest-1234", "/d/chest"), True),
        (line("chest", "/a/chest", "failed"), line("chest", "/b/chest"), False),
        (line("chest", "/a/chest"), line("chest", "/b/chest"), True),
        (line("s", "/a", "failed", study="1"), line("s", "/a/b", study="1"), True),
        (line("", "x", "failed", started_in="/a"), line("", "x", "failed", started_in="/b"), False),
        (line("", "x", "failed", started_in="/a"), line("", "/a/x", "failed"), True),
        (line("", "s3://b/x", "failed"), line("c", "s3://b/x"), True),
    ],
)
def test_what_is_the_same_input(old: dict[str, str], new: dict[str, str], same: bool) -> None:
    assert last_states([old, new]) == ([new] if same else [old, new])


def test_a_file_that_can_be_read_now_has_no_line_of_its_own(tmp_path: Path) -> None:
    summary = Summary(tmp_path)
    summary.add({"status": "failed", "path": "/a/1.dcm"}, {"status": "failed", "path": "/a/2.dcm"})
    summary.add({"case": "s", "status": "done", "path": "/a"})
    assert [r["path"] for r in summary.put_in_order(lambda: {"/a/1.dcm"})] == ["/a/2.dcm", "/a"]


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@SUM(1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == "'" + text


@pytest.mark.parametrize("value", ["-1.5", "+2e3", "plain", 0.5, True, 3])
def test_numbers_and_plain_text_stay(value: object) -> None:
    assert cell(value) == value
