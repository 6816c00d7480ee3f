"""Shares are disjoint, stable and whole; collected they are what one run makes, and what is lost is named."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from archive_help import write_study
from jcs_ct.app.batch import diagnose_cases
from jcs_ct.app.collect import collect, missing
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import digest_key, share_key, with_stable_names
from jcs_ct.app.shares import Share, entries
from jcs_ct.app.summary import Summary
from jcs_ct.cli import common, jcs
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.inference import apply
from jcs_ct.study.settings import Networks, Settings
from study_help import BandNetwork, mark_all

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

STUDIES, SHARES = 9, 3


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Studies of pictures in folders of one name, one a slice longer than the other; a network that marks grey."""
    for i in range(STUDIES):
        write_study(tmp_path / "archive" / f"p{i}" / "chest", i, 3 + i % 2)
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    return tmp_path / "archive"


def run(archive: Path, out: Path, share: Share | None = None) -> list[str]:
    """Diagnose what `--part` would; return the names in the order of the work."""
    found = gather([str(archive)])
    found = found if share is None else share.of_found(found)
    lite: Any = BandNetwork()
    cases = with_stable_names(found.cases, out, alone=share is not None)
    ended = diagnose_cases(cases, Networks(lite, lite), Settings(frames=False), out, resume=True)
    summary = Summary(out)
    names = []
    for one in ended:
        assert one.error is None
        names.append(one.name)
        summary.add({"case": one.name, "status": one.status, "path": one.case.label})
    return names


def verdicts(out: Path) -> dict[str, Any]:
    """Digest of the input → what was found."""
    reports = [json.loads(path.read_text()) for path in out.glob("*/report.json")]
    return {one["source"]["digest"]: (one["source"]["path"], one["verdict"]) for one in reports}


@pytest.mark.parametrize("text", ["0/4", "5/4", "3", "a/b", "-1/4", "1/0", "1/4/2", ""])
def test_what_is_no_share_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="not a share of the work; expected is K/N"):
        Share.parse(text)


def test_shares_are_disjoint_whole_and_even() -> None:
    keys = [digest_key(f"study {i}") for i in range(4000)]
    shares = [[key for key in keys if Share(k, 40).has(key)] for k in range(1, 41)]
    assert sorted(key for share in shares for key in share) == sorted(keys)
    assert 60 < min(map(len, shares)) <= max(map(len, shares)) < 145  # 100, five standard deviations around


def test_a_share_stays_as_it_is_whatever_comes_with_it(archive: Path) -> None:
    before = {case.label: share_key(case) for case in gather([str(archive)]).cases}
    write_study(archive / "p00" / "chest", 99)
    folders = sorted((str(path) for path in archive.iterdir()), reverse=True)
    after = {case.label: share_key(case) for case in gather(folders).cases}
    assert len(after) == STUDIES + 1
    assert before.items() <= after.items()


def test_shares_make_what_one_run_makes(archive: Path, tmp_path: Path) -> None:
    run(archive, tmp_path / "whole")
    parts = [tmp_path / f"part{k}" for k in range(1, SHARES + 1)]
    orders = [run(archive, part, Share(k, SHARES)) for k, part in enumerate(parts, 1)]
    assert sorted(map(len, orders)) != [0, 0, STUDIES]
    for part, order in zip(parts, orders, strict=True):  # longest first
        lengths = [json.loads((part / name / "report.json").read_text())["input"]["slices"] for name in order]
        assert lengths == sorted(lengths, reverse=True)
        part.mkdir(exist_ok=True)
    collected = collect(parts, tmp_path / "all")
    assert (collected.added, collected.problems, len(collected.rows)) == (STUDIES, (), STUDIES)
    assert verdicts(tmp_path / "all") == verdicts(tmp_path / "whole")
    assert missing([str(archive)], tmp_path / "all") == ([], [])
    again = collect(parts, tmp_path / "all")
    assert (again.added, again.problems, len(again.rows)) == (0, (), STUDIES)


