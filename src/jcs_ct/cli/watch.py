"""`jcs watch orthanc`: what arrives in an archive is diagnosed, and the results go back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import EXISTING, Group, line_printer
from jcs_ct.cli.serve import intake_options, service_of, service_options

if TYPE_CHECKING:
    from pathlib import Path


@click.group(cls=Group)
def watch() -> None:
    """Watch an archive for new studies (see docs/orthanc.md)."""


@watch.command()
@click.argument("url")
@service_options
@click.option(
    "--to",
    "target",
    metavar="URL",
    default=None,
    help="Address of the Orthanc that gets the results (default: the same).",
)
@click.option("--login", type=EXISTING, help="File with one line, user:password, for both.")
@click.option("--ca", type=EXISTING, help="CA certificates to trust (PEM; default: those of the system).")
@click.option("--every", type=click.FloatRange(0.1), metavar="SECONDS", default=5, show_default=True,
              help="Time between two looks for new studies.")  # fmt: skip
@click.option("--settle", type=click.FloatRange(0), metavar="SECONDS", default=60, show_default=True,
              help="A study must not have changed for this long, in addition to Orthanc's StableAge.")  # fmt: skip
@click.option("--patience", type=click.FloatRange(1), metavar="SECONDS", default=60, show_default=True,
              help="Time limit of an answer from Orthanc.")  # fmt: skip
@click.option("--rescan", type=click.FloatRange(0.001), metavar="HOURS", default=24, show_default=True,
              help="Time between two looks through all studies.")  # fmt: skip
@click.option("--new-only", is_flag=True, help="At the first start, leave out the studies that are already there.")
@intake_options("Number of waiting studies from which no more are fetched.",
                "Share of the disk that stays free; with less, no more are fetched.")  # fmt: skip
def orthanc(
    url: str, target: str | None, login: Path | None, ca: Path | None, every: float, settle: float, patience: float,
    rescan: float, new_only: bool, queue: int, free: float, quiet: bool, workers: int, **shared: Any,
) -> None:  # fmt: skip
    """Watch the Orthanc at URL, diagnose what arrives, and send SEG and SR back.

    URL is the address of its REST interface. Orthanc needs its DICOMweb plugin.

    A complete study goes to the workers of FOLDER, which may be the folder of a `jcs serve` (then give --workers 0). A
    slice that arrives late makes a new version of the results.

    This is a research tool, not a medical device.
    """
    service = service_of(shared, queue=queue, free_share=free)

    from jcs_ct.service.watch.orthanc import Orthanc, read_login
    from jcs_ct.service.watch.run import Watch
    from jcs_ct.service.watch.run import watch as run
    from jcs_ct.service.watch.watcher import Habits

    who = None if login is None else read_login(login)
    archive, back = (Orthanc(address, who, ca, patience) for address in (url, target or url))
    what = Watch(archive, back, Habits(settle, rescan * 3600, not new_only, every), every)
    run(service, what, workers, line_printer(quiet=quiet))
