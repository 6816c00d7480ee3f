"""Uploads that can be gone on with where they were cut off: the core of the tus protocol 1.0.0, and its creation.

POST /api/uploads with Upload-Length gives an address; PATCH adds bytes there at Upload-Offset; HEAD tells how many
there are. With the last byte the upload becomes a study, whose address stands in Content-Location.
"""

from __future__ import annotations

import shutil
import uuid
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request  # noqa: TC002  # read by FastAPI when it runs
from fastapi.responses import Response
from starlette.concurrency import run_in_threadpool

from jcs_ct.service.context import ID, ServiceContext
from jcs_ct.service.files import STUDY, sha256_of
from jcs_ct.service.receive import RETRY_SECONDS, Received, RefusedError, pieces

if TYPE_CHECKING:
    from pathlib import Path

TUS = {"Tus-Resumable": "1.0.0"}
LENGTH = "length"  # a file beside the bytes: how many there will be


def add_uploads(app: FastAPI, context: ServiceContext) -> None:
    """Add the four requests of the protocol."""
    limits, busy = context.service.limits, set[str]()

    def folder_of(upload: str) -> Path:
        folder = context.folders.incoming(upload)
        if not ID.fullmatch(upload) or not (folder / LENGTH).is_file():
            raise RefusedError(404, "no such upload")
        return folder

    @app.options("/api/uploads", status_code=204, tags=["resumable uploads"])
    def options() -> Response:
        """What is supported."""
        more = {
            "Tus-Version": "1.0.0",
            "Tus-Extension": "creation,termination",
            "Tus-Max-Size": str(limits.upload_bytes),
        }
        return Response(status_code=204, headers=TUS | more)

    @app.post("/api/uploads", status_code=201, tags=["resumable uploads"])
    def create(request: Request) -> Response:
        """Begin an upload of `Upload-Length` bytes: one file, such as a zip."""
        context.who(request, "submit")
        context.room()
        length = request.headers.get("upload-length", "")
        if not length.isdecimal() or len(length) > 15 or not 0 < int(length) <= limits.upload_bytes:
            status = 413 if length.isdecimal() and len(length) > 9 else 400
            raise RefusedError(status, f"Upload-Length: a number from 1 to {limits.upload_bytes} was expected")
        upload = uuid.uuid4().hex
        folder = context.folders.incoming(upload)
        try:
            folder.mkdir()
            (folder / STUDY).touch()
            (folder / LENGTH).write_text(length, encoding="ascii")
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)
            raise
        return Response(status_code=201, headers=TUS | {"Location": f"/api/uploads/{upload}"})

    @app.head("/api/uploads/{upload}", status_code=200, tags=["resumable uploads"])
    def offset(request: Request, upload: str) -> Response:
        """How many bytes have come."""
        context.who(request, "submit")
        folder = folder_of(upload)
        sizes = {"Upload-Offset": str((folder / STUDY).stat().st_size), "Upload-Length": (folder / LENGTH).read_text()}
        return Response(status_code=200, headers=TUS | sizes)

    @app.patch("/api/uploads/{upload}", status_code=204, tags=["resumable uploads"])
    async def add(request: Request, upload: str) -> Response:
        """Add bytes at `Upload-Offset`."""
        who = await run_in_threadpool(context.who, request, "submit")
        folder = folder_of(upload)
        if request.headers.get("content-type") != "application/offset+octet-stream":
            raise RefusedError(415, "Content-Type: application/offset+octet-stream was expected")
        if upload in busy:
            raise RefusedError(409, "another request adds to this upload", 1)
        busy.add(upload)
        try:
            length, have = int((folder / LENGTH).read_text()), (folder / STUDY).stat().st_size
            if request.headers.get("upload-offset") != str(have):
                raise RefusedError(409, f"Upload-Offset: {have} was expected")
            with (folder / STUDY).open("ab") as file:
                async for piece in pieces(request, limits, length - have, context.disk):
                    have += await run_in_threadpool(file.write, piece)
            more = {}
            if have == length:
                digest = (await run_in_threadpool(sha256_of, folder / STUDY)).hex()
                await run_in_threadpool(context.record.counts)  # or it is away, and a PATCH of no bytes ends it later
                (folder / LENGTH).unlink()
                study, _ = await run_in_threadpool(context.enter, who, upload, Received(1, length, digest))
                more["Content-Location"] = f"/api/studies/{study.id}"
        except OSError as error:
            raise RefusedError(503, f"cannot be written: {error.strerror}", RETRY_SECONDS) from error
        finally:
            busy.discard(upload)
        return Response(status_code=204, headers=TUS | {"Upload-Offset": str(have)} | more)

    @app.delete("/api/uploads/{upload}", status_code=204, tags=["resumable uploads"])
    def stop(request: Request, upload: str) -> Response:
        """Give an upload up."""
        context.who(request, "submit")
        if upload in busy:
            raise RefusedError(409, "another request adds to this upload", 1)
        shutil.rmtree(folder_of(upload), ignore_errors=True)
        return Response(status_code=204, headers=TUS)
