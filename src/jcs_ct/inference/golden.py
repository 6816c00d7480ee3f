"""The parity self-check: do the networks compute the published numbers on this machine?

`assets/self_check.npz` holds what the official networks compute, in float32 on a CPU, with weights that are a pure
function of each tensor's name and shape (`fill`). Whoever runs `check` sees whether this build of PyTorch, on this
processor, reproduces them; no trained weights are needed.
"""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from jcs_ct.core.version import __version__
from jcs_ct.inference.device import pick_device
from jcs_ct.inference.network import Network
from jcs_ct.models import build_model, model_spec
from jcs_ct.weights import WeightsCard

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor, nn


def fill_array(name: str, shape: tuple[int, ...], salt: int = 0) -> NDArray[np.float32]:
    """Return the values that stand for the tensor called `name`: float32 of `shape`, the same on any machine."""
    rng = np.random.default_rng(zlib.crc32(name.encode()) + salt)
    if name.endswith("running_var"):
        values = rng.uniform(0.5, 1.5, shape)
    elif name.endswith("running_mean"):
        values = rng.normal(0.0, 0.1, shape)
    elif name.endswith("bn3.weight"):  # closes a residual branch: small, so that a hundred layers do not blow up
        values = rng.uniform(0.1, 0.3, shape)
    elif len(shape) == 1:
        values = rng.uniform(0.8, 1.2, shape) if name.endswith("weight") else rng.normal(0.0, 0.05, shape)
    else:
        values = rng.normal(0.0, np.sqrt(2.0 / np.prod(shape[1:])), shape)
    return values.astype(np.float32)


def fill(state_dict: dict[str, Tensor], salt: int = 0) -> dict[str, Tensor]:
    """Return `state_dict` with every floating-point tensor replaced by `fill_array`; integers stay."""

    def filled(name: str, tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        return torch.from_numpy(fill_array(name, tuple(tensor.shape), salt))

    with ThreadPoolExecutor() as pool:  # each tensor has random numbers of its own
        return dict(zip(state_dict, pool.map(filled, state_dict, state_dict.values()), strict=True))


def golden() -> dict[str, NDArray[Any]]:
    """Return the golden input and what the three networks make of it, by name."""
    data = files("jcs_ct").joinpath("assets/self_check.npz").read_bytes()
    with np.load(BytesIO(data), allow_pickle=False) as arrays:
        return dict(arrays)


def filled_model(name: str, inputs: str = "image") -> nn.Module:
    """Return a network of the table with the golden weights, in evaluation mode."""
    with torch.device("meta"):  # no random values are drawn only to be replaced
        model = build_model(name, inputs)
    tensors = {  # what is no weight is a count of batches
        key: tensor if tensor.is_floating_point() else torch.zeros_like(tensor, device="cpu")
        for key, tensor in model.state_dict().items()
    }
    model.load_state_dict(fill(tensors), assign=True)
    return model.eval()


def self_check_card(name: str) -> WeightsCard:
    """Return the card of a network of the table with the golden weights."""
    spec = model_spec(name)
    return WeightsCard(
        name=f"{spec.name} (self-check)",
        architecture=spec.name,
        source_file="",
        source_kind="deterministic values, not trained",
        source_sha256="0" * 64,
        source_url=None,
        weights_sha256="0" * 64,
        imported_at="",
        jcs_ct_version=__version__,
        recipe=spec.recipe,
        classes=(),
        threshold=None,
        threshold_from="",
        licence="",
        citation="",
        bn_eps_folded=0.0,
    )


def self_check_network(name: str, device: str = "auto", runtime: str = "torch") -> Network:
    """Return a network of the table with the golden weights: for shapes and speed, never for a map."""
    return Network(filled_model(name).state_dict(), self_check_card(name), pick_device(device), runtime)


@dataclass(frozen=True)
class GoldenResult:
    """How far one network is from the published numbers: largest absolute difference, what is allowed, and of what."""

    network: str
    difference: float
    allowed: float
    what: str = "probabilities"

    @property
    def ok(self) -> bool:
        """Whether the difference is within what is allowed."""
        return self.difference <= self.allowed


def check() -> list[GoldenResult]:
    """Run the three networks on the golden input; maps must agree within 1e-5, logits within 1e-4 relative."""
    reference = golden()
    image = torch.from_numpy(reference["image"])
    results = []
    for name, key in (
        ("jcs-single", "single_maps"),
        ("jcs-joint", "joint_maps"),
        ("jcs-classifier", "classifier_logits"),
    ):
        with torch.inference_mode():
            output = filled_model(name)(image)
        computed = (output.sigmoid() if output.dim() == 4 else output).numpy()
        allowed = 1e-5 if output.dim() == 4 else 1e-4 * float(np.abs(reference[key]).max())
        what = "probabilities" if output.dim() == 4 else "logits"
        results.append(GoldenResult(name, float(np.abs(computed - reference[key]).max()), allowed, what))
    return results
