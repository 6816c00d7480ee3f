"""jcs-ct: COVID-19 on chest CT by joint classification and segmentation. A research tool, not a medical device."""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from jcs_ct.core.processors import spin_briefly
from jcs_ct.core.version import __version__

__all__ = ["CaseResult", "Diagnoser", "JcsError", "__version__", "create_model", "diagnose"]

if TYPE_CHECKING:
    from jcs_ct.app.diagnose import Diagnoser, diagnose
    from jcs_ct.app.examine import CaseResult
    from jcs_ct.core.errors import JcsError
    from jcs_ct.weights import create_model

_HOMES = {
    "CaseResult": "jcs_ct.app.examine",
    "Diagnoser": "jcs_ct.app.diagnose",
    "JcsError": "jcs_ct.core.errors",
    "create_model": "jcs_ct.weights",
    "diagnose": "jcs_ct.app.diagnose",
}

spin_briefly(os.environ)  # before anything here loads PyTorch


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import jcs_ct` does not load PyTorch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'jcs_ct' has no attribute {name!r}; it has {', '.join(__all__)}")
