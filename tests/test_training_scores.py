"""What a validation says, how far a run is, and what cannot be learned or scored: each against numbers made by hand."""

from __future__ import annotations

import csv
import io
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from datasets_help import lesion, picture, save
from jcs_ct import models
from jcs_ct.core.duration import duration, left_after
from jcs_ct.core.errors import UsageError
from jcs_ct.datasets.samples import Sample
from jcs_ct.outputs.plots import training_curves
from jcs_ct.training.module import TrainingModule
from jcs_ct.training.outlook import Outlook, outlook_of_labels, outlook_of_masks
from jcs_ct.training.progress import Progress
from jcs_ct.training.records import table_of
from jcs_ct.training.result import Result
from jcs_ct.training.run import train
from jcs_ct.training.scores import Score, Validation, together
from training_help import small, specs, state, tiny_lists, tiny_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.training.config import TrainConfig


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


def test_the_score_of_maps_is_the_average_precision_of_all_pixels() -> None:
    rng = np.random.default_rng(1)
    whole, parts = Validation(), [Validation(), Validation()]
    logits = rng.integers(-300, 300, (3, 20, 30)) / 64  # on the steps, so that nothing is rounded
    lesions = rng.random((3, 20, 30)) < 1 / (1 + np.exp(-logits))
    lesions[2] = False
    dices = []
    for i in range(3):
        for into in (whole, parts[i % 2]):
            into.add_map(float(i), torch.from_numpy(logits[i]), torch.from_numpy(lesions[i]))
        found = logits[i] >= 0
        dices.append(2 * (found & lesions[i]).sum() / (found.sum() + lesions[i].sum()))
    score = whole.score(4)
    assert score.value == pytest.approx(average_precision_score(lesions.ravel(), logits.ravel()), abs=1e-12)
    assert score.dice == pytest.approx((dices[0] + dices[1]) / 2, abs=1e-12)  # the third has no lesion
    assert (score.loss, score.epoch, score.because) == (1.0, 4, "")
    assert score.marked == (logits >= 0).mean()
    assert score.lesion == lesions.mean()
    assert together(parts).score(4) == score


def test_beyond_the_reach_pixels_are_ties() -> None:
    found = Validation()
    found.add_map(0.0, torch.tensor([[100.0, 50.0, -80.0, 0.0]]), torch.tensor([[True, False, False, False]]))
    assert found.score().value == 0.5


def test_a_score_that_is_not_defined_says_why() -> None:
    labels = Validation()
    for p in (0.2, 0.8):
        labels.add_label(0.5, p, 1)
    score = labels.score()
    assert math.isnan(score.value)
    assert score.words("AUC") == (
        "validation AUC not defined, because all slices to validate on have the label 1: one class, loss 0.5000"
    )
    maps = Validation()
    maps.add_map(2.0, torch.full((2, 2), -1.0), torch.zeros(2, 2, dtype=torch.bool))
    assert maps.score(because="no lesion is in the masks").because == "no lesion is in the masks"
    assert maps.score().words("AP") == (
        "validation AP not defined, because no pixel of the slices to validate on is lesion, at the size of the "
        "network's input, loss 2.0000"
    )
    assert Validation().score().words("AP") == "no validation"
    assert Score.from_facts(score.facts()).because == score.because


def test_best_is_the_highest_score_then_the_lowest_loss() -> None:
    one = Score(0.5, 2.0)
    assert one.beats(None)
    assert Score(0.6, 9.0).beats(one)
    assert not Score(0.4, 1.0).beats(one)
    assert Score(0.5, 1.9).beats(one)
    assert not Score(0.5, 2.0).beats(one)  # the earlier one stays
    assert Score(loss=1.0).beats(Score(loss=2.0))
    assert not Score(loss=2.0).beats(Score(loss=1.0))
    assert Score().beats(Score())  # without validation the last one


@pytest.mark.parametrize(
    ("marked", "area", "what"),
    [
        (0.0, 0.1, "nothing: 0.0 % of the pixels reach p ≥ 0.5, 10.0 % are lesion"),
        (0.0009, 0.1, "nothing: 0.1 % of"),
        (0.0004, 0.1, "nothing: less than 0.1 % of"),
        (0.0011, 0.1, ""),
        (0.9, 0.1, ""),
        (0.95, 0.1, "everything: 95.0 % of"),
        (1.0, 0.95, ""),  # it is all lesion
        (0.0, 0.0, ""),
        (1.0, 0.0, "everything: 100.0 % of"),
        (math.nan, math.nan, ""),
    ],
)
def test_maps_that_mark_nothing_or_everything_are_named(marked: float, area: float, what: str) -> None:
    said = Score(0.5, 1.0, marked=marked, lesion=area).painting()
    assert said.startswith(f"the best map marks {what}") if what else said == ""
    lines = Result(3, Score(0.5, 1.0, 0.2, marked, area, epoch=2), "average precision of pixels", (4, 2)).lines()
    assert (
        lines[0]
        == "done; best is epoch 2: validation average precision of pixels 0.5000, Dice 0.2000 at p ≥ 0.5, loss 1.0000"
    )
    assert lines[1:] == ([f"warning: {said} (train longer, or with another --lr)"] if what else [])


