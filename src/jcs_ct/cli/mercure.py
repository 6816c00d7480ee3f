"""`jcs mercure`: the entry point of the container, as mercure starts it."""

from __future__ import annotations

import os

import click

from jcs_ct.cli.common import line_printer


@click.command()
@click.option("--quiet", is_flag=True, help="Problems only.")
@click.option("--verbose", is_flag=True, help="Tracebacks.")
def mercure(quiet: bool, verbose: bool) -> None:  # noqa: ARG001  # `main` looks for --verbose itself
    """Take the images in MERCURE_IN_DIR, write SEG, SR and result.json into MERCURE_OUT_DIR.

    Settings come from task.json: model, rule, segment, series, allow_gaps, drop_odd, notify. Exit status: 0 done, also
    where there is no chest; 1 some study failed; 2 nothing could be used. A research tool, not a medical device.
    """
    from jcs_ct.core.memory import one_arena
    from jcs_ct.core.processors import limited_threads
    from jcs_ct.hospital.mercure import run

    one_arena()
    say = line_printer(quiet=quiet)
    with limited_threads():  # a container has a quota that libraries do not look at
        status, result = run(os.environ)
    for line in result["failed"]:
        click.echo(f"jcs: error: {line}", err=True)
    for line in (*result["notes"], *result["no_chest"]):
        say(f"note: {line}")
    say(f"{result['status']}: {result['__mercure_notification']['text']}")
    click.get_current_context().exit(status)
