"""`jcs doctor`: what is installed, what it can do, what is missing and how to get it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from jcs_ct.cli.common import verbose_option

_MARKS = {"ok": "ok", "missing": "opt", "fault": "FAULT"}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON on standard output.")
@verbose_option
def doctor(as_json: bool) -> None:
    """Show what is installed, what it can do, what is missing, and how to get it.

    "ok" marks what is there, "opt" what is optional and missing, and "FAULT" what has to be fixed. The exit status is 1
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
    faults = sum(one.state == "fault" for one in findings)
    if not as_json:
        count = "one fault has" if faults == 1 else f"{faults} faults have"
        click.echo(f"\n{count} to be fixed." if faults else "\nEverything that `jcs diagnose` needs is installed.")
    if faults:
        click.get_current_context().exit(1)
