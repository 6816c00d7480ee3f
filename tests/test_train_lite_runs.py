"""Runs of `jcs train lite`: cut, resumed, made longer, all folds, built; and what is refused before the first step."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from PIL import Image

from jcs_ct.cli import main
from jcs_ct.core.errors import InputError, JcsError, OutputError, UsageError
from jcs_ct.models.lite import LiteNetwork
from jcs_ct.training.fingerprint import Fingerprint
from jcs_ct.training.lite.build import build
from jcs_ct.training.lite.data import LiteSlices
from jcs_ct.training.lite.folds import train_all
from jcs_ct.training.lite.module import LiteModule
from jcs_ct.training.lite.run import LiteResult, train
from jcs_ct.training.lite.score import read_table
from jcs_ct.training.lite.score import table as score_table
from jcs_ct.training.start import locked
from jcs_ct.weights import load, write
from lite_help import lite_data, rows_of, small
from weights_help import card_for

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.training.lite.config import LiteConfig


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    return lite_data(tmp_path_factory.mktemp("lite"))


@pytest.fixture(scope="module")
def finished(data: tuple[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(small(data), out, resume=False, say=print)
    return out


def test_a_run_writes_its_weights_scores_and_table(finished: Path) -> None:
    tensors, card = load(finished / "best.safetensors")
    assert (card.architecture, card.recipe, card.covid_threshold) == ("jcs-lite", "lung-field", 0.5)
    assert len(tensors) > 200
    rows = read_table(finished / "held_out.csv")
    assert len([r for r in rows if r["tp"]]) == 2
    assert len([r for r in rows if r["dice"]]) == 1  # the other mask is empty
    assert {"dice", "pooled_dice", "pointing"} <= json.loads((finished / "scores.json").read_text()).keys()
    assert (finished / "metrics.csv").read_text().startswith("step,train_loss,seconds\n2,")
    with pytest.raises(OutputError, match="holds a run already"):
        train(small(("x", "y")), finished, resume=False, say=print)


def test_a_run_that_is_cut_goes_on_exactly(
    data: tuple[str, str], finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(self: LiteModule, batch: Any, index: int) -> Any:
        if self.global_step == 3:
            raise KeyboardInterrupt
        return real(self, batch, index)

    real = LiteModule.training_step
    monkeypatch.setattr(LiteModule, "training_step", cut)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(small(data), tmp_path / "cut", resume=False, say=print)
    monkeypatch.setattr(LiteModule, "training_step", real)
    assert (tmp_path / "cut" / "last.ckpt").exists()
    elsewhere = tuple(shutil.copytree(folder, tmp_path / f"d{i}") for i, folder in enumerate(data))
    head, *rows = (elsewhere[1] / "labels.csv").read_text().splitlines()
    (elsewhere[1] / "labels.csv").write_text("\n".join([head, *reversed(rows)]) + "\n")  # another order, elsewhere
    train(small(tuple(map(str, elsewhere))), tmp_path / "cut", resume=True, say=print)
    whole, cut_tensors = (load(run / "best.safetensors")[0] for run in (finished, tmp_path / "cut"))
    assert [name for name in whole if not torch.equal(whole[name], cut_tensors[name])] == []


def test_what_is_frozen_keeps_its_values(data: tuple[str, str], tmp_path: Path) -> None:
    frozen = ("encoder.", "top.", "fusion.", "context.", "evidence.", "gain", "offset")
    config = small((data[0],), init="jcs-lite", freeze=frozen, steps=1, labelled=0, quiet=0)
    train(config, tmp_path / "tuned", resume=False, say=print)
    before, after = load("jcs-lite")[0], load(tmp_path / "tuned" / "best.safetensors")[0]
    changed = {name for name, value in before.items() if not torch.allclose(value, after[name], atol=1e-6)}
    assert changed
    assert {name for name in changed if name.startswith(frozen)} == set()
    with pytest.raises(UsageError, match="leaves nothing to train"):
        LiteModule(small(data, freeze=("",)))


def test_each_fold_goes_on_from_its_own_network(data: tuple[str, str], finished: Path, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    shutil.copytree(finished, begun / "fold_1")
    still = ("encoder.", "top.", "fusion.", "context.", "evidence.", "gain", "offset")
    train(small(data, init=str(begun), freeze=still, steps=1), tmp_path / "on", resume=False, say=print)
    before, after = (load(folder / "best.safetensors")[0] for folder in (begun / "fold_1", tmp_path / "on"))
    assert [n for n in before if n.startswith(still) and not torch.allclose(before[n], after[n], atol=1e-6)] == []
    with pytest.raises(InputError, match=r"has no fold_2/best\.safetensors with its fingerprint"):
        train_all(small(data, init=str(begun), fold=None), tmp_path / "folds", resume=False, say=print)
    (begun / "fold_1").rename(begun / "fold_2")
    with pytest.raises(InputError, match=r"fold_2: was trained on \d+ slices that this run holds out"):
        train(small(data, init=str(begun), fold=2), tmp_path / "leak", resume=False, say=print)
    assert not (tmp_path / "leak" / "config.json").exists()


def test_the_command_builds_all_folds_and_the_shipped_file(
    data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The runs themselves are tested above; here each is a process that leaves what a run leaves."""
    from jcs_ct.training.lite import build as builder

    class Finished:
        returncode = 0

        def poll(self) -> int:
            return 0

    def begin(folder: Path, config: LiteConfig, _accept: bool) -> Any:
        write(folder / "best.safetensors", LiteNetwork().state_dict(), card_for("jcs-lite", covid_threshold=0.5))
        (folder / "config.json").write_text(config.to_json())
        (folder / "best.hashes").write_bytes(folder.name.encode())
        Fingerprint((), {}, {}, accepted=(f"changed {folder.name}",)).write(folder)
        if config.fold is not None:
            (folder / "held_out.csv").write_bytes(score_table(rows_of(config.fold)))
        return Finished()

    monkeypatch.setattr(builder, "_start", begin)
    words = ["train", "lite", "--data", data[0], "--data", data[1], "-o", str(tmp_path / "built")]
    with pytest.raises(SystemExit) as ended:
        main([*words, "--build", "--jobs", "2", "--folds", "2"])
    assert ended.value.code == 0
    built = load(tmp_path / "built" / "best.safetensors")[1]
    assert built.name == "jcs-lite"
    assert built.notes[-3:] == ("fold_1: changed fold_1", "fold_2: changed fold_2", "all: changed all")
    assert (tmp_path / "built" / "best.hashes").read_text() == "all"
    assert capsys.readouterr().err.count("training ") == 3
    with pytest.raises(SystemExit) as ended:
        main([*words, "--build", "--fold", "1"])
    assert ended.value.code == 2
    with pytest.raises(SystemExit) as ended:
        main([*words, "--resume"])
    assert ended.value.code == 2
    assert "no config.json to go on from" in capsys.readouterr().err