def test_the_table_and_the_figure_say_why(tmp_path: Path) -> None:
    rows = [{"epoch": 1.0, "step": 3.0, "lr": 0.1, "train_loss": 0.5, "val_loss": 0.4, "val_score": math.nan}]
    rows += [{**rows[0], "epoch": 2.0, "val_score": 0.5, "accepted_changes": 1}]
    rows[0]["because"] = "of x"  # type: ignore[assignment]
    text = table_of(rows).decode()
    assert [row["accepted_changes"] for row in csv.DictReader(io.StringIO(text))] == ["0", "1"]
    assert "accepted_changes" not in table_of(rows[:1]).decode()
    assert next(iter(csv.DictReader(io.StringIO(text))))["val_score"] == "not defined, because of x"
    assert "nan" not in text.lower()
    said = [training_curves(rows[:1], "AUC", "t", text) for text in ("not defined, because of x", "other")]
    assert said[0] != said[1]


def test_time_is_told_in_words() -> None:
    for seconds, text in (
        (0.4, "0 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (3569, "59 min"),
        (3571, "1 h 00 min"),
        (7500, "2 h 05 min"),
        (86400 * 3 + 3600 * 5, "3 d 5 h"),
    ):
        assert duration(seconds) == text


def test_how_long_the_rest_of_equal_parts_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jcs_ct.core.duration.time.monotonic", lambda: 130.0)
    assert left_after(1, 5, began=100.0) == "; 2 min left"
    assert left_after(4, 5, began=100.0) == "; 8 s left"
    assert left_after(5, 5, began=100.0) == ""


def test_a_line_now_and_then_tells_the_time_left() -> None:
    clock, said = [0.0], list[str]()
    progress = Progress(said.append, now=lambda: clock[0])
    progress.start(10)
    assert progress.left(10, 100) is None
    for done in range(11, 101):
        clock[0] += 2
        progress.step(f"step {done}", 0.5, done, 100)
    assert said == [
        "step 40: loss 0.5000, 2 min left",
        "step 70: loss 0.5000, 1 min left",
        "step 100: loss 0.5000, 0 s left",
    ]


def test_on_a_terminal_the_line_is_written_over() -> None:
    screen, said, clock = io.StringIO(), list[str](), [0.0]
    progress = Progress(said.append, screen, lambda: clock[0])
    progress.start(0)
    for done in (1, 2):
        clock[0] += 30
        progress.step(f"step {done}", 0.25, done, 4)
    progress.line("epoch")
    progress.clear()
    assert said == ["epoch"]
    assert screen.getvalue() == (
        "\rjcs: step 1: loss 0.2500, 2 min left\x1b[K\rjcs: step 2: loss 0.2500, 1 min left\x1b[K\r\x1b[K"
    )


def samples(labels: str) -> list[Sample]:
    return [Sample(label=None if c == "-" else int(c)) for c in labels]


@pytest.mark.parametrize(
    ("training", "held", "refused", "undefined"),
    [
        ("0101", "01", "", ""),
        ("0101", "", "", ""),
        ("1111", "01", "all 4 slices to train on have the label 1 (COVID-19): one class", ""),
        ("0", "01", "the only slice to train on has the label 0 (no COVID-19): one class", ""),
        ("--", "01", "all 2 slices to train on have no label", ""),
        ("01", "00", "", "all 2 slices to validate on have the label 0 (no COVID-19): one class"),
        ("01", "1", "", "the only slice to validate on has the label 1 (COVID-19): one class"),
    ],
)
def test_one_class_teaches_and_scores_nothing(training: str, held: str, refused: str, undefined: str) -> None:
    if refused:
        with pytest.raises(UsageError) as error:
            outlook_of_labels(samples(training), samples(held), "data")
        assert error.value.message == f"has nothing to learn: {refused}"
        return
    found = outlook_of_labels(samples(training), samples(held), "data")
    assert found.undefined == undefined
    assert bool(found.warning) == bool(undefined)


def test_empty_masks_teach_and_score_nothing(tmp_path: Path) -> None:
    masked = [Sample(image=tmp_path / f"{i}.png", mask=tmp_path / f"m{i}.png") for i in range(3)]
    full = outlook_of_masks(masked[:2], masked[2:], lambda _: True, "data")
    assert full == Outlook()
    with pytest.raises(UsageError, match="nothing to learn: no lesion is in the 2 masks of the slices to train on"):
        outlook_of_masks(masked[:2], masked[2:], lambda s: s is masked[2], "data")
    held = outlook_of_masks(masked[:2], masked[2:], lambda s: s is masked[0], "data")
    assert held.undefined == "no lesion is in the only mask of the slices to validate on"
    assert held.warning == (
        "warning: the validation score is not defined, because no lesion is in the only mask of the slices to validate "
        "on; best is chosen by the loss (put slices with lesions into the validation part)"
    )


def run_of(config: TrainConfig, run: Path) -> tuple[Result, list[str]]:
    said: list[str] = []
    return train(config, run, resume=False, say=said.append), said


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_a_run_without_a_score_says_so_everywhere(task: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    if task == "segment":
        data = tiny_lists(tmp_path / "d")
        for i in (6, 7):
            save(data / "masks" / f"s{i:02d}.png", lesion(0) * 0)
        why = "no lesion is in the 2 masks of the slices to validate on"
    else:
        data = tiny_manifest(tmp_path / "d")
        table = (data / "labels.csv").read_text().splitlines()
        altered = [row.replace(",0,", ",1,") if ",val," in row else row for row in table]
        (data / "labels.csv").write_text("\n".join(altered) + "\n")
        why = "all 4 slices to validate on have the label 1 (COVID-19): one class"
    result, said = run_of(small(task, data, epochs=2), run)
    assert any(
        line.startswith(f"warning: the validation score is not defined, because {why}; best is") for line in said
    )
    rows = list(csv.reader((run / "metrics.csv").read_text().splitlines()))
    assert [row[5] for row in rows] == ["val_score", *[f"not defined, because {why}"] * 2]
    losses = [float(row[4]) for row in rows[1:]]
    assert result.best.epoch == 1 + losses.index(min(losses))
    assert result.lines()[0].startswith(f"done; best is epoch {result.best.epoch}: validation ")
    assert f"not defined, because {why}" in result.lines()[0]
    assert result.lines()[0].endswith("chosen by the loss")
    everything = "".join([*said, *result.lines(), (run / "best.json").read_text(), (run / "result.json").read_text()])
    assert "nan" not in everything.lower()


def test_nothing_to_learn_is_refused_before_the_first_step(tmp_path: Path) -> None:
    data = tiny_lists(tmp_path / "d")
    for i in range(6):
        save(data / "masks" / f"s{i:02d}.png", lesion(0) * 0)
    with pytest.raises(UsageError, match="nothing to learn: no lesion is in the 6 masks"):
        run_of(small("segment", data), tmp_path / "run")
    save(data / "masks" / "s03.png", lesion(3))
    save(data / "images" / "s09.png", picture(9))
    assert not (tmp_path / "run").exists()
    run_of(small("segment", data, epochs=1), tmp_path / "run")  # one lesion is enough


def rate_at(module: TrainingModule, step: int) -> float:
    """The learning rate of a step, counted from 0, as PyTorch's own schedule comes to it."""
    optimiser = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], lr=module.config.lr)
    schedule = module.schedule_of(optimiser)
    for _ in range(step):
        optimiser.step()
        schedule.step()
    return float(optimiser.param_groups[0]["lr"])


