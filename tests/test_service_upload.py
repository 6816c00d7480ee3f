"""What is sent to the service: limits, hostile names, uploads cut short and gone on with, a full queue or disk."""

from __future__ import annotations

import hashlib
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

pytest.importorskip("fastapi")

from jcs_ct.service.files import numbered
from jcs_ct.service.receive import MOST_HEADERS, RefusedError, _Form
from jcs_ct.service.record import Record
from jcs_ct.service.settings import Limits, sqlite_in
from service_help import Server, events, serving, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 2**20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("service")


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Server]:
    """Takes uploads of 3 MiB and forms of 300 files; nobody works."""
    with serving(folder, "--upload", "3", "--files", "300", "--idle", "2") as server:
        yield server


def nothing_left(folder: Path) -> bool:
    return not list((folder / "incoming").iterdir())


def stored(folder: Path, answer: dict[str, Any]) -> Path:
    """Return what was stored of a study."""
    record = Record(sqlite_in(folder))
    study = record.get(answer["id"])
    record.close()
    assert study is not None
    return folder / "inputs" / study.input / "study"


def test_the_bytes_are_stored_as_they_were_sent(server: Server, folder: Path) -> None:
    data = b"some bytes" * 1000
    study = server.send(data)
    assert study["digest"] == hashlib.sha256(data).hexdigest()
    assert (study["state"], study["files"], study["bytes"]) == ("waiting", 1, len(data))
    assert stored(folder, study).read_bytes() == data
    again = server.ask("POST", "/api/studies", data=data)
    assert (again.status_code, again.json()["id"]) == (200, study["id"])
    as_form = server.ask("POST", "/api/studies", files={"files": ("name.zip", data)})
    assert (as_form.status_code, as_form.json()["id"]) == (200, study["id"])
    assert len(list((folder / "inputs").iterdir())) == 1
    assert server.study(study["id"])["ahead"] == 0


def test_files_of_a_form_lose_their_names_and_keep_their_order(server: Server, folder: Path) -> None:
    names = [
        "../../../etc/Doe^John 10.PNG",
        "../../../etc/Doe^John 9.PNG",
        "C:\\x\x00y.hdr",
        "C:\\x\x00y.img",
        "é" * 200,
    ]
    files = [("files", (name, name.encode())) for name in names]
    study = server.ask("POST", "/api/studies", files=files).json()
    found = {path.name: path.read_bytes() for path in stored(folder, study).iterdir()}
    assert len(found) == study["files"] == len(names)
    assert not any("Doe" in name or "é" in name for name in found)
    png = sorted(name for name in found if name.endswith(".png"))
    assert [b"9.PNG" in found[name] for name in png] == [True, False]  # natural order: 9 before 10
    pair = {name.rpartition(".")[0] for name in found if name.endswith((".hdr", ".img"))}
    assert len(pair) == 1  # and pairs stay pairs
    assert not list(folder.parent.rglob("*Doe*"))


def test_numbers_are_told_apart() -> None:
    names = ["b", "a.dcm", "A.dcm", "a.DCM", "a", "a.dcm.gz"]
    found = numbered(names)
    assert set(found) == set(names)
    assert len({name.lower() for name in found.values()}) == len(names)


def test_a_form_of_many_files(server: Server) -> None:
    files = [("files", (f"{i}.dcm", b"x%d" % i)) for i in range(301)]
    refused = server.ask("POST", "/api/studies", files=files)
    assert (refused.status_code, refused.json()) == (413, {"error": "has more than 300 files"})
    taken = server.ask("POST", "/api/studies", files=files[:300])
    assert taken.status_code == 201
    assert taken.json()["files"] == 300
    order = server.ask("POST", "/api/studies", files=files[:299][::-1]).json()["digest"]
    assert server.ask("POST", "/api/studies", files=files[:299]).json()["digest"] == order


def test_parts_without_names(server: Server, folder: Path) -> None:
    """As DICOMweb sends them."""
    body = b"".join(b"--edge\r\nContent-Type: application/dicom\r\n\r\n%d\r\n" % i for i in range(3)) + b"--edge--\r\n"
    kind = {"Content-Type": 'multipart/related; type="application/dicom"; boundary=edge'}
    answer = server.ask("POST", "/api/studies", data=body, headers=kind)
    assert answer.status_code == 201
    assert sorted(p.read_bytes() for p in stored(folder, answer.json()).iterdir()) == [b"0", b"1", b"2"]


