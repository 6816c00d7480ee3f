"""Weights: what is known, what is on this machine, how it comes in safely, and networks with weights in them.

The data flow: catalogue → obtain, download → unpickle (tensors only) → recognition (which network, our names)
→ loading (card, store). Nothing here imports PyTorch before tensors are needed, so that lists answer at once.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import UsageError, WeightsError
from jcs_ct.weights.card import WeightsCard
from jcs_ct.weights.catalogue import CATALOGUE
from jcs_ct.weights.store import SHIPPED, list_stored

if TYPE_CHECKING:
    from torch import nn

    from jcs_ct.weights.loading import import_file, load, write

__all__ = [
    "CATALOGUE",
    "WeightsCard",
    "create_model",
    "import_file",
    "list_stored",
    "load",
    "write",
]

OWN = "*own*"
"""Stands for the weights that come with the package; no name in the store can be called so."""


def create_model(name: str, weights: str | Path | None = OWN, inputs: str = "image") -> nn.Module:
    """Build a network, with weights in it, in evaluation mode on the CPU.

    >>> import torch
    >>> model = create_model("jcs-single", weights=None)
    >>> with torch.inference_mode():
    ...     model(torch.rand(1, 3, 32, 32)).shape  # five maps, the finest first
    torch.Size([1, 5, 32, 32])

    Args:
        name: A network of the table: "jcs-single", "jcs-joint", "jcs-classifier" or a backbone.
        weights: Stored name (`jcs models list`) or file; an official `.pth` can be given as it is. Left out,
            "jcs-lite" gets the weights that come with the package. None leaves the network with random numbers: good
            for training from scratch and for tests, its outputs mean nothing.
        inputs: "image", or "features" for the stage-1 features of the COVID-CS release.

    Raises:
        UsageError: Unknown `name` or `inputs`; or no weights were named for a network that comes without them.
        WeightsError: The weights are missing, damaged, unsafe, or belong to another network.
    """
    from jcs_ct.models import build_model, model_spec

    model_spec(name)  # a wrong name is said before half a gigabyte is read
    if weights == OWN and name != SHIPPED:
        raise UsageError(
            f"no weights come with {name}, and none were named",
            hint="weights= takes a name (jcs models list) or a file; weights=None leaves it without",
        )
    if weights is None:
        return build_model(name, inputs).eval()
    if not isinstance(weights, (str, Path)):
        raise UsageError("weights is neither a name nor a file", hint="weights=None leaves the network without")
    weights = SHIPPED if weights == OWN else weights

    import torch

    from jcs_ct.weights.loading import load

    tensors, card = load(weights)
    if card.architecture != name:
        raise WeightsError(
            f"this is {card.architecture}, not {name}",
            path=weights,
            hint=f"create {card.architecture!r}, or give other weights",
        )
    with torch.device("meta"):  # no random numbers that would be thrown away
        model = build_model(name, inputs)
    model.load_state_dict(tensors, strict=True, assign=True)
    return model.eval()


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is first used."""
    if name in ("import_file", "load", "write"):
        return getattr(import_module("jcs_ct.weights.loading"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