def said_by(words: list[str], status: int, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(["train", "lite", *words])
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (status, ""), said.err
    return said.err


def test_a_finished_run_is_made_longer(
    data: tuple[str, str],
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    seen: list[int] = []
    real = LiteSlices.__getitem__

    def watched(self: LiteSlices, key: tuple[int, int, int]) -> Any:
        seen.append(key[1])
        return real(self, key)

    monkeypatch.setattr(LiteSlices, "__getitem__", watched)
    words = ["--data", data[0], "--data", data[1], "-o", str(run), "--resume"]
    assert "the run has steps 4, 3 was given: a run can be made longer" in said_by([*words, "--steps", "3"], 2, capsys)
    assert "the run has seed 0, 7 was given" in said_by([*words, "--seed", "7"], 2, capsys)
    said = said_by([*words, "--steps", "6"], 0, capsys)
    assert sorted(set(seen)) == [4, 5]
    assert "jcs: step 6 of 6: loss " in said
    assert [line.partition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()] == [
        "step",
        "2",
        "4",
        "6",
    ]
    done = LiteResult.read(run / "result.json")
    assert done is not None
    assert done.steps == json.loads((run / "config.json").read_text())["steps"] == 6
    held = torch.load(run / "last.ckpt", weights_only=True)
    assert held["lr_schedulers"][0]["total_steps"] == 7
    assert held["global_step"] == 6
    before, after = (load(folder / "best.safetensors")[0] for folder in (finished, run))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_changed_label_is_refused_and_noted(
    data: tuple[str, str], finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    other = Path(shutil.copytree(data[1], tmp_path / "labelled"))
    table = (other / "labels.csv").read_text().splitlines()
    groups = {row["group"] for row in csv.DictReader(table)}
    (other / "labels.csv").write_text("\n".join(table).replace("l3.png,1,", "l3.png,0,") + "\n")
    words = ["--data", data[0], "--data", str(other), "-o", str(run), "--resume"]
    said = said_by(words, 2, capsys)
    assert len(groups) == 12
    assert "l3.png) had the label 1, now 0" in said
    said = said_by([*words, "--accept-changed-data"], 0, capsys)
    assert "warning: resumed on changed data, as asked: " in said
    assert any("had the label 1, now 0" in note for note in load(run / "best.safetensors")[1].notes)
    assert "--accept-changed-data belongs to --resume" in said_by([*words[:-1], "--accept-changed-data"], 2, capsys)


def test_all_folds_are_one_run(
    data: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class StopError(Exception):
        pass

    def say(text: str) -> None:
        if text.startswith("fold 2"):
            raise StopError

    for name, value in (("SLURM_NTASKS", "2"), ("RANK", "1"), ("WORLD_SIZE", "4"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)  # of a scheduler; one process trains
    run = tmp_path / "run"
    config = small(data, fold=None, all_folds=True, steps=1, labelled=1, lesions=1, coarse=1.0)
    with pytest.raises(StopError):
        train_all(config, run, resume=False, say=say)
    with pytest.raises(OutputError, match="holds a run already"):
        train_all(config, run, resume=False, say=say)
    first = (run / "fold_1" / "best.safetensors").read_bytes()
    words = ["--data", data[0], "--data", data[1], "-o", str(run), "--resume", "--folds", "all"]
    said = said_by(words, 0, capsys)
    assert "jcs: fold 1: is trained\njcs: fold 2 of 2\n" in said
    assert (run / "fold_1" / "best.safetensors").read_bytes() == first
    rows = list(csv.DictReader((run / "folds.csv").read_text().splitlines()))
    assert [row["fold"] for row in rows] == ["1", "2", "mean", "deviation"]
    for row in rows[:2]:
        scores = json.loads((run / f"fold_{row['fold']}" / "scores.json").read_text())
        told = {name: "" if math.isnan(value) else f"{value:.4f}" for name, value in scores.items()}
        assert {name: row[name] for name in scores} == told
    labels = Path(data[1]) / "labels.csv"
    text = labels.read_text()
    try:
        labels.write_text(text.replace("l3.png,1,", "l3.png,0,"))
        assert "l3.png) had the label 1, now 0" in said_by([*words, "--steps", "2"], 2, capsys)
    finally:
        labels.write_text(text)


def only(label: str) -> Callable[[Path, Path], None]:
    def change(_masked: Path, labelled: Path) -> None:
        head, *rows = (labelled / "labels.csv").read_text().splitlines()
        kept = [row for row in rows if row.split(",")[1] == label]
        (labelled / "labels.csv").write_text("\n".join([head, *kept]) + "\n")

    return change


def without_lesions(masked: Path, _labelled: Path) -> None:
    for path in (masked / "masks").iterdir():
        Image.new("L", (96, 96)).save(path)


def neither(masked: Path, labelled: Path) -> None:
    only("1")(masked, labelled)
    without_lesions(masked, labelled)


def broken(_masked: Path, labelled: Path) -> None:
    (labelled / "l3.png").write_bytes((labelled / "l3.png").read_bytes()[:200])


def copied(masked: Path, _labelled: Path) -> None:
    names = sorted(path.name for path in (masked / "images").iterdir())
    shutil.copy(masked / "images" / names[0], masked / "images" / names[2])


def cut_group(_masked: Path, labelled: Path) -> None:
    head, *rows = (labelled / "labels.csv").read_text().splitlines()
    rows = [f"{row},{i % 2 + 1}".replace(",g0,", ",g1,") for i, row in enumerate(rows)]
    (labelled / "labels.csv").write_text("\n".join([f"{head},fold", *rows]) + "\n")


REFUSED: dict[str, tuple[Callable[[Path, Path], None], dict[str, Any], str]] = {
    "nothing to learn": (
        neither,
        {},
        "has nothing to learn: all 7 slices to train on have the label 1 (COVID-19): one",
    ),
    "nothing drawn": (only("1"), {"labelled": 0, "lesions": 0, "quiet": 0}, "no step would draw a slice"),
    "a broken slice": (broken, {}, "1 slice cannot be trained on: "),
    "a copy": (copied, {}, "2 slices are trained on and held out, some under several names: "),
    "a group in two folds": (cut_group, {}, "fold 1 cuts 1 group: g1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_work_is_refused_before_the_first_step(case: str, data: tuple[str, str], tmp_path: Path) -> None:
    change, given, text = REFUSED[case]
    masked, labelled = (Path(shutil.copytree(folder, tmp_path / f"d{i}")) for i, folder in enumerate(data))
    change(masked, labelled)
    for number, (start, fold) in enumerate(((train, 1), (train_all, None))):
        config = small((str(masked), str(labelled)), **given | {"fold": fold, "all_folds": fold is None})
        with pytest.raises((UsageError, InputError)) as refused:
            start(config, tmp_path / f"run{number}", resume=False, say=print)
        assert text in refused.value.message
        assert not (tmp_path / f"run{number}").exists()


WARNED = {
    "one label": (only("1"), "warning: the probability learns nothing: all 7 slices to train on have the label 1"),
    "no lesions": (without_lesions, "warning: the lesion maps learn nothing: no lesion is in the 4 masks"),
}


class StopError(Exception):
    pass


@pytest.mark.parametrize("case", WARNED)
def test_what_is_not_learned_or_scored_is_said(case: str, data: tuple[str, str], tmp_path: Path) -> None:
    change, text = WARNED[case]
    masked, labelled = (Path(shutil.copytree(folder, tmp_path / f"d{i}")) for i, folder in enumerate(data))
    change(masked, labelled)
    said: list[str] = []

    def say(line: str) -> None:
        said.append(line)
        if line.startswith("warning: the held-out"):
            raise StopError

    with pytest.raises(StopError):
        train(small((str(masked), str(labelled))), tmp_path / "run", resume=False, say=say)
    assert any(text in line for line in said)
    score = "auc" if case == "one label" else "dice"
    assert said[-1].startswith(f"warning: the held-out {score} is not defined, because ")


def test_a_recipe_that_cannot_be_finished_is_refused(data: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--build fits the final probabilities on the held-out slices") as refused:
        build(small((data[0],)), tmp_path / "built", jobs=1, say=print)
    assert "--folds all" in (refused.value.hint or "")
    with pytest.raises(UsageError, match=r"has the folds 1, 2, 3, and .* has 1, 2"):
        build(small(data, folds=3), tmp_path / "built", jobs=1, say=print)
    assert not (tmp_path / "built").exists()
    with locked(tmp_path / "busy"), pytest.raises(JcsError, match="is being trained into by another process"):
        train(small(data), tmp_path / "busy", resume=False, say=print)
