"""`jcs completion`: commands, options and files completed by the shell, as click does it."""

from __future__ import annotations

from importlib import import_module

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
def completion(shell: str) -> None:
    """Print the script that completes commands and options of jcs in SHELL.

    \b
    bash: jcs completion bash > ~/.local/share/bash-completion/completions/jcs
    zsh:  jcs completion zsh > FOLDER/_jcs      (a folder of $fpath)
    fish: jcs completion fish > ~/.config/fish/completions/jcs.fish
    """  # noqa: D301  # click needs the backspace itself
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101  # click knows these three
    jcs = import_module("jcs_ct.cli").jcs  # which imports this module when it is called
    click.echo(kind(jcs, {}, "jcs", "_JCS_COMPLETE").source())
