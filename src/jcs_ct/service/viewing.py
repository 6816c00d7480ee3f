"""The viewer of the page: its files, and the CT of a study as it loads it. The CT is made when somebody first looks."""

from __future__ import annotations

import asyncio
import json
import sys
import uuid
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request  # noqa: TC002  # read by FastAPI when it runs
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from jcs_ct.service.files import STUDY
from jcs_ct.service.receive import RETRY_SECONDS, RefusedError

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.service.context import ServiceContext
    from jcs_ct.service.record import Study

CT = "ct.nii.gz"  # beside the results of an attempt, which stay those of `jcs diagnose`


def add_viewing(app: FastAPI, context: ServiceContext) -> None:
    """Add the request that gives a study's CT."""
    one_at_a_time = asyncio.Semaphore(1)  # each takes a processor

    @app.get("/api/studies/{study_id}/ct", tags=["results"], response_class=FileResponse)
    async def ct(request: Request, study_id: str) -> FileResponse:
        """The CT that was looked at, as NIfTI in HU on the grid of the results. Made on the first request."""
        who = await run_in_threadpool(context.who, request, "read")
        study = await run_in_threadpool(context.study, study_id)
        passed = await run_in_threadpool(_passed, context, study)
        target = context.folders.attempt(study) / CT
        await run_in_threadpool(context.log.audit, who.name, "read", study)
        async with one_at_a_time:
            if not target.is_file():
                await _make(context, study, target, passed)
        return FileResponse(target, media_type="application/octet-stream", filename=f"{study.id}.nii.gz")


def _passed(context: ServiceContext, study: Study) -> int:
    """Return how many series were read before the one looked at. Raises RefusedError without results or a volume."""
    context.files(study)
    report = json.loads((context.folders.attempt(study) / STUDY / "report.json").read_text(encoding="utf-8"))
    if report["input"]["kind"] == "pictures":
        raise RefusedError(409, "is a study of pictures, it has no volume")
    return int(report["source"].get("passed", 0))


async def _make(context: ServiceContext, study: Study, target: Path, passed: int) -> None:
    await run_in_threadpool(context.disk)
    draft = target.with_name(f"{uuid.uuid4().hex}.nii.gz")
    facts = {
        "input": str(context.folders.input(study.input)),
        "target": str(draft),
        "gaps": context.service.diagnosis.allow_gaps,
        "passed": passed,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "jcs_ct.service.volume", json.dumps(facts),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        said, _ = await asyncio.wait_for(process.communicate(), context.service.limits.seconds)
        if process.returncode != 0:
            words = said.decode(errors="replace").strip() or "its reader ended"
            raise RefusedError(503, f"the CT cannot be read again: {words}", RETRY_SECONDS)
        draft.rename(target)
    except asyncio.TimeoutError as error:  # another class than TimeoutError before Python 3.11
        raise RefusedError(503, "the CT takes too long to read", RETRY_SECONDS) from error
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        draft.unlink(missing_ok=True)
        gone = await run_in_threadpool(context.record.get, study.id)
        if gone is None or gone.input != study.input:  # deleted while it was read
            context.folders.remove(study)
