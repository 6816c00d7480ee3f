"""The API as it describes itself, asked at random by schemathesis: never an answer of the kind "our fault"."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

from service_help import nifti, serving

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = int(os.environ.get("JCS_SCHEMATHESIS_EXAMPLES", "8"))
"""Of each request; the long form takes hundreds."""


def test_no_request_breaks_the_service(tmp_path: Path) -> None:
    options = ("--seconds", "1", "--idle", "2", "--files", "20", "--upload", "1", "--queue", "100000", "--free", "0")
    with serving(tmp_path / "service", *options) as server:
        server.send(nifti(50))  # waits for ever: there is a study to be found
        command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
        command += ["--checks", "not_a_server_error", "--max-examples", str(EXAMPLES), "--seed", "1"]
        command += ["--phases", "examples,coverage,fuzzing", "--no-color", "--request-timeout", "60"]
        asked = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600)
        answers = [line for line in server.lines if '"event": "request"' in line]
        assert server.ask("GET", "/healthz").status_code == 200
    assert asked.returncode == 0, asked.stdout[-4000:] + asked.stderr[-2000:] + server.said()[-2000:]
    assert len(answers) > 22 * EXAMPLES // 2
    assert not [line for line in answers if '"status": 5' in line and '"status": 503' not in line]
    assert "Traceback" not in server.said()
