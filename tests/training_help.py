"""Small networks and data sets to train on; run as a script, it is `jcs` with these networks in the table."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if __name__ == "__main__":  # as a script: Lightning starts its further processes with the same command
    sys.path.insert(0, str(Path(__file__).resolve().parent))

from datasets_help import folders, lesion, picture, save
from jcs_ct import models
from jcs_ct.training.config import TrainConfig, resolve


class Head(nn.Identity):
    """Where a process can be killed (see `_die_at`)."""


class TinySegmenter(nn.Module):
    """Five maps of an image, or of features of 64 channels."""

    def __init__(self, inputs: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(64 if inputs == "features" else 3, 6, 3, padding=1)
        self.bn = nn.BatchNorm2d(6)
        self.head = nn.Conv2d(6, 5, 3, padding=1)
        self.end = Head()

    def forward(self, x: Tensor) -> Tensor:
        maps: Tensor = self.end(self.head(F.relu(self.bn(self.stem(x)))))
        return maps


class TinyClassifier(nn.Module):
    """Logits from the mean of eight features, as the published classifier's."""

    def __init__(self, inputs: str) -> None:
        super().__init__()
        self.stem = nn.Conv2d(64 if inputs == "features" else 3, 8, 5, stride=4)
        self.fc = nn.Linear(8, 2, bias=False)
        self.end = Head()

    def pyramid(self, x: Tensor) -> list[Tensor]:
        return [self.end(F.relu(self.stem(x)))]

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.pyramid(x)[-1].mean(dim=(2, 3)))
        return logits


def specs() -> dict[str, models.ModelSpec]:
    home, own = TinySegmenter.__module__, models.ModelSpec
    return {
        "tiny-s": own("tiny-s", "segmentation", f"{home}:TinySegmenter", "", "release-segmentation", "", ("vgg",)),
        "tiny-c": own("tiny-c", "classification", f"{home}:TinyClassifier", "", "release-classification", "", ("vgg",)),
    }


def tiny_lists(root: Path, train: int = 6, val: int = 2) -> Path:
    """To segment: `train.txt` and `val.txt`."""
    folders(root, train + val)
    lines = [f"images/s{i:02d}.png masks/s{i:02d}.png\n" for i in range(train + val)]
    (root / "train.txt").write_text("".join(lines[:train]))
    (root / "val.txt").write_text("".join(lines[train:]))
    return root


def tiny_manifest(root: Path, train: int = 8, val: int = 4, masks: int = 3) -> Path:
    """To classify: labels in turn, a mask for the first few."""
    rows = ["file,label,group,source,split,mask"]
    for i in range(train + val):
        save(root / "images" / f"c{i:02d}.png", picture(200 + i))
        held = f"masks/c{i:02d}.png" if i < masks else ""
        if held:
            save(root / held, lesion(i))
        rows.append(f"images/c{i:02d}.png,{i % 2},p{i},{'ab'[i % 4 // 2]},{'train' if i < train else 'val'},{held}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    return root


def small(task: Any, data: Path | str, **given: Any) -> TrainConfig:
    """A configuration of a tiny run."""
    usual: dict[str, Any] = {
        "network": "tiny-c" if task == "classify" else "tiny-s",
        "size": 32,
        "epochs": 2,
        "batch": 2,
    }
    usual |= {"lr": 1e-2, "workers": 0, "accelerator": "cpu"}
    return resolve(task, data, "release", **(usual | given))


def start(
    *words: object, command: tuple[str, ...] = (str(Path(__file__)),), session: bool = False
) -> subprocess.Popen[str]:
    """Start `jcs train` as a process of its own; with `session`, as the leader of a group that can be killed."""
    line = [sys.executable, *command, "train", *map(str, words)]
    env = {k: v for k, v in os.environ.items() if k not in ("LOCAL_RANK", "RANK", "WORLD_SIZE", "MASTER_PORT")}
    env["OMP_NUM_THREADS"] = "1"
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env, start_new_session=session
    )


def finish(process: subprocess.Popen[str], timeout: float = 300) -> tuple[int, str]:
    """Wait for it; kill it if it hangs."""
    try:
        said, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        said, _ = process.communicate()
        raise AssertionError(f"it hangs: {said}") from None
    return process.returncode, said


def state(run: Path) -> dict[str, Tensor]:
    """The network in `last.ckpt`, read without unpickling code."""
    held: dict[str, Any] = torch.load(run / "last.ckpt", weights_only=True)
    return {k.removeprefix("network."): v for k, v in held["state_dict"].items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def table(run: Path) -> list[str]:
    """`metrics.csv` without the columns of time."""
    return [",".join(line.split(",")[:6]) for line in (run / "metrics.csv").read_text().splitlines()]


def _die_at(when: str) -> None:
    """Have this process killed inside the network: at a training step ("5"), or in a validation ("v1")."""
    left = int(when.removeprefix("v"))

    def count(module: nn.Module, given: tuple[Tensor, ...]) -> None:
        nonlocal left
        if not isinstance(module, Head) or given[0].is_meta:  # on the meta device a step is only sized up
            return
        if torch.is_grad_enabled() != when.startswith("v"):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    nn.modules.module.register_module_forward_pre_hook(count)


def _run_all(plans: list[str]) -> None:
    """Run each plan, "WHEN|WORD|WORD…", in a fork; print how they ended. Saves a start of Python for each."""
    for name in ("lightning", "monai.transforms", "torch.utils.tensorboard", "jcs_ct.training.run"):
        importlib.import_module(name)  # once, before the forks

    ends = []
    for plan in plans:
        when, *words = plan.split("|")
        child = os.fork()
        if child == 0:
            if when not in ("whole", "resume"):
                _die_at(when)
            main(words)
        _, status = os.waitpid(child, 0)
        ends.append(os.waitstatus_to_exitcode(status))
    print("ends:", *ends)


if __name__ == "__main__":
    from jcs_ct.cli import main

    models.MODELS.update(specs())
    torch.set_num_threads(1)
    if "|" in sys.argv[2]:
        _run_all(sys.argv[2:])
    else:
        main()
