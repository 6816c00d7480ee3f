"""`jcs data check` and `jcs data split` as a user and a script meet them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from datasets_help import damage, folders, lists, manifest, release_lists
from jcs_ct.cli import main

if TYPE_CHECKING:
    from pathlib import Path


def jcs(*words: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    code = stopped.value.code
    assert isinstance(code, int)
    return code


def leak(root: Path) -> Path:
    lists(root)
    (root / "test.txt").write_text((root / "train.txt").read_text())
    return root


def test_check_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jcs("data", "check", manifest(tmp_path)) == 0
    out, err = capsys.readouterr()
    assert "samples: 12" in out
    assert "labels: 0 6, 1 6" in out
    assert out.endswith("no fault, 0 warnings\n")
    assert "Traceback" not in err


def test_check_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jcs("data", "check", leak(tmp_path / "data"), "-o", tmp_path / "out", "--task", "segment") == 1
    out, _ = capsys.readouterr()
    assert "FAULT: slices in more than one part of a division (4)" in out
    assert "images/s03.png: is in train (train.txt:4) and in test (test.txt:4)" in out
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert len(report["findings"]) == 4
    assert "| images/s00.png |" in (tmp_path / "out/report.md").read_text()
    assert jcs("data", "check", tmp_path / "data", "-o", tmp_path / "out") == 2
    assert "report.json: exists already (use --overwrite, or another name)" in capsys.readouterr().err
    assert jcs("data", "check", tmp_path / "data", "-o", tmp_path / "out", "--overwrite", "--verbose") == 1


def test_check_json_and_quiet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    leak(tmp_path)
    damage(tmp_path / "images/s05.png")
    assert jcs("data", "check", tmp_path, "--json", "--no-near") == 1
    result = json.loads(capsys.readouterr().out)
    assert result["command"] == "data check"
    assert len(result["failed"]) == 4
    assert not result["report"]["ok"]
    assert jcs("data", "check", tmp_path, "--quiet") == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 4
    assert all(line.startswith("jcs: error: images/s0") for line in err.splitlines())


def test_check_unreadable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(folders(tmp_path) / "images/s05.png")
    assert jcs("data", "check", tmp_path) == 1
    assert "images/s05.png: cannot be decoded as a PNG picture" in capsys.readouterr().out


def test_wrong_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest(tmp_path)
    for words, message in (
        (("check", tmp_path / "none"), "does not exist"),
        (("check", tmp_path, "--task", "segment"), "holds no data set to segment"),
        (("check", tmp_path, "--label", "x"), "--label is x; NAME=0 or NAME=1 is expected"),
        (("check", tmp_path, "--no-near", "--similarity", "0.9"), "contradict"),
        (("check", tmp_path, "--folds-file", "none.json"), "none.json: does not exist"),
        (("check",), "Missing argument"),
        (("split", tmp_path, "-o", tmp_path / "f.json", "--similarity", "0.9"), "only with --join-duplicates"),
        (("split", tmp_path, "-o", tmp_path / "f.json", "--folds", "50"), "fewer than 50 folds"),
        (("split", tmp_path, "-o", tmp_path / "labels.csv"), "exists already"),
        (("split", tmp_path, "-o", tmp_path / "f.json", "--lists", tmp_path / "l", "--folds", "2"), "has no mask"),
    ):
        assert jcs("data", *words) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "f.json").exists()


def test_labels_by_name(tmp_path: Path) -> None:
    manifest(tmp_path)
    text = (tmp_path / "labels.csv").read_text()
    (tmp_path / "labels.csv").write_text(text.replace(".png,0,", ".png,CP,").replace(".png,1,", ".png,NCP,"))
    assert jcs("data", "check", tmp_path) == 2  # no row is left
    assert jcs("data", "check", tmp_path, "--label", "CP=0", "--label", "NCP=1") == 0


def test_split_and_check_what_it_wrote(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = folders(tmp_path / "data")
    out = root / "folds.json"
    words = ("data", "split", root, "--folds", "3", "--seed", "4", "-o", out)
    assert jcs(*words, "--lists", tmp_path / "lists", "--join-duplicates") == 0
    err = capsys.readouterr().err
    assert "jcs: fold 1: 2 slices, 2 groups (unknown|unknown 2)" in err
    assert "jcs: note: no groups are known" in err
    assert jcs("data", "check", root) == 0
    assert "folds: 1 2, 2 2, 3 2" in capsys.readouterr().out
    for fold in ("fold1", "fold2", "fold3"):
        assert jcs("data", "check", tmp_path / "lists" / fold, "--quiet") == 0
    assert jcs(*words) == 2
    first = out.read_text()
    assert jcs(*words, "--overwrite", "--json", "--join-duplicates") == 0
    assert out.read_text() == first
    result = json.loads(capsys.readouterr().out)
    assert [case["slices"] for case in result["cases"]] == [2, 2, 2]
    assert result["facts"]["seed"] == 4


def test_the_manifest_is_never_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (table,) = manifest(tmp_path).glob("*.csv")
    before = table.read_bytes()
    assert jcs("data", "split", table, "-o", table, "--folds", "2", "--overwrite") == 2
    assert "is the data set" in capsys.readouterr().err
    assert table.read_bytes() == before


def test_folders_must_not_overlap(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, other = folders(tmp_path / "one"), folders(tmp_path / "other", 1)
    assert jcs("data", "check", one, other) == 1
    assert f"has the same pixels as {other / 'images/s00.png'}" in capsys.readouterr().out


def test_a_wrong_list_is_reported_with_the_rest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lists(tmp_path)
    with (tmp_path / "train.txt").open("a") as file:
        file.write("lonely.png\n")
    assert jcs("data", "check", tmp_path) == 1
    assert "train.txt:5: holds one path, 'lonely.png'" in capsys.readouterr().out


def test_the_lists_of_the_release(real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert jcs("data", "check", release_lists(real_data, tmp_path), "--json") == 1
    failed = json.loads(capsys.readouterr().out)["failed"]
    assert len(failed) == 20
    assert all("is in train" in failure["message"] and "in test" in failure["message"] for failure in failed)
