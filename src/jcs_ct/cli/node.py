"""`jcs node`: studies come by DICOM's network protocol."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from jcs_ct.cli.common import EXISTING, line_printer
from jcs_ct.cli.serve import intake_options, listening_options, service_of, service_options
from jcs_ct.core.errors import UsageError
from jcs_ct.core.installing import install_command

if TYPE_CHECKING:
    from pathlib import Path


@click.command()
@service_options
@click.option(
    "--title",
    metavar="TITLE",
    default="JCS",
    show_default=True,
    help="AE title of this node; calls to another title are refused.",
)
@click.option("--calling", metavar="TITLE", multiple=True, help="AE title that may send; give one for each sender.")
@listening_options(11112, "TLS")
@click.option("--cert", type=EXISTING, help="TLS certificate (PEM).")
@click.option("--key", type=EXISTING, help="Private key of the TLS certificate (PEM).")
@click.option("--ca", type=EXISTING, help="CA certificates that signed those of the senders (PEM).")
@click.option("--settle", type=click.FloatRange(0), metavar="SECONDS", default=60, show_default=True,
              help="A study is complete when nothing of it has arrived for this long.")  # fmt: skip
@intake_options("Number of waiting studies from which no more go to the workers.",
                "Share of the disk that stays free; with less, images are answered with A700.")  # fmt: skip
def node(
    title: str, calling: tuple[str, ...], host: str, port: int, cert: Path | None, key: Path | None, ca: Path | None,
    settle: float, queue: int, free: float, quiet: bool, workers: int, **shared: Any,
) -> None:  # fmt: skip
    """Receive CT images over DICOM (C-STORE) and diagnose them as studies of FOLDER.

    FOLDER may be the folder of a `jcs serve` (then give --workers 0). This is a research tool, not a medical device.
    """
    if find_spec("pynetdicom") is None:
        raise UsageError("pynetdicom cannot be imported", hint=install_command("node"))
    service = service_of(shared, queue=queue, free_share=free)

    from jcs_ct.service.node.receiver import Node
    from jcs_ct.service.node.run import run

    run(service, Node(title, calling, host, port, cert, key, ca), settle, workers, line_printer(quiet=quiet))
