"""One file from a web server: resumed where it stopped, checked, and whole or not at all. Nothing else goes online.

Only https, or http on this very machine. Proxies are those given, or those of the environment.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
import re
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

import requests

from jcs_ct.core.errors import DownloadError
from jcs_ct.weights.store import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Progress = Callable[[int, int | None], None]

LARGEST = 2 << 30  # bytes; the largest file of the catalogue has 0.55 GB
ATTEMPTS = 4
PAUSE = 0.5  # seconds before the second attempt, doubled each time
TIMEOUT = (10.0, 60.0)  # seconds to connect, and between two blocks
_BLOCK = 1 << 16  # bytes; a cut connection loses at most so many
_REDIRECTS = 5


class _InterruptedError(Exception):
    """A connection that failed for a reason that may pass: another attempt is worth it."""


@dataclass(frozen=True)
class _Job:
    """One file to fetch: where from, where to, what is known of it, and what to do by hand instead."""

    url: str
    destination: Path
    checksums: tuple[str, ...]
    largest: int
    by_hand: str
    proxies: dict[str, str] | None
    progress: Progress | None

    @property
    def part(self) -> Path:
        """What has arrived so far."""
        return self.destination.with_name(self.destination.name + ".part")

    @property
    def state(self) -> Path:
        """Which version of which address the part belongs to."""
        return self.destination.with_name(self.destination.name + ".part.json")

    def error(self, message: str) -> DownloadError:
        """Return the error for this job, with the way out."""
        return DownloadError(f"{message} ({_host(self.url)})", hint=self.by_hand)


def fetch(
    url: str,
    destination: Path,
    *,
    checksums: tuple[str, ...] = (),
    by_hand: str = "fetch it by hand",
    proxy: str | None = None,
    largest: int = LARGEST,
    progress: Progress | None = None,
) -> Path:
    """Download one file, resuming what an earlier attempt left, and check it.

    Args:
        url: https, or http on this very machine.
        destination: Where the whole file goes; while it arrives it is called `.part`.
        checksums: SHA-256 or their beginnings, one of which has to be right; without any, every file is accepted.
        by_hand: What an error tells the user to do instead.
        proxy: Address of a proxy; by default the one in the environment (HTTPS_PROXY …).
        largest: Bytes; a larger file is refused.
        progress: Called with the bytes that have arrived and the bytes in all (None where unknown).

    Raises:
        DownloadError: No network, a server's refusal, too large, or a wrong checksum. A file of a wrong checksum is
            removed, an incomplete one is kept for the next attempt.
    """
    proxies = {"http": proxy, "https": proxy} if proxy else None
    job = _Job(url, destination, checksums, largest, by_hand, proxies, progress)
    _check_address(job, url, local=True)
    try:
        for path in (destination, job.part):  # whole already: put there by hand, or stopped before the last step
            if checksums and path.is_file() and sha256_of(path).startswith(checksums):
                path.replace(destination)
                _clean(job)
                return destination
        destination.parent.mkdir(parents=True, exist_ok=True)
        with requests.Session() as session:
            _attempts(session, job)
        digest = sha256_of(job.part)
        if checksums and not digest.startswith(checksums):
            _clean(job)
            raise job.error(
                f"the file has the checksum {digest[:12]}…, {checksums[0][:12]}… was expected; it was removed"
            )
        job.part.replace(destination)
    except OSError as error:
        raise DownloadError(
            f"cannot be written: {error.strerror or error}", path=destination, hint="check the disk"
        ) from error
    _clean(job)
    return destination


def _attempts(session: requests.Session, job: _Job) -> None:
    """Transfer the file, starting over a few times where a connection fails."""
    for attempt in range(ATTEMPTS):
        try:
            _transfer(session, job)
            return
        except _InterruptedError as error:
            if attempt == ATTEMPTS - 1:
                raise job.error(f"download failed: {error}") from error
            time.sleep(PAUSE * 2**attempt)


def _transfer(session: requests.Session, job: _Job) -> None:
    """Ask for what is missing of the part, and append it."""
    have, validator = _resume_point(job)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if validator:
            headers["If-Range"] = validator
    with _request(session, job, headers) as response:
        if response.status_code == 416:  # nothing after what we have: complete, or of another file
            total = re.fullmatch(r"bytes \*/(\d+)", response.headers.get("Content-Range", ""))
            if total and int(total[1]) == have:
                return
            _clean(job)
            raise _InterruptedError("the server has another file now")
        if response.status_code == 200:
            have = 0  # the server does not resume, or has a newer file: start over
        total_bytes = _announced(response, have)
        if (total_bytes or 0) > job.largest:
            _clean(job)
            raise job.error(
                f"the server announces {total_bytes} bytes, more than the {job.largest} that such a file can have"
            )
        if "text/html" in response.headers.get("Content-Type", ""):
            raise job.error("the server sent a web page instead of the file: a login or proxy page")
        _remember(job, response)
        _append(response, job, have, total_bytes)


def _append(response: requests.Response, job: _Job, have: int, total: int | None) -> None:
    """Write the body of an answer after the first `have` bytes of the part."""
    with job.part.open("r+b" if have else "wb") as file:
        file.seek(have)
        file.truncate()
        try:
            for block in response.iter_content(_BLOCK):
                have += len(block)
                if have > job.largest:
                    _clean(job)
                    raise job.error(f"the server sent more than {job.largest} bytes; this file cannot be so large")
                file.write(block)
                if job.progress:
                    job.progress(have, total)
        except requests.RequestException as error:
            raise _InterruptedError("the connection was cut") from error
    if total is not None and have != total:
        raise _InterruptedError(f"{have} of {total} bytes arrived")


def _request(session: requests.Session, job: _Job, headers: dict[str, str]) -> requests.Response:
    """Send a GET, follow redirects to addresses that are allowed, and sort the answers."""
    url = job.url
    for _ in range(_REDIRECTS):
        try:
            response = session.get(
                url, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False, proxies=job.proxies
            )
        except requests.exceptions.SSLError as error:
            raise job.error("the server's certificate is not trusted; behind a proxy set REQUESTS_CA_BUNDLE") from error
        except requests.exceptions.ProxyError as error:
            raise _InterruptedError("the proxy cannot be reached, or refuses") from error
        except requests.Timeout as error:
            raise _InterruptedError("the server does not answer") from error
        except requests.ConnectionError as error:
            raise _InterruptedError("the server cannot be reached, is there a network?") from error
        except (requests.RequestException, ValueError) as error:  # addresses and proxies that are no addresses
            raise job.error(f"the address or the proxy cannot be used ({type(error).__name__})") from error
        if response.is_redirect:
            url = urljoin(url, response.headers["Location"])
            response.close()
            _check_address(job, url, local=_is_local(job.url))
            continue
        status = response.status_code
        if status in (200, 206, 416):
            return response
        response.close()
        if status in (408, 425, 429) or status >= 500:
            raise _InterruptedError(f"the server answers {status} {response.reason}")
        raise job.error(f"the server answers {status} {response.reason}")
    raise job.error("the server redirects in circles")


def _resume_point(job: _Job) -> tuple[int, str]:
    """Return how many bytes are there already, and the server's mark of their version (empty: unknown)."""
    try:
        state = json.loads(job.state.read_text(encoding="utf-8"))
        # Without a mark of the version, only a checksum can tell whether two halves belong together.
        if state["address"] == _mark(job.url) and (state["validator"] or job.checksums):
            return job.part.stat().st_size, str(state["validator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no part, or one that nothing is known about: start over
    return 0, ""


def _remember(job: _Job, response: requests.Response) -> None:
    """Keep the version of the file, so that the next attempt goes on with the same one. Weak marks do not count."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag.startswith('"') else response.headers.get("Last-Modified", "")
    job.state.write_text(json.dumps({"address": _mark(job.url), "validator": validator}), encoding="utf-8")


def _announced(response: requests.Response, have: int) -> int | None:
    """Return the size of the whole file as the server states it, checking that a resumed answer starts where asked."""
    if response.status_code == 206:
        stated = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if stated is None or int(stated[1]) != have:
            raise _InterruptedError("the server resumes at another place than asked")
        return None if stated[2] == "*" else int(stated[2])
    length = response.headers.get("Content-Length", "")
    return int(length) if length.isdigit() else None


def _check_address(job: _Job, url: str, *, local: bool) -> None:
    """Refuse everything but https, and http on this very machine (where that was asked for)."""
    scheme = urlsplit(url).scheme if _host(url) else ""
    if not (scheme == "https" or (scheme == "http" and local and _is_local(url))):
        raise job.error(f"the address {public_address(url)!r:.100} is not https")


def _is_local(url: str) -> bool:
    host = _host(url)
    if host == "localhost":
        return True
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return False


def _host(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def public_address(url: str) -> str:
    """Return an address without what may be secret in it: user, password, query."""
    try:
        parts = urlsplit(url)
        port = f":{parts.port}" if parts.port else ""
    except ValueError:
        return url.split("?")[0].split("@")[-1]
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def _mark(url: str) -> str:
    """Return a stand-in for an address: what is kept on the disk must not hold a password or a token."""
    return hashlib.sha256(url.encode()).hexdigest()


def _clean(job: _Job) -> None:
    job.part.unlink(missing_ok=True)
    job.state.unlink(missing_ok=True)
