"""What the API answers: fields with names and meanings, documented by FastAPI from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from jcs_ct.service.files import ResultFile
    from jcs_ct.service.record import Study


class Verdict(BaseModel):
    """The patient's verdict, as in report.json. Of a research tool, not a medical device."""

    call: Literal["positive", "negative", "indeterminate"] | None = Field(None, description="None: an older result")
    positive: bool
    score: float
    limit: float
    rule: str
    text: str
    reliable: bool
    reasons: list[str]


class Failure(BaseModel):
    """Why a study has no results."""

    kind: str = Field(description="input, memory, time, lost or unforeseen")
    message: str


class StudyAnswer(BaseModel):
    """A study of the record."""

    id: str
    state: Literal["waiting", "running", "done", "failed"]
    digest: str = Field(description="SHA-256 of what was sent")
    files: int
    bytes: int
    attempt: int = Field(description="Workers that had it in hand so far")
    submitted: float = Field(description="Seconds since 1970, as all times")
    started: float | None
    finished: float | None
    progress: float | None = Field(None, description="Share of the slices that are done, while it is looked at")
    ahead: int | None = Field(None, description="Studies that wait in front of this one, while it waits")
    kind: str | None = Field(None, description="dicom, nifti or pictures")
    slices: int | None = None
    verdict: Verdict | None = None
    lesion_ml: float | None = None
    severity: str | None = None
    notes: list[str] = []
    failure: Failure | None = None


class QueueAnswer(BaseModel):
    """Studies by state."""

    waiting: int
    running: int
    done: int
    failed: int
    oldest_waiting: float = Field(description="Seconds for which the oldest waiting one has waited")


class FileAnswer(BaseModel):
    """A file of a study's results."""

    name: str
    bytes: int
    url: str


class Problem(BaseModel):
    """Why a request was not served."""

    error: str


def study_answer(study: Study, ahead: int | None = None) -> StudyAnswer:
    """Return what is told of a row."""
    told: dict[str, Any] = {key: value for key, value in (study.outcome or {}).items() if key != "seconds"}
    failure = None
    if study.state == "failed":
        failure = Failure(kind=study.error_class or "unforeseen", message=study.error or "")
    same = ("id", "state", "digest", "files", "bytes", "attempt", "submitted", "finished")
    return StudyAnswer(
        **{name: getattr(study, name) for name in same},
        started=study.claimed,
        progress=study.progress if study.state == "running" else None,
        ahead=ahead,
        failure=failure,
        **told,
    )


def file_answer(study: Study, file: ResultFile) -> FileAnswer:
    """Return what is told of a file."""
    return FileAnswer(name=file.name, bytes=file.size, url=f"/api/studies/{study.id}/files/{file.key}")
