"""What a crash leaves behind: a killed reader, all processes killed, a full disk."""

from __future__ import annotations

import os
import resource
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from datasets_help import lesion, save
from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.datasets.check import check
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.io.features import write_features
from jcs_ct.models import MODELS
from jcs_ct.training.run import train
from jcs_ct.weights import load, write
from training_help import finish, same, small, specs, start, state, table, tiny_lists
from weights_help import add_tiny, card_for, tiny_state


@pytest.fixture(autouse=True)
def tiny_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(MODELS, name, spec)


def children(pid: int) -> dict[int, str]:
    """The processes that a process has started, with their command lines."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((path / "stat").read_text().rsplit(")", 1)[1].split()[1])
            if parent == pid:
                found[int(path.name)] = (path / "cmdline").read_text().replace("\0", " ")
        except (OSError, ValueError, IndexError):  # it has ended meanwhile
            continue
    return found


def wait_for(condition: object, what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, what
        time.sleep(0.02)


def lines(run: Path) -> int:
    path = run / "metrics.csv"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds processes in /proc")
def test_a_killed_reader_is_named_and_the_run_goes_on(tmp_path: Path) -> None:
    data, run = tiny_lists(tmp_path / "s"), tmp_path / "run"
    words = ["segment", "--data", data, "-o", run, "--network", "tiny-s", "--size", 32, "--epochs", 12]
    words += ["--workers", 1, "--device", "cpu"]
    process = start(*words)
    wait_for(lambda: lines(run) >= 3 or process.poll() is not None, "no epoch ended")
    readers = [pid for pid, line in children(process.pid).items() if "spawn_main" in line]
    assert len(readers) == 1
    os.kill(readers[0], signal.SIGKILL)
    status, said = finish(process)
    assert status != 0
    assert "Traceback" not in said
    errors = [line for line in said.splitlines() if line.startswith("jcs: error")]
    assert len(errors) == 1
    assert "killed" in errors[0]
    assert "--resume" in errors[0]
    assert state(run)
    load(run / "best.safetensors")
    before = lines(run)
    status, said = finish(start(*words, "--resume"))
    assert status == 0, said
    assert before <= lines(run) == 13
    assert len({line.split(",")[0] for line in table(run)}) == 13


def test_two_processes_killed_and_resumed_end_as_never_killed(tmp_path: Path) -> None:
    data = tiny_lists(tmp_path / "s")
    words = ["segment", "--data", data, "--network", "tiny-s", "--size", 32, "--epochs", 6, "--workers", 0]
    words += ["--device", "cpu", "--devices", 2, "--every", 2]
    status, said = finish(start(*words, "-o", tmp_path / "whole"))
    assert status == 0, said
    run = tmp_path / "cut"
    process = start(*words, "-o", run, session=True)
    wait_for(lambda: lines(run) >= 3 or process.poll() is not None, "no epoch ended")
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)
    assert lines(run) < 7
    status, said = finish(start(*words, "-o", run, "--resume"))
    assert status == 0, said
    assert same(state(run), state(tmp_path / "whole"))
    assert table(run) == table(tmp_path / "whole")


def test_a_full_disk_keeps_the_last_good_pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_tiny(monkeypatch)
    path = tmp_path / "best.safetensors"
    card = replace(card_for("jcs-single", name="first"), architecture="tiny")
    write(path, tiny_state(1), card)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for room in (64, 700):  # the tensors do not fit; or they do, and the card does not
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
        try:
            with pytest.raises(OutputError):
                write(path, tiny_state(2), card, overwrite=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        tensors, found = load(path)
        assert found.name == "first"
        assert torch.equal(tensors["conv.weight"], tiny_state(1)["conv.weight"])
        assert sorted(p.name for p in tmp_path.iterdir()) == ["best.json", "best.safetensors"]


def test_features_of_two_sizes_are_refused_at_the_start(tmp_path: Path) -> None:
    root = tmp_path / "f"
    for i, side in enumerate((32, 32, 32, 16)):
        features = {"vgg": np.full((64, side, side), 3, np.uint8)}
        (root / "features").mkdir(parents=True, exist_ok=True)
        write_features(root / "features" / f"s{i}.mat", features)
        save(root / "masks" / f"s{i}.png", lesion(i))
    (root / "folds.json").write_text('{"folds": [["s0"], ["s1", "s2", "s3"]]}')
    report = check(open_dataset(root, "segment", strict=False))
    assert [(f.kind, f.path) for f in report.faults if f.kind == "feature-size"] == [
        ("feature-size", "features/s3.mat")
    ]
    config = small("segment", root, inputs="features", fold=1)
    with pytest.raises(InputError, match=r"s3\.mat: holds features of 64×16×16, most files hold 64×32×32"):
        train(config, tmp_path / "run", resume=False, say=print)
    assert not (tmp_path / "run" / "last.ckpt").exists()
