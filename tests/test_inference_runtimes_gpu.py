"""PyTorch on CUDA: float32 without TF32. What needs a GPU is skipped without one."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from jcs_ct.inference.parity import check_arrays, compare
from jcs_ct.inference.torch_engine import PlainEngine, TunedEngine, strict_float32
from jcs_ct.models import model_spec
from runtime_help import far

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

NETWORKS = ("jcs-single", "jcs-joint", "jcs-classifier", "jcs-lite")


def test_float32_on_cuda_is_no_tf32(monkeypatch: pytest.MonkeyPatch) -> None:
    conv = getattr(torch.backends.cudnn, "conv", None)
    if conv is not None:
        before = conv.fp32_precision
        with strict_float32(torch.device("cuda")):
            assert conv.fp32_precision == "ieee"
            with strict_float32(torch.device("cuda")):
                pass
            assert conv.fp32_precision == "ieee"
        assert conv.fp32_precision == before
        with strict_float32(torch.device("cpu")):
            assert conv.fp32_precision == before
    old = SimpleNamespace(allow_tf32=True)  # PyTorch before 2.9
    monkeypatch.setattr(torch.backends, "cudnn", old)
    with strict_float32(torch.device("cuda")):
        assert not old.allow_tf32
    assert old.allow_tf32


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", NETWORKS)
def test_tuned_on_cuda_computes_what_plain_does(name: str, filled: Callable[..., nn.Module]) -> None:
    spec, network = model_spec(name), copy.deepcopy(filled(name))
    example = check_arrays(spec, (96, 128), batch=2)
    at_home = PlainEngine(network, "cpu").run(example)
    tuned = TunedEngine(network.to("cuda"), "cuda")
    plain = PlainEngine(network, "cuda")
    for shape in ((96, 128), (256, 320), (96, 128)):
        arrays = check_arrays(spec, shape, batch=2)
        found = tuned.run(arrays)
        parity = compare(spec.outputs, plain.run(arrays), found)
        assert parity.ok, f"{shape}: {parity.text()}, {tuned.facts}"
        assert all(values.dtype == np.float32 for values in found)
    assert far(at_home, plain.run(example)) < 1e-3, "TF32 is off"
