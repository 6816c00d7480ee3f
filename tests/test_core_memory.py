"""Memory that is free: the machine's, within the limits of cgroups of both versions; and what will not fit is named."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import pytest
import torch

from jcs_ct import models
from jcs_ct.core.errors import InputError
from jcs_ct.core.memory import Memory, available_memory, gib
from jcs_ct.datasets.slices import Pixels, open_volume
from jcs_ct.io.nifti import values
from jcs_ct.training.lite import data as lite_data
from jcs_ct.training.memory import memory_warning, step_bytes
from training_help import small, specs

if TYPE_CHECKING:
    from pathlib import Path

GIB = 2**30
MACHINE = {"MemTotal": 64 * GIB, "MemAvailable": 40 * GIB, "SwapFree": 0}


def written(root: Path, files: dict[str, Any]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{content}\n")
    return root


def found(root: Path, own: str, files: dict[str, Any], machine: dict[str, int] = MACHINE) -> Memory:
    lines = "".join(f"{name}:   {size // 1024} kB\n" for name, size in machine.items())
    written(root, {f"groups/{name}": content for name, content in files.items()} | {"own": own, "meminfo": lines})
    return available_memory(root / "groups", root / "own", root / "meminfo")


STAT = f"anon 5\nactive_file {GIB // 2}\ninactive_file {GIB // 4}\nshmem 99\nslab_reclaimable {GIB // 4}"
V1 = f"cache 7\ntotal_active_file {GIB}\ntotal_inactive_file 0\ntotal_shmem 99"
CASES: dict[str, tuple[str, dict[str, Any], tuple[float, float, bool]]] = {
    "no group": ("", {}, (64, 40, False)),
    "no limit": ("0::/a", {"a/memory.max": "max", "a/memory.current": 5}, (64, 40, False)),
    "version 2": ("0::/a", {"a/memory.max": 4 * GIB, "a/memory.current": 3 * GIB}, (4, 1, True)),
    "its cache is given back": (
        "0::/a",
        {"a/memory.max": 4 * GIB, "a/memory.current": 3 * GIB, "a/memory.stat": STAT},
        (4, 2, True),
    ),
    "memory.high": ("0::/a", {"a/memory.max": "max", "a/memory.high": 2 * GIB, "a/memory.current": GIB}, (2, 1, True)),
    "an outer group is narrower": (
        "0::/a/b",
        {
            "a/memory.max": 3 * GIB,
            "a/memory.current": int(2.5 * GIB),
            "a/b/memory.max": 2 * GIB,
            "a/b/memory.current": 0,
        },
        (2, 0.5, True),
    ),
    "the outer one counts what others use": (
        "0::/a/b",
        {"a/memory.max": 3 * GIB, "a/memory.current": 2 * GIB, "a/b/memory.max": 2 * GIB, "a/b/memory.current": 0},
        (2, 1, True),
    ),
    "a container sees itself as the root": (
        "0::/kubepods/pod7/c9",
        {"memory.max": GIB, "memory.current": 0},
        (1, 1, True),
    ),
    "more is used than allowed": ("0::/", {"memory.max": GIB, "memory.current": 2 * GIB}, (1, 0, True)),
    "version 1": (
        "4:cpu,cpuacct:/x\n7:memory:/docker/1",
        {
            "memory/docker/1/memory.limit_in_bytes": 8 * GIB,
            "memory/docker/1/memory.usage_in_bytes": 6 * GIB,
            "memory/docker/1/memory.stat": V1,
            "memory/memory.limit_in_bytes": 9223372036854771712,
        },
        (8, 3, True),
    ),
    "version 1, several controllers": (
        "7:hugetlb,memory:/1",
        {"hugetlb,memory/1/memory.limit_in_bytes": 2 * GIB, "hugetlb,memory/1/memory.usage_in_bytes": 0},
        (2, 2, True),
    ),
    "a limit above what is free": ("0::/a", {"a/memory.max": 60 * GIB, "a/memory.current": 0}, (60, 40, False)),
    "garbage": ("0::/a", {"a/memory.max": "many", "a/memory.current": "x"}, (64, 40, False)),
}


@pytest.mark.parametrize("case", CASES)
def test_the_narrowest_limit_on_the_way_counts(case: str, tmp_path: Path) -> None:
    own, files, (total, free, limited) = CASES[case]
    assert found(tmp_path, own, files) == Memory(int(total * GIB), int(free * GIB), limited)


def test_swap_counts_where_a_group_may_swap(tmp_path: Path) -> None:
    machine = MACHINE | {"SwapFree": 2 * GIB}
    files: dict[str, Any] = {"memory.max": GIB, "memory.current": 0}
    assert found(tmp_path / "a", "0::/", {}, machine).free == 42 * GIB
    assert found(tmp_path / "b", "0::/", files, machine).free == 3 * GIB
    assert found(tmp_path / "c", "0::/", files | {"memory.swap.max": 0}, machine).free == GIB


def test_where_nothing_is_known_nothing_is_limited(tmp_path: Path) -> None:
    memory = available_memory(tmp_path, tmp_path / "none", tmp_path / "none")
    assert (memory.free, memory.limited) == (None, False)
    assert memory.words() == "nobody knows how much is free"
    assert Memory(GIB, GIB // 2, limited=True).words() == "512 MiB are free (the limit of the container or the job)"
    assert gib(1.5 * GIB) == "1.5 GiB"


def test_a_packed_volume_that_does_not_fit_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hu = np.random.default_rng(0).integers(-1000, 100, (64, 64, 8)).astype(np.int16)
    nib.save(nib.Nifti1Image(hu, np.diag([-2.0, -2.0, 5.0, 1.0])), tmp_path / "a.nii")  # type: ignore[no-untyped-call]
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress((tmp_path / "a.nii").read_bytes(), 1))
    monkeypatch.setattr(values, "available_memory", lambda: Memory(GIB, 2 * hu.size - 1, limited=True))
    assert len(open_volume(str(tmp_path / "a.nii"))) == 8  # is read piece by piece
    with pytest.raises(InputError) as refused:
        open_volume(str(tmp_path / "b.nii.gz"))
    assert refused.value.message == (
        "needs 0 MiB of memory, and 0 MiB are free (the limit of the container or the job)"
    )
    assert refused.value.exit_status == 2
    monkeypatch.setattr(values, "available_memory", lambda: Memory(GIB, 2 * hu.size, limited=True))
    assert len(open_volume(str(tmp_path / "b.nii.gz"))) == 8


def test_what_a_step_needs_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, spec in specs().items():
        monkeypatch.setitem(models.MODELS, name, spec)
    config = small("segment", tmp_path, batch=2)
    item = {"input0": torch.zeros(3, 32, 32), "mask": torch.zeros(32, 32), "label": torch.tensor(1)}
    needed = step_bytes(config, item)
    # Parameters 4 times: 6·3·9 + 6, 6 + 6, 5·6·9 + 5. Kept: the input, what norm and ReLU read, the input of the head.
    parameters = 16 * (6 * 27 + 6 + 12 + 5 * 54 + 5)
    image = 2 * 32 * 32 * 4
    assert needed >= parameters + image * (3 + 6 + 6)
    assert needed <= parameters + image * (3 + 6 + 6) + 4096
    assert memory_warning(config, item, Memory(GIB, needed)) == ""
    said = memory_warning(config, item, Memory(GIB, needed - 1, limited=True))
    assert said.startswith("warning: a step needs 0 MiB of memory or more, and 0 MiB are free (the limit of the")
    assert memory_warning(small("segment", tmp_path, accelerator="cuda"), item, Memory(GIB, 0)) == ""


def test_decoded_slices_that_do_not_fit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    slices = lite_data.LiteSlices([None] * 10, 0, 0)  # type: ignore[list-item]
    slices.decoded[0] = Pixels(np.zeros((32, 64), np.uint8), np.zeros((32, 64), bool), None)
    for free, said in ((10 * 2 * 32 * 64, False), (10 * 2 * 32 * 64 - 1, True)):
        monkeypatch.setattr(lite_data, "available_memory", lambda free=free: Memory(GIB, free))
        assert slices.memory_warning().startswith("warning: 10 decoded slices take 0 MiB of memory") == said