def test_one_folder_of_results_serves_all_shares(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    names = [name for k in range(1, SHARES + 1) for name in run(archive, out, Share(k, SHARES))]
    assert len(set(names)) == STUDIES == len(verdicts(out))


def test_a_lost_share_is_named_and_made_by_a_second_run(archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "all"
    parts = [tmp_path / f"part{k}" for k in range(1, SHARES + 1)]
    orders = [run(archive, part, Share(k, SHARES)) for k, part in enumerate(parts, 1)]
    lost = max(range(SHARES), key=lambda k: len(orders[k]))
    there = [part for k, part in enumerate(parts) if k != lost and part.exists()]
    shutil.rmtree(parts[lost])
    result = CliRunner().invoke(jcs, ["collect", *map(str, there), "-o", str(out), "--of", str(archive), "--json"])
    assert result.exit_code == 1 if there else 2
    assert len(json.loads(result.stdout)["missing"]) == len(orders[lost])
    for name in orders[lost]:
        assert f"has no result ({name})" in result.stderr
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    assert len(run(archive, out)) == STUDIES
    assert len(verdicts(out)) == STUDIES
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    assert missing([str(archive)], out) == ([], [])


@pytest.mark.parametrize(("kind", "by"), [("zips", "entry"), ("list", "study"), ("list", "entry"), ("below", "entry")])
def test_a_lost_share_is_made_whatever_the_archive_looks_like(
    kind: str, by: str, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Zips in one folder, a list of folders and zips, folders two deep: what is lost is named, and only that made."""
    lite: Any = BandNetwork()
    monkeypatch.setattr(common.Run, "network", lambda *_: lite)
    given = tmp_path / "given"
    given.mkdir()
    for folder in sorted(archive.iterdir())[:4]:
        place = given / folder.name
        if kind == "below" or (kind == "list" and folder.name < "p2"):
            shutil.copytree(folder, place)
        else:
            shutil.make_archive(str(place), "zip", folder)
    if kind == "list":
        given = tmp_path / "all.txt"
        given.write_text("".join(f"given/{path.name}\n" for path in sorted((tmp_path / "given").iterdir())))
    command = ["diagnose", str(given), "--no-html", "--quiet"]
    sizes = []
    for k in (1, 2):
        part = tmp_path / f"part{k}"
        told = CliRunner().invoke(jcs, [*command, "-o", str(part), "--part", f"{k}/2", "--part-by", by])
        assert told.exit_code == 0, told.stderr
        sizes.append(len(verdicts(part)))
    assert sum(sizes) == 4
    lost, out = sizes.index(max(sizes)), tmp_path / "out"
    there = [str(tmp_path / f"part{2 - lost}")]
    of = ["--of", str(given), "--json", "--part-by", by]
    collected = CliRunner().invoke(jcs, ["collect", *there, "-o", str(out), *of])
    assert len(json.loads(collected.stdout)["missing"]) == sizes[lost], collected.stderr
    stamps = {path: path.stat().st_mtime_ns for path in out.glob("*/report.json")}
    assert len(stamps) == 4 - sizes[lost]
    rest = [] if by == "study" else ["--part", "1/1", "--part-by", by]
    assert CliRunner().invoke(jcs, [*command, "-o", str(out), "--resume", *rest]).exit_code == 0
    assert len(verdicts(out)) == 4
    assert {path: path.stat().st_mtime_ns for path in stamps} == stamps
    whole = CliRunner().invoke(jcs, ["collect", str(out), "-o", str(out), *of])
    assert (whole.exit_code, json.loads(whole.stdout)["missing"]) == (0, [])


def test_two_inputs_of_one_name_are_told_not_mixed(archive: Path, tmp_path: Path) -> None:
    """Two runs without shares call both studies `chest`."""
    parts = [tmp_path / "a", tmp_path / "b"]
    for i, part in enumerate(parts):
        assert run(archive / f"p{i}", part) == ["chest"]
    collected = collect(parts, tmp_path / "all")
    assert len(collected.rows) == 1
    (problem,) = collected.problems
    for text in ("p0", "p1", "--part"):
        assert text in problem.line()


def test_a_newer_result_of_the_same_input_replaces_an_older_one(archive: Path, tmp_path: Path) -> None:
    for part in ("a", "b"):
        run(archive / "p0", tmp_path / part)
    report = tmp_path / "b" / "chest" / "report.json"
    report.write_text(report.read_text().replace('"seconds"', '"seconds" '))
    os.utime(report, (2**31, 2**31))
    collect([tmp_path / "a", tmp_path / "b"], tmp_path / "all")
    collect([tmp_path / "a"], tmp_path / "all")
    assert '"seconds" ' in (tmp_path / "all" / "chest" / "report.json").read_text()


def test_a_result_that_is_gone_is_named(archive: Path, tmp_path: Path) -> None:
    run(archive / "p0", tmp_path / "a")
    shutil.rmtree(tmp_path / "a" / "chest")
    (problem,) = collect([tmp_path / "a"], tmp_path / "all").problems
    assert "its report is not there" in problem.line()
    with pytest.raises(InputError, match="not a folder of results"):
        collect([tmp_path / "nowhere"], tmp_path / "all")


def relative(found: Sequence[str], folder: Path) -> list[str]:
    return [os.path.relpath(path, folder) for path in found]


def test_entries_are_folders_archives_and_volumes(archive: Path, tmp_path: Path) -> None:
    (archive / "one.zip").write_bytes(b"PK\x03\x04" + bytes(300))
    (archive / "broken.nii.gz").write_text("no volume")
    (archive / "README").write_text("of the archive")
    (archive / ".hidden").mkdir()
    found = relative(entries([str(archive)]), archive)
    assert found == ["broken.nii.gz", "one.zip", *(f"p{i}" for i in range(STUDIES))]
    listed = tmp_path / "some.txt"
    listed.write_text("# two\narchive/p3\narchive/one.zip\narchive/p3\n")
    assert relative(entries([str(listed)]), archive) == ["p3", "one.zip"]


def test_a_folder_with_slices_of_its_own_is_not_divided(archive: Path) -> None:
    folder = archive / "p0" / "chest"
    assert entries([str(folder)]) == [str(folder)]
    with pytest.raises(InputError, match="does not exist"):
        entries([str(archive / "none")])


def test_results_are_no_entries(archive: Path) -> None:
    run(archive / "p0", archive)
    assert "chest" not in relative(entries([str(archive)]), archive)


def test_an_empty_share_is_no_error(archive: Path, tmp_path: Path) -> None:
    (key,) = [share_key(case) for case in gather([str(archive / "p0")]).cases]
    other = int(key, 16) % 2000 + 2 if int(key, 16) % 2000 < 1999 else 1
    for by in ("study", "entry"):
        command = ["diagnose", str(archive / "p0" / "chest"), "-o", str(tmp_path / by), "--part-by", by]
        entry_key = digest_key(str(archive / "p0" / "chest"))
        number = other if by == "study" else int(entry_key, 16) % 2000 + 2 if int(entry_key, 16) % 2000 < 1999 else 1
        result = CliRunner().invoke(jcs, [*command, "--part", f"{number}/2000"])
        assert (result.exit_code, "in share" in result.stderr) == (0, True), result.stderr


def test_shares_by_entry_need_a_share(archive: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(jcs, ["diagnose", str(archive), "-o", str(tmp_path / "o"), "--part-by", "entry"])
    assert isinstance(result.exception, UsageError)
