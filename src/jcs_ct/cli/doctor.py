"""`jcs doctor`: what is installed, what it can do, what is missing and how to get it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

_MARKS = {"ok": "ok", "missing": "--", "fault": "FAULT"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on standard output.")
@click.option("--verbose", is_flag=True, help="Print tracebacks of errors.")
def doctor(as_json: bool, verbose: bool) -> None:  # noqa: ARG001  # `main` looks for --verbose
    """Show what is installed, what it can do, what is missing, and how to get it.

    "ok" marks what is there, "--" what is missing but optional, and "FAULT" what has to be fixed. The exit status is 1
    when there is a fault. Nothing is written and nothing is sent anywhere. Add the output when you report a problem.
    """
    from jcs_ct.app.doctor import examine_installation

    findings = examine_installation()
    if as_json:
        click.echo(json.dumps([asdict(one) for one in findings], indent=2, ensure_ascii=False))
    else:
        width = max(len(one.what) for one in findings)
        for one in findings:
            click.echo(f"{_MARKS[one.state]:<5} {one.what:<{width}}  {one.text}")
            if one.remedy:
                click.echo(f"{'':<5} {'':<{width}}  → {one.remedy}")
    if any(one.state == "fault" for one in findings):
        click.get_current_context().exit(1)
