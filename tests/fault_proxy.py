"""A proxy that spoils answers as networks do, and tells when a request passes, so that something can be killed then."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections import defaultdict
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAULTS = ("503", "early 503", "reset", "lost", "slow", "short", "html")
"""503 after the body was read, and before; cut before it is passed on, and after; too slow; half an answer; a page."""
STORED = ("lost", "slow", "short")  # of them, those at which what was sent has arrived
REFUSED = "refused"  # an answer 200 with a FailedSOPSequence
REQUESTS = (
    "POST /tools/bulk-content",
    "GET /system",
    "GET /plugins",
    "GET /changes",
    "GET /studies",
    "GET /studies/*",
    "GET /studies/*/series",
    "GET /studies/*/instances",
    "GET /instances/*/file",
    "GET /dicom-web/instances",
    "POST /dicom-web/studies",
)
"""The kinds of requests that a watcher makes."""
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}")


class Proxy:
    """Passes requests to an address of the loopback.

    Attributes:
        faults: What happens to the next requests of a kind such as "GET /studies/*", one after the other.
        before, after: What is called once, when a request of a kind has come, or was answered there.
        seen: Requests: kind, whole path, bytes of the body, what was done to it.
    """

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self.target = host, int(port)
        self.faults: dict[str, list[str]] = defaultdict(list)
        self.before: dict[str, Callable[[], None]] = {}
        self.after: dict[str, Callable[[], None]] = {}
        self.seen: list[tuple[str, str, int, str]] = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:  # http.server calls it
                proxy.handle(self)

            do_POST = do_GET  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """Clients are cut off on purpose."""

        self.httpd = Quiet(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.httpd.server_address[1]}"

    def handle(self, asked: BaseHTTPRequestHandler) -> None:
        """Pass one request on, or what is to happen to it."""
        kind = f"{asked.command} {_ID.sub('*', asked.path.split('?')[0])}"
        fault = self.faults[kind].pop(0) if self.faults[kind] else ""
        body = b"" if fault == "early 503" else asked.rfile.read(int(asked.headers.get("Content-Length", 0)))
        self.seen.append((kind, asked.path, len(body), fault))
        if kind in self.before:
            self.before.pop(kind)()
        if fault == "reset":
            return _cut(asked)
        if fault in {"503", "early 503"}:
            asked.close_connection = True
            return _answer(asked, 503, b"busy", "text/plain")
        if fault == "html":
            return _answer(asked, 200, b"<html>Please log in</html>", "text/html")
        if fault == REFUSED:
            failed = {"00081198": {"vr": "SQ", "Value": [{"00081197": {"vr": "US", "Value": [0xA700]}}]}}
            return _answer(asked, 200, json.dumps(failed).encode(), "application/dicom+json")
        try:
            status, data, content_type = self._forward(asked, body)
        except (OSError, HTTPException):
            return _cut(asked)
        if kind in self.after:
            self.after.pop(kind)()
            return _cut(asked)
        if fault == "lost":
            return _cut(asked)
        return _answer(asked, status, data, content_type, fault)

    def _forward(self, asked: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, str]:
        connection = HTTPConnection(*self.target, timeout=60)
        headers = {n: v for n, v in asked.headers.items() if n.lower() not in {"host", "connection", "content-length"}}
        try:
            connection.request(asked.command, asked.path, body or None, headers)
            answer = connection.getresponse()
            return answer.status, answer.read(), answer.headers.get("Content-Type", "")
        finally:
            connection.close()


def _answer(asked: BaseHTTPRequestHandler, status: int, data: bytes, kind: str, fault: str = "") -> None:
    with suppress(OSError):
        asked.send_response(status)
        asked.send_header("Content-Type", kind)
        asked.send_header("Content-Length", str(len(data) + (1000 if fault == "slow" else 0)))
        asked.end_headers()
        if fault == "short":
            asked.wfile.write(data[: len(data) // 2])
            asked.close_connection = True
        elif fault == "slow":
            for index in range(1000):  # a byte now and then: no timeout of a socket sees it
                asked.wfile.write(data[index : index + 1] or b" ")
                time.sleep(0.1)
        else:
            asked.wfile.write(data)


def _cut(asked: BaseHTTPRequestHandler) -> None:
    """End a connection as a machine that was switched off does."""
    asked.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    asked.close_connection = True
    with suppress(OSError):
        asked.connection.shutdown(socket.SHUT_RD)
    asked.connection.close()


@contextmanager
def between(target: str) -> Iterator[Proxy]:
    """Run a proxy to an address."""
    proxy = Proxy(target)
    threading.Thread(target=proxy.httpd.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield proxy
    finally:
        proxy.httpd.shutdown()
        proxy.httpd.server_close()
