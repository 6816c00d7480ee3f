"""A network with the deterministic weights of the self-check, which no user has to have."""

from __future__ import annotations

from jcs_ct.core.version import __version__
from jcs_ct.inference.device import pick_device
from jcs_ct.inference.network import Network
from jcs_ct.models import model_spec
from jcs_ct.weights import WeightsCard


def self_check_network(name: str, device: str = "auto", runtime: str = "torch") -> Network:
    """Return a network with the deterministic weights of the self-check: for shapes and speed, never for a map."""
    from jcs_ct.inference.golden import filled_model

    spec = model_spec(name)
    card = WeightsCard(
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
    return Network(filled_model(name).state_dict(), card, pick_device(device), runtime)
