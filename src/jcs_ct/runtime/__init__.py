"""How a network is executed: weights, device and precision behind one small class."""

from __future__ import annotations

from jcs_ct.runtime.network import Network, open_network, pick_device, self_check_network

__all__ = ["Network", "open_network", "pick_device", "self_check_network"]
