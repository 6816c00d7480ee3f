"""A headless Chromium for tests: `tests/browser/drive.mjs` (Playwright, axe-core) behind a few calls.

Set up once: `apt-get install chromium nodejs npm` (Node.js ≥ 20) and `npm ci --prefix tests/browser`. Without them the
tests skip and say so; where CI is set they fail.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from types import TracebackType

FOLDER = Path(__file__).parent / "browser"


def missing() -> str | None:
    """Return what is missing to run a browser, or None."""
    if shutil.which("chromium") is None:
        return "needs Chromium (apt-get install chromium)"
    if shutil.which("node") is None:
        return "needs Node.js 20 or newer"
    if not (FOLDER / "node_modules" / "playwright-core").is_dir():
        return "needs its packages (npm ci --prefix tests/browser)"
    return None


def require_browser() -> None:
    """Skip the test without a browser; fail it in CI, where a skipped test would go unseen."""
    reason = missing()
    if reason is not None:
        if os.environ.get("CI", "").lower() in {"1", "true"}:
            pytest.fail(reason)
        pytest.skip(reason)


class Browser:
    """One browser with one page. Calls are the commands of drive.mjs; what fails there raises here."""

    def __init__(self) -> None:
        node, self.executable = shutil.which("node"), shutil.which("chromium")
        assert node is not None
        self._process = subprocess.Popen(
            [node, "drive.mjs"], cwd=FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )

    def __enter__(self) -> Browser:
        self("start", executable=self.executable)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._process.poll() is None:
                self("stop")
        finally:
            self._process.communicate(timeout=20)  # closes both pipes

    def __call__(self, do: str, **values: Any) -> Any:
        """Do one thing and return its value."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": do, **values}) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, "the browser's driver ended"
        answer = json.loads(line)
        assert "error" not in answer, f"{do}: {answer['error']}"
        return answer["value"]

    def open(self, path: Path, **options: Any) -> None:
        """Open a file in a fresh page and wait until its first slice is drawn, where it has a viewer."""
        self("open", url=path.resolve().as_uri(), options={"viewport": {"width": 1280, "height": 900}} | options)
        if options.get("javaScriptEnabled", True):
            self("wait", code="!document.getElementById('stage') || document.getElementById('stage').dataset.drawn")

    def slice(self) -> int:
        """Return the index of the slice that is drawn, once it is the one that was asked for last."""
        self("wait", code="document.getElementById('stage').dataset.drawn === document.getElementById('slice').value")
        return int(self("evaluate", code="document.getElementById('stage').dataset.drawn"))
