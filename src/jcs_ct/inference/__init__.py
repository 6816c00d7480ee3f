"""How a network is executed: weights, device and runtime behind one small class."""

from __future__ import annotations

from jcs_ct.inference.device import pick_device
from jcs_ct.inference.golden import self_check_network
from jcs_ct.inference.network import Network, open_network
from jcs_ct.inference.runtimes import CHOICES, RUNTIMES, RuntimeFailedError

__all__ = ["CHOICES", "RUNTIMES", "Network", "RuntimeFailedError", "open_network", "pick_device", "self_check_network"]
