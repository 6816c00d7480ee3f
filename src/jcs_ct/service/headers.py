"""Headers that every answer carries, and what a page may load: everything comes from here, and nothing else does."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

NOTHING = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'self'"
)
REPORT_POLICY = (  # it cannot reach this service, whatever a DICOM tag has made of it: its origin is nobody's
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline'; "
    "style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
ALWAYS = {  # with a referrer policy of "no-referrer" a browser would call the origin of a form "null"
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"same-origin",
    b"cross-origin-resource-policy": b"same-origin",
    b"cross-origin-opener-policy": b"same-origin",
    b"cache-control": b"no-store",
}


class SecurityHeaders:
    """ASGI: adds the headers that are missing, and tells of each request once it is answered.

    `tell` gets method, pattern of the path, status and seconds.
    """

    def __init__(self, app: ASGIApp, tell: Callable[[str, str, int, float], None]) -> None:
        self._app, self._tell = app, tell

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def guarded(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                present = {name.lower() for name, _ in message["headers"]}
                more = ALWAYS | {b"content-security-policy": NOTHING.encode()}
                message["headers"] = [*message["headers"], *((n, v) for n, v in more.items() if n not in present)]
            await send(message)

        try:
            await self._app(scope, receive, guarded)
        finally:
            route: Any = scope.get("route")
            self._tell(scope["method"], getattr(route, "path", "unknown"), status, time.perf_counter() - started)
