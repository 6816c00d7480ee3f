"""All folds in one run: each as if trained alone, looked at before the first, resumed, one table."""

from __future__ import annotations

import csv
import json
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from datasets_help import folders, lesion, save
from jcs_ct import models
from jcs_ct.cli import main
from jcs_ct.core.errors import InputError, OutputError, UsageError
from jcs_ct.training.folds import COLUMNS, printed, train_all
from jcs_ct.training.result import Result
from jcs_ct.training.run import train
from jcs_ct.weights import load
from training_help import same, small, specs, state, table

if TYPE_CHECKING:
    from jcs_ct.training.config import TrainConfig


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


def data_of(root: Path) -> Path:
    folders(root, 6)
    (root / "folds.json").write_text(json.dumps({"folds": [["s00", "s01"], ["s02", "s03"], ["s04", "s05"]]}))
    return root


def config_of(root: Path, **given: Any) -> TrainConfig:
    return small("segment", root, **({"epochs": 1, "all_folds": True} | given))


class StopError(Exception):
    pass


def test_all_folds_are_one_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = data_of(tmp_path / "d"), tmp_path / "run"

    def say(text: str) -> None:
        if text.startswith("fold 3"):
            raise StopError  # the machine is needed for something else

    with pytest.raises(StopError):
        train_all(config_of(root), run, resume=False, say=say)
    with pytest.raises(OutputError, match="holds a run already"):
        train_all(config_of(root), run, resume=False, say=say)
    before = {n: (run / f"fold_{n}" / "last.ckpt").stat().st_mtime_ns for n in (1, 2)}
    words = ["train", "segment", "--data", str(root), "-o", str(run), "--resume", "--folds", "all"]
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr().err
    assert end.value.code == 0, said
    assert "jcs: fold 1: is trained\njcs: fold 2: is trained\njcs: fold 3 of 3\n" in said
    assert {n: (run / f"fold_{n}" / "last.ckpt").stat().st_mtime_ns for n in (1, 2)} == before
    rows = list(csv.DictReader((run / "folds.csv").read_text().splitlines()))
    assert [row["fold"] for row in rows] == ["1", "2", "3", "mean", "deviation"]
    assert [(row["training"], row["validation"], row["epoch"]) for row in rows[:3]] == [("4", "2", "1")] * 3
    best = [r.best for n in (1, 2, 3) if (r := Result.read(run / f"fold_{n}" / "result.json")) is not None]
    for name, values in (("score", [b.value for b in best]), ("dice", [b.dice for b in best])):
        assert [row[name] for row in rows[:3]] == [f"{v:.4f}" for v in values]
        assert (rows[3][name], rows[4][name]) == (f"{statistics.fmean(values):.4f}", f"{statistics.stdev(values):.4f}")
    lines = said.splitlines()
    at = lines.index("jcs: done: 3 folds; the score is average precision of pixels")
    assert lines[at + 1 : at + 7] == [f"jcs: {line}" for line in printed(rows, COLUMNS)]
    alone = small("segment", root, epochs=1, fold=2)
    train(alone, tmp_path / "alone", resume=False, say=print)
    assert same(state(run / "fold_2"), state(tmp_path / "alone"))
    with pytest.raises(SystemExit) as end:
        main([*words, "--epochs", "2", "--quiet"])
    assert (end.value.code, capsys.readouterr().err) == (0, "")
    assert [len(table(run / f"fold_{n}")) for n in (1, 2, 3)] == [3, 3, 3]


