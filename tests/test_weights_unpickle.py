"""Reading weight files: tensors come out, everything else is refused in one line, and nothing in a file runs."""

from __future__ import annotations

import contextlib
import io
import os
import pickle
import warnings
import zipfile
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from jcs_ct.core.errors import WeightsError
from jcs_ct.weights import unpickle
from jcs_ct.weights.unpickle import read_tensors

if TYPE_CHECKING:
    from pathlib import Path

STATE = {"conv.weight": torch.arange(6.0).reshape(2, 3), "bn.bias": torch.ones(2)}


def saved(path: Path, content: object, *, legacy: bool = False) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def refusal(path: Path) -> str:
    before = sorted(path.parent.iterdir())
    with pytest.raises(WeightsError) as caught:
        read_tensors(path)
    line = caught.value.line()
    assert str(path) in line
    assert "\n" not in line
    assert "weights_only" not in line  # PyTorch's own advice would open the door again
    assert len(line) < 400 + len(str(path))
    assert sorted(path.parent.iterdir()) == before
    return line


# What is read


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("mapping", [dict, OrderedDict])
def test_both_formats_of_pytorch_are_read(tmp_path: Path, legacy: bool, mapping: type) -> None:
    raw = read_tensors(saved(tmp_path / "w.pth", mapping(STATE), legacy=legacy))
    assert raw.kind == ("PyTorch legacy pickle" if legacy else "PyTorch zip")
    assert raw.notes == ()
    assert raw.tensors.keys() == STATE.keys()
    assert all(torch.equal(raw.tensors[name], value) for name, value in STATE.items())


def test_safetensors_are_read_with_their_header(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "any name", metadata={"a": "b"})
    raw = read_tensors(tmp_path / "any name")
    assert (raw.kind, dict(raw.metadata)) == ("safetensors", {"a": "b"})
    assert torch.equal(raw.tensors["conv.weight"], STATE["conv.weight"])


@pytest.mark.parametrize(
    "content",
    [
        {"state_dict": STATE, "epoch": 3, "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}}},
        {"model": STATE, "config": {"lr": 0.1}},
        {"model": {"state_dict": STATE}},
        {"net": {f"module.{k}": v for k, v in STATE.items()}},
        {f"_orig_mod.{k}": v for k, v in STATE.items()},
        {f"module.model.module.{k}": v for k, v in STATE.items()},
        {"conv.module.weight": STATE["conv.weight"], "bn.module.bias": STATE["bn.bias"]},
        {"state_dict": {f"model._orig_mod.{k}": v for k, v in STATE.items()}, "pytorch-lightning_version": "2.4"},
        {**STATE, "epoch": 3, "best": None},
        {"model": {"depth": 101}, "state_dict": STATE},
    ],
)
def test_wrappers_of_training_scripts_are_taken_off(tmp_path: Path, content: dict[str, Any]) -> None:
    raw = read_tensors(saved(tmp_path / "w.pth", content))
    assert raw.tensors.keys() == STATE.keys()


def test_what_is_ignored_is_said(tmp_path: Path) -> None:
    content = {"state_dict": {**{f"module.{k}": v for k, v in STATE.items()}, "note": "x"}, "epoch": 3, "optimizer": {}}
    notes = " | ".join(read_tensors(saved(tmp_path / "w.pth", content)).notes)
    assert "epoch, optimizer" in notes
    assert "ignored, no tensors: note" in notes
    assert "module." in notes


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floats_become_float32_and_it_is_said(tmp_path: Path, dtype: torch.dtype) -> None:
    raw = read_tensors(saved(tmp_path / "w.pth", {"a": torch.ones(3, dtype=dtype)}))
    assert raw.tensors["a"].dtype is torch.float32
    assert str(dtype).removeprefix("torch.") in raw.notes[0]


def test_counters_stay_integers_and_parameters_become_tensors(tmp_path: Path) -> None:
    state = {"bn.num_batches_tracked": torch.tensor(7), "w": nn.Parameter(torch.ones(2, 3).t())}
    raw = read_tensors(saved(tmp_path / "w.pth", state))
    assert raw.tensors["bn.num_batches_tracked"].dtype is torch.int64
    assert not raw.tensors["w"].requires_grad
    assert raw.tensors["w"].is_contiguous()


# What is unsafe


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch '{self.trace}'",)


@pytest.mark.parametrize("shape", ["zip", "legacy", "plain pickle", "beside the weights"])
def test_a_malicious_checkpoint_is_refused_and_nothing_in_it_runs(tmp_path: Path, shape: str) -> None:
    trace, folder = tmp_path / "it ran", tmp_path / "in"
    folder.mkdir()
    path = folder / "w.pth"
    if shape == "plain pickle":
        path.write_bytes(pickle.dumps({"a": Evil(trace)}, protocol=2))
    elif shape == "beside the weights":
        saved(path, {"state_dict": STATE, "hook": Evil(trace)})
    else:
        saved(path, {"a": Evil(trace)}, legacy=shape == "legacy")
    line = refusal(path)
    assert not trace.exists()
    if shape != "plain pickle":
        assert "system" in line
        assert "nothing in it was run" in line
    if shape == "zip":  # the proof that the same bytes are live ammunition
        torch.load(path, weights_only=False)
        assert trace.exists()


@pytest.mark.parametrize("variable", ["TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"])
def test_the_environment_cannot_open_the_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "1")
    trace = tmp_path / "it ran"
    folder = tmp_path / "in"
    folder.mkdir()
    refusal(saved(folder / "w.pth", {"a": Evil(trace)}))
    assert not trace.exists()


