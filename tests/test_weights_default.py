"""Which weights a network gets unasked, and how weights leave the machine again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from jcs_ct import create_model
from jcs_ct.cli import main
from jcs_ct.weights import load, write
from jcs_ct.weights.store import find_stored, weights_folder
from weights_help import card_for

if TYPE_CHECKING:
    from pathlib import Path


def test_jcs_lite_comes_with_its_weights() -> None:
    tensors, _ = load("jcs-lite")
    model = create_model("jcs-lite")
    assert not model.training
    assert [name for name, value in model.state_dict().items() if not torch.equal(value, tensors[name])] == []


def test_none_leaves_a_network_without_weights() -> None:
    tensors, _ = load("jcs-lite")
    random = create_model("jcs-lite", weights=None).state_dict()
    assert any(not torch.equal(value, tensors[name]) for name, value in random.items())


def run(*words: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["models", *words])
    return int(ended.value.code or 0)


def test_weights_are_removed_with_their_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("JCS_HOME", str(tmp_path))
    tensors = create_model("jcs-lite", weights=None).state_dict()
    write(weights_folder() / "mine.safetensors", tensors, card_for("jcs-lite", name="mine"))
    assert find_stored("mine") is not None
    assert run("remove", "mine") == 0
    assert "mine is removed" in capsys.readouterr().err
    assert find_stored("mine") is None
    assert [p for p in weights_folder().iterdir() if p.name.startswith("mine")] == []
    assert run("remove", "mine") == 2
    assert run("remove", "jcs-lite") in {1, 2}
    assert "comes with jcs-ct" in capsys.readouterr().err
