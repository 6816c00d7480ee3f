"""A real DICOM node: who may send, what is on the disk when success is answered, and what becomes of it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import pydicom
import pytest

pytest.importorskip("pynetdicom")
pytest.importorskip("sqlalchemy")

from pynetdicom import AE
from pynetdicom.sop_class import CTImageStorage  # type: ignore[attr-defined]

from dcmtk_help import dcmtk
from dicom_seg_help import needs
from jcs_ct.core.errors import UsageError
from jcs_ct.service.files import Folders, sha256_of
from jcs_ct.service.log import Log
from jcs_ct.service.node import arrivals
from jcs_ct.service.node.arrivals import KEPT_SECONDS, Arrivals
from jcs_ct.service.node.receiver import Node, listen
from jcs_ct.service.pseudonyms import Pseudonyms
from jcs_ct.service.record import Record
from jcs_ct.service.settings import Limits, sqlite_in
from service_help import dicom, until
from watch_help import Command, command, read

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# pynetdicom as a client leaves the socket of a connection that TLS has refused to Python's garbage search.
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
TITLES = ("--calling", "SENDER", "--calling", "OTHER")
PLANTED = ("Planted^Sent", "PLANTED-ID-55", "2.25.555555555555", "2.25.666666666666")


@pytest.fixture(scope="module")
def slices(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """251 small images of one study."""
    folder = tmp_path_factory.mktemp("slices")
    first = pydicom.dcmread(dicom(folder / "one", slices=2, size=64)[0])
    first.PatientName, first.PatientID, first.StudyInstanceUID = PLANTED[:3]
    paths = []
    for number in range(251):
        first.SOPInstanceUID = f"{PLANTED[3]}.{number + 1}"
        first.file_meta.MediaStorageSOPInstanceUID = first.SOPInstanceUID
        first.InstanceNumber = number + 1
        first.ImagePositionPatient = [0, 0, float(number)]
        paths.append(folder / f"{number:03d}.dcm")
        first.save_as(paths[-1])
    return paths


@contextmanager
def receiving(folder: Path, *options: str) -> Iterator[tuple[Command, int]]:
    """Run a node without workers; give it and its port."""
    arguments = ["node", str(folder), "--port", "0", "--workers", "0", "--settle", "1", *TITLES, *options]
    with command(*arguments) as node:
        yield node, port_of(node)


def port_of(node: Command) -> int:
    def said() -> list[str]:
        return re.findall(r"receiving at \S+ port (\d+)", "".join(node.said))

    return int(until(said)[-1])


def sent(port: int, paths: list[Path], *, calling: str = "SENDER", called: str = "JCS", tls: Any = None) -> list[int]:
    """Send images; return the statuses, or nothing where there is no association."""
    entity = AE(calling)
    entity.add_requested_context(CTImageStorage)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 60
    link = entity.associate("127.0.0.1", port, ae_title=called, tls_args=tls)
    statuses = [int(link.send_c_store(pydicom.dcmread(path)).Status) for path in paths] if link.is_established else []
    if link.is_established:
        link.release()
    return statuses


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "no title may send"),
        (["--calling", ""], "'' is not an AE title"),
        (["--calling", "SEVENTEEN LETTERS"], "is not an AE title"),
        (["--calling", "A", "--host", "0.0.0.0"], "can be reached from elsewhere without TLS"),
    ],
)
def test_it_does_not_start_open_to_all(options: list[str], words: str, tmp_path: Path) -> None:
    given = dict(zip(options[::2], options[1::2], strict=True))
    calling = (given["--calling"],) if "--calling" in given else ()
    with pytest.raises(UsageError, match=re.escape(words)):
        Node("JCS", calling, given.get("--host", "127.0.0.1"))
    if not options:  # and the command says so, in one line
        run = [sys.executable, "-m", "jcs_ct", "node", str(tmp_path / "new")]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
        assert words in done.stderr
        assert not (tmp_path / "new").exists()


@needs("storescu")
def test_what_is_sent_becomes_a_study(slices: list[Path], tmp_path: Path) -> None:
    """250 slices by DCMTK; a slice that comes late makes a study of all; wrong titles get nowhere."""
    with receiving(tmp_path) as (node, port):
        store = [dcmtk("storescu"), "-aet", "SENDER", "-aec", "JCS", "127.0.0.1", str(port), *map(str, slices[:250])]
        assert subprocess.run(store, capture_output=True, text=True, check=False).returncode == 0
        assert len(list((tmp_path / "arrivals").rglob("*.dcm"))) == 250
        assert sent(port, slices[:1], called="ELSEWHERE") == []
        assert sent(port, slices[:1], calling="STRANGER") == []
        until(lambda: read(tmp_path, "SELECT 1 FROM studies WHERE files = 250"))
        assert sent(port, slices[250:], calling="OTHER") == [0]
        until(lambda: read(tmp_path, "SELECT 1 FROM studies WHERE files = 251"))
        assert sent(port, slices[250:]) == [0]  # once more: the same bytes, so no study more
        time.sleep(2.5)
    assert [row[0] for row in read(tmp_path, "SELECT files FROM studies ORDER BY files")] == [250, 251]
    ((name,),) = read(tmp_path, "SELECT input FROM studies WHERE files = 251")
    stored = [pydicom.dcmread(path) for path in (tmp_path / "inputs" / name / "study").iterdir()]
    assert {str(one.SOPInstanceUID) for one in stored} == {f"{PLANTED[3]}.{n}" for n in range(1, 252)}
    assert all((one.pixel_array == pydicom.dcmread(slices[0]).pixel_array).all() for one in stored[:3])
    said = "".join(node.said)
    assert said.count("refused: a wrong title") == 2
    for where in (said, " ".join(map(str, tmp_path.rglob("*"))), str(read(tmp_path, "SELECT * FROM audit, studies"))):
        assert not [planted for planted in PLANTED if planted in where]


def test_a_killed_node_has_what_it_answered_for(slices: list[Path], tmp_path: Path) -> None:
    with receiving(tmp_path) as (node, port):
        entity = AE("SENDER")
        entity.add_requested_context(CTImageStorage)
        link = entity.associate("127.0.0.1", port, ae_title="JCS")
        stored = []
        for path in slices[:20]:
            image = pydicom.dcmread(path)
            if link.send_c_store(image).get("Status") == 0:
                stored.append(str(image.SOPInstanceUID))
        node.end("SIGKILL")
        link.abort()
        assert len(stored) == 20
        node.said.clear()
        node.start()
        port = port_of(node)
        until(lambda: read(tmp_path, "SELECT 1 FROM studies WHERE files = 20"))
    kept = {str(pydicom.dcmread(path).SOPInstanceUID) for path in (tmp_path / "arrivals").rglob("*.dcm")}
    assert kept == set(stored)


def certificate(folder: Path, name: str, authority: tuple[Path, Path] | None) -> tuple[Path, Path]:
    """Make a certificate and its key: of an authority of its own, or signed by another."""
    cert, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "2", "-subj", f"/CN={name}", "-out", str(cert), "-keyout", str(key)]
    if authority is not None:
        command += ["-CA", str(authority[0]), "-CAkey", str(authority[1])]
        command += ["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True)
    return cert, key


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: see tools/system.sh")
def test_only_trusted_certificates(slices: list[Path], tmp_path: Path) -> None:
    authority, foreign = (certificate(tmp_path, name, None) for name in ("authority", "foreign"))
    server, sender = (certificate(tmp_path, name, authority) for name in ("server", "sender"))
    stranger = certificate(tmp_path, "stranger", foreign)

    def context(own: tuple[Path, Path] | None) -> tuple[ssl.SSLContext, str]:
        made = ssl.create_default_context(cafile=str(authority[0]))
        if own is not None:
            made.load_cert_chain(*map(str, own))
        return made, "127.0.0.1"

    tls = ("--cert", str(server[0]), "--key", str(server[1]), "--ca", str(authority[0]))
    with receiving(tmp_path / "f", *tls) as (node, port):
        with socket.create_connection(("127.0.0.1", port)):  # says nothing, and holds up nobody
            assert sent(port, slices[:2], tls=context(sender)) == [0, 0]
        assert sent(port, slices[:1], tls=context(None)) == []
        assert sent(port, slices[:1], tls=context(stranger)) == []
        assert sent(port, slices[:1]) == []  # without TLS
        assert sent(port, slices[:1], tls=context(sender), calling="STRANGER") == []
        until(lambda: "".join(node.said).count("no trusted certificate") >= 3)
    assert len(list((tmp_path / "f/arrivals").rglob("*.dcm"))) == 2


class Inside:
    """A node within this process."""

    def __init__(self, folder: Path, **limits: Any) -> None:
        self.folders = Folders(folder)
        self.folders.prepare()
        self.record = Record(sqlite_in(folder))
        self.record.prepare()
        self.said = (folder / "said").open("w+", encoding="utf-8")
        self.arrivals = Arrivals(
            self.folders, self.record, "s", Limits(**limits), Log(self.record, self.said), Pseudonyms(folder), 0.0
        )
        self.server = listen(Node("JCS", ("SENDER",), port=0), self.arrivals)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.port = int(self.server.server_address[1])

    def close(self) -> None:
        self.server.ae.shutdown()
        self.record.close()
        self.said.close()


@contextmanager
def inside(folder: Path, **limits: Any) -> Iterator[Inside]:
    with closing(Inside(folder, **limits)) as node:
        yield node


def test_a_disk_that_is_nearly_full(slices: list[Path], tmp_path: Path) -> None:
    with inside(tmp_path, free_share=1.0) as node:
        assert sent(node.port, slices[:1]) == [0xA700]
    assert not list((tmp_path / "arrivals").iterdir())


def test_a_disk_that_refuses(slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever was written without the disk's word that it has it is not answered for, and goes."""

    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with inside(tmp_path) as node:
        assert sent(node.port, slices[:1]) == [0]
        monkeypatch.setattr(os, "fsync", full)
        assert sent(node.port, slices[1:3]) == [0xA700, 0xA700]
        monkeypatch.undo()
        assert sent(node.port, slices[1:2]) == [0]
        assert len([path for path in (tmp_path / "arrivals").rglob("*") if path.is_file()]) == 2


