"""A run is what it was started on: what may change before it is resumed, what is refused, and what is said of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from datasets_help import lesion, save
from jcs_ct import models
from jcs_ct.cli import main
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.training.config import TrainConfig
from jcs_ct.training.fingerprint import (
    FILE,
    Entry,
    Fingerprint,
    compare_checkpoint,
    compare_with_start,
    differences,
    in_order,
)
from jcs_ct.training.result import Result
from jcs_ct.training.run import train
from jcs_ct.weights import load
from resume_changes import data_of, now_of, only, other_bytes, rows_of, swap, write
from training_help import same, small, specs, state, table

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


REFUSED: dict[str, tuple[Callable[[Path], Path | None], str]] = {
    "byte": (other_bytes("s1.png"), "1 slice (s1.png) holds other bytes"),
    "masks exchanged": (swap("mask", (0, 1)), "2 slices (s0.png, s1.png) got another mask"),
    "parts exchanged": (
        swap("split", (5, 6)),
        "1 slice (s5.png) went from training to validation; 1 slice (s6.png) went from validation to training",
    ),
    "fewer": (only(0, 1, 2, 6, 7), "3 slices (s3.png, s4.png, s5.png) are gone"),
}
TASKS = ("segment", "classify", "joint")


def config_of(task: str, root: Path, **given: Any) -> TrainConfig:
    network = "tiny-c" if task == "classify" else "tiny-s"
    return small(task, root / "table.csv", **({"network": network} | given))


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("change", REFUSED)
def test_what_changes_the_data_is_refused(change: str, task: str, tmp_path: Path) -> None:
    root, run = data_of(tmp_path / "d"), tmp_path / "run"
    run.mkdir()
    before = now_of(task, root)
    before.write(run)
    alter, text = REFUSED[change]
    alter(root)
    now = now_of(task, root)
    assert now.digest != before.digest
    said: list[str] = []
    with pytest.raises(InputError) as refused:
        compare_with_start(run, now, accept=False, say=said.append)
    assert refused.value.exit_status == 2
    assert refused.value.message == f"was started on something else than is here now: {text}"
    assert "--accept-changed-data" in (refused.value.hint or "")
    settled = compare_with_start(run, now, accept=True, say=said.append)
    assert settled.accepted == (f"resumed on changed data, as asked: {text}",)
    assert said == [f"warning: {settled.accepted[0]}"]
    settled.write(run)
    assert compare_with_start(run, now, accept=False, say=said.append) == settled  # what was accepted once stays so
    assert settled.before == (before.digest,)


def test_settings_and_versions_are_compared() -> None:
    before = Fingerprint((), {"seed": 0, "lr": 0.1}, {"torch": "2.0"})
    now = Fingerprint((), {"seed": 0, "lr": 0.2}, {"torch": "2.1", "numpy": "2"})
    assert differences(before, now) == [
        "lr was 0.1 and is 0.2",
        "version of numpy was nothing and is 2",
        "version of torch was 2.0 and is 2.1",
    ]
    assert differences(now, now) == []


def entry(content: str, mask: str = "", part: str = "training") -> Entry:
    return Entry(content, content, mask, None, part, None, None, None)


def test_slices_with_equal_pixels_are_told_by_what_is_said_of_them() -> None:
    before = [entry("a", "m1"), entry("b"), entry("a", "m2")]
    now = [entry("b"), entry("a", "m2"), entry("c"), entry("a", "m1")]
    assert in_order(["b", "a2", "c", "a1"], now, before) == ("a1", "b", "a2", "c")
    found = differences(Fingerprint(tuple(before), {}, {}), Fingerprint(tuple(now[:2]), {}, {}))
    assert found == ["1 slice (a) is gone"]
    twice = Fingerprint((entry("a"), entry("a")), {}, {})
    assert differences(Fingerprint((entry("a"),), {}, {}), twice) == ["1 slice (a) is new"]


def test_a_run_without_a_fingerprint_is_named(tmp_path: Path) -> None:
    now = Fingerprint((entry("a"),), {}, {})
    said: list[str] = []
    with pytest.raises(InputError, match=r"has no fingerprint\.json"):
        compare_with_start(tmp_path, now, accept=False, say=said.append)
    assert compare_with_start(tmp_path, now, accept=True, say=said.append).accepted == tuple(
        s.removeprefix("warning: ") for s in said
    )
    now.write(tmp_path)
    (tmp_path / FILE).write_text((tmp_path / FILE).read_text().replace('"a"', '"b"'))
    with pytest.raises(InputError, match="is not what a run has written: its digest is that of other content"):
        compare_with_start(tmp_path, now, accept=False, say=said.append)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    now = Fingerprint((entry("a"),), {}, {}, before=("earlier",))
    for digest in (None, now.digest, "earlier"):
        compare_checkpoint(digest, now, tmp_path)
    with pytest.raises(UsageError, match="is a checkpoint of another run"):
        compare_checkpoint("other", now, tmp_path)


class StopError(Exception):
    pass


def cut_short(config: TrainConfig, run: Path) -> None:
    """Train, and end as a crash would before the second checkpoint."""

    def say(text: str) -> None:
        if text.startswith("epoch 2 of"):
            raise StopError

    with pytest.raises(StopError):
        train(config, run, resume=False, say=say)


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_another_order_elsewhere_ends_as_if_nothing_had_happened(task: str, tmp_path: Path) -> None:
    root, runs = data_of(tmp_path / "d"), tmp_path / "runs"
    config = config_of(task, root, epochs=3, augment=True)
    train(config, runs / "whole", resume=False, say=print)
    cut_short(config, runs / "cut")
    assert len(table(runs / "cut")) == 3
    only(7, 3, 5, 1, 0, 6, 2, 4)(root)
    renamed_root = Path(shutil.move(root, tmp_path / "moved"))
    moved = TrainConfig.from_json((runs / "cut" / "config.json").read_text()).resumed(
        {"data": str(renamed_root / "table.csv")}
    )
    train(moved, runs / "cut", resume=True, say=print)
    assert same(state(runs / "whole"), state(runs / "cut"))
    assert table(runs / "whole") == table(runs / "cut")
    assert "accepted" in json.loads((runs / "cut" / "run.json").read_text())


def test_the_command_refuses_and_notes_on_the_card(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, run = data_of(tmp_path / "d"), tmp_path / "run"
    cut_short(config_of("segment", root, epochs=3), run)
    rows = rows_of()
    for row in rows:  # of whole groups, so that nothing else is wrong
        row["split"] = "val" if row["group"] == "p2" else "train"
    write(root, rows)
    words = ["train", "segment", "--data", str(root / "table.csv"), "-o", str(run), "--resume", "--quiet"]
    with pytest.raises(SystemExit) as end:
        main(words)
    said = capsys.readouterr().err
    assert (end.value.code, said.count("\n")) == (2, 1)
    assert "2 slices (s4.png, s5.png) went from training to validation" in said
    assert len(table(run)) == 3
    with pytest.raises(SystemExit) as end:
        main([*words, "--accept-changed-data"])
    assert (end.value.code, capsys.readouterr().err) == (0, "")
    assert len(table(run)) == 4
    rows_now = [line.split(",")[-1] for line in (run / "metrics.csv").read_text().splitlines()]
    assert rows_now == ["accepted_changes", "0", "1", "1"]  # the second epoch was cut
    line = (
        "resumed on changed data, as asked: 2 slices (s4.png, s5.png) went from training to validation; "
        "2 slices (s6.png, s7.png) went from validation to training"
    )
    assert json.loads((run / "run.json").read_text())["accepted"] == [line]
    _, card = load(run / "best.safetensors")
    assert line in card.notes
    with pytest.raises(SystemExit) as end:
        main([*words, "--epochs", "4"])  # accepted once, it needs no second word
    assert end.value.code == 0, capsys.readouterr().err


def test_the_best_weights_are_scored_again_on_what_was_accepted(tmp_path: Path) -> None:
    """The run has nothing left to do: its best weights are those of before, and everything says what they are worth."""
    root, run, said = data_of(tmp_path / "d"), tmp_path / "run", list[str]()
    config = config_of("segment", root)
    first = train(config, run, resume=False, say=said.append)
    tensors, card = load(run / "best.safetensors")
    weights = state(run)
    for name in ("m6.png", "m7.png"):  # of the slices to validate on
        save(root / name, 255 - lesion(int(name[1])))
    with pytest.raises(InputError, match=r"2 slices \(s6.png, s7.png\) got another mask"):
        train(config, run, resume=True, say=said.append)
    said.clear()
    again = train(config, run, resume=True, say=said.append, accept=True)
    train(config_of("segment", root), tmp_path / "other", resume=False, say=print)
    alone = table(tmp_path / "other")[again.best.epoch].split(",")  # the same network on the same slices
    assert again.best.epoch == first.best.epoch
    assert again.best.value != first.best.value
    assert [f"{again.best.loss:.8g}", f"{again.best.value:.8g}"] == alone[4:6]
    assert same(state(run), weights)
    noted = load(run / "best.safetensors")
    assert same(noted[0], tensors)
    line = "resumed on changed data, as asked: 2 slices (s6.png, s7.png) got another mask"
    assert line in noted[1].notes
    assert noted[1].notes[0] == f"epoch {again.best.epoch}, {again.best.words(again.score_name)}" != card.notes[0]
    assert [text for text in said if text.startswith("warning: best.safetensors")] == [
        f"warning: best.safetensors (epoch {first.best.epoch}) was chosen before the change; on what is here now: "
        + again.best.words(again.score_name)
    ]
    assert again.lines()[0] == f"warning: {line}"
    kept = Result.read(run / "result.json")
    assert kept is not None
    assert kept.accepted == (line,)