def test_a_changed_fold_is_refused_before_any_goes_on(tmp_path: Path) -> None:
    root, run = data_of(tmp_path / "d"), tmp_path / "run"
    train_all(config_of(root), run, resume=False, say=print)
    (root / "folds.json").write_text(json.dumps({"folds": [["s00", "s02"], ["s01", "s03"], ["s04", "s05"]]}))
    said: list[str] = []
    with pytest.raises(InputError, match=r"images/s01\.png\) went from validation to training") as refused:
        train_all(config_of(root, epochs=1), run, resume=True, say=said.append)
    assert refused.value.path == str(run / "fold_1")
    assert said == []
    for left in run.glob("fold_*/last.ckpt"):
        left.unlink()  # to save room: finished folds are compared all the same
    with pytest.raises(InputError, match="went from validation to training"):
        train_all(config_of(root, epochs=1), run, resume=True, say=said.append)
    before = {n: load(run / f"fold_{n}" / "best.safetensors") for n in (1, 3)}
    lines = train_all(config_of(root, epochs=1), run, resume=True, say=said.append, accept=True)
    kind = "finished before a change that was accepted, as asked: "
    moved = kind + "1 slice (images/s02.png) went from training to validation; "
    moved += "1 slice (images/s01.png) went from validation to training"
    assert f"warning: fold_1: {moved}" in said
    assert f"warning: fold 1: {moved}" in lines
    for n, note in ((1, moved), (3, f"{kind}1 slice (images/s01.png) went from fold 1 to fold 2; ")):
        tensors, card = load(run / f"fold_{n}" / "best.safetensors")
        assert same(tensors, before[n][0])
        assert card.notes[:-1] == before[n][1].notes
        assert card.notes[-1].startswith(note)
    said.clear()
    train_all(config_of(root, epochs=1), run, resume=True, say=said.append)  # accepted once, it needs no second word
    assert [text for text in said if "warning" in text] == []


def test_every_fold_is_looked_at_before_the_first(tmp_path: Path) -> None:
    root, run, said = data_of(tmp_path / "d"), tmp_path / "run", list[str]()
    for i in range(4):
        save(root / "masks" / f"s{i:02d}.png", lesion(0) * 0)
    with pytest.raises(UsageError, match="no lesion is in the 4 masks of the slices to train on"):
        train_all(config_of(root), run, resume=False, say=said.append)  # the third could learn nothing
    why = "the validation score is not defined, because no lesion is in the 2 masks of the slices to validate on"
    assert [line.partition("; ")[0] for line in said] == [f"fold 1: warning: {why}", f"fold 2: warning: {why}"]
    assert not run.exists()


def test_what_cannot_be_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = data_of(tmp_path / "d")
    for words, text in (
        (["--folds", "all", "--fold", "2"], "--folds all trains every fold, and --fold 2 names one"),
        (["--folds", "all", "--devices", "2"], "--folds all trains on one device, and --devices is 2"),
        (["--fold", "first"], "--fold is first; a number from 1 upwards, or all, is expected"),
        (["--folds", "all", "--resume"], "has no config.json to go on from"),
    ):
        with pytest.raises(SystemExit) as end:
            main(["train", "segment", "--data", str(root), "-o", str(tmp_path / "run"), "--network", "tiny-s", *words])
        said = capsys.readouterr().err
        assert (end.value.code, said.count("\n")) == (2, 1)
        assert text in said
    (root / "folds.json").unlink()
    with pytest.raises(UsageError, match="has no folds"):
        train_all(config_of(root), tmp_path / "run", resume=False, say=print)


def test_the_folds_of_a_file_elsewhere(tmp_path: Path) -> None:
    root = data_of(tmp_path / "d")
    other = Path(tmp_path / "mine.json")
    other.write_text(json.dumps({"folds": [["s00", "s01", "s02"], ["s03", "s04", "s05"]]}))
    lines = train_all(config_of(root, folds=str(other)), tmp_path / "run", resume=False, say=print)
    assert lines[0] == "done: 2 folds; the score is average precision of pixels"
    assert sorted(p.name for p in (tmp_path / "run").glob("fold_*")) == ["fold_1", "fold_2"]


def test_what_is_not_defined_does_not_widen_the_table() -> None:
    rows = [{"fold": str(n), "auc": "not defined, because all labels are 1"} for n in (1, 2)]
    assert printed([*rows, {"fold": "mean", "auc": ""}], ("fold", "auc")) == [
        "fold          auc",
        "   1  not defined",
        "   2  not defined",
        "mean",
        "fold 1, 2: auc is not defined, because all labels are 1",
    ]
