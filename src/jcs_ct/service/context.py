"""What the answers of the service need: who asks, which study is meant, and where its files are."""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from starlette.concurrency import run_in_threadpool

from jcs_ct.service.access import COOKIE, Access, Who
from jcs_ct.service.files import Folders, ResultFile, results
from jcs_ct.service.intake import enter
from jcs_ct.service.receive import RETRY_SECONDS, Received, RefusedError, take

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastapi import Request

    from jcs_ct.service.log import Log
    from jcs_ct.service.record import Record, Study
    from jcs_ct.service.settings import Service

ID = re.compile(r"[0-9a-f]{32}")
"""Of studies and of uploads: numbers that nobody guesses."""


@dataclass
class ServiceContext:
    """What the answers need.

    Attributes:
        settings: Digest of weights and settings.
        workers: How many workers are ready here.
        wanted: How many there should be.
        secure: Whether cookies are for TLS only.
    """

    service: Service
    access: Access
    record: Record
    folders: Folders
    log: Log
    settings: str
    workers: Callable[[], int]
    wanted: int
    secure: bool = False

    def who(self, request: Request, *roles: str) -> Who:
        """Return who asks. Raises RefusedError where that may not do it."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        given = token.strip() if scheme.lower() == "bearer" else request.cookies.get(COOKIE)
        who = self.access.who(given)
        if who is None:
            raise RefusedError(401, "a token is needed: Authorization: Bearer TOKEN")
        if not who.may(*roles):
            self.log.audit(who.name, "refused")
            raise RefusedError(403, f"this token may not do that, it needs the role {' or '.join(roles) or 'admin'}")
        return who

    def login(self, token: str) -> Who | None:
        """Return who logs in with a token, or None, and note it."""
        who = self.access.who(token)
        self.log.audit("nobody" if who is None else who.name, "login refused" if who is None else "login")
        return who

    def study(self, study_id: str) -> Study:
        """Return a study. Raises RefusedError where there is none."""
        study = self.record.get(study_id) if ID.fullmatch(study_id) else None
        if study is None:
            raise RefusedError(404, "no such study")
        return study

    def files(self, study: Study) -> list[ResultFile]:
        """Return the files of the results. Raises RefusedError where there are none yet."""
        if study.state != "done":
            raise RefusedError(409, f"has no results, it is {study.state}")
        return results(self.folders.attempt(study))

    def room(self) -> None:
        """Raise RefusedError where the queue or the disk is full."""
        limits = self.service.limits
        if self.record.counts().get("waiting", 0) >= limits.queue:
            raise RefusedError(429, f"{limits.queue} studies wait already", RETRY_SECONDS)
        self.disk()

    def disk(self) -> None:
        """Raise RefusedError where the disk is full."""
        free = self.folders.free_share()
        if free < self.service.limits.free_share:
            raise RefusedError(503, f"only {free:.1%} of the disk are free", RETRY_SECONDS)

    async def received(self, request: Request, skipped: frozenset[str] = frozenset()) -> tuple[Study, bool]:
        """Make the body of a request a study, see `take` and `enter`. Raises RefusedError."""
        who = await run_in_threadpool(self.who, request, "submit")
        await run_in_threadpool(self.room)
        upload = uuid.uuid4().hex
        received = await take(request, self.folders, upload, self.service.limits, self.disk, skipped)
        return await run_in_threadpool(self.enter, who, upload, received)

    def enter(self, who: Who, upload: str, received: Received) -> tuple[Study, bool]:
        """Make an upload a study of the record, or find that it is known."""
        facts = received.digest, self.settings, received.files, received.size
        study, taken = enter(self.folders, self.record, upload, *facts)
        self.log.audit(who.name, "submit", study)
        return study, taken

    def delete(self, who: Who, study: Study) -> None:
        """Delete a study: its files go, the record keeps its digest."""
        self.log.audit(who.name, "delete", study)
        self.folders.remove(self.record.delete(study.id) or study)
