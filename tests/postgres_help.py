"""A real PostgreSQL for one test: own folder, own free loopback port, ended by its process id."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

SECONDS = 60
USER = "postgres"


def program(name: str) -> str | None:
    """Return the path of a program of PostgreSQL, which Debian keeps apart by version."""
    homes = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return shutil.which(name, path=os.pathsep.join([*map(str, homes), os.environ.get("PATH", "")]))


installed = pytest.mark.skipif(
    program("postgres") is None or program("initdb") is None, reason="needs postgresql: see tools/system.sh"
)


def as_user() -> list[str]:
    """Return what goes before a command: PostgreSQL refuses to be run by root."""
    return ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []


class Postgres:
    """A cluster that can be stopped and started."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "data"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.url = f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "postgres.log"
        initdb = program("initdb")
        assert initdb is not None
        command = [*as_user(), initdb, "-D", str(self.folder), "-U", USER, "--auth=trust", "--no-sync", "-E", "UTF8"]
        subprocess.run(command, check=True, capture_output=True)

    def start(self) -> None:
        """Start it and wait until it answers."""
        postgres = program("postgres")
        assert postgres is not None
        command = [
            *as_user(),
            postgres,
            "-D",
            str(self.folder),
            "-p",
            str(self.port),
            "-c",
            "listen_addresses=127.0.0.1",
        ]
        command += ["-c", "unix_socket_directories=", "-c", "fsync=off"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        end = time.monotonic() + SECONDS
        while "ready to accept connections" not in self._log.read_text().rpartition("starting PostgreSQL")[2]:
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end, self._log.read_text()
            time.sleep(0.1)

    def stop(self) -> None:
        """Cut all connections and end it."""
        if self._process is not None:
            pid = int((self.folder / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGINT)  # "fast shutdown"
            self._process.wait(SECONDS)
            self._process = None


@contextmanager
def running(folder: Path) -> Iterator[Postgres]:
    """Run a cluster below a folder that others may enter."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
        for parent in (folder, *folder.parents):  # pytest's folders are root's alone
            if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o111 != 0o111:
                parent.chmod(parent.stat().st_mode | 0o011)
    server = Postgres(folder)
    server.start()
    try:
        yield server
    finally:
        server.stop()
