"""`jcs mercure`: the entry point of the container, as mercure starts it."""

from __future__ import annotations

import os

import click

from jcs_ct.cli.common import line_printer, quiet_option, threads_option, verbose_option


@click.command()
@quiet_option
@verbose_option
@threads_option
def mercure(quiet: bool) -> None:
    """Diagnose the images in MERCURE_IN_DIR, and write SEG, SR and result.json into MERCURE_OUT_DIR.

    Settings come from task.json: model, rule, segment, series, allow_gaps, drop_odd, notify. The exit status is 0 when
    all is done, also where there is no chest; 1 when some study failed; 2 when nothing could be used. This is a
    research tool, not a medical device.
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
