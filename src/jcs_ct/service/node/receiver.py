"""The DICOM node itself: whom it admits, and what it answers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made when it is imported
    CTImageStorage,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
    Verification,
)
from pynetdicom.transport import ThreadedAssociationServer

from jcs_ct.core.errors import UsageError
from jcs_ct.service.access import is_loopback

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from jcs_ct.service.node.arrivals import Arrivals

# Statuses of C-STORE (PS3.4 B.2.3).
STORED = 0x0000
NO_ROOM = 0xA700
MISMATCH = 0xA900
NOT_UNDERSTOOD = 0xC000
HANDSHAKE_SECONDS = 10.0
SILENCE_SECONDS = 60.0


@dataclass(frozen=True)
class Node:
    """What a node is told when it starts.

    Attributes:
        title: Its application entity title; who calls for another one is refused.
        calling: Titles that may send.
        host, port: To bind; port 0: a free one.
        certificate, key: Files of TLS, or None.
        authority: Certificates that have signed those of the senders.
    """

    title: str
    calling: tuple[str, ...]
    host: str = "127.0.0.1"
    port: int = 11112
    certificate: Path | None = None
    key: Path | None = None
    authority: Path | None = None
    context: ssl.SSLContext | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Check it. Raises UsageError where it would admit everybody, or cannot be."""
        if not self.calling:  # which pynetdicom takes for "whoever calls"
            raise UsageError("no title may send", hint="name those that may: --calling TITLE")
        for title in (self.title, *self.calling):
            if not 0 < len(title.strip()) <= 16 or not title.isascii() or not title.isprintable() or "\\" in title:
                raise UsageError(
                    f"{title!r} is not an AE title",
                    hint="1 to 16 printable ASCII characters without a backslash, not all blank",
                )
        files = self.certificate, self.key, self.authority
        if any(files) and not all(files):
            raise UsageError("--cert, --key and --ca belong together", hint="give all of them, or none")
        if self.certificate is None and not is_loopback(self.host):
            raise UsageError(
                f"--host {self.host} can be reached from elsewhere without TLS", hint="give --cert, --key and --ca"
            )
        if self.certificate is not None:
            object.__setattr__(self, "context", self._tls())

    def _tls(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(str(self.certificate), str(self.key), "")  # or a person is asked for a password
            context.load_verify_locations(str(self.authority))
        except (OSError, ValueError) as error:
            raise UsageError(f"--cert, --key or --ca cannot be used: {error}", hint="give files in PEM") from error
        context.verify_mode = ssl.CERT_REQUIRED
        return context


class _Server(ThreadedAssociationServer):
    """Shakes hands in a thread of each connection: who says nothing holds up nobody else."""

    def get_request(self) -> tuple[socket.socket, Any]:
        assert self.socket is not None  # noqa: S101  # it is bound
        connection, address = self.socket.accept()
        if self.ssl_context is not None:
            connection = self.ssl_context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        if self.ssl_context is not None:
            try:
                request.settimeout(HANDSHAKE_SECONDS)
                request.do_handshake()
                request.settimeout(None)
            except OSError:  # no certificate, or none that is trusted
                self.ae.refused()  # type: ignore[attr-defined]  # ours, see below
                self.shutdown_request(request)
                return
        super().process_request_thread(request, client_address)


class _Entity(AE):
    """The node's application entity, which tells of connections that TLS has ended."""

    def __init__(self, title: str, arrivals: Arrivals) -> None:
        super().__init__(title)
        self._arrivals = arrivals

    def refused(self) -> None:
        """Tell of it."""
        self._arrivals.log.line("node", what="refused: no trusted certificate")


def listen(node: Node, arrivals: Arrivals) -> _Server:
    """Return a server that is bound; `serve_forever` runs it. Raises OSError where the address cannot be bound."""
    entity = _Entity(node.title, arrivals)
    entity.require_called_aet = True
    entity.require_calling_aet = list(node.calling)
    entity.network_timeout = SILENCE_SECONDS
    entity.add_supported_context(Verification)
    for kind in (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage):
        entity.add_supported_context(kind, ALL_TRANSFER_SYNTAXES)
    told = {
        evt.EVT_REJECTED: "refused: a wrong title",
        evt.EVT_RELEASED: "received",
        evt.EVT_ABORTED: "cut short",
    }
    handlers: list[Any] = [(evt.EVT_C_STORE, _store, [arrivals])]
    handlers += [(event, _tell, [arrivals, what]) for event, what in told.items()]
    server: _Server = entity.make_server(  # type: ignore[assignment]  # of the class that is given
        (node.host, node.port), ssl_context=node.context, evt_handlers=handlers, server_class=_Server
    )
    entity._servers.append(server)  # which its `shutdown` takes it from
    return server


def _tell(_event: evt.Event, arrivals: Arrivals, what: str) -> None:
    arrivals.log.line("node", what=what)


def _store(event: evt.Event, arrivals: Arrivals) -> int:
    """Store an image; success is answered when the disk has it."""
    try:
        study, image = str(event.dataset.StudyInstanceUID), str(event.dataset.SOPInstanceUID)
        data = event.encoded_dataset()
    except Exception:  # noqa: BLE001  # whatever a damaged data set makes pydicom raise, which may quote it
        return _refused(arrivals, NOT_UNDERSTOOD, "not understood")
    if image != str(getattr(event.request, "AffectedSOPInstanceUID", "")) or not study:
        return _refused(arrivals, MISMATCH, "another image than announced")
    try:
        if arrivals.folders.free_share() < arrivals.limits.free_share:
            return _refused(arrivals, NO_ROOM, "the disk is full")
        arrivals.keep(study, image, data)
    except OSError as error:
        return _refused(arrivals, NO_ROOM, f"the disk refuses it: {error.strerror}")
    return STORED


def _refused(arrivals: Arrivals, status: int, why: str) -> int:
    arrivals.log.line("node", what="not stored", error=why, status=f"{status:04X}")
    return status
