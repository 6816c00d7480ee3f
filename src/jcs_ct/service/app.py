"""The service over HTTP: what can be asked, by whom, and what is answered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import Depends, FastAPI, Form, Request
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse

from jcs_ct.core.errors import JcsError
from jcs_ct.core.version import __version__
from jcs_ct.service.access import COOKIE, refused_origin
from jcs_ct.service.answers import FileAnswer, Problem, QueueAnswer, StudyAnswer, file_answer, study_answer
from jcs_ct.service.database import RecordError
from jcs_ct.service.documentation import documentation
from jcs_ct.service.files import zipped
from jcs_ct.service.headers import PAGE_POLICY, REPORT_POLICY, SecurityHeaders
from jcs_ct.service.metrics import CONTENT_TYPE, Metrics
from jcs_ct.service.monailabel import add_monailabel
from jcs_ct.service.receive import RETRY_SECONDS, RefusedError
from jcs_ct.service.tables import STATES
from jcs_ct.service.uploads import add_uploads
from jcs_ct.service.viewing import add_viewing

if TYPE_CHECKING:
    from jcs_ct.service.context import ServiceContext

PAGE_FOLDER = Path(__file__).parent / "page"
PAGE_FILES = {
    "page.js": "text/javascript",
    "page.css": "text/css",
    "login.html": "text/html",
    "view.js": "text/javascript",
    "view.css": "text/css",
    "niivue-0.69.0.js": "text/javascript",
}
SHOWN = {".html": "text/html; charset=utf-8", ".json": "application/json", ".png": "image/png"}
MOST_LISTED = 200
REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Problem} for status in (400, 401, 403, 404, 408, 409, 413, 415, 429, 503)
}


def build_app(context: ServiceContext) -> FastAPI:
    """Return the application."""

    def same_site(request: Request) -> None:
        why = refused_origin(request.method, request.headers, open_to_all=not context.access.needed)
        if why is not None:
            raise RefusedError(403, why)

    app = FastAPI(
        title="jcs-ct",
        version=__version__,
        description="COVID-19 on chest CT. A research tool, not a medical device: it must not be used on patients.",
        docs_url=None,
        redoc_url=None,
        responses=REFUSALS,
        dependencies=[Depends(same_site)],
    )
    app.state.context = context
    _answer_errors(app, context)
    _add_health(app, context)
    _add_studies(app, context)
    _add_results(app, context)
    add_viewing(app, context)
    add_uploads(app, context)
    add_monailabel(app, context)
    _add_pages(app, context)
    app.add_middleware(
        SecurityHeaders,
        tell=lambda method, path, status, seconds: context.log.line(
            "request", method=method, path=path, status=status, seconds=round(seconds, 3)
        ),
    )
    return app


def _answer_errors(app: FastAPI, context: ServiceContext) -> None:
    @app.exception_handler(RefusedError)
    async def refused(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RefusedError)  # noqa: S101  # what it is registered for
        headers = {} if error.retry is None else {"Retry-After": str(error.retry)}
        if error.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        return JSONResponse({"error": error.message}, error.status, headers)

    @app.exception_handler(OSError)
    async def disk(_request: Request, error: Exception) -> JSONResponse:
        why = getattr(error, "strerror", None) or type(error).__name__  # without the path
        return JSONResponse({"error": f"the disk refuses: {why}"}, 503, {"Retry-After": str(RETRY_SECONDS)})

    @app.exception_handler(RecordError)
    async def away(_request: Request, _error: Exception) -> JSONResponse:  # whose text names host and user
        return JSONResponse({"error": "the database does not answer"}, 503, {"Retry-After": "10"})

    @app.exception_handler(JcsError)
    async def elsewhere(_request: Request, error: Exception) -> JSONResponse:
        """What whoever runs the service has to mend, such as a damaged file of tokens."""
        context.log.line("error", error=str(error))
        told = {"error": "the service cannot answer; its log says why"}
        return JSONResponse(told, 503, {"Retry-After": str(RETRY_SECONDS)})


def _add_health(app: FastAPI, context: ServiceContext) -> None:
    @app.get("/healthz", tags=["health"])
    def healthz() -> dict[str, str]:
        """Whether the process answers."""
        return {"state": "alive"}

    @app.get("/readyz", tags=["health"])
    def readyz() -> dict[str, str]:
        """Whether it can take and do work: 503 without the database, a worker that is ready, or room on the disk."""
        context.record.counts()
        context.disk()
        if context.wanted and not context.workers():
            raise RefusedError(503, "no worker is ready", 10)
        return {"state": "ready"}

    @app.get("/metrics", tags=["health"], response_class=Response)
    def metrics(request: Request) -> Response:
        """For Prometheus."""
        context.who(request, "read", "submit")
        return Response(Metrics(context.record, context.folders, context.workers).text(), media_type=CONTENT_TYPE)


_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"files": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                }
            },
        },
    }
}


def _add_studies(app: FastAPI, context: ServiceContext) -> None:
    @app.post("/api/studies", status_code=201, tags=["studies"], openapi_extra=_BODY)
    async def submit(request: Request, response: Response) -> StudyAnswer:
        """Send a study: a zip, DICOM, NIfTI or pictures, as the body or as the files of a form.

        201: it waits now. 200: the same bytes are known already, with the same weights and settings.
        """
        study, taken = await context.received(request)
        response.status_code = 201 if taken else 200
        response.headers["Location"] = f"/api/studies/{study.id}"
        return study_answer(study)

    @app.get("/api/studies", tags=["studies"])
    def listed(request: Request, most: int = 50, before: float | None = None) -> list[StudyAnswer]:
        """Studies, newest first; `before` a time to turn the page."""
        context.who(request, "submit", "read")
        return [study_answer(s) for s in context.record.newest(min(max(most, 1), MOST_LISTED), before)]

    @app.get("/api/queue", tags=["studies"])
    def queue(request: Request) -> QueueAnswer:
        """How many studies wait, are looked at, and have ended."""
        context.who(request, "submit", "read")
        counts = context.record.counts()
        return QueueAnswer(
            **{state: counts.get(state, 0) for state in QueueAnswer.model_fields if state in STATES},
            oldest_waiting=context.record.oldest_waiting(),
        )

    @app.get("/api/studies/{study_id}", tags=["studies"])
    def one(request: Request, study_id: str) -> StudyAnswer:
        """How a study fares."""
        context.who(request, "submit", "read")
        study = context.study(study_id)
        return study_answer(study, context.record.ahead_of(study) if study.state == "waiting" else None)

    @app.delete("/api/studies/{study_id}", status_code=204, tags=["studies"])
    def delete(request: Request, study_id: str) -> None:
        """Delete a study: its files go, the record keeps its digest."""
        who = context.who(request)
        context.delete(who, context.study(study_id))


def _add_results(app: FastAPI, context: ServiceContext) -> None:
    @app.get("/api/studies/{study_id}/files", tags=["results"])
    def files(request: Request, study_id: str) -> list[FileAnswer]:
        """The files of the results."""
        context.who(request, "read")
        study = context.study(study_id)
        return [file_answer(study, file) for file in context.files(study)]

    @app.get("/api/studies/{study_id}/files/{key}", tags=["results"], response_class=FileResponse)
    def file(request: Request, study_id: str, key: str) -> FileResponse:
        """A file of the results, by the `url` that `files` gives. The report is served in a sandbox."""
        who = context.who(request, "read")
        study = context.study(study_id)
        found = next((f for f in context.files(study) if f.key == key), None)
        if found is None:
            raise RefusedError(404, "no such file")
        context.log.audit(who.name, "read", study)
        kind = SHOWN.get(found.path.suffix)
        headers = {"Content-Security-Policy": REPORT_POLICY} if found.path.suffix == ".html" else {}
        if kind is not None:
            return FileResponse(found.path, media_type=kind, headers=headers)
        return FileResponse(found.path, media_type="application/octet-stream", filename=found.path.name)

    @app.get("/api/studies/{study_id}/archive", tags=["results"], response_class=StreamingResponse)
    def archive(request: Request, study_id: str) -> StreamingResponse:
        """All results, as one zip."""
        who = context.who(request, "read")
        study = context.study(study_id)
        found = context.files(study)
        context.log.audit(who.name, "read", study)
        headers = {"Content-Disposition": f'attachment; filename="{study.id}.zip"'}
        return StreamingResponse(zipped(found), media_type="application/zip", headers=headers)

    @app.get("/api/studies/{study_id}/report", tags=["results"], response_class=RedirectResponse)
    def report(request: Request, study_id: str) -> RedirectResponse:
        """Go to the report."""
        context.who(request, "read")
        return RedirectResponse(f"/api/studies/{context.study(study_id).id}/files/report.html")


def _add_pages(app: FastAPI, context: ServiceContext) -> None:
    def page(name: str) -> str:
        return (PAGE_FOLDER / name).read_text(encoding="utf-8")

    def opened(request: Request, name: str, *roles: str) -> Response:
        try:
            context.who(request, *roles)
        except RefusedError as error:
            return HTMLResponse(page("login.html"), error.status, {"Content-Security-Policy": PAGE_POLICY})
        return HTMLResponse(page(name), headers={"Content-Security-Policy": PAGE_POLICY})

    @app.get("/", include_in_schema=False)
    def start(request: Request) -> Response:
        return opened(request, "page.html", "submit", "read")

    @app.get("/view/{study}", include_in_schema=False)
    def view(request: Request) -> Response:  # of which study, its script reads from the address
        return opened(request, "view.html", "read")

    @app.post("/login", include_in_schema=False)
    def login(token: Annotated[str, Form()]) -> Response:
        if context.login(token) is None:
            return HTMLResponse(page("login.html"), 401, {"Content-Security-Policy": PAGE_POLICY})
        answer = RedirectResponse("/", 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=context.secure, max_age=12 * 3600)
        return answer

    @app.post("/logout", include_in_schema=False)
    def logout() -> Response:
        answer = RedirectResponse("/", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict", secure=context.secure)
        return answer

    @app.get("/favicon.ico", include_in_schema=False)
    def icon() -> Response:
        return Response(status_code=204)  # browsers ask for it on every page

    @app.get("/page/{name}", include_in_schema=False)
    def part(name: str) -> Response:
        if name not in PAGE_FILES:
            raise RefusedError(404, "no such file")
        fixed = {"Cache-Control": "max-age=604800"} if "niivue" in name else {}  # 2 MB, and its name has its version
        return Response(page(name), media_type=PAGE_FILES[name], headers=fixed)

    @app.get("/docs", include_in_schema=False)
    def docs() -> HTMLResponse:
        text = documentation(app.openapi())
        return HTMLResponse(text, headers={"Content-Security-Policy": PAGE_POLICY})
