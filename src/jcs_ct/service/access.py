"""Who may do what: tokens of which only hashes are stored, and requests that other sites make through a browser."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import json
import os
import secrets
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from jcs_ct.core.errors import UsageError
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

ROLES = ("submit", "read", "admin")
"""submit: send studies and see how they fare; read: see results; admin: all of it, and delete."""
COOKIE = "jcs_token"
LOCAL = "local"  # who asks where no token is needed
_SAFE = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True)
class Who:
    """Somebody who asks: the name of a token, `LOCAL` where none is needed, and what that may do."""

    name: str
    roles: frozenset[str]

    def may(self, *roles: str) -> bool:
        """Whether one of these roles is held. An admin holds them all."""
        return "admin" in self.roles or bool(self.roles.intersection(roles))


class Access:
    """The tokens of a service. The file is read again when it changes, so that a token can be withdrawn.

    Args:
        path: File of tokens, see `add_token`; None: everybody who reaches the service may do everything.

    Raises:
        UsageError: The file is missing, empty, or holds something else.
    """

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._stamp: tuple[int, int] | None = None
        self._known: dict[str, Who] = {}
        if path is not None and not self.tokens():
            raise UsageError("holds no token", path=path, hint="make one: jcs token FILE --name NAME --role submit")

    @property
    def needed(self) -> bool:
        """Whether a token is needed."""
        return self._path is not None

    def tokens(self) -> dict[str, Who]:
        """Return who is known, by the hash of the token."""
        if self._path is None:
            return {}
        with self._lock:
            try:
                status = self._path.stat()
            except OSError as error:
                raise UsageError(
                    f"cannot be read: {error.strerror}", path=self._path, hint="make it: jcs token"
                ) from error
            stamp = (status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._known, self._stamp = read_tokens(self._path), stamp
            return self._known

    def who(self, token: str | None) -> Who | None:
        """Return who holds a token; None for nobody."""
        if not self.needed:
            return Who(LOCAL, frozenset({"admin"}))
        given = hash_of(token or "")
        found = None
        for known, who in self.tokens().items():  # all of them, so that time tells nothing
            if hmac.compare_digest(known, given):
                found = who
        return found


def hash_of(token: str) -> str:
    """Return what is stored of a token. It holds 256 random bits, so that no slow hash is needed."""
    return hashlib.sha256(token.encode(errors="replace")).hexdigest()


def read_tokens(path: Path) -> dict[str, Who]:
    """Return who is known, by the hash of the token. Raises UsageError where a line is none of `add_token`'s."""
    found: dict[str, Who] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            entry = json.loads(line)
            name, roles, digest = str(entry["name"]), frozenset(entry["roles"]), str(entry["sha256"])
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(f"line {number} is not a token", path=path, hint="jcs token writes them") from error
        if len(digest) != 64 or not roles or not roles <= set(ROLES):
            raise UsageError(f"line {number} is not a token with roles of {', '.join(ROLES)}", path=path)
        found[digest] = Who(name, roles)
    return found


def add_token(path: Path, name: str, roles: tuple[str, ...]) -> str:
    """Make a token, append its hash to a file that only its owner can read, and return it: it is shown only now.

    Raises:
        UsageError: The name is taken, or too long for the audit table.
        OutputError: The file cannot be written.
    """
    known = read_tokens(path) if path.exists() else {}
    if any(who.name == name for who in known.values()):
        raise UsageError(f"a token is called {name!r} already", path=path, hint="give another --name")
    if not name.isprintable() or not 0 < len(name) <= 64:
        raise UsageError("a name has 1 to 64 printable characters", hint="give another --name")
    token = secrets.token_urlsafe(32)
    old = path.read_text(encoding="utf-8") if path.exists() else ""
    line = json.dumps({"name": name, "roles": sorted(set(roles)), "sha256": hash_of(token)})
    write_whole(path, f"{old}{line}\n".encode(), overwrite=True)
    if os.name != "nt":
        path.chmod(0o600)
    return token


def is_loopback(host: str) -> bool:
    """Whether an address to bind, or a host that was asked for, is this machine alone."""
    name = host.strip("[]")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def check_bind(host: str, access: Access, *, tls: bool, proxy: str | None) -> None:
    """Raise UsageError where others can reach the service without a token, or without TLS here or in a named proxy."""
    if is_loopback(host) and proxy is None:
        return
    if not access.needed:
        raise UsageError(
            f"--host {host} can be reached from elsewhere, and no token is needed", hint="give --tokens FILE"
        )
    if not tls and proxy is None:
        raise UsageError(
            f"--host {host} can be reached from elsewhere without TLS",
            hint="give --cert and --key, or --proxy ADDRESS of the proxy that has TLS",
        )


def refused_origin(method: str, headers: Mapping[str, str], *, open_to_all: bool) -> str | None:
    """Return why a request is not to be answered, or None.

    A page of another site can have a browser send requests here. Where no token is needed such a page could also have
    its own name resolve to this machine, so there the host that was asked for must be this machine's.

    Args:
        method: Of HTTP.
        headers: With names in lower case.
        open_to_all: Whether no token is needed.
    """
    host = headers.get("host", "")
    if open_to_all and not is_loopback(urlsplit(f"//{host}").hostname or ""):
        return "this service answers on this machine's own names only"
    if method in _SAFE:
        return None
    site = headers.get("sec-fetch-site")  # what the browser itself says; not sent to an address without TLS elsewhere
    if site is not None:
        return None if site in {"same-origin", "none"} else "a page of another site asked for this"
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != host:
        return "a page of another site asked for this"
    return None
