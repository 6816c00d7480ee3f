"""A run that is killed with SIGKILL and resumed ends as one that was not: weights, best weights, table."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from training_help import finish, same, start, state, table, tiny_lists, tiny_manifest

if TYPE_CHECKING:
    from pathlib import Path

# Steps at which each run is killed, inside the network: the first step after a checkpoint, the last step of an
# epoch (after which there is a validation), in the middle of a later one; and, as "v", in a validation.
KILLED = ["2", "6", "v1", "9"]
SEGMENT = ["--network", "tiny-s", "--epochs", 3, "--batch", 1, "--workers", 0]
CLASSIFY = ["--network", "tiny-c", "--epochs", 3, "--batch", 2, "--workers", 1, "--mix", 0.4, "--augment", "--balance"]
CLASSIFY += ["--pixel-weight", 0.5, "--class-weights"]
ALWAYS = ["--size", 32, "--every", 1, "--device", "cpu", "--lr", 0.01, "--seed", 3, "--quiet"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Each kind of run: `KIND-whole`, and `KIND-STEP` for each step at which it was killed before it was resumed."""
    if sys.platform == "win32":
        pytest.skip("needs fork and SIGKILL")
    root = tmp_path_factory.mktemp("killed")
    data = {"segment": tiny_lists(root / "s"), "classify": tiny_manifest(root / "c")}
    plan: list[Any] = []
    for task, words in (("segment", SEGMENT), ("classify", CLASSIFY)):
        steps = KILLED if task == "segment" else ["3", "6"]
        for at in ["whole", *steps]:
            line = ["train", task, "--data", data[task], "-o", root / f"{task}-{at}", *words, *ALWAYS]
            plan += [f"{at}|" + "|".join(map(str, line))]
            plan += [] if at == "whole" else ["resume|" + "|".join(map(str, [*line, "--resume"]))]
    status, said = finish(start(*plan), timeout=1200)  # fourteen runs, on a busy machine
    assert status == 0, said
    print(said)
    ends = said.split("ends:")[1].splitlines()[0].split()
    for at, end in zip([p.partition("|")[0] for p in plan], ends, strict=True):
        assert int(end) == (0 if at in ("whole", "resume") else -signal.SIGKILL), (at, said)
    return root


@pytest.mark.parametrize(("task", "at"), [*(("segment", at) for at in KILLED), ("classify", "3"), ("classify", "6")])
def test_killed_and_resumed_is_as_never_killed(runs: Path, task: str, at: str) -> None:
    whole, resumed = runs / f"{task}-whole", runs / f"{task}-{at}"
    assert same(state(whole), state(resumed))
    assert same(load_file(whole / "best.safetensors"), load_file(resumed / "best.safetensors"))
    assert table(whole) == table(resumed)
    assert [line.split(",")[0] for line in table(resumed)] == ["epoch", "1", "2", "3"]


@pytest.mark.parametrize("task", ["segment", "classify"])
def test_everything_in_a_checkpoint_is_the_same(runs: Path, task: str) -> None:
    held = [torch.load(runs / f"{task}-{at}" / "last.ckpt", weights_only=True) for at in ("whole", "6")]
    for one, other in zip(*(h["optimizer_states"][0]["state"].values() for h in held), strict=True):
        assert all(torch.equal(one[name], other[name]) for name in ("step", "exp_avg", "exp_avg_sq"))
    assert held[0]["lr_schedulers"] == held[1]["lr_schedulers"]
    assert held[0]["global_step"] == held[1]["global_step"] == (18 if task == "segment" else 12)
    assert not list((runs / f"{task}-6").glob(".*.part"))  # those of a killed write are removed


def test_the_epochs_see_different_orders(runs: Path) -> None:
    losses = [line.split(",")[3] for line in table(runs / "classify-whole")[1:]]
    assert len(set(losses)) == 3
