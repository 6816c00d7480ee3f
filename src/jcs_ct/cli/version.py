"""`jcs --version`: the package, its weights and the runtimes that are installed. It loads none of them."""

from __future__ import annotations

import platform

import click

from jcs_ct.core.installing import version_of
from jcs_ct.core.version import __version__

_RUNTIMES = ("torch", "openvino", "onnxruntime")


def show_version(context: click.Context, _option: click.Parameter, asked: bool) -> None:
    """Print the versions and end, if asked to."""
    if not asked or context.resilient_parsing:
        return
    from jcs_ct.weights.store import SHIPPED, find_stored

    stored = find_stored(SHIPPED)
    digest = stored.card.weights_sha256[:12] if stored and stored.card else "missing or damaged, see jcs doctor"
    runtimes = [f"{name} {version}" for name in _RUNTIMES if (version := version_of(name))]
    click.echo(f"jcs {__version__} (Python {platform.python_version()})")
    click.echo(f"weights: {SHIPPED} {digest}")
    click.echo(f"runtimes: {', '.join(runtimes) or 'none'}")
    context.exit()
