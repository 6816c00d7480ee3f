"""`jcs serve`, `jcs work` and `jcs token`: studies over HTTP."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from jcs_ct.cli.common import (
    DEVICES,
    PATH,
    PATIENT_RULES,
    RUNTIMES,
    Probability,
    allow_gaps_option,
    line_printer,
    quiet_option,
    segment_option,
    stacked,
)
from jcs_ct.core.errors import UsageError
from jcs_ct.core.installing import install_command
from jcs_ct.outputs.report.language import LANGUAGES

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.service.settings import Service

    F = TypeVar("F", bound=Callable[..., Any])

MIB = 2**20
NEEDED = ("fastapi", "uvicorn", "sqlalchemy", "prometheus_client", "python_multipart", "pg8000")


service_options = stacked(
    click.argument("folder", type=click.Path(path_type=Path, file_okay=False)),
    click.option("--database", metavar="URL", default=None,
                 help="Database of the record: sqlite:///… (default: in FOLDER) or postgresql://…."),
    click.option("--workers", type=click.IntRange(0), default=1, show_default=True,
                 help="Number of processes that diagnose (with GPUs: one for each)."),
    click.option("--model", "-m", metavar="NAME|FILE", multiple=True,
                 help="Weights (default: jcs-lite). Give two for a verdict by one and lesions by the other."),
    click.option("--device", type=DEVICES, default="auto", show_default=True, help="Where the networks run."),
    click.option("--runtime", type=click.Choice(RUNTIMES), default="auto", show_default=True,
                 help="Library that runs the networks."),
    click.option("--rule", type=click.Choice(PATIENT_RULES), default=PATIENT_RULES[0], show_default=True,
                 help="How slice probabilities become the patient's verdict."),
    segment_option,
    click.option("--language", type=click.Choice(list(LANGUAGES)), default="en", show_default=True,
                 help="Language of the reports; the other files and the page stay English."),
    allow_gaps_option,
    click.option("--keep-identity", is_flag=True, help="Show the original UIDs in reports."),
    click.option("--seconds", type=click.FloatRange(1), default=1800, show_default=True,
                 help="Time limit of a study."),
    click.option("--memory", type=click.IntRange(256), metavar="MIB", default=8192, show_default=True,
                 help="Memory limit of a worker, everything included."),
    click.option("--attempts", type=click.IntRange(1), default=3, show_default=True,
                 help="Number of workers that may die of a study before it counts as failed."),
    click.option("--lease", type=click.FloatRange(1), metavar="SECONDS", default=30, show_default=True,
                 help="A worker that stays silent for this long loses its study."),
)  # fmt: skip
"""Adds what server and workers must agree on."""


def listening_options(port: int, needs: str) -> Callable[[F], F]:
    """Return what adds `--host` and `--port`; `needs`: what a server needs that others can reach."""
    where = f"Address to listen on. One that others can reach needs {needs}."
    return stacked(
        click.option("--host", default="127.0.0.1", show_default=True, help=where),
        click.option("--port", type=click.IntRange(0, 65535), default=port, show_default=True,
                     help="Port to listen on; 0 takes a free one."),
    )  # fmt: skip


def intake_options(queue: str, free: str) -> Callable[[F], F]:
    """Return what adds the limits from which nothing more is taken, with these words, and `--quiet`."""
    return stacked(
        click.option("--queue", type=click.IntRange(1), default=1000, show_default=True, help=queue),
        click.option("--free", type=Probability(), default=0.05, show_default=True, help=free),
        click.option("--quiet", is_flag=True, help="Print log lines only."),
    )


@click.command()
@service_options
@listening_options(8042, "--tokens, and TLS or --proxy")
@click.option("--tokens", type=PATH, help="File of access tokens (see `jcs token`).")
@click.option("--cert", type=click.Path(path_type=Path, exists=True), help="TLS certificate (PEM).")
@click.option("--key", type=click.Path(path_type=Path, exists=True), help="Private key of the TLS certificate (PEM).")
@click.option("--proxy", metavar="ADDRESS", help="Address of the proxy in front that terminates TLS.")
@click.option("--upload", type=click.IntRange(1), metavar="MIB", default=4096, show_default=True,
              help="Largest size of a study.")  # fmt: skip
@click.option(
    "--files", type=click.IntRange(1), default=20000, show_default=True, help="Largest number of files in a form."
)
@click.option("--idle", type=click.FloatRange(1), metavar="SECONDS", default=60, show_default=True,
              help="An upload that sends nothing for this long is cut off.")  # fmt: skip
@intake_options("Number of studies that may wait; further ones are answered with 429.",
                "Share of the disk that stays free; with less, uploads are answered with 503.")  # fmt: skip
def serve(
    host: str, port: int, tokens: Path | None, cert: Path | None, key: Path | None, proxy: str | None, upload: int,
    files: int, idle: float, queue: int, free: float, quiet: bool, workers: int, **shared: Any,
) -> None:  # fmt: skip
    """Serve studies over HTTP: clients send them, workers diagnose them, clients fetch the results.

    FOLDER holds the studies that were sent, the results and, without --database, the record. The page for people is at
    /, and the documentation of the API is at /docs. docs/service.md tells more.

    This is a research tool, not a medical device.
    """
    if (cert is None) != (key is None):
        raise UsageError("--cert and --key belong together", hint="give both or neither")
    service = service_of(
        shared, upload_bytes=upload * MIB, upload_files=files, idle_seconds=idle, queue=queue, free_share=free
    )

    from jcs_ct.service.run import Address
    from jcs_ct.service.run import serve as run

    run(service, Address(host, port, cert, key, proxy), tokens, workers, line_printer(quiet=quiet))


@click.command()
@service_options
@quiet_option
def work(workers: int, quiet: bool, **shared: Any) -> None:
    """Start workers for a running `jcs serve`, also on another machine.

    Give the same FOLDER, database, weights and settings.
    """
    if not workers:
        raise UsageError("--workers 0 does no work", hint="give 1 or more")
    service = service_of(shared)

    from jcs_ct.service.run import work as run

    run(service, workers, line_printer(quiet=quiet))


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--name", required=True, help="Who will hold the token; the log shows this name.")
@click.option("--role", type=click.Choice(["submit", "read", "admin"]), multiple=True, required=True,
              help="submit sends studies, read sees results, admin does all and deletes. Repeatable.")  # fmt: skip
def token(file: Path, name: str, role: tuple[str, ...]) -> None:
    """Create an access token for `jcs serve --tokens FILE` and print it.

    The file keeps its hash; delete its line to revoke it.
    """
    from jcs_ct.service.access import add_token

    click.echo(add_token(file, name, role))


def service_of(shared: dict[str, Any], **limits: Any) -> Service:
    """Return the service that the options describe. Raises UsageError where the extra is missing."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} cannot be imported", hint=install_command("service"))

    from jcs_ct.service.settings import DiagnosisSettings, Limits, Service, sqlite_in

    folder: Path = shared["folder"]
    diagnosis = DiagnosisSettings(
        shared["model"], shared["device"], shared["runtime"], shared["rule"], shared["segment"],
        shared["allow_gaps"], shared["keep_identity"], shared["language"],
    )  # fmt: skip
    limits |= {"seconds": shared["seconds"], "memory": shared["memory"] * MIB, "attempts": shared["attempts"]}
    limits["lease_seconds"] = shared["lease"]
    return Service(folder.resolve(), shared["database"] or sqlite_in(folder), diagnosis, Limits(**limits))
