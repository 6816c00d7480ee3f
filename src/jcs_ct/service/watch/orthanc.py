"""An Orthanc over its REST interface and DICOMweb. Every answer has a deadline, whatever comes and however slowly.

Only `requests` and no `dicomweb-client`: that one waits for an answer for ever, and what it sends again after a 503 is
empty. Nothing is sent again here: the watcher asks anew, with the whole body, when it thinks the time has come.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests
from urllib3.exceptions import HTTPError

from jcs_ct.core.errors import JcsError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_PIECE = 2**16
_PAGE = 500
_MOST_JSON = 2**28
"""A study of 20,000 slices is described in 20 MB."""
_BOUNDARY = "jcs-ct-6f1d0c7b93a84e25"
IMAGES = "CT"
"""Modality of what is looked at. SEG and SR, ours above all, are none, and never start a study again."""


class AwayError(JcsError):
    """The archive does not answer, or not as it should. It may do so later."""

    exit_status = 1


@dataclass(frozen=True)
class Image:
    """A source image as the archive keeps it.

    Attributes:
        name: The archive's name of it.
        uid: SOPInstanceUID.
        size: Bytes.
        file: Name of its file in the archive, a new one whenever it is stored anew.
    """

    name: str
    uid: str
    size: int
    file: str


@dataclass(frozen=True)
class Changes:
    """A page of what has happened in the archive: which studies it concerned.

    `last` is the number of its last change; `done` says that there is no further page.
    """

    studies: frozenset[str]
    last: int
    done: bool


class _Answer:
    """An answer whose body is still to come, until a deadline."""

    def __init__(self, url: str, answer: requests.Response, end: float) -> None:
        self.status = answer.status_code
        self._url, self._raw, self._end = url, answer.raw, end

    def pieces(self) -> Iterator[bytes]:
        """Yield the body as it comes: a timeout of a socket would begin anew with each byte."""
        while piece := self._raw.read1(_PIECE):
            yield piece
            if time.monotonic() > self._end:
                raise AwayError(f"{self._url} takes too long for an answer")

    def json(self, *also: int) -> Any:
        """Return the body of a success, or of one of the other statuses that are expected."""
        if self.status == 204:  # nothing was found
            return []
        if self.status not in {200, *also}:
            raise AwayError(f"{self._url} answered {self.status}")
        body = bytearray()
        for piece in self.pieces():
            body += piece
            if len(body) > _MOST_JSON:
                raise AwayError(f"{self._url} gave an answer of more than {_MOST_JSON} bytes")
        try:
            return json.loads(body)
        except ValueError as error:
            raise AwayError(f"{self._url} gave an answer that is not JSON") from error


class Orthanc:
    """An Orthanc.

    Args:
        url: Of its REST interface.
        login: User and password, or None.
        authority: File of the certificates to trust; None: those of the system.
        patience: Seconds that one answer may take.

    Raises:
        UsageError: The URL is none, or names a user.
    """

    def __init__(
        self, url: str, login: tuple[str, str] | None = None, authority: Path | None = None, patience: float = 60.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise UsageError(f"{url!r} is not the address of an Orthanc", hint="give one like http://127.0.0.1:8042")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise UsageError(
                "the address of an Orthanc is followed by nothing and names no user", hint="use --login FILE for that"
            )
        self.url = url.rstrip("/")
        self._patience = patience
        self._session = requests.Session()
        self._session.trust_env = False  # neither a proxy nor a password from elsewhere
        self._session.auth = login
        self._session.verify = True if authority is None else str(authority)
        self._session.headers["Accept-Encoding"] = "identity"

    def check(self) -> None:
        """Make sure that it is an Orthanc with DICOMweb.

        Raises:
            UsageError: It is not, or refuses the login.
            AwayError: It does not answer.
        """
        with self._asked("GET", "/system") as answer:
            if answer.status in {401, 403}:
                raise UsageError(f"{self.url} refuses the login ({answer.status})", hint="use --login FILE")
            system = None if answer.status == 404 else answer.json()
        if not isinstance(system, dict) or "ApiVersion" not in system:
            raise UsageError(f"{self.url} is not an Orthanc", hint="give the address of its REST interface")
        if "dicom-web" not in (self._get("/plugins") or []):
            raise UsageError(f"{self.url} has no DICOMweb", hint="install and enable Orthanc's plugin for it")

    def changes(self, since: int) -> Changes:
        """Return what has happened since a change. A `last` below `since` means that its database is another one."""
        page = self._get("/changes", {"since": since, "limit": _PAGE})
        with _expected():
            studies = {
                c["ID"] for c in page["Changes"] if c["ResourceType"] == "Study" and c["ChangeType"] != "Deleted"
            }
            images = [c["ID"] for c in page["Changes"] if c["ChangeType"] == "NewInstance"]
            last, done = int(page["Last"]), bool(page["Done"])
            # A slice that comes late tells of itself only, and Orthanc forgets "stable" when it is started again.
            if images:
                asked = json.dumps({"Resources": images, "Level": "Study"}).encode()
                with self._asked("POST", "/tools/bulk-content", asked, "application/json") as answer:
                    studies |= {found["ID"] for found in answer.json()}
        return Changes(frozenset(studies), last, done)

    def studies(self) -> Iterator[dict[str, str]]:
        """Yield pages of all studies: when each was last changed, by its name."""
        since = 0
        while page := self._get("/studies", {"expand": "", "since": since, "limit": _PAGE}):
            with _expected():
                yield {one["ID"]: str(one.get("LastUpdate", "")) for one in page}
            since += len(page)

    def study(self, name: str) -> tuple[bool, str] | None:
        """Return whether a study is stable, and when it was last changed; None where it is gone."""
        found = self._get(f"/studies/{name}")
        with _expected():
            return None if found is None else (bool(found["IsStable"]), str(found.get("LastUpdate", "")))

    def images(self, name: str) -> list[Image]:
        """Return the source images of a study, in the order of their UIDs; none where it is gone."""
        series, instances = self._get(f"/studies/{name}/series"), self._get(f"/studies/{name}/instances")
        with _expected():
            wanted = {one["ID"] for one in series or [] if one["MainDicomTags"].get("Modality") == IMAGES}
            found = [
                Image(one["ID"], one["MainDicomTags"]["SOPInstanceUID"], int(one["FileSize"]), one["FileUuid"])
                for one in instances or []
                if one["ParentSeries"] in wanted
            ]
        return sorted(found, key=lambda image: (image.uid, image.name))

    def fetch(self, image: Image, path: Path) -> bytes:
        """Write an image to a file; return SHA-256 of its bytes."""
        digest, size = hashlib.sha256(), 0
        with self._asked("GET", f"/instances/{image.name}/file") as answer, path.open("wb") as file:
            if answer.status != 200:
                raise AwayError(f"{self.url} answered {answer.status} when an image was asked for")
            for piece in answer.pieces():
                digest.update(piece)
                size += file.write(piece)
        if size != image.size:
            raise AwayError(f"{self.url} gave {size} bytes of an image that has {image.size}")
        return digest.digest()

    def store(self, data: bytes) -> None:
        """Store a DICOM object by STOW-RS (PS3.18 10.5). Raises AwayError unless it is known to be stored."""
        body = f"--{_BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data
        body += f"\r\n--{_BOUNDARY}--\r\n".encode()
        kind = f'multipart/related; type="application/dicom"; boundary={_BOUNDARY}'
        with self._asked("POST", "/dicom-web/studies", body, kind, "application/dicom+json") as answer:
            told = answer.json(202, 409)  # which tell what failed
        with _expected():
            failed = told.get("00081198", {}).get("Value", [])
            reasons = {item.get("00081197", {}).get("Value", ["?"])[0] for item in failed}
            stored = told.get("00081199", {}).get("Value", [])
        if failed:
            numbers = ", ".join(f"{r:#06x}" if isinstance(r, int) else str(r) for r in sorted(reasons, key=str))
            raise AwayError(f"{self.url} refused what was sent back, with the reason {numbers}")
        if not stored:
            raise AwayError(f"{self.url} does not say that it has stored what was sent back")

    def has(self, uid: str, series: str) -> bool:
        """Whether an object can be found by QIDO-RS (PS3.18 10.6), in its series."""
        found = self._get("/dicom-web/instances", {"SOPInstanceUID": uid}, "application/dicom+json")
        with _expected():
            places = [(one["00080018"]["Value"][0], one["0020000E"]["Value"][0]) for one in found or []]
        return (uid, series) in places

    def _get(self, path: str, query: dict[str, Any] | None = None, accept: str = "application/json") -> Any:
        """Return the JSON of an answer, None for 404."""
        with self._asked("GET", path, accept=accept, query=query) as answer:
            return None if answer.status == 404 else answer.json()

    @contextmanager
    def _asked(
        self,
        method: str,
        path: str,
        data: bytes | None = None,
        kind: str | None = None,
        accept: str = "*/*",
        query: dict[str, Any] | None = None,
    ) -> Iterator[_Answer]:
        headers = {"Accept": accept} | ({} if kind is None else {"Content-Type": kind})
        try:
            with self._session.request(
                method, self.url + path, query, data, headers,
                timeout=self._patience, stream=True, allow_redirects=False,
            ) as answer:  # fmt: skip
                yield _Answer(self.url, answer, time.monotonic() + self._patience)
        except (requests.RequestException, HTTPError) as error:  # whose texts have the path in them
            raise AwayError(
                f"{self.url} does not answer: {type(error).__name__}", hint="check whether it runs"
            ) from error


@contextmanager
def _expected() -> Iterator[None]:
    """Turn an answer of another form into an error."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise AwayError(
            "an answer has another form than Orthanc's", hint="check what lies between, such as a proxy"
        ) from error


def read_login(path: Path) -> tuple[str, str]:
    """Return user and password of a file with one line `user:password`. Raises UsageError."""
    try:
        user, colon, password = path.read_text(encoding="utf-8").strip().partition(":")
    except (OSError, ValueError) as error:
        raise UsageError("cannot be read", path=path, hint="give a file with one line user:password") from error
    if not colon or not user or "\n" in password:
        raise UsageError("is not one line user:password", path=path, hint="write one line user:password")
    return user, password
