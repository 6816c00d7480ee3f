"""The table of a folder of results: whole after every line, one line an input, no formula."""

from __future__ import annotations

import csv
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from jcs_ct.app.summary import COLUMNS, Summary
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


def test_a_table_of_another_version_is_moved_aside(tmp_path: Path) -> None:
    (tmp_path / "summary.csv").write_text("case,status\nold,done\n")
    Summary(tmp_path).put_in_order()
    assert (tmp_path / "summary.old.csv").read_text() == "case,status\nold,done\n"


@pytest.mark.parametrize("text", ["=1+1", "+cmd", "-x", "@SUM(1)", "\tx", "\rx"])
def test_no_cell_is_a_formula(text: str) -> None:
    assert cell(text) == "'" + text


@pytest.mark.parametrize("value", ["-1.5", "+2e3", "plain", 0.5, True, 3])
def test_numbers_and_plain_text_stay(value: object) -> None:
    assert cell(value) == value
