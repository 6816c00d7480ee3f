"""`jcs train`: what a user sees when it works, and when it cannot."""

from __future__ import annotations

import json
import re
import shutil
import sys
import weakref
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from datasets_help import damage, lesion, save
from jcs_ct import models
from jcs_ct.cli import main
from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.datasets.training_slices import read_training_slices
from jcs_ct.imaging.recipes import prepare, recipe
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.pictures import decode_slice
from jcs_ct.training.messages import plain_errors
from jcs_ct.training.parts import parts_of
from jcs_ct.training.samples import SliceDataset
from jcs_ct.training.sampling import PlannedBatches, balanced_weights
from jcs_ct.weights import load
from training_help import small, specs, state, tiny_lists, tiny_manifest

if TYPE_CHECKING:
    from pathlib import Path

TINY = ["--network", "tiny-s", "--size", "32", "--epochs", "2", "--batch", "2", "--workers", "0", "--device", "cpu"]


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


def jcs(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["train", *map(str, words)])
    return int(end.value.code or 0), capsys.readouterr().err


def test_a_run_leaves_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = tiny_lists(tmp_path / "s"), tmp_path / "run"
    status, said = jcs(capsys, "segment", "--data", data, "-o", run, *TINY)
    assert status == 0, said
    assert all(line.startswith("jcs: ") for line in said.splitlines()), said
    assert "epoch 2 of 2" in said
    tensors, card = load(run / "best.safetensors")
    assert (card.architecture, card.recipe, card.threshold) == ("tiny-s", "release-segmentation@32", 0.5)
    assert recipe(card.recipe).size == 32
    assert all(torch.equal(tensors[k], v) for k, v in state(run).items())  # the last was the best
    assert json.loads((run / "config.json").read_text())["epochs"] == 2
    assert (run / "curves.png").stat().st_size > 10_000
    assert len(read_training_slices(run / "best.hashes")) > 1
    again, said = jcs(capsys, "segment", "--data", data, "-o", run, *TINY)
    assert (again, said.count("\n")) == (2, 1)
    assert "holds a run already" in said
    for words, text in (
        (["--epochs", 1], "the run has epochs 2, 1 was given: a run can be made longer, not shorter"),
        (["--seed", 5], "the run has seed 0, 5 was given"),
    ):
        status, said = jcs(capsys, "segment", "--data", data, "-o", run, "--resume", *words)
        assert (status, said.count("\n")) == (2, 1)
        assert text in said
    status, said = jcs(capsys, "segment", "--data", data, "-o", run, "--accept-changed-data")
    assert (status, said.count("\n")) == (2, 1)
    assert "--accept-changed-data belongs to --resume" in said


def test_a_full_disk_keeps_the_last_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run, write = tiny_lists(tmp_path / "s"), tmp_path / "run", torch.save
    left = [3]

    def full(what: Any, file: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        write(what, file)

    monkeypatch.setattr("torch.save", full)
    status, said = jcs(capsys, "segment", "--data", data, "-o", run, *TINY, "--every", 1, "--quiet")
    assert (status, said.count("\n")) == (2, 1), said
    assert "last.ckpt: cannot be written: No space left on device" in said
    assert state(run)
    load(run / "best.safetensors")
    assert not list(run.glob("*.part")) + list(run.glob(".*.part"))
    monkeypatch.undo()
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)
    assert jcs(capsys, "segment", "--data", data, "-o", run, "--resume", "--quiet") == (0, "")


