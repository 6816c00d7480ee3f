"""Tar archives and files packed with gzip are read under the limits of zip archives."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dicom_help import read_only, volume, write_body
from jcs_ct.core.errors import InputError
from jcs_ct.io.files import archive as module
from jcs_ct.io.files.kinds import FOR_STUDIES, Kind, sniff
from jcs_ct.io.files.sources import find_sources
from jcs_ct.io.studies import find_series
from test_io_files_sources import PNG

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MODES: dict[str, Any] = {"study.tar": "w:", "study.tar.gz": "w:gz", "study.tgz": "w:gz"}


def make(path: Path, *members: tuple[str, bytes], change: Callable[[tarfile.TarInfo], Any] | None = None) -> Path:
    with tarfile.open(path, "w:" if path.suffix == ".tar" else "w:gz", format=tarfile.PAX_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if change is not None:
                change(info)
            archive.addfile(info, io.BytesIO(data))
    return path


def problems(path: Path) -> list[str]:
    return [problem.message for problem in find_sources([path]).problems]


@pytest.mark.parametrize("name", MODES)
def test_a_study_in_an_archive(name: str, tmp_path: Path) -> None:
    files = write_body(tmp_path / "ct")
    path = tmp_path / name
    with tarfile.open(path, MODES[name]) as archive:
        archive.add(tmp_path / "ct", "./patient/ct")
    series, expected = read_only(path), read_only(tmp_path / "ct")
    assert np.array_equal(volume(series), volume(expected))
    assert np.array_equal(series.geometry.affine, expected.geometry.affine)
    assert len(series) == len(files)
    assert series.label.startswith(f"{path}!")
    assert not find_series([path]).notes


def test_pictures_in_an_archive(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar.gz", ("b/2.png", PNG), ("b/10.png", PNG), ("b/1.png", PNG), ("._1.png", b"x"))
    found = find_sources([path])
    assert [source.name for source in found.sources] == ["b/1", "b/2", "b/10"]
    assert all(source.read() == PNG for source in found.sources)
    assert found.sources[0].read(4) == PNG[:4]
    listed = tmp_path / "list.txt"
    listed.write_text("a.tar.gz\n")
    assert [source.name for source in find_sources([listed]).sources] == ["a/b/1", "a/b/2", "a/b/10"]


@pytest.mark.parametrize("name", ["../a.png", "b/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png"])
def test_names_that_lead_out_are_refused(name: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", (name, PNG), ("fine.png", PNG))
    found = find_sources([path])
    assert [source.name for source in found.sources] == ["fine"]
    assert [p.message for p in found.problems] == ["has a name that leads out of the archive"]


def as_type(kind: bytes) -> Callable[[tarfile.TarInfo], None]:
    def change(info: tarfile.TarInfo) -> None:
        if info.name == "odd.png":
            info.type, info.linkname, info.size = kind, "fine.png", 0

    return change


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (tarfile.SYMTYPE, "is a link in the archive"),
        (tarfile.LNKTYPE, "is a link in the archive"),
        (tarfile.FIFOTYPE, "is not an ordinary file in the archive"),
        (tarfile.CHRTYPE, "is not an ordinary file in the archive"),
    ],
)
def test_special_members_are_refused(kind: bytes, text: str, tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar.gz", ("odd.png", b""), ("fine.png", PNG), change=as_type(kind))
    found = find_sources([path])
    assert [source.name for source in found.sources] == ["fine"]
    assert [p.message for p in found.problems] == [text]


def test_what_is_twice_in_an_archive(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar", ("a.png", b"first"), ("a.png", PNG))
    found = find_sources([path])
    assert [source.read() for source in found.sources] == [PNG]
    assert [p.message for p in found.problems] == ["occurs twice in the archive"]


def test_archives_within_archives_are_refused(tmp_path: Path) -> None:
    inner = make(tmp_path / "i.tar.gz", ("a.png", PNG)).read_bytes()
    assert problems(make(tmp_path / "a.tar", ("i.tar.gz", inner), ("f.png", PNG))) == [
        "is a tar archive packed with gzip within another"
    ]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("i.tar.gz", inner)
        archive.writestr("f.png", PNG)
    assert problems(tmp_path / "a.zip") == ["is a tar archive packed with gzip within another"]


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = make(tmp_path / "bomb.tar.gz", ("a.bmp", bytes(32 * 2**20)))
    assert "unpacks to more than 200 times its size" in problems(bomb)[0]
    path = make(tmp_path / "a.tar", ("a.png", PNG), ("b.png", PNG), ("c.png", PNG))
    monkeypatch.setattr(module, "MAX_MEMBERS", 2)
    assert "holds more than 2 members" in problems(path)[0]
    monkeypatch.setattr(module, "_latest_tar", [])
    monkeypatch.setattr(module, "MAX_MEMBERS", 3)
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 2 * len(PNG))
    assert "unpacks to more than" in problems(path)[0]
    monkeypatch.setattr(module, "_latest_tar", [])
    monkeypatch.setattr(module, "MAX_TOTAL_BYTES", 2**40)
    monkeypatch.setattr(module, "MAX_FILE_BYTES", len(PNG) - 1)
    assert len(problems(path)) == 3
    assert "holds 0 MiB, at most 0 MiB are read" in problems(path)[0]


def test_a_header_that_claims_to_be_huge(tmp_path: Path) -> None:
    path = make(
        tmp_path / "a.tar", ("a.png", PNG), change=lambda info: setattr(info, "pax_headers", {"comment": "x" * 99})
    )
    data = bytearray(path.read_bytes())
    assert data[156:157] == b"x"  # the extended header
    data[124:136] = b"77777777777\0"
    data[148:156] = b"        "
    data[148:156] = b"%06o\0 " % sum(data[:512])
    path.write_bytes(data)
    assert "has a header of 8,589,934,592 bytes" in problems(path)[0]


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz"])
def test_damaged_archives(name: str, tmp_path: Path) -> None:
    whole = make(tmp_path / name, *((f"{n}.png", PNG + bytes(np.random.default_rng(n).bytes(5000))) for n in range(5)))
    data = whole.read_bytes()
    for cut in (700, len(data) // 2):
        whole.write_bytes(data[:cut])
        assert problems(whole)
    if name == "a.tar.gz":
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 255
        whole.write_bytes(flipped)
        assert "cannot be unpacked" in problems(whole)[0]


def test_an_archive_that_changes_is_read_again(tmp_path: Path) -> None:
    path = make(tmp_path / "a.tar.gz", ("a.png", PNG))
    (source,) = find_sources([path]).sources
    make(path, ("b.png", PNG), ("c.png", PNG))
    with pytest.raises(InputError, match="is not in the archive any more"):
        source.read()


def test_dicom_files_packed_with_gzip(tmp_path: Path) -> None:
    files = write_body(tmp_path / "ct")
    (tmp_path / "gz").mkdir()
    for file in files:
        (tmp_path / "gz" / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    series = read_only(tmp_path / "gz")
    assert np.array_equal(volume(series), volume(read_only(tmp_path / "ct")))
    with tarfile.open(tmp_path / "gz.tar", "w") as archive:
        archive.add(tmp_path / "gz", "gz")
    assert np.array_equal(volume(read_only(tmp_path / "gz.tar")), volume(series))

    packed = gzip.compress(files[0].read_bytes())
    assert sniff(packed[:1024]) is Kind.DICOM_GZIP
    assert sniff(gzip.compress(files[0].read_bytes()[132:])[:1024]) is Kind.DICOM_GZIP  # without a preamble
    (tmp_path / "one.dcm.gz").write_bytes(packed[:-9])
    (problem,) = find_series([tmp_path / "one.dcm.gz"]).problems
    assert "cannot be unpacked: it ends too early" in problem.line()
    (tmp_path / "bomb.dcm.gz").write_bytes(gzip.compress(files[0].read_bytes() + bytes(64 * 2**20)))
    (source,) = find_sources([tmp_path / "bomb.dcm.gz"], FOR_STUDIES).sources
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        source.read()
    (problem,) = find_sources([tmp_path / "one.dcm.gz"]).problems  # slices are wanted there
    assert "is a DICOM file packed with gzip; slices as PNG" in problem.line()