@pytest.mark.parametrize(
    ("kind", "body", "status", "words"),
    [
        ("application/zip", b"", 400, "is empty"),
        ("multipart/form-data", b"x", 415, "without a boundary"),
        ("multipart/form-data; boundary=e", b"--e\r\n", 400, "cut short"),
        ("multipart/form-data; boundary=e", b"nonsense", 400, "not a readable form"),
        ("multipart/form-data; boundary=e", b"--e--\r\n", 400, "form"),
        (
            "multipart/form-data; boundary=e",
            b'--e\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--e--\r\n',
            400,
            "a field that is not a file",
        ),
        (
            "multipart/form-data; boundary=e",
            b'--e\r\nContent-Disposition: form-data; filename="a"\r\n\r\nhalf',
            400,
            "cut short",
        ),
        (
            "multipart/form-data; boundary=e",
            b"--e\r\nA: " + b"b" * 100_000 + b"\r\n\r\n--e--\r\n",
            400,
            "readable form",
        ),
    ],
)
def test_bodies_that_are_no_study(
    server: Server, folder: Path, kind: str, body: bytes, status: int, words: str
) -> None:
    answer = server.ask("POST", "/api/studies", data=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert words in answer.json()["error"]
    assert nothing_left(folder)


def test_headers_of_a_part_are_bounded(tmp_path: Path) -> None:
    """By this package too: a parser that takes any number of them fills the memory."""
    form = _Form(tmp_path, b"edge", Limits(), True, frozenset())
    form._on_field(b"x" * 99, 0, 99)
    form._on_begin()
    form._on_value(b"x" * MOST_HEADERS, 0, MOST_HEADERS)
    with pytest.raises(RefusedError, match="whose headers have more than"):
        form._on_field(b"x", 0, 1)


def test_too_many_bytes(server: Server, folder: Path) -> None:
    stated = server.ask("POST", "/api/studies", data=bytes(3 * MIB + 1))
    assert (stated.status_code, "at most 3145728" in stated.json()["error"]) == (413, True)
    chunks = (bytes(MIB) for _ in range(4))  # sent without a length
    with_form = server.ask("POST", "/api/studies", data=chunks)
    assert with_form.status_code == 413
    assert nothing_left(folder)


def raw(server: Server, data: bytes) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(data)
    return connection


HEAD = b"POST /api/studies HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n"


def test_an_upload_that_is_cut_short(server: Server, folder: Path) -> None:
    before = len(list((folder / "inputs").iterdir()))
    connection = raw(server, HEAD + bytes(1_500_000))
    until(lambda: not nothing_left(folder))
    connection.close()
    until(lambda: nothing_left(folder))
    assert len(list((folder / "inputs").iterdir())) == before


def test_an_upload_that_stalls(server: Server, folder: Path) -> None:
    connection = raw(server, HEAD + bytes(1000))
    started = time.monotonic()
    answer = connection.recv(4096)
    assert b" 408 " in answer.splitlines()[0]
    assert time.monotonic() - started > 1
    connection.close()
    assert nothing_left(folder)


def test_an_upload_goes_on_after_the_service_was_killed(tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    patch = {"Content-Type": "application/offset+octet-stream"}
    with serving(tmp_path) as server:
        made = server.ask("POST", "/api/uploads", headers={"Upload-Length": str(len(data))})
        assert made.status_code == 201
        where = made.headers["Location"]
        half = server.ask("PATCH", where, data=data[:600_000], headers=patch | {"Upload-Offset": "0"})
        assert (half.status_code, half.headers["Upload-Offset"]) == (204, "600000")
        server.process.kill()
        server.process.wait()
    with serving(tmp_path) as server:
        have = server.ask("HEAD", where)
        assert (have.headers["Upload-Offset"], have.headers["Upload-Length"]) == ("600000", str(len(data)))
        wrong = server.ask("PATCH", where, data=data[600_000:], headers=patch | {"Upload-Offset": "1"})
        assert (wrong.status_code, wrong.json()["error"]) == (409, "Upload-Offset: 600000 was expected")
        longer = server.ask("PATCH", where, data=bytes(len(data)), headers=patch | {"Upload-Offset": "600000"})
        assert longer.status_code == 413
        kind = server.ask("PATCH", where, data=b"x", headers={"Upload-Offset": "600000"})
        assert kind.status_code == 415
        rest = server.ask("PATCH", where, data=data[600_000:], headers=patch | {"Upload-Offset": "600000"})
        assert rest.status_code == 204
        study = server.ask("GET", rest.headers["Content-Location"]).json()
        assert study["digest"] == hashlib.sha256(data).hexdigest()
        assert stored(tmp_path, study).read_bytes() == data
        assert server.ask("HEAD", where).status_code == 404
        # An upload that is given up leaves nothing.
        where = server.ask("POST", "/api/uploads", headers={"Upload-Length": "5"}).headers["Location"]
        assert server.ask("DELETE", where).status_code == 204
        assert nothing_left(tmp_path)
        for length, status in (("0", 400), ("-1", 400), ("x", 400), ("9" * 14, 413), ("9" * 40, 413)):
            answer = server.ask("POST", "/api/uploads", headers={"Upload-Length": length})
            assert answer.status_code == status, length
        assert server.ask("HEAD", "/api/uploads/..%2f..%2finputs").status_code == 404


def test_a_full_queue_and_a_full_disk(tmp_path: Path) -> None:
    with serving(tmp_path / "queue", "--queue", "2") as server:
        assert [server.send(bytes([i])) is not None for i in range(2)] == [True, True]
        full = server.ask("POST", "/api/studies", data=b"3")
        assert (full.status_code, full.json()["error"]) == (429, "2 studies wait already")
        assert int(full.headers["Retry-After"]) > 0
        assert server.ask("POST", "/api/uploads", headers={"Upload-Length": "5"}).status_code == 429
    with serving(tmp_path / "disk", "--free", "1") as server:
        full = server.ask("POST", "/api/studies", data=b"3")
        assert full.status_code == 503
        assert "of the disk are free" in full.json()["error"]
        assert int(full.headers["Retry-After"]) > 0
        assert server.ask("GET", "/readyz").status_code == 503
        assert server.ask("GET", "/healthz").status_code == 200
        assert nothing_left(tmp_path / "disk")
        until(lambda: any(e["path"] == "/api/studies" and e["status"] == 503 for e in events(server, "request")))