def test_a_full_disk(slices: list[Path], tmp_path: Path) -> None:
    small = tmp_path / "arrivals"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.name != "posix" or os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a small disk")
    try:
        with inside(tmp_path) as node:
            statuses = sent(node.port, slices[:60])
            assert statuses[0] == 0
            assert statuses[-1] == 0xA700
            assert len(list(small.rglob("*.dcm"))) == statuses.count(0)
            assert set(statuses) == {0, 0xA700}
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_what_was_deleted_or_is_old_goes(slices: list[Path], tmp_path: Path) -> None:
    with inside(tmp_path) as node:
        assert sent(node.port, slices[:2]) == [0, 0]
        node.arrivals.pass_on()
        (study,) = node.record.newest(5)
        assert (study.files, study.state) == (2, "waiting")
        node.arrivals.pass_on()
        assert len(list((tmp_path / "arrivals").rglob("*.dcm"))) == 2  # a late slice would meet them
        gone = node.record.delete(study.id)
        assert gone is not None
        node.arrivals.pass_on()
        assert not list((tmp_path / "arrivals").iterdir())

        assert sent(node.port, slices[2:4]) == [0, 0]
        node.arrivals.pass_on()
        (folder,) = (tmp_path / "arrivals").iterdir()
        old = time.time() - KEPT_SECONDS - 60
        for path in folder.glob("*.dcm"):
            os.utime(path, (old, old))
        node.arrivals.pass_on()  # the times have changed, so it is the same study once more …
        node.arrivals.pass_on()  # … and then it is old
        assert not folder.exists()
    with closing(sqlite3.connect(tmp_path / "record.sqlite")) as database:
        assert database.execute("SELECT count(*) FROM studies").fetchone() == (2,)


