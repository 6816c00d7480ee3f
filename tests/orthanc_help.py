"""A real Orthanc for one test: own folder, own configuration, free loopback ports, stopped by its process id."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
SECONDS = 60
"""A busy machine starts it slowly; alone it takes about one."""


def program() -> str | None:
    """Return the path of Orthanc, which Debian keeps where services are."""
    return shutil.which("Orthanc") or shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Orthanc:
    """A running server."""

    url: str
    dicom_port: int
    title: str = "JCSTEST"

    def get(self, path: str, **options: Any) -> requests.Response:
        """GET below the server's address; raises for a status that is no success."""
        response = requests.get(self.url + path, timeout=SECONDS, **options)
        response.raise_for_status()
        return response

    def post(self, path: str, data: bytes, content_type: str = "application/json") -> requests.Response:
        """POST below the server's address; raises for a status that is no success."""
        response = requests.post(self.url + path, data=data, headers={"Content-Type": content_type}, timeout=SECONDS)
        response.raise_for_status()
        return response

    def answers(self) -> bool:
        """Whether it is there. Raises where it is not."""
        return bool(self.get("/system").json()["Name"] == "test")


class Machine:
    """An Orthanc that can be stopped, killed and started again with the same data, at the same ports.

    Args:
        folder: Its data are below it; nobody but this machine may speak to it.
        more: Of its configuration.
    """

    def __init__(self, folder: Path, **more: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        http, dicom = free_ports()
        self.server = Orthanc(f"http://127.0.0.1:{http}", dicom)
        configuration = {
            "Name": "test",
            "StorageDirectory": str(folder / "storage"),
            "IndexDirectory": str(folder / "index"),
            "Plugins": [str(PLUGIN)],
            "HttpPort": http,
            "DicomPort": dicom,
            "DicomAet": self.server.title,
            "DicomCheckCalledAet": True,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomCheckModalityHost": True,
            "DicomModalities": {"test": ["STORESCU", "127.0.0.1", 104]},
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
            "SaveJobs": False,
        }
        (folder / "orthanc.json").write_text(json.dumps(configuration | more))
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, answers: Callable[[], bool] | None = None) -> None:
        """Start it and wait until it answers, or until that which is given is true."""
        binary = program()
        assert binary is not None
        log = self._folder / "orthanc.log"
        with log.open("ab") as file:
            self._process = subprocess.Popen([binary, str(self._folder / "orthanc.json")], stdout=file, stderr=file)
        wait(self._process, answers or self.server.answers, log)

    def end(self, name: str = "SIGTERM") -> None:
        """Send it a signal that ends it, and wait for that."""
        if self._process is None:
            return
        self._process.send_signal(getattr(signal, name))
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


@contextmanager
def running(folder: Path) -> Iterator[Orthanc]:
    """Run an Orthanc for as long as the block lasts."""
    machine = Machine(folder)
    try:
        machine.start()
        yield machine.server
    finally:
        machine.end()


def wait(process: subprocess.Popen[bytes], answers: Callable[[], bool], log: Path) -> None:
    """Return once the server answers; fail with its log where it ends before, or never does."""
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-2000:]
        try:
            if answers():
                return
        except requests.RequestException:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Orthanc does not answer: {log.read_text(errors='replace')[-2000:]}")


def free_ports() -> tuple[int, int]:
    """Return two ports of the loopback that were free a moment ago."""
    with socket.socket() as first, socket.socket() as second:
        first.bind(("127.0.0.1", 0))
        second.bind(("127.0.0.1", 0))
        return int(first.getsockname()[1]), int(second.getsockname()[1])


def multipart(parts: list[bytes], kind: str) -> tuple[bytes, str]:
    """Return a body of DICOMweb's STOW-RS (PS3.18 10.5) and its content type."""
    boundary = "jcs-ct-test-boundary"
    body = b"".join(f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode() + part + b"\r\n" for part in parts)
    return body + f"--{boundary}--\r\n".encode(), f'multipart/related; type="{kind}"; boundary={boundary}'


def split(response: requests.Response) -> list[bytes]:
    """Return the parts of a multipart answer."""
    boundary = response.headers["Content-Type"].split("boundary=")[1].split(";")[0].strip('"').encode()
    parts = response.content.split(b"--" + boundary)[1:-1]
    return [part.split(b"\r\n\r\n", 1)[1].removesuffix(b"\r\n") for part in parts]