@pytest.mark.parametrize("legacy", [False, True])
def test_a_whole_model_is_refused_by_the_name_of_its_class(tmp_path: Path, legacy: bool) -> None:
    line = refusal(saved(tmp_path / "w.pth", nn.Linear(2, 2), legacy=legacy))
    assert "whole pickled model" in line
    assert "torch.nn.modules.linear.Linear" in line
    assert "state_dict()" in line


def test_other_objects_are_refused_by_name(tmp_path: Path) -> None:
    assert "numpy" in refusal(saved(tmp_path / "w.pth", {"state_dict": STATE, "best": np.float64(3)}))


# What is not a file of weights


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html><head><title>Google Drive - Virus scan warning</title>", "web page (HTML)"),
        (b"\xef\xbb\xbf\n <HTML lang='en'>Quota exceeded", "Google Drive"),
        (b'<?xml version="1.0"?><html xmlns="x">', "web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\n", "git lfs pull"),
        (b"\x1f\x8b\x08\x00abc", "gzip"),
        (b"PK\x05\x06" + bytes(18), "empty zip"),
        (bytes(257) + b"ustar" + bytes(300), "tar archive"),
        (b"Not found \xc3", "text file"),
        (b'{"error": "quota"}', "text file"),
        (b"\x80", "not a file of weights"),
        (b"\x89HDF\r\n\x1a\n\0\0\0\0\xff\xfe", "not a file of weights"),
        (b"\xff\xfe\xfd\xfc", "not a file of weights"),
        (b"\x80\x02\xb2\x00\x01", "damaged"),
        (b"\x80\x04\x95\x00", "damaged"),
        ((50).to_bytes(8, "little") + b'{"a"', "safetensors"),
        ((4).to_bytes(8, "little") + b"{}}}" + bytes(20), "safetensors"),
    ],
)
def test_other_files_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "joint.pth"
    path.write_bytes(content)
    assert words in refusal(path)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "w.pth")
    (tmp_path / "folder").mkdir()
    assert "is a folder" in refusal(tmp_path / "folder")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "w.pth", STATE)

    def denied(*args: Any, **options: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "load", denied)
        assert "Permission denied" in refusal(path)
    with monkeypatch.context() as patch:
        patch.setattr(type(path), "open", denied)
        assert "Permission denied" in refusal(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path, legacy: bool) -> None:
    whole = saved(tmp_path / "whole.pth", STATE, legacy=legacy).read_bytes()
    path = tmp_path / "w.pth"
    for length in range(1, len(whole) - 1, 41):
        path.write_bytes(whole[:length])
        refusal(path)