def test_a_study_that_cannot_be_read_holds_up_no_other(
    slices: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with inside(tmp_path) as node:
        assert sent(node.port, slices[:1]) == [0]
        (damaged,) = (tmp_path / "arrivals").iterdir()
        later = damaged.with_name("f" * 32)
        shutil.copytree(damaged, later)
        damaged.rename(damaged.with_name("0" * 32))

        def refuse(path: Path) -> bytes:
            if not seen:
                seen.append(path)
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return sha256_of(path)

        seen: list[Path] = []
        monkeypatch.setattr(arrivals, "sha256_of", refuse)
        with pytest.raises(OSError, match="Input/output"):
            node.arrivals.pass_on()
        assert len(node.record.newest(5)) == 1
        assert not list((tmp_path / "incoming").iterdir())
        node.arrivals.pass_on()
        assert len(list((tmp_path / "arrivals").glob("*/taken.json"))) == 2


def test_what_is_no_image_is_refused(slices: list[Path], tmp_path: Path) -> None:
    with inside(tmp_path) as node:
        entity = AE("SENDER")
        entity.add_requested_context(CTImageStorage)
        link = entity.associate("127.0.0.1", node.port, ae_title="JCS")
        image = pydicom.dcmread(slices[0])
        del image.StudyInstanceUID
        assert link.send_c_store(image).Status == 0xC000
        link.release()
        node.said.seek(0)
        assert "not understood" in node.said.read()
    assert not list((tmp_path / "arrivals").iterdir())
