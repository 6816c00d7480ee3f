"""What happened, for whoever is responsible: a row of the audit table and a line of JSON. Neither names a patient.

A line has the time, who asked (the name of a token), what, the study's number and the digest of its input; requests are
told by the pattern of their path, since a path may hold anything.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from contextlib import suppress
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from jcs_ct.service.record import Record, Study

_lock = threading.Lock()


class Log:
    """Writes lines, to standard error unless told otherwise, and rows of the record's audit table."""

    def __init__(self, record: Record, stream: IO[str] | None = None) -> None:
        self._record, self._stream = record, stream

    def audit(self, who: str, what: str, study: Study | None = None) -> None:
        """Note what somebody did, before it is done: what cannot be noted does not happen. Raises RecordError."""
        number, digest = (None, None) if study is None else (study.id, study.digest)
        self._record.note(who, what, number, digest)
        self.line("audit", who=who, what=what, study=number, digest=digest)

    def line(self, event: str, **facts: str | float | None) -> None:
        """Write a line of JSON."""
        told = {name: value for name, value in facts.items() if value is not None}
        text = json.dumps({"time": round(time.time(), 3), "event": event, **told}, ensure_ascii=True)
        stream = self._stream or sys.stderr
        with _lock, suppress(OSError):  # its disk is full, or its reader has gone: requests are answered all the same
            stream.write(text + "\n")
            stream.flush()