@pytest.mark.parametrize("fault", ["truncated", "size", "overlap", "copy", "label", "fold", "gone", "network"])
def test_what_cannot_be_trained_on_is_said_at_once(
    fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, words, text = tiny_lists(tmp_path / "s"), list(TINY), ""
    if fault == "truncated":
        damage(data / "images" / "s01.png")
        damage(data / "images" / "s07.png")
        text = "2 faults: images/s01.png"
    elif fault == "size":
        save(data / "masks" / "s02.png", lesion(2, 90, 80))
        text = "s02.png"
    elif fault == "overlap":
        (data / "val.txt").write_text((data / "train.txt").read_text().splitlines()[0] + "\n")
        text = "is in training (train.txt:1) and in validation (val.txt:1)"
    elif fault == "copy":
        shutil.copy(data / "images" / "s00.png", data / "images" / "s07.png")
        text = "is in training"
    elif fault == "label":
        data = tiny_manifest(tmp_path / "c")
        table = (data / "labels.csv").read_text().replace("c01.png,1,", "c01.png,,")
        (data / "labels.csv").write_text(table)
        text = "has no label (labels.csv:3)"
    elif fault == "fold":
        words += ["--fold", "9"]
        text = "has no fold 9"
    elif fault == "gone":
        words += ["--resume"]
        text = "no config.json to go on from"
    else:
        words += ["--network", "tiny-c"]
        text = "--network tiny-c cannot be trained by `train segment`"
    task = "classify" if fault == "label" else "segment"
    words = [*words, "--network", "tiny-c"] if task == "classify" else words
    status, said = jcs(capsys, task, "--data", data, "-o", tmp_path / "run", "--quiet", *words)
    assert (status, said.count("\n")) == (2, 1), said
    assert text in said
    assert not (tmp_path / "run" / "last.ckpt").exists()


def test_a_missing_extra_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("run", "records"):
        monkeypatch.delitem(sys.modules, f"jcs_ct.training.{name}", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    status, said = jcs(capsys, "segment", "--data", tmp_path, "-o", tmp_path / "run")
    assert (status, said.count("\n")) == (2, 1)
    assert re.search(r"lightning is not installed \(pip install .*\[train\]\"", said)


def test_training_sees_what_inference_sees(tmp_path: Path) -> None:
    data = tiny_lists(tmp_path / "s", 2, 1)
    config = small("segment", data, size=0)
    _, samples, _ = parts_of(config)
    item = SliceDataset(samples, config, train=True)[0]
    pixels = decode_slice(read_file(samples[0].path), "a", "a").pixels
    assert np.array_equal(item["input0"].numpy(), prepare(pixels, recipe("release-segmentation"))[0])
    assert item["mask"].shape == (512, 512)
    assert set(np.unique(item["mask"].numpy())) == {0.0, 1.0}
    assert recipe(small("classify", data, size=112).recipe_name).crop == 112
    for name in ("release-segmentation@", "release-segmentation@9", "release-segmentation@x"):
        with pytest.raises(UsageError, match="no usable size"):
            recipe(name)


def test_balanced_draws_are_balanced_and_repeatable(tmp_path: Path) -> None:
    _, samples, _ = parts_of(small("classify", tiny_manifest(tmp_path / "c", 8)))
    samples = (*samples, *[samples[0]] * 5)  # a patient with many slices
    weights = balanced_weights(samples)
    drawn = np.zeros(len(samples))
    for epoch in range(400):
        order = PlannedBatches(len(samples), 4, 1, weights)
        order.set_epoch(epoch)
        first = list(order)
        assert first == list(order)
        for position, at in (key for keys in first for key in keys):
            assert at == epoch
            drawn[position] += 1
    for cell in {(s.source, s.label) for s in samples}:
        share = sum(d for d, s in zip(drawn, samples, strict=True) if (s.source, s.label) == cell) / drawn.sum()
        assert share == pytest.approx(0.25, abs=0.03)


def test_processes_share_an_epoch() -> None:
    one = list(PlannedBatches(10, 4, 5))
    two = [list(PlannedBatches(10, 2, 5, rank=rank, world=2)) for rank in (0, 1)]
    assert [a + b for a, b in zip(*two, strict=True)] == one


def test_what_ends_a_run_fits_on_a_line() -> None:
    for error, text in (
        (
            RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed."),
            "a process that reads ahead was killed",
        ),
        (JcsError("Caught\nOriginal Traceback\n  x\njcs_ct.core.errors.InputError: a.png: is gone"), "a.png: is gone"),
        (OSError(28, "No space left"), "No space left"),
    ):
        with pytest.raises(JcsError, match=text), plain_errors():
            raise error
    with pytest.raises(RuntimeError, match="other"), plain_errors():
        raise RuntimeError("other")


def test_a_readers_death_in_a_callback_is_not_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's signal handler may raise within the callback of a weak reference, where Python prints and drops it."""
    heard: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda met: heard.append(str(met.exc_value)))
    outer = sys.unraisablehook

    def drop(what: Exception) -> None:
        def called(_: object) -> None:
            raise what

        kept = weakref.ref(probe := type("Probe", (), {})(), called)
        del probe
        assert kept() is None

    with plain_errors():
        drop(RuntimeError("DataLoader worker (pid 3) is killed by signal: Killed. "))
        assert heard == []
        drop(RuntimeError("other"))
        drop(ValueError("DataLoader worker"))
    assert heard == ["other", "DataLoader worker"]
    assert sys.unraisablehook is outer


def test_folds_may_lie_elsewhere(tmp_path: Path) -> None:
    """The data of others is often read-only."""
    data = tiny_lists(tmp_path / "s")
    names = [f"s{i:02d}" for i in range(8)]
    (tmp_path / "mine.json").write_text(json.dumps({"folds": [names[:3], names[3:]]}))
    config = small("segment", data, fold=1, folds=str(tmp_path / "mine.json"))
    _, train, held = parts_of(config)
    assert [s.path.stem for s in held] == names[:3]
    assert [s.path.stem for s in train] == names[3:]