@pytest.mark.parametrize("schedule", ["poly", "one-cycle"])
def test_a_longer_run_goes_on_at_the_rate_of_one_that_was_so_long(schedule: str, tmp_path: Path) -> None:
    data, run = tiny_lists(tmp_path / "d"), tmp_path / "run"
    config = small("segment", data, epochs=2, schedule=schedule)
    run_of(config, run)
    first = state(run)
    longer = config.resumed({"epochs": 5})
    result = train(longer, run, resume=True, say=print)
    assert (result.epochs, longer.epochs) == (5, 5)
    assert not all(torch.equal(v, first[k]) for k, v in state(run).items())
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4", "5"]
    for row in rows:
        module = TrainingModule(config if int(row["epoch"]) <= 2 else longer, 3)
        expected = rate_at(module, int(row["step"]) - 1)  # of the last step of the epoch
        assert float(row["lr"]) == pytest.approx(expected, rel=1e-6)
    again = train(longer, run, resume=True, say=print)  # nothing is left to do
    assert again == result


def test_the_first_step_of_a_longer_run_has_its_rate(tmp_path: Path) -> None:
    config = small("segment", tiny_lists(tmp_path / "d"), epochs=1, batch=6, schedule="one-cycle")
    run_of(config, tmp_path / "run")
    longer = config.resumed({"epochs": 4})
    train(longer, tmp_path / "run", resume=True, say=print)
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").read_text().splitlines()))
    rates = [rate_at(TrainingModule(longer, 1), step) for step in (1, 2, 3)]  # one step an epoch
    assert [float(row["lr"]) for row in rows[1:]] == pytest.approx(rates, rel=1e-6)
