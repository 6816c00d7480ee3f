"""Whether somebody sits in front of this machine, and showing them a file."""

from __future__ import annotations

import os
import sys
import webbrowser
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def has_desktop() -> bool:
    """Tell whether a browser window would reach whoever started the command.

    That needs a terminal (a script or a CI job has none) and a desktop: not over SSH, and on Linux with a display.
    """
    if not sys.stderr.isatty() or "CI" in os.environ or "SSH_CONNECTION" in os.environ:
        return False
    if sys.platform in {"win32", "darwin"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def show(page: Path) -> bool:
    """Open a page in the browser of the desktop; return whether there was one."""
    try:
        return webbrowser.open(page.resolve().as_uri())
    except (OSError, webbrowser.Error):
        return False
