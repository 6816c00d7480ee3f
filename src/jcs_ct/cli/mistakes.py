"""What to say below an error of the command line: an example of what is missing, or the command that was meant."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = {
    "jcs diagnose": "jcs diagnose study/ -o results",
    "jcs inspect": "jcs inspect study/",
    "jcs segment": "jcs segment slices/ -o maps",
    "jcs classify": "jcs classify slices/ -o probabilities.csv",
    "jcs explain": "jcs explain slices/ -o attention",
    "jcs collect": "jcs collect part-1 part-2 -o all",
    "jcs evaluate study": "jcs evaluate study --labels studies.csv --results results -o scores",
    "jcs evaluate segment": "jcs evaluate segment --data data/ -m jcs-lite -o scores",
    "jcs train lite": "jcs train lite --data data/ -o run",
    "jcs train segment": "jcs train segment --data data/ -o run",
    "jcs data check": "jcs data check data/",
    "jcs models show": "jcs models show jcs-lite",
}
"""Command → a call of it that is complete; a test parses each."""


def advice(error: click.ClickException) -> str:
    """Return a line that helps with an error of the command line; "" where there is none."""
    context = getattr(error, "ctx", None)
    if context is None:
        return ""
    if isinstance(error, click.MissingParameter):
        example = EXAMPLES.get(context.command_path)
        return f"For example: {example}" if example else ""
    unknown = re.match("No such command '(.+?)'", error.message)
    if unknown is None or getattr(error, "possibilities", None) or not isinstance(context.command, click.Group):
        return ""
    meant = _meant(unknown[1], context.command, context)
    return f"Did you mean: {', '.join(f'{context.command_path} {name}' for name in meant)}?" if meant else ""


def _meant(name: str, group: click.Group, context: click.Context) -> list[str]:
    """Return the commands of a group, and of the groups in it, that a wrong name may stand for."""
    inner = list(_inner(group, context))
    exact = [path for path in inner if path.split()[-1] == name]
    return exact or get_close_matches(name, group.list_commands(context), cutoff=0.7)


def _inner(group: click.Group, context: click.Context) -> Iterator[str]:
    for outer in group.list_commands(context):
        command = group.get_command(context, outer)
        if isinstance(command, click.Group):
            yield from (f"{outer} {name}" for name in command.list_commands(context))
