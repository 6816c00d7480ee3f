"""54 changes to a data set before `--resume`, for each training command: the table of the documents is true."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from jcs_ct import models
from resume_changes import CHANGES, COMMANDS, outcome
from training_help import specs

TABLE = Path(__file__).resolve().parent.parent / "docs/resume.csv"


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)


def test_the_table_has_every_kind_of_change() -> None:
    kinds = Counter(change.kind for change in CHANGES)
    assert sum(kinds.values()) >= 40
    assert {kind for kind, count in kinds.items() if count >= 3} == {
        "file", "byte", "label", "mask", "part", "group", "fold", "order", "path",
    }  # fmt: skip
    assert all("R" not in change.verdicts for change in CHANGES if change.kind == "order")
    rows = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
    assert [(row["kind"], row["change"], row["why"]) for row in rows] == [(c.kind, c.what, c.why) for c in CHANGES]


@pytest.mark.parametrize("number", range(len(CHANGES)), ids=[f"{c.kind}: {c.what}" for c in CHANGES])
def test_a_change_is_refused_or_passes(number: int, tmp_path: Path) -> None:
    change = CHANGES[number]
    row = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))[number]
    said = [outcome(change, command, tmp_path / str(i)) for i, command in enumerate(COMMANDS)]
    assert "".join("R" if text else "." for text in said) == change.verdicts, said
    assert [row[command] for command in COMMANDS] == ["refused" if text else "goes on" for text in said]
    first = next((text for text in said if text), "")
    assert row["what is said"] == first.removeprefix("was started on something else than is here now: ")