def test_noise_in_a_file_never_escapes_as_another_error(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "w.pth"
    for legacy in (False, True):
        whole = np.frombuffer(saved(path, STATE, legacy=legacy).read_bytes(), np.uint8)
        for _ in range(60):
            noisy = whole.copy()
            noisy[rng.integers(0, len(noisy), 6)] = rng.integers(0, 256, 6)
            path.write_bytes(noisy.tobytes())
            with contextlib.suppress(WeightsError):  # it may also be read: not every byte matters
                read_tensors(path)


def test_archives_that_pytorch_did_not_write_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hi")
    assert "zip archive, not a PyTorch checkpoint" in refusal(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", b"")
        archive.writestr("net/constants.pkl", b"")
    assert "TorchScript" in refusal(path)


def test_a_zip_bomb_is_refused_before_it_unpacks(tmp_path: Path) -> None:
    path = saved(tmp_path / "w.pth", {"a": torch.zeros(200_000)})
    with zipfile.ZipFile(path) as archive:
        members = {member: archive.read(member) for member in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    assert "zip bomb" in refusal(path)


# Tensors that cannot be used


def tensors_to_refuse() -> list[tuple[object, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [
            (torch.tensor([1.0, float("nan")]), "NaN"),
            (torch.tensor([1.0, float("inf")]), "infinite"),
            (torch.tensor([1e300], dtype=torch.float64), "infinite"),  # too large for float32
            (torch.eye(3).to_sparse(), "sparse"),
            (torch.eye(3).to_sparse_csr(), "sparse"),
            (torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "quantized"),
            (torch.ones(2, dtype=torch.complex64), "complex64"),
            (torch.ones(2, dtype=torch.int32), "int32"),
            (torch.ones(2, dtype=torch.bool), "bool"),
            (torch.ones(2).to(torch.float8_e4m3fn), "float8_e4m3fn"),
            (torch.ones(2, device="meta"), "no values"),
            (torch.ones(1).expand(1000, 1000), "more values than the file holds"),
        ]


@pytest.mark.parametrize("case", range(12))
def test_tensors_that_cannot_be_used_are_refused_by_name(tmp_path: Path, case: int) -> None:
    tensor, words = tensors_to_refuse()[case]
    line = refusal(saved(tmp_path / "w.pth", {**STATE, "layer.bad": tensor}))
    assert "'layer.bad'" in line
    assert words in line


def test_absurd_sizes_are_refused_before_they_are_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "4 GiB" in refusal(saved(tmp_path / "w.pth", {"a": torch.ones(1).expand(10**6, 10**6)}))
    monkeypatch.setattr(unpickle, "MOST_TENSORS", 1)
    assert "2 tensors" in refusal(saved(tmp_path / "w.pth", STATE))


def test_a_lack_of_memory_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes")

    path = saved(tmp_path / "w.pth", STATE)
    monkeypatch.setattr(torch, "load", full)
    assert "more memory" in refusal(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (torch.ones(3), "holds a Tensor"),
        ([torch.ones(3)], "holds a list"),
        ({}, "nothing"),
        ({"a": 1, "b": "text"}, "a, b"),
        ({1: torch.ones(3)}, "no tensors by name"),
        ({"module.a": torch.ones(1), "a": torch.ones(1)}, "one name"),
        ({f"k{i}": i for i in range(9)}, "and 4 more"),
    ],
)
def test_other_contents_are_named(tmp_path: Path, content: object, words: str) -> None:
    assert words in refusal(saved(tmp_path / "w.pth", content))


def test_a_safetensors_file_is_checked_like_any_other(tmp_path: Path) -> None:
    save_file({"a": torch.tensor([float("nan")])}, tmp_path / "w.safetensors")
    assert "NaN" in refusal(tmp_path / "w.safetensors")
    buffer = io.BytesIO()
    torch.save(STATE, buffer)
    (tmp_path / "w.safetensors").write_bytes(buffer.getvalue())  # the content decides, not the extension
    assert read_tensors(tmp_path / "w.safetensors").kind == "PyTorch zip"


def test_a_safetensors_file_is_measured_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file({"a": torch.zeros(1000)}, tmp_path / "large.safetensors")
    monkeypatch.setattr(unpickle, "LARGEST_TENSORS", 1000)
    monkeypatch.setattr(unpickle, "safe_open", lambda *_a, **_k: pytest.fail("it was read"))
    with pytest.raises(WeightsError, match="larger than"):
        unpickle.read_tensors(tmp_path / "large.safetensors")
