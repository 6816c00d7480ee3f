"""What strangers send: bombs, climbing and hostile names, markup in tags, thousands of files, uploads cut short."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
import socket
import sqlite3
import tarfile
import zipfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

pytest.importorskip("fastapi")

from service_help import Server, dicom, nifti, serving, until, zipped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MIB = 2**20
MARKUP = "<img src=x onerror=alert(1)>"
PLANTED = ("Planted^Name", "PLANTED-ID-88", "PlantedPart", "2.25.515151515151")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    with serving(folder, "--lease", "60", workers=1) as server:
        yield server


def bomb_in_bomb() -> bytes:
    inner = zipped({"a.nii": bytes(64 * MIB)})
    return zipped({f"{i}.zip": inner for i in range(20)})


def tar_of(names: dict[str, bytes], link: str | None = None) -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:gz") as archive:
        for name, content in names.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link is not None:
            info = tarfile.TarInfo("linked.nii")
            info.type, info.linkname = tarfile.SYMTYPE, link
            archive.addfile(info)
    return data.getvalue()


def many_entries(count: int = 120_000) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number in range(count):
            archive.writestr(zipfile.ZipInfo(f"{number}"), b"")
    return data.getvalue()


def lying_zip() -> bytes:
    """Return a zip whose directory says that its entry is small."""
    data = bytearray(zipped({"a.nii": bytes(32 * MIB)}))
    place = data.rindex(b"PK\x01\x02") + 24  # the size, unpacked
    data[place : place + 4] = (1000).to_bytes(4, "little")
    return bytes(data)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "a bomb in a bomb": bomb_in_bomb,
    "a bomb as NIfTI": lambda: gzip.compress(bytes(400 * MIB)),
    "a climber": lambda: zipped({"../../../evil.nii": nifti(60), "..\\..\\evil.nii": b"x", "/etc/evil.nii": b"y"}),
    "a link": lambda: tar_of({"../evil.nii": b"x"}, link="/etc/passwd"),
    "many entries": many_entries,
    "a lying size": lying_zip,
    "a cut zip": lambda: zipped({"a.nii": nifti(61)})[:-200],
}


@pytest.mark.parametrize("what", HOSTILE)
def test_no_archive_gets_out_or_breaks_a_worker(server: Server, folder: Path, what: str) -> None:
    (before,) = until(server.workers)
    study = server.ended(server.send(HOSTILE[what]())["id"])
    assert (study["state"], study["attempt"]) in {("failed", 1), ("done", 1)}, study
    if study["state"] == "failed":
        assert study["failure"]["kind"] == "input", study["failure"]
        assert "\n" not in study["failure"]["message"]
        assert str(folder) not in study["failure"]["message"]
    assert not list(folder.parent.rglob("*evil*"))
    assert not Path("/etc/evil.nii").exists()
    assert server.workers() == [before]  # the same process goes on


def test_markup_in_tags_and_names_stays_text(server: Server, tmp_path: Path) -> None:
    paths = dicom(tmp_path / "a", seed=62)
    for path in paths:
        image = pydicom.dcmread(path)
        for tag in (
            "SeriesDescription",
            "StudyDescription",
            "Manufacturer",
            "ManufacturerModelName",
            "ConvolutionKernel",
        ):
            setattr(image, tag, MARKUP[: 16 if tag == "ConvolutionKernel" else 64])
        image.PatientName, image.PatientID, image.StudyInstanceUID = PLANTED[0], PLANTED[1], PLANTED[3]
        image.save_as(path)
    files = {f"{PLANTED[2]}/{MARKUP}{path.name}": path.read_bytes() for path in paths}
    study = server.ended(server.send(zipped(files))["id"])
    assert study["state"] == "done", study
    base = f"/api/studies/{study['id']}"
    report = server.ask("GET", f"{base}/files/report.html").text
    assert "<img src=x" not in report
    told = [server.ask("GET", path).text for path in (base, f"{base}/files", "/metrics", "/api/studies", "/info/")]
    told += [server.said(), server.ask("GET", f"{base}/files/report.json").text]
    for planted in (PLANTED[0], PLANTED[1], PLANTED[3]):
        assert not any(planted in text for text in told), planted
    assert PLANTED[2] not in server.said() + told[2]


def test_a_planted_identity_in_requests_is_not_logged(server: Server) -> None:
    planted = "Planted-In-Request"
    for method, path in (
        ("GET", f"/api/studies/{planted}"),
        ("GET", f"/api/studies?before={planted}"),
        ("GET", f"/{planted}"),
        ("GET", f"/view/{planted}"),
        ("POST", f"/infer/lesions?image={planted}"),
        ("POST", f"/infer/{planted}"),
        ("DELETE", f"/session/{planted}"),
        ("HEAD", f"/api/uploads/{planted}"),
    ):
        headers = {"User-Agent": planted, "Referer": planted, "X-Request-Id": planted, "Cookie": f"jcs_token={planted}"}
        assert 200 <= server.ask(method, path, headers=headers).status_code < 500
    form = {"files": (f"{planted}.zip", b"nonsense")}
    study = server.ended(server.ask("POST", "/api/studies", files=form).json()["id"])
    until(lambda: server.said().count('"event": "request"') > 8)
    assert planted not in server.said() + server.ask("GET", "/metrics").text + json.dumps(study)


def test_ten_thousand_files_in_one_form(server: Server, folder: Path) -> None:
    """Names that climb, that are alike, that no file system takes; most are no images, and one study is among them."""
    image = nifti(63)
    names = [f"../../evil/{'x' * 300}/{i % 5000}\x01<b>.txt" for i in range(9_999)]
    files = [("files", (name, b"%d" % i)) for i, name in enumerate(names)] + [("files", ("volume.nii", image))]
    answer = server.ask("POST", "/api/studies", files=files, timeout=300)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["files"], answer.json()["bytes"]) == (10_000, sum(len(f[1][1]) for f in files))
    study = server.ended(answer.json()["id"])
    assert study["state"] == "done", study
    assert not list(folder.parent.rglob("*evil*"))
    assert not list((folder / "incoming").iterdir())


def test_two_gigabytes_cut_short(server: Server, folder: Path) -> None:
    """The size is stated, a part of it comes: nothing stays, and the memory of the server does not know of it."""
    host, port = server.url.removeprefix("http://").split(":")
    before = resident(server.process.pid)
    kept = len(list((folder / "inputs").iterdir()))
    with socket.create_connection((host, int(port)), timeout=60) as connection:
        connection.sendall(f"POST /api/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**31}\r\n\r\n".encode())
        for _ in range(200):
            connection.sendall(bytes(MIB))
        until(lambda: sum(p.stat().st_size for p in (folder / "incoming").rglob("*") if p.is_file()) > 100 * MIB)
    until(lambda: not list((folder / "incoming").iterdir()))
    assert len(list((folder / "inputs").iterdir())) == kept
    assert resident(server.process.pid) - before < 64
    assert server.ask("GET", "/readyz").status_code == 200


def resident(pid: int) -> int:
    """Return the memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // MIB


def test_nothing_of_it_is_lost(server: Server, folder: Path) -> None:
    """Every study that was taken is in the record, and the audit has a line of each."""
    with closing(sqlite3.connect(folder / "record.sqlite")) as database:
        rows: list[tuple[Any, ...]] = database.execute("SELECT id, state, input FROM studies").fetchall()
        noted = {row[0] for row in database.execute("SELECT study FROM audit WHERE what = 'submit'")}
    assert {row[0] for row in rows} <= noted
    assert {row[1] for row in rows} <= {"done", "failed"}
    assert {row[2] for row in rows} == {path.name for path in (folder / "inputs").iterdir()}
    assert not re.search(r"Traceback|unexpected", server.said())
