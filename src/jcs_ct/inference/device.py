"""Where networks run."""

from __future__ import annotations

import torch

from jcs_ct.core.errors import UsageError


def pick_device(name: str) -> torch.device:
    """Return the device for "auto", "cpu", "cuda" or "mps". Raises UsageError if it is not there."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available.get(name, False):
        there = [device for device, is_there in available.items() if is_there]
        raise UsageError(f"device {name} is not available here", hint=f"available: {', '.join(there)}")
    return torch.device(name)
