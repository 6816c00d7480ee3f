"""Scores say what they are of: others are not compared with them, and are not replaced without a word."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from datasets_help import lesion, picture, save
from jcs_ct.cli import main
from jcs_ct.evaluate.record import read_scores

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Jcs = Callable[..., tuple[int, str, str]]


@pytest.fixture
def jcs(capsys: pytest.CaptureFixture[str]) -> Jcs:
    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four slices with patients, in a table; maps of two models."""
    root = tmp_path / "data"
    for i in range(4):
        save(root / f"s{i}.png", picture(i))
        save(root / f"m{i}.png", lesion(i))
        for name, shift in (("one", 1), ("two", 4)):
            save(tmp_path / name / f"s{i}.png", (np.roll(lesion(i), shift, axis=0) * 0.9).astype(np.uint8))
    write(root)
    return root


def write(root: Path, order: tuple[int, ...] = (0, 1, 2, 3), **cells: str) -> None:
    rows = [f"s{i}.png,m{i}.png,{cells.get(f's{i}', f'p{i // 2}')},{i % 2}" for i in order]
    (root / "table.csv").write_text("\n".join(["file,mask,group,label", *rows]) + "\n")


def scored(jcs: Jcs, data: Path, maps: Path, out: Path, *more: object) -> str:
    words = ["segment", "--data", data / "table.csv", "--predictions", maps, "-o", out, "--resamples", 50, *more]
    status, _, said = jcs(*words)
    assert status == 0, said
    return said


def test_scores_of_the_same_slices_stand_side_by_side(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    scored(jcs, data, tmp_path / "one", tmp_path / "a")
    other = shutil.copytree(data, tmp_path / "elsewhere")
    write(other, (2, 0, 3, 1))  # order and place do not count
    scored(jcs, other, tmp_path / "two", tmp_path / "b")
    status, said, _ = jcs("compare", tmp_path / "a", tmp_path / "b" / "scores.json", "--json")
    found = json.loads(said)
    assert (status, found["slices"]) == (0, 4)
    assert [m["predictions"] for m in found["models"]] == [str(tmp_path / "one"), str(tmp_path / "two")]
    assert found["models"][0]["made_by"] != found["models"][1]["made_by"]
    for name, out in ((0, "a"), (1, "b")):
        content = json.loads((tmp_path / out / "scores.json").read_text())
        assert found["scores"]["per_image.dice"][name] == content["per_image"]["dice"]["value"]
    status, said, _ = jcs("compare", tmp_path / "a", tmp_path / "b")
    one, two = found["scores"]["per_image.dice"]
    assert f"| per_image.dice | {one:.4f} | {two:.4f} | {two - one:+.4f} |" in said.splitlines()


def other_picture(root: Path) -> None:
    save(root / "s1.png", picture(9))


def other_mask(root: Path) -> None:
    save(root / "m1.png", lesion(3))


OTHERS: dict[str, tuple[Callable[[Path], None], tuple[object, ...], str]] = {
    "a picture": (other_picture, (), "1 slice (s1) has another picture, mask, label or patient"),
    "a mask": (other_mask, (), "1 slice (s1) has another picture, mask, label or patient"),
    "a patient": (lambda root: write(root, s3="p9"), (), "1 slice (s3) has another picture, mask, label or patient"),
    "fewer": (lambda root: write(root, (0, 2)), (), "2 slices (s1, s3) are in the first only"),
    "the threshold": (lambda _: None, ("--threshold", 0.4), "threshold is 0.5 and 0.4"),
    "the policy": (lambda _: None, ("--empty", "one"), "empty is exclude and one"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_scores_of_others_are_not_compared(case: str, jcs: Jcs, data: Path, tmp_path: Path) -> None:
    change, options, text = OTHERS[case]
    scored(jcs, data, tmp_path / "one", tmp_path / "a")
    change(data)
    scored(jcs, data, tmp_path / "two", tmp_path / "b", *options)
    status, out, said = jcs("compare", tmp_path / "a", tmp_path / "b")
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert f"cannot be compared with {tmp_path / 'a'}: {text} (" in said
    replaced = scored(jcs, data, tmp_path / "one", tmp_path / "a", "--overwrite", *options)
    assert f"note: the scores that were there cannot be compared with these: {text}\n" in replaced


def test_scores_of_the_same_are_replaced_without_a_word(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    scored(jcs, data, tmp_path / "one", tmp_path / "a")
    assert "were there" not in scored(jcs, data, tmp_path / "one", tmp_path / "a", "--overwrite")
    save(tmp_path / "one" / "s0.png", lesion(1))
    assert "is another one now, under the same name" in scored(
        jcs, data, tmp_path / "one", tmp_path / "a", "--overwrite"
    )


def test_scores_that_do_not_say_what_they_are_of_are_named(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    scored(jcs, data, tmp_path / "one", tmp_path / "a")
    file = tmp_path / "a" / "scores.json"
    whole = json.loads(file.read_text())

    def refused(content: Any, text: str) -> None:
        file.write_text(content if isinstance(content, str) else json.dumps(content))
        status, _, said = jcs("compare", tmp_path / "a", tmp_path / "a")
        assert (status, said.count("\n")) == (2, 1)
        assert text in said

    assert read_scores(file)[1].task == "segment"
    refused({k: v for k, v in whole.items() if k != "fingerprint"}, "does not say what its scores are of")
    refused("[]", "does not say what its scores are of")
    held = whole["fingerprint"]
    fewer = held | {"slices": dict(list(held["slices"].items())[1:])}
    refused(whole | {"fingerprint": fewer}, "of other slices than it lists")
    file.unlink()
    status, _, said = jcs("compare", tmp_path / "a", tmp_path / "a")
    assert (status, "cannot be read: No such file" in said) == (2, True)


def test_every_command_says_what_its_scores_are_of(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    table = tmp_path / "p.csv"
    table.write_text("file,probability\n" + "".join(f"s{i}.png,0.{2 + 2 * i}\n" for i in range(4)))
    words = ["--data", data / "table.csv", "--maps", tmp_path / "one", "-o", tmp_path / "e", "--resamples", 0]
    assert jcs("explain", *words)[0] == 0
    words = ["--labels", data / "table.csv", "--predictions", table, "-o", tmp_path / "c", "--resamples", 0]
    assert jcs("classify", *words)[0] == 0
    records = [read_scores(tmp_path / name)[1] for name in "ec"]
    assert [r.task for r in records] == ["explain", "classify"]
    assert [list(r.slices) for r in records] == [["s0", "s1", "s2", "s3"]] * 2
    status, _, said = jcs("compare", tmp_path / "e", tmp_path / "c")
    assert (status, "one is of `evaluate explain`, the other of `evaluate classify`" in said) == (2, True)
