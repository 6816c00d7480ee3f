"""Two processes train as one does with twice the batch; started as a user starts them. Tolerance: 1e-5."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import training_help
from training_help import finish, same, start, state, table, tiny_lists

TOLERANCE = 1e-5


def test_two_processes_are_one_with_twice_the_batch(tmp_path: Path) -> None:
    data = tiny_lists(tmp_path / "s", val=3)  # three to validate on: one process has two of them, the other one
    words = ["segment", "--data", data, "--network", "tiny-s", "--size", 32, "--epochs", 2, "--workers", 0]
    words += ["--device", "cpu", "--lr", 0.01]
    runs = [start(*words, "-o", tmp_path / "one", "--batch", 2)]
    runs += [start(*words, "-o", tmp_path / "two", "--batch", 1, "--devices", 2)]
    for run in runs:
        status, said = finish(run)
        assert status == 0, said
        assert said.count("slices to train on") == said.count("jcs: done") == 1  # only the first process speaks
        assert "Warning" not in said
    one, two = state(tmp_path / "one"), state(tmp_path / "two")
    for name, values in one.items():
        torch.testing.assert_close(two[name], values, rtol=TOLERANCE, atol=TOLERANCE, msg=name)
    for line, other in zip(table(tmp_path / "one")[1:], table(tmp_path / "two")[1:], strict=True):
        numbers = [float(v) for v in line.split(",")]
        assert [float(v) for v in other.split(",")] == pytest.approx(numbers, rel=TOLERANCE)
    assert len(table(tmp_path / "two")) == 3


def test_processes_of_torchrun_are_those_of_the_run(tmp_path: Path) -> None:
    data = tiny_lists(tmp_path / "s", 4, 2)
    words = ["segment", "--data", data, "--network", "tiny-s", "--size", 32, "--epochs", 1, "--workers", 0]
    words += ["--device", "cpu", "--devices", 2, "--batch", 1]
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", str(Path(training_help.__file__)))
    for name, command in (("own", launcher[-1:]), ("torchrun", launcher)):
        status, said = finish(start(*words, "-o", tmp_path / name, command=command))
        assert status == 0, said
        assert said.count("slices to train on") == said.count("jcs: done") == 1
    assert same(state(tmp_path / "own"), state(tmp_path / "torchrun"))


def test_the_published_network_trains_in_two_processes(tmp_path: Path) -> None:
    data = tiny_lists(tmp_path / "s", 2, 1)
    words = ["segment", "--data", data, "-o", tmp_path / "run", "--size", 32, "--epochs", 1, "--workers", 0]
    status, said = finish(start(*words, "--device", "cpu", "--devices", 2, command=("-m", "jcs_ct")))
    assert status == 0, said
    assert len(table(tmp_path / "run")) == 2
