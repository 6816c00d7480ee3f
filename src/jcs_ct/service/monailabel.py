"""The protocol of MONAI Label, as far as 3D Slicer's client needs it to have a volume segmented.

GET /info/ tells the models, PUT /session/ takes a volume, POST /infer/MODEL answers with its mask. A session is a study
of the record: it is diagnosed like any other as soon as it has come, and `infer` waits for it.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

from fastapi import FastAPI, Form, Request
from fastapi.responses import FileResponse, Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from jcs_ct.core.version import __version__
from jcs_ct.service.files import ResultFile, pieces_of
from jcs_ct.service.receive import RefusedError, pieces

if TYPE_CHECKING:
    from collections.abc import Iterator

    from jcs_ct.service.context import ServiceContext
    from jcs_ct.service.record import Study

MODELS: dict[str, dict[str, int]] = {"lesions": {"lesion": 1}, "lungs": {"right lung": 1, "left lung": 2}}
"""What can be asked for: files of the results, and the labels in them."""
TELLS = {"lesions": "What JCS marks as lesion, in or beside the lungs", "lungs": "Both lungs"}
FIELDS = frozenset({"params", "client_id"})  # of the client's forms; nothing in them changes a result here
MOST_PARAMETERS = 2**20  # bytes of a form that has no file
POLL_SECONDS = 0.5
_FORM = {"requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object", "properties": {
    "files": {"type": "array", "items": {"type": "string", "format": "binary"}}}}}}}}  # fmt: skip
_INFER = {"requestBody": {"content": {"multipart/form-data": {"schema": {"type": "object", "properties": {
    "params": {"type": "string"}, "file": {"type": "string", "format": "binary"}}}}}}}  # fmt: skip


def add_monailabel(app: FastAPI, context: ServiceContext) -> None:
    """Add the requests of the protocol."""

    @app.get("/info/", tags=["MONAI Label"])
    def info(request: Request) -> dict[str, Any]:
        """What can be segmented."""
        context.who(request, "submit", "read")
        counts = context.record.counts()
        models = {
            name: {"type": "segmentation", "labels": labels, "dimension": 3, "description": TELLS[name], "config": {}}
            for name, labels in MODELS.items()
        }
        return {
            "name": "jcs-ct",
            "description": "COVID-19 on chest CT. A research tool, not a medical device.",
            "version": __version__,
            "labels": [label for labels in MODELS.values() for label in labels],
            "models": models,
            "trainers": {},
            "strategies": {},
            "scoring": {},
            "train_stats": {},
            "datastore": {"total": sum(counts.values()), "completed": counts.get("done", 0)},
        }

    @app.get("/auth/", tags=["MONAI Label"])
    def auth() -> dict[str, Any]:
        """Whether a token is needed."""
        return {"enabled": context.access.needed, "client_id": "", "realm": ""}

    @app.post("/auth/token", tags=["MONAI Label"])
    def token(password: Annotated[str, Form()], username: Annotated[str, Form()] = "") -> dict[str, str]:  # noqa: ARG001
        """Log in: a token of this service is the password, whatever the user is called."""
        if context.login(password) is None:
            raise RefusedError(401, "the password is not a token of this service")
        return {"access_token": password, "token_type": "bearer"}

    @app.put("/session/", tags=["MONAI Label"], openapi_extra=_FORM)
    async def create(request: Request) -> dict[str, Any]:
        """Send a volume. It is kept like every study: `expiry` and `uncompress` change nothing."""
        study, _ = await context.received(request, FIELDS)
        return {"session_id": study.id, "session_info": _session(study)}

    @app.get("/session/{session_id}", tags=["MONAI Label"])
    def session(request: Request, session_id: str) -> dict[str, Any]:
        """What is known of a session. Its image is not given back here."""
        context.who(request, "submit", "read")
        return _session(context.study(session_id))

    @app.delete("/session/{session_id}", tags=["MONAI Label"])
    def remove(request: Request, session_id: str) -> dict[str, Any]:
        """Delete what was sent, and its results."""
        who = context.who(request)
        study = context.study(session_id)
        context.delete(who, study)
        return _session(study)

    @app.post("/infer/{model}", tags=["MONAI Label"], openapi_extra=_INFER, response_class=Response)
    async def infer(
        request: Request,
        model: str,
        image: str = "",
        session_id: str = "",
        output: Literal["image", "json", "all", "dicom_seg"] = "all",
    ) -> Response:
        """Wait for the mask of a session, of a study (`image`: its id), or of the form's `file`.

        `output`: the mask, what is known of it, both as a form, or the DICOM SEG (of DICOM, lesions only).
        """
        if model not in MODELS:
            raise RefusedError(404, f"no such model; there are {', '.join(MODELS)}")
        who = await run_in_threadpool(context.who, request, "read")
        if session_id or image:
            async for _ in pieces(request, context.service.limits, MOST_PARAMETERS, context.disk):
                pass  # parameters of other models
            study = await run_in_threadpool(context.study, session_id or image)
        else:
            study, _ = await context.received(request, FIELDS)
        study = await _ended(request, context, study)
        await run_in_threadpool(context.log.audit, who.name, "read", study)
        found = {file.name: file for file in await run_in_threadpool(context.files, study)}
        name = "seg.dcm" if output == "dicom_seg" else f"{model}.nii.gz"
        if output == "json":
            return Response(json.dumps(_params(study, model)), media_type="application/json")
        if name not in found or (output == "dicom_seg" and model != "lesions"):
            raise RefusedError(409, f"has no {name}")
        if output == "all":
            return _form(_params(study, model), found[name])
        return FileResponse(found[name].path, media_type="application/octet-stream", filename=name)


async def _ended(request: Request, context: ServiceContext, study: Study) -> Study:
    """Wait until a study is done. Raises RefusedError where it failed, was deleted, or takes too long."""
    end = time.monotonic() + context.service.limits.seconds
    while True:
        now = await run_in_threadpool(context.study, study.id)
        if now.state == "done":
            return now
        if now.state == "failed":
            raise RefusedError(409, f"cannot be segmented: {now.error}")
        if time.monotonic() > end or await request.is_disconnected():
            raise RefusedError(503, f"is {now.state}, ask again", 10)
        await asyncio.sleep(POLL_SECONDS)


def _session(study: Study) -> dict[str, Any]:
    """Return what the protocol calls the information of a session; where it lies on the disk is nobody's matter."""
    return {
        "name": study.id,
        "path": "",
        "image": study.id,
        "meta": {"state": study.state, "digest": study.digest},
        "creation_ts": int(study.submitted),
        "last_access_ts": int(study.finished or study.submitted),
        "expiry": 0,
    }


def _params(study: Study, model: str) -> dict[str, Any]:
    told = study.outcome or {}
    keys = ("verdict", "lesion_ml", "severity", "notes")
    return {"label_names": MODELS[model], **{key: told.get(key) for key in keys}}


def _form(params: dict[str, Any], file: ResultFile) -> StreamingResponse:
    """Return parameters and mask as the parts of a form."""
    edge = uuid.uuid4().hex
    part = f"--{edge}\r\nContent-Disposition: form-data; name="
    head = f'{part}"params"\r\nContent-Type: application/json\r\n\r\n{json.dumps(params)}\r\n'
    head += f'{part}"image"; filename="{file.path.name}"\r\nContent-Type: application/octet-stream\r\n\r\n'
    tail = f"\r\n--{edge}--\r\n"

    def parts() -> Iterator[bytes]:
        yield head.encode()
        yield from pieces_of(file.path)
        yield tail.encode()

    size = len(head.encode()) + file.size + len(tail)
    headers = {"Content-Length": str(size)}
    return StreamingResponse(parts(), media_type=f"multipart/form-data; boundary={edge}", headers=headers)
