"""A real `jcs serve` for tests: a process of its own on a free loopback port, with real workers, ended by its id."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import sys
import threading
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nibabel as nib
import numpy as np
import requests

from jcs_ct.phantom import make_phantom, write_dicom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SECONDS = 120
"""A busy machine is slow; alone, a study takes one or two."""


def until(what: Callable[[], Any], seconds: float = SECONDS, left: Callable[[], str] = str) -> Any:
    """Return the first value of `what()` that is true; fail where none comes, and say what is `left`."""
    end = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < end, f"waited {seconds} s in vain {left()}"
        time.sleep(0.1)
    return value


def nifti(seed: int = 0, slices: int = 14, size: int = 64) -> bytes:
    """Return a phantom chest as a NIfTI file; each seed gives another."""
    spacing = (240 / slices, 358 / size, 358 / size)
    study = make_phantom(slices=slices, size=size, seed=seed, lesions=1, spacing=spacing)
    affine = np.diag([-spacing[2], spacing[1], spacing[0], 1.0])
    image: Any = nib.Nifti1Image(study.hu.transpose(2, 1, 0)[:, ::-1, ::-1], affine)  # type: ignore[no-untyped-call]
    return bytes(image.to_bytes())


def dicom(folder: Path, seed: int = 0, slices: int = 14, size: int = 64) -> list[Path]:
    """Write a phantom chest as DICOM."""
    spacing = (240 / slices, 358 / size, 358 / size)
    return write_dicom(make_phantom(slices=slices, size=size, seed=seed, lesions=1, spacing=spacing), folder)


def zipped(files: dict[str, bytes]) -> bytes:
    """Return a zip of files."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return data.getvalue()


class Server:
    """A running service."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process, self.url = process, ""
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()
        until(lambda: self.url or process.poll() is not None)
        assert self.url, self.said()
        self.token = ""

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if "serving at " in line:
                self.url = line.split("serving at ")[1].split("/ ")[0]

    def close(self) -> None:
        """Read what it wrote last, after it has ended."""
        self._thread.join(30)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def said(self) -> str:
        """Return what it wrote."""
        return "".join(self.lines)

    def ask(self, method: str, path: str, **options: Any) -> requests.Response:
        """Ask and return the answer, whatever it is."""
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= options.pop("headers", {})
        options = {"timeout": 60, "allow_redirects": False} | options
        return requests.request(method, self.url + path, headers=headers, **options)

    def send(self, data: bytes) -> dict[str, Any]:
        """Send a study; return its answer."""
        answer = self.ask("POST", "/api/studies", data=data)
        assert answer.status_code in {200, 201}, answer.text
        return dict(answer.json())

    def study(self, study_id: str) -> dict[str, Any]:
        """Return how a study fares."""
        answer = self.ask("GET", f"/api/studies/{study_id}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    def ended(self, study_id: str) -> dict[str, Any]:
        """Wait for a study; return how it ended."""
        until(lambda: self.study(study_id)["state"] in {"done", "failed"})
        return self.study(study_id)

    def workers(self) -> list[int]:
        """Return the process ids of its workers."""
        return children(self.process.pid)


def children(pid: int) -> list[int]:
    """Return the process ids of the processes that a process has started."""
    tasks = Path(f"/proc/{pid}/task").iterdir()  # its threads
    return sorted({int(word) for task in tasks for word in (task / "children").read_text(encoding="ascii").split()})


@contextmanager
def serving(folder: Path, *options: str, workers: int = 0) -> Iterator[Server]:
    """Run `jcs serve` on a folder."""
    command = [sys.executable, "-m", "jcs_ct", "serve", str(folder), "--port", "0", "--workers", str(workers), *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server = None
    try:
        server = Server(process)
        yield server
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if server is not None:
            server.close()


def events(server: Server, name: str) -> list[dict[str, Any]]:
    """Return the lines of the log of one kind."""
    lines = [json.loads(line) for line in server.lines if line.startswith("{")]
    return [line for line in lines if line["event"] == name]
