"""`jcs serve` and `jcs work`: everything is put together, started, and ended in order."""

from __future__ import annotations

import signal
import socket
import ssl
import threading
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcs_ct.core.errors import JcsError, OutputError, UsageError
from jcs_ct.service.access import LOCAL, Access, check_bind
from jcs_ct.service.database import RecordError
from jcs_ct.service.files import Folders
from jcs_ct.service.log import Log
from jcs_ct.service.record import Record
from jcs_ct.service.supervisor import Supervisor, check_limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcs_ct.service.settings import Service

TIDY_SECONDS = 3600.0
STOP_SECONDS = 5  # for requests that are being answered when the service is asked to stop


@dataclass(frozen=True)
class Address:
    """Where a service listens.

    Attributes:
        host, port: To bind; port 0: a free one.
        certificate, key: Files of TLS, or None.
        proxy: Address of the proxy that has TLS, whose X-Forwarded headers are believed.
    """

    host: str = "127.0.0.1"
    port: int = 8042
    certificate: Path | None = None
    key: Path | None = None
    proxy: str | None = None


def serve(service: Service, address: Address, tokens: Path | None, workers: int, say: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT.

    Raises:
        UsageError: It would be open to others without a token or TLS, or the settings cannot be kept.
        OutputError: The folder or the port cannot be used.
    """
    import uvicorn

    from jcs_ct.service.app import build_app
    from jcs_ct.service.context import ServiceContext

    access = Access(tokens)
    check_bind(address.host, access, tls=address.certificate is not None, proxy=address.proxy)
    if address.certificate is not None:
        _check_certificate(address)
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with binding(address.host, address.port):
        listener = socket.create_server((address.host, address.port), family=family)
    with listener, working(service, workers, say) as supervisor:
        record = Record(service.database, patience=5.0)
        folders = Folders(service.folder)
        log = Log(record)
        context = ServiceContext(
            service, access, record, folders, log, service.diagnosis.digest(), lambda: supervisor.ready, workers,
            secure=address.certificate is not None or address.proxy is not None,
        )  # fmt: skip
        stopped = threading.Event()
        threading.Thread(target=_tidy, args=(folders, service.database, stopped, say), daemon=True).start()
        log.audit(LOCAL, "start")
        port = listener.getsockname()[1]
        scheme = "http" if address.certificate is None else "https"
        say(f"serving at {scheme}://{address.host}:{port}/ with {workers} workers")
        server = uvicorn.Server(
            uvicorn.Config(
                build_app(context),
                access_log=False,
                log_level="warning",
                server_header=False,
                date_header=True,
                ssl_certfile=address.certificate,
                ssl_keyfile=address.key,
                proxy_headers=address.proxy is not None,
                forwarded_allow_ips=address.proxy or "",
                timeout_graceful_shutdown=STOP_SECONDS,
            )
        )
        with suppress(KeyboardInterrupt):  # uvicorn raises the signal again after it has ended in order
            server.run(sockets=[listener])
        stopped.set()
        log.audit(LOCAL, "stop")
        record.close()


def _check_certificate(address: Address) -> None:
    """Refuse what TLS cannot use, before anything is started. Raises UsageError."""
    try:  # without a password nobody is asked for one
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(str(address.certificate), str(address.key), "")
    except (OSError, ValueError) as error:
        raise UsageError(
            f"--cert or --key cannot be used: {error}",
            hint="give files in PEM that belong together, without a password",
        ) from error


def _tidy(folders: Folders, database: str, stopped: threading.Event, say: Callable[[str], None]) -> None:
    """Remove what was given up or left half-done: now, and every hour."""
    with closing(Record(database)) as record:
        while not stopped.is_set():
            try:
                if removed := folders.tidy(record.inputs()):
                    say(f"{removed} folders that were left half-done were removed")
            except (RecordError, OSError) as error:  # the next time
                say(f"what was left half-done stays for now: {error}")
            stopped.wait(TIDY_SECONDS)


def work(service: Service, workers: int, say: Callable[[str], None]) -> None:
    """Take part in the work of a service, until SIGTERM or SIGINT."""
    stopped = told_to_end()
    with working(service, workers, say):
        say(f"working with {workers} workers")
        stopped.wait()


@contextmanager
def binding(host: str, port: int) -> Iterator[None]:
    """Turn what the system says of an address that it does not give into an error. Raises OutputError."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{host} port {port} cannot be used: {error.strerror}", hint="give another --port") from error


def tried_again(error: JcsError | OSError) -> str:
    """Return the line on a disk, a database or an archive that is away for now."""
    why = error.line() if isinstance(error, JcsError) else f"the disk refuses it: {error.strerror}"
    return f"{why}; it is tried again and again"


def told_to_end() -> threading.Event:
    """Return what SIGTERM and SIGINT set from now on, in place of what they do."""
    stopped = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: stopped.set())
    return stopped


@contextmanager
def working(service: Service, workers: int, say: Callable[[str], None]) -> Iterator[Supervisor]:
    """Have workers take studies as long as the block runs. Raises as `serve` does."""
    check_limits(service)
    Folders(service.folder).prepare()
    record = Record(service.database, patience=10.0)
    record.prepare()
    record.close()
    service.diagnosis.digest()  # weights that are not there are named now
    supervisor = Supervisor(service, workers, say)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()
