"""Bad and odd inputs through the command itself: no traceback, no silent wrong answer, the good ones come out."""

from __future__ import annotations

import csv
import io
import os
import shutil
import struct
import zipfile
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image
from scipy.io import savemat

from jcs_ct.cli import main

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray


def encode(pixels: NDArray[Any] | Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    data = io.BytesIO()
    picture.save(data, kind, **options)
    return data.getvalue()


def tiff(values: NDArray[Any], **options: Any) -> bytes:
    data = io.BytesIO()
    tifffile.imwrite(data, values, **options)
    return data.getvalue()


def mat(**arrays: Any) -> bytes:
    data = io.BytesIO()
    savemat(data, arrays)
    return data.getvalue()


def zipped(*members: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def huge_png() -> bytes:
    """A header that promises 60,000 × 60,000 pixels."""
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (64, 64), dtype=np.uint8)
GOOD = encode(GREY)
DEEP = (GREY.astype(np.uint16) * 257).astype(np.uint16)
HU = (GREY.astype(np.int16) * 8 - 1024).astype(np.int16)
NAN = np.where(GREY > 250, np.nan, GREY / 255).astype(np.float32)

# name of the file, content, a word that the one line must hold
REFUSED: list[tuple[str, bytes, str]] = [
    ("truncated.png", GOOD[: len(GOOD) // 2], "PNG"),
    ("truncated.jpg", encode(GREY, "JPEG")[:600], "JPEG"),
    ("truncated.tif", tiff(GREY)[:500], "TIFF"),
    ("truncated.bmp", encode(GREY, "BMP")[:500], "BMP"),
    ("bad-checksum.png", GOOD[:-20] + bytes(4) + GOOD[-16:], "PNG"),
    ("header-only.png", GOOD[:33], "PNG"),
    ("zero-bytes.png", b"", "empty"),
    ("text.png", b"this is no picture\n", "text"),
    ("html.jpg", b"<!DOCTYPE html><html>404</html>", "text"),
    ("random.png", bytes(RNG.integers(0, 256, 4000, dtype=np.uint8)), "unknown"),
    ("one-pixel.png", encode(GREY[:1, :1]), "1"),
    ("a-line.png", encode(np.resize(GREY, (1, 10_000))), "10000"),
    ("a-strip.png", encode(np.resize(GREY, (40, 400))), "4 times"),
    ("too-large.png", encode(Image.new("L", (8300, 8300), 3)), "8192"),
    ("promises-60000x60000.png", huge_png(), "60000"),
    ("constant.png", encode(np.full((64, 64), 127, np.uint8)), "127"),
    ("black.jpg", encode(np.zeros((64, 64), np.uint8), "JPEG"), "every pixel"),
    ("nan.tif", tiff(NAN), "NaN"),
    ("inf.tif", tiff(np.where(GREY > 250, np.inf, 0.5).astype(np.float32)), "inf"),
    ("hu-float.tif", tiff(HU.astype(np.float32)), "-1024"),
    ("hu-int16.tif", tiff(HU), "HU"),
    ("12-bit.png", encode((DEEP // 16).astype(np.uint16)), "12"),
    ("int32.tif", tiff(HU.astype(np.int32)), "HU"),
    ("complex.tif", tiff(GREY.astype(np.complex64)), "TIFF"),
    ("stack.tif", tiff(np.stack([GREY, GREY.T, GREY]), photometric="minisblack"), "3"),
    ("animated.png", encode(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(GREY.T)]), "2"),
    ("one-bit.png", encode(Image.fromarray(GREY > 128)), "1-bit"),
    ("cmyk.jpg", encode(Image.fromarray(GREY).convert("CMYK"), "JPEG"), "CMYK"),
    ("lab.tif", encode(Image.fromarray(np.stack([GREY] * 3, 2), "RGB").convert("LAB"), "TIFF"), "LAB"),
    ("transparent.png", encode(np.dstack([GREY, GREY, GREY, GREY * 0])), "every pixel"),
    ("anim.gif", encode(GREY, "GIF"), "GIF"),
    ("picture.webp", encode(GREY, "WEBP"), "WebP"),
    ("slice.dcm", bytes(128) + b"DICM" + bytes(200), "DICOM"),
    ("volume.nii", struct.pack("<i", 348) + bytes(340) + b"n+1\0" + bytes(400), "NIfTI"),
    ("report.pdf", b"%PDF-1.7\n", "PDF"),
    ("v73.mat", b"\x89HDF\r\n\x1a\n" + bytes(600), "HDF5"),
    ("damaged.mat", mat(res2net_feats=np.ones((64, 9, 9), np.uint8))[:200], "damaged"),
    ("other.mat", mat(x=GREY), "64 channels"),
    ("zero.mat", mat(x=np.zeros((64, 20, 20), np.uint8)), "zero everywhere"),
    ("floats.mat", mat(x=np.ones((64, 20, 20))), "uint8"),
    ("upwards.zip", zipped(("../../evil.png", GOOD)), ".."),
    ("absolute.zip", zipped(("/etc/evil.png", GOOD)), "/etc/evil.png"),
    ("bomb.zip", zipped(("bomb.png", GOOD + bytes(300_000_000))), "bomb.png"),
    ("truncated.zip", zipped(("a.png", GOOD))[:-30], "zip"),
    ("empty.zip", zipped(), "empty"),
    ("nested.zip", zipped(("inner.zip", zipped(("a.png", GOOD)))), "inner.zip"),
]

ODD: list[tuple[str, bytes]] = [
    ("16-bit.png", encode(DEEP)),
    ("16-bit big-endian.tif", tiff(DEEP.astype(">u2"), byteorder=">")),
    ("float01.tif", tiff((GREY / 255).astype(np.float32))),
    ("palette.png", encode(Image.fromarray(GREY).convert("P"))),
    ("rgba.png", encode(np.dstack([GREY, GREY, GREY, GREY | 255]))),
    ("grey-alpha.png", encode(Image.fromarray(GREY).convert("LA"))),
    ("rgb.bmp", encode(np.dstack([GREY] * 3), "BMP")),
    ("jpeg called.png", encode(GREY, "JPEG", quality=95)),
    ("no extension", GOOD),
    ("пример 例 é.png", GOOD),
    ("with\nnewline.png", GOOD),
    ("-dash.png", GOOD),
    ("con.png", GOOD),
    ("x" * 200 + ".png", GOOD),
    ("trailing.png", GOOD + b"appended"),
    ("zip with a slice.zip", zipped(("deep/a.png", GOOD), ("__MACOSX/._a.png", b"x"))),
]


@pytest.fixture(scope="module")
def run(filled: Callable[..., Any]) -> Iterator[Callable[..., int]]:
    """`run(*arguments)` → exit status, with a network that answers from the mean of its input (milliseconds)."""
    from jcs_ct.inference import self_check_network
    from jcs_ct.inference.choice import Choice

    class Means:
        facts: dict[str, str] = {}  # noqa: RUF012  # as the protocol has it

        def run(self, arrays: Any) -> list[Any]:
            mean = arrays[0].mean((1, 2, 3))
            return [np.stack([-mean, mean], axis=1)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("jcs_ct.inference.golden.filled_model", filled)
        network = self_check_network("jcs-classifier", "cpu")
    patch = pytest.MonkeyPatch()
    patch.setattr(network, "start", lambda *_: Choice("torch", Means(), ""))
    patch.setattr("jcs_ct.inference.open_network", lambda *_a, **_k: network)

    def call(*arguments: str | Path) -> int:
        with pytest.raises(SystemExit) as ended:
            main(["classify", *map(str, arguments), "-m", "x", "--threshold", "0.5"])
        return int(ended.value.code or 0)

    yield call
    patch.undo()  # other modules run in the same process


def test_the_table_is_long_enough() -> None:
    assert len(REFUSED) >= 40
    assert len({name for name, *_ in REFUSED + [(n, b"", "") for n, _ in ODD]}) == len(REFUSED) + len(ODD)


@pytest.mark.parametrize(("name", "content", "word"), REFUSED, ids=[name for name, *_ in REFUSED])
def test_refused_in_one_line(
    name: str, content: bytes, word: str, run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, "-o", tmp_path / "table.csv") == 2
    out, err = capfd.readouterr()
    assert out == ""
    lines = [line for line in err.splitlines() if name in line]
    assert len(lines) == 1, err
    assert lines[0].startswith("jcs: error: ")
    assert word.lower() in lines[0].lower()
    assert "Traceback" not in err
    assert not (tmp_path / "table.csv").exists()


@pytest.mark.parametrize(("name", "content"), ODD, ids=[ascii(name)[:40] for name, _ in ODD])
def test_odd_but_good(name: str, content: bytes, run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / name).write_bytes(content)
    assert run(tmp_path / name, "-o", tmp_path / "table.csv") == 0, capfd.readouterr().err
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 1
    reference = float(((GREY.astype(float) / 255 - 0.449) / 0.226).mean())
    assert float(rows[0]["probability"]) == pytest.approx(1 / (1 + np.exp(-2 * reference)), abs=0.02)


def test_in_a_folder_the_good_ones_come_out(run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "everything"
    folder.mkdir()
    for name, content in [*((n, c) for n, c, _ in REFUSED), *ODD]:
        if not name.endswith((".zip", ".txt")):
            (folder / name).write_bytes(content)
    (folder / "loop").symlink_to(folder)
    (folder / "broken-link.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(folder / "pipe.png")
    (folder / ".DS_Store").write_bytes(b"litter")
    (folder / "README.md").write_text("notes")
    assert run(folder, "-o", tmp_path / "table.csv") == 1
    err = capfd.readouterr().err
    assert "Traceback" not in err
    assert "loop" in err
    with (tmp_path / "table.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    good = [name for name, _ in ODD if not name.endswith(".zip")]
    assert len(rows) == len(good)
    assert f"{len(good)} slices done" in err
    for name in ("broken-link.png", "pipe.png", "truncated.png", "nan.tif"):
        assert sum(name in line and line.startswith("jcs: error") for line in err.splitlines()) == 1


@pytest.mark.parametrize("what", ["empty folder", "missing", "unreadable folder", "only litter", "fifo"])
def test_folders_without_a_slice(
    what: str, run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / what
    if what == "fifo":
        os.mkfifo(folder)
    elif what != "missing":
        folder.mkdir()
    if what == "only litter":
        (folder / "Thumbs.db").write_bytes(b"x")
        (folder / "notes.md").write_text("x")
    if what == "unreadable folder":
        real = os.scandir

        def refusing(path: Any = ".") -> Any:
            if str(path) == str(folder):
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(os, "scandir", refusing)
    assert run(folder, "-o", tmp_path / "table.csv") == 2
    err = capfd.readouterr().err
    assert what in err
    assert "Traceback" not in err


def test_a_list_names_what_is_missing(run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a b.png").write_bytes(GOOD)
    (tmp_path / "list.txt").write_text("# slices\n\na b.png\nnot there.png\n", encoding="utf-8")
    assert run(tmp_path / "list.txt", "-o", tmp_path / "t.csv") == 1
    err = capfd.readouterr().err
    assert "not there.png: does not exist" in err
    assert "1 slice done, 1 failed" in err


def test_a_full_disk_is_named_and_leaves_nothing(
    run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    monkeypatch.setattr(
        "pathlib.Path.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device"))
    )
    assert run(tmp_path / "a.png", "-o", tmp_path / "t.csv") == 2
    assert "No space left on device" in capfd.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png"]


def test_a_read_only_output_folder_is_named(run: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(GOOD)
    (tmp_path / "file").write_bytes(b"x")
    assert run(tmp_path / "a.png", "-o", tmp_path / "file" / "t.csv") == 2
    err = capfd.readouterr().err
    assert "cannot be written" in err
    assert "Traceback" not in err
    assert run(tmp_path / "a.png", "-o", tmp_path) == 2
    shutil.rmtree(tmp_path)
