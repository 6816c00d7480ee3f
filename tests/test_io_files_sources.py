"""From inputs to sources: files, folders, archives and lists, and everything that is odd about them."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
import socket
import struct
import sys
import threading
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from jcs_ct.core.errors import InputError
from jcs_ct.io.files import archive, opening
from jcs_ct.io.files.kinds import FOR_SLICES, FOR_STUDIES, Kind, Wanted
from jcs_ct.io.files.names import MAX_COMPONENT, MAX_NAME, natural_key, safe_name, tell_apart
from jcs_ct.io.files.sources import Found, Source, find_sources


def encoded(fmt: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.arange(1600, dtype=np.uint8).reshape(40, 40)).save(file, fmt)
    return file.getvalue()


PNG, JPEG = encoded("PNG"), encoded("JPEG")
DICOM = bytes(128) + b"DICM" + bytes(100)
NIFTI = struct.pack("<i", 348) + bytes(340) + b"n+1\0"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX files")


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def pack(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in files.items():
            info = zipfile.ZipInfo()
            info.filename, info.compress_type = name, method  # as it is: the constructor would make it safe
            file.writestr(info, data)
    return path


def names(found: Found) -> list[str]:
    return [source.name for source in found.sources]


def only_problem(found: Found, *texts: str) -> None:
    assert not found.sources
    (problem,) = found.problems
    has(problem.line(), *texts)


def has(line: str, *texts: str) -> None:
    assert "\n" not in line
    for text in texts:
        assert text in line, line


# --- what is found ---------------------------------------------------------------------------------------------------


def test_a_file_is_found_by_its_content(tmp_path: Path) -> None:
    write(tmp_path, {"a.jpg": PNG})
    (source,) = find_sources([tmp_path / "a.jpg"]).sources
    assert source == Source("a", str(tmp_path / "a.jpg"), tmp_path / "a.jpg", None, Kind.PNG)
    assert source.read() == PNG


def test_strings_are_paths_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(write(tmp_path, {"a b.png": PNG, "ü/1.png": PNG}))
    assert names(find_sources(["a b.png", "ü"])) == ["a b", "1"]
    assert names(find_sources(["."])) == ["a b", "ü/1"]


def test_a_folder_is_read_in_natural_order_with_its_sub_folders(tmp_path: Path) -> None:
    wanted = ["p2/slice1", "p2/slice2", "p2/slice10", "p10/slice1", "p10/Slice02", "slice3"]
    write(tmp_path, dict.fromkeys((f"{name}.png" for name in random.Random(0).sample(wanted, 6)), PNG))
    found = find_sources([tmp_path])
    assert names(found) == wanted
    assert (found.problems, found.notes) == ((), ())


def test_a_zip_gives_the_same_as_the_folder(tmp_path: Path) -> None:
    files = {"p2/slice10.png": PNG, "p2/slice9.jpg": JPEG, "top.png": PNG, "p10/ü 1.png": PNG}
    folder = find_sources([write(tmp_path / "folder", files)])
    packed = find_sources([pack(tmp_path / "a.zip", {**files, "p2/": b""})])
    assert names(folder) == names(packed) == ["p2/slice9", "p2/slice10", "p10/ü 1", "top"]
    assert [s.read() for s in folder.sources] == [s.read() for s in packed.sources]
    assert packed.sources[0].label == f"{tmp_path / 'a.zip'}!p2/slice9.jpg"
    assert (packed.problems, packed.notes) == ((), ())


def test_feature_files_are_found(tmp_path: Path) -> None:
    file = io.BytesIO()
    savemat(file, {"vgg_feats": np.zeros((1, 64, 2, 2), np.uint8)})
    write(tmp_path, {"a.mat": file.getvalue()})
    assert [s.kind for s in find_sources([tmp_path]).sources] == [Kind.MAT]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", ["slices.txt", "slices.LST", "s.list"])
def test_a_list_keeps_its_order_and_sub_folders(tmp_path: Path, name: str, encoding: str) -> None:
    write(tmp_path / "data", {"p/10.png": PNG, "p/2.png": PNG, "d/ü/x.png": PNG})
    write(tmp_path, {"else.png": PNG})
    pack(tmp_path / "data" / "z.zip", {"m.png": PNG})
    lines = ["# slices", "", "p/10.png", "  ./p/2.png\t", "../else.png", str(tmp_path / "data/d/ü/x.png"), "d", "z.zip"]
    (tmp_path / "data" / name).write_bytes("\r\n".join(lines).encode(encoding))
    found = find_sources([tmp_path / "data" / name])
    assert names(found) == ["p/10", "p/2", "else", "x", "z/m"]
    assert found.problems == ()
    assert found.notes == ("1 path named more than once, read once",)


def test_a_list_may_name_its_own_folder(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b".\n", "p/1.png": PNG})
    assert names(find_sources([tmp_path / "a.txt"])) == ["p/1"]


def test_the_same_file_twice_is_read_once(tmp_path: Path) -> None:
    write(tmp_path, {"p/a.png": PNG})
    found = find_sources([tmp_path / "p", tmp_path / "p" / "a.png", tmp_path / "p" / ".." / "p"])
    assert names(found) == ["a"]
    has(found.notes[0], "2 paths named more than once")


def test_no_input_finds_nothing() -> None:
    assert find_sources([]) == Found((), (), ())


def test_sources_survive_pickling(tmp_path: Path) -> None:
    found = find_sources([pack(tmp_path / "a.zip", {"a.png": PNG}), tmp_path / "missing"])
    again = pickle.loads(pickle.dumps(found))
    assert again.sources == found.sources
    assert again.sources[0].read() == PNG
    assert again.problems[0].line() == found.problems[0].line()


# --- names -----------------------------------------------------------------------------------------------------------


def test_names_that_collide_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path / "1", {"a.png": PNG, "a.jpg": JPEG, "b.png": PNG})
    write(tmp_path / "2", {"b.png": PNG, "b_2.png": PNG, "c.png": PNG})
    found = find_sources([tmp_path / "1", tmp_path / "2"])
    assert names(found) == ["a_jpg", "a_png", "b", "b_3", "b_2", "c"]
    (note,) = found.notes
    has(note, "3 names changed to be told apart", "a_jpg", "a_png", "b_3")


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ([("a", "png"), ("A", "png")], ["a", "A_2"]),
        ([("a", "png"), ("A", "PNG"), ("a", "jpg")], ["a_png", "A_PNG_2", "a_jpg"]),
        ([("a", ""), ("a", "png")], ["a", "a_png"]),
        ([("\u00fc", "png"), ("u\u0308", "png")], ["\u00fc", "u\u0308_2"]),
        ([("Straße", "png"), ("STRASSE", "png")], ["Straße", "STRASSE_2"]),
        ([("a", "png"), ("a", "jpg"), ("a_png", "png")], ["a_png_2", "a_jpg", "a_png"]),
        ([("a", "png")] * 3, ["a", "a_2", "a_3"]),
        ([("p/a", "png"), ("P/a", "png")], ["p/a", "P/a_2"]),
    ],
)
def test_telling_apart(given: list[tuple[str, str]], wanted: list[str]) -> None:
    assert tell_apart(given) == wanted


def test_many_equal_names_are_told_apart_quickly() -> None:
    told = tell_apart([("a", "png")] * 20_000)
    assert len({name.casefold() for name in told}) == 20_000


SAFE = [
    ("a", "a"),
    ("p/ü 1", "p/ü 1"),
    ("CON", "_CON"),
    ("nul.tar", "_nul.tar"),
    ("com1/lpt9 .x", "_com1/_lpt9 .x"),
    ("COM²", "_COM²"),
    ("console", "console"),
    ('a:b*c?d"e<f>g|h\\i', "a_b_c_d_e_f_g_h_i"),
    ("a\nb\0c\x7f\u2028\udcff", "a_b_c___"),
    ("dir./a. .", "dir/a"),
    ("...", "_"),
    ("", "_"),
]


@pytest.mark.parametrize(("given", "wanted"), SAFE, ids=repr)
def test_names_are_safe_everywhere(given: str, wanted: str) -> None:
    assert safe_name(given) == wanted


def test_long_names_are_cut_and_stay_distinct() -> None:
    first, second = safe_name("ü" * 150 + "1"), safe_name("ü" * 150 + "2")
    assert first != second
    assert first.startswith("ü" * 80)
    assert len(first.encode()) <= MAX_COMPONENT
    deep = safe_name("folder/" * 500 + "slice1")
    assert deep.endswith("/slice1")
    assert len(deep.encode()) <= MAX_NAME
    assert deep != safe_name("folder/" * 501 + "slice1")


def test_changed_names_are_noted(tmp_path: Path) -> None:
    packed = pack(tmp_path / "a.zip", {"CON.png": PNG, "a:b.png"[1:]: PNG, "x" * 250 + ".png": PNG, "ok.png": PNG})
    found = find_sources([packed])
    assert names(found) == ["_b", "_CON", "ok", safe_name("x" * 250)]
    has(found.notes[0], "3 names changed to be safe", "CON → _CON")


def test_only_known_extensions_are_left_off(tmp_path: Path) -> None:
    write(tmp_path, {"scan.001": PNG, "scan.002": PNG, "x.tar.PNG": PNG, "plain": PNG})
    assert names(find_sources([tmp_path])) == ["plain", "scan.001", "scan.002", "x.tar"]


def test_natural_order_takes_any_number() -> None:
    digits = ["1", "02", "2", "10", "9" * 5000, "1" + "0" * 5000]
    assert sorted(random.Random(1).sample(digits, 6), key=natural_key) == digits


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_odd_names_stay_on_one_line(tmp_path: Path) -> None:
    write(tmp_path, {"a\nb.png": PNG, "c\nd.txt": b"text", "e\nf.png": b""})
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(PNG)
    found = find_sources([tmp_path])
    assert names(found) == ["a_b", "_"]
    assert [s.label for s in found.sources] == [f"{tmp_path}/a\\nb.png", f"{tmp_path}/\\udcff.png"]
    for line in (*found.notes, *(p.line() for p in found.problems)):
        assert line.isprintable()


# --- what cannot be used ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.png", b"", "an empty file (0 bytes)"),
        ("a.dcm", DICOM, "is a DICOM file; slices as PNG, JPEG, TIFF or BMP are expected by this command"),
        ("a.nii", NIFTI, "is a NIfTI volume; slices as PNG"),
        ("a.pdf", b"%PDF-1.7\n", "is a PDF document"),
        ("a.gif", encoded("GIF"), "is a GIF picture"),
        ("a.webp", encoded("WEBP"), "is a WebP picture"),
        ("a.mat", b"\x89HDF\r\n\x1a\n" + bytes(20), "is an HDF5 file (MATLAB v7.3 files are such)"),
        ("a.png", b"no picture", "is a text file"),
        ("a.csv", b"a,b", "is a text file"),
        ("a.png", bytes(100), "is a file of an unknown kind"),
        ("a.txt", b"# nothing\n\n", "a list without a file"),
        ("a.txt", b"a\0b.png\n", "is a file of an unknown kind"),
        ("a.zip", b"PK\x03\x04" + bytes(100), "cannot be unzipped"),
        ("a.txt", b"x" * 2000 + b"\xff", "neither UTF-8 nor UTF-16"),
    ],
)
def test_a_named_file_that_cannot_be_used_is_a_problem(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    write(tmp_path, {name: data})
    only_problem(find_sources([tmp_path / name]), str(tmp_path / name), text, "(")


def test_missing_paths_are_problems(tmp_path: Path) -> None:
    only_problem(find_sources([tmp_path / "no.png"]), "does not exist", "check the name")
    write(tmp_path, {"study-one/scan.png": PNG})
    for wrong, meant in (("study-one/scam.png", "study-one/scan.png"), ("study-on/scan.png", "study-one")):
        only_problem(find_sources([tmp_path / wrong]), "does not exist", f"did you mean {tmp_path / meant}?")
    only_problem(find_sources([str(tmp_path / "*.png")]), "does not exist", "patterns are not expanded")
    only_problem(find_sources([""]), "an input is empty")
    only_problem(find_sources(["a\0b.png"]), "cannot be read", "\\x00")
    only_problem(find_sources(["x" * 5000]), "cannot be read")


def test_a_list_names_each_missing_file_and_goes_on(tmp_path: Path) -> None:
    write(tmp_path, {"a.txt": b"no.png\na.png\nb.txt\n", "a.png": PNG, "b.txt": b"a.png\n"})
    found = find_sources([tmp_path / "a.txt"])
    assert names(found) == ["a"]
    assert len(found.problems) == 2
    has(found.problems[0].line(), str(tmp_path / "no.png"), "does not exist")
    has(found.problems[1].line(), str(tmp_path / "b.txt"), "list within a list")


def test_what_is_no_slice_in_a_folder_is_skipped_with_one_note(tmp_path: Path) -> None:
    other = {f"IM{i}": DICOM for i in range(1, 12)} | {"notes.txt": b"x.png\n", "b.zip": b"PK\x05\x06" + bytes(18)}
    hidden = {".hidden.png": b"", ".git/a.png": b"", "__MACOSX/a.png": b"", "Thumbs.db": b"", "sub/desktop.ini": b""}
    found = find_sources([write(tmp_path, {"a.png": PNG, **other, **hidden})])
    assert names(found) == ["a"]
    assert found.problems == ()
    assert found.notes == (f"{tmp_path}: skipped 13 other files (11 DICOM, 1 ZIP, 1 TEXT): b.zip, IM1, IM2, …",)


def test_what_pretends_to_be_a_slice_is_a_problem(tmp_path: Path) -> None:
    found = find_sources([write(tmp_path, {"a.png": PNG, "b.png": b"", "c.TIF": DICOM, "d.mat": b"text"})])
    assert names(found) == ["a"]
    assert [p.line().split(": ", 1)[1].split(";")[0] for p in found.problems] == [
        "is an empty file (0 bytes)",
        "is a DICOM file",
        "is a text file",
    ]
    only_problem(find_sources([write(tmp_path / "p", {"x.jpg": DICOM})]), "x.jpg", "is a DICOM file")


@pytest.mark.parametrize("files", [{}, {"sub/.hidden": b""}, {"__MACOSX/a.png": PNG}])
def test_an_empty_folder_or_archive_is_a_problem(tmp_path: Path, files: dict[str, bytes]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    only_problem(find_sources([write(folder, files)]), str(folder), "is empty; slices as PNG")
    only_problem(find_sources([pack(tmp_path / "a.zip", files)]), "a.zip", "is empty; slices as PNG")


def test_a_folder_without_slices_says_what_it_holds(tmp_path: Path) -> None:
    files = {"IM1": DICOM, "IM2": DICOM, "readme": b"text"}
    only_problem(find_sources([write(tmp_path / "d", files)]), "holds no slice, only 3 other files (2 DICOM, 1 TEXT)")
    only_problem(find_sources([pack(tmp_path / "a.zip", files)]), "holds no slice, only 3", "8-bit PNG")


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"d/a.png": PNG})
    sparse = tmp_path / "d" / "big.png"
    with sparse.open("wb") as file:
        file.write(PNG)
        file.truncate(opening.MAX_FILE_BYTES + 1)
    found = find_sources([tmp_path / "d"])
    assert names(found) == ["a"]
    has(found.problems[0].line(), "big.png", "holds 512 MiB, at most 512 MiB are read")
    only_problem(find_sources([sparse]), "at most 512 MiB")
    with pytest.raises(InputError, match="at most 512 MiB"):
        Source("big", "big", sparse, None, Kind.PNG).read()


def stat_of(size: int) -> os.stat_result:
    return os.stat_result((0o100644, 1, 1, 1, 0, 0, size, 0, 0, 0))


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"a.png": PNG}) / "a.png"
    size = path.stat().st_size
    for real in (size - 3, size + 3):  # grown or shrunk since its size was asked for
        monkeypatch.setattr(os, "fstat", lambda number, size=real: stat_of(size))
        with pytest.raises(InputError, match="changes while it is read"):
            opening.read_file(path)
        monkeypatch.undo()
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        Source("a", "a", path, None, Kind.PNG).read()


@posix
def test_special_files_never_block(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to("pipe.png")
    only_problem(find_sources([tmp_path / "pipe.png"]), "is a named pipe")
    only_problem(find_sources([tmp_path / "link.png"]), "is a named pipe")
    only_problem(find_sources(["/dev/zero"]), "is a device")
    found = find_sources([tmp_path])
    assert [p.message for p in found.problems] == ["is a named pipe, a file is expected"] * 2
    with pytest.raises(InputError, match="is a folder"):
        opening.read_file(tmp_path)


@posix
def test_a_pipe_put_in_place_of_a_file_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"a.png": PNG}) / "a.png"
    os.mkfifo(tmp_path / "pipe")
    real = os.open
    monkeypatch.setattr(os, "open", lambda _, flags: real(tmp_path / "pipe", flags))
    only_problem(find_sources([path]), "is a named pipe")


@posix
def test_sockets_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("s.png")
        only_problem(find_sources(["s.png"]), "is a socket")


@posix
@pytest.mark.parametrize("wanted", [FOR_SLICES, FOR_STUDIES])
def test_a_link_to_itself_is_named(wanted: Wanted, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    text = "is a link that leads back to itself"
    only_problem(find_sources([tmp_path / "a"], wanted), text, "give the file or folder itself")


@posix
def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path, {"real/1.png": PNG, "out/2.png": PNG})
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "a_again").symlink_to(tmp_path / "real" / "sub")
    write(tmp_path, {"real/sub/3.png": PNG})
    (tmp_path / "real" / "out").symlink_to(tmp_path / "out")
    (tmp_path / "real" / "file.png").symlink_to(tmp_path / "out" / "2.png")
    found = find_sources([tmp_path / "real"])
    assert names(found) == ["1", "file", "out/2", "sub/3"]
    assert found.problems == ()
    has(*found.notes, f"{tmp_path / 'real'}: 2 links to folders that are read already, not followed: a_again, loop")


@posix
def test_broken_links_are_problems(tmp_path: Path) -> None:
    (tmp_path / "a.png").symlink_to("nowhere.png")
    (tmp_path / "self.png").symlink_to("self.png")
    only_problem(find_sources([tmp_path / "a.png"]), "is a broken link to nowhere.png")
    found = find_sources([tmp_path])
    has(found.problems[0].line(), "a.png", "is a broken link to nowhere.png")
    has(found.problems[1].line(), "self.png", "is a link that leads back to itself")


def test_what_may_not_be_read_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, {"d/a.png": PNG, "d/closed.png": PNG, "d/closed/x.png": PNG})
    real_open, real_scan = os.open, os.scandir

    def allowed(path: Any) -> Any:
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return path

    monkeypatch.setattr(os, "open", lambda path, flags: real_open(allowed(path), flags))
    monkeypatch.setattr(os, "scandir", lambda path: real_scan(allowed(path)))
    found = find_sources([tmp_path / "d"])
    assert names(found) == ["a"]
    assert len(found.problems) == 2
    for problem in found.problems:
        has(problem.line(), "closed", "cannot be read: Permission denied (check its name and permissions)")
    only_problem(find_sources([tmp_path / "d" / "closed.png"]), "Permission denied")


def test_disk_errors_are_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, {"a.png": PNG}) / "a.png"

    def fail(number: int) -> os.stat_result:
        if fail.calls:  # type: ignore[attr-defined]
            raise OSError(5, "Input/output error")
        fail.calls = 1  # type: ignore[attr-defined]
        return path.stat()

    for reader in (opening.peek, opening.read_file):
        fail.calls = 0  # type: ignore[attr-defined]
        monkeypatch.setattr(os, "fstat", fail)
        with pytest.raises(InputError, match="Input/output error"):
            reader(path)
    monkeypatch.undo()
    monkeypatch.setattr(Path, "is_dir", lambda self: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    only_problem(find_sources([path]), "Permission denied")


# --- archives --------------------------------------------------------------------------------------------------------


def find_in(path: Path) -> tuple[list[str], list[str]]:
    """Return the names found in an archive, and the messages of its problems."""
    found = find_sources([path])
    return names(found), [p.message for p in found.problems]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.png",
        "a/../../evil.png",
        "/etc/evil.png",
        "//host/evil.png",
        "C:\\evil.png",
        "c:evil.png",
        "..\\evil.png",
        "\\evil.png",
        "a/\\../evil.png",
        "evil\0.png",
    ],
)
def test_members_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    path = pack(tmp_path / "a.zip", {name.replace("\0", "?"): PNG, "ok.png": PNG})
    path.write_bytes(path.read_bytes().replace(b"evil?", b"evil\0"))
    assert find_in(path) == (["ok"], ["has a name that leads out of the archive"])
    with pytest.raises(InputError, match=r"leads out|not in the archive"):
        archive.read_member(path, name)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["a.zip"]


def test_backslashes_separate_as_slashes_do(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"p\\1.png": PNG, "p\\": b""})  # as old .NET packs
    found = find_sources([path])
    assert (names(found), found.problems) == (["p/1"], ())
    assert found.sources[0].read() == PNG


def test_members_may_be_named_from_here(tmp_path: Path) -> None:
    found = find_sources([pack(tmp_path / "a.zip", {"./1.png": PNG, "./p//./2.png": PNG, "./.hidden.png": PNG})])
    assert (names(found), found.problems, found.notes) == (["1", "p/2"], (), ())  # as bsdtar packs
    assert [s.read() for s in found.sources] == [PNG] * 2


def test_special_members_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        link = zipfile.ZipInfo("link.png")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "/etc/passwd")
        file.writestr("inner.zip", b"PK\x05\x06" + bytes(18))
        file.writestr("bz.png", PNG, zipfile.ZIP_BZIP2)
        file.writestr("lzma.png", PNG, zipfile.ZIP_LZMA)
        file.writestr("ok.png", PNG)
        with pytest.warns(UserWarning, match="Duplicate"):
            file.writestr("ok.png", JPEG)
    found, problems = find_in(path)
    assert found == ["ok"]
    assert problems == [
        "is a symbolic link in the archive",
        "is packed by zip method 12; stored (0) or deflated (8) is expected",
        "is packed by zip method 14; stored (0) or deflated (8) is expected",
        "occurs twice in the archive",
        "is a zip archive within another",
    ]
    assert find_sources([path]).sources[0].read() == JPEG


def patched(path: Path, changes: dict[int, tuple[str, int]]) -> None:
    """Write numbers into the central directory's first entry, at the offsets the format gives."""
    data = bytearray(path.read_bytes())
    start = data.index(b"PK\x01\x02")
    for offset, (code, value) in changes.items():
        struct.pack_into(f"<{code}", data, start + offset, value)
    path.write_bytes(bytes(data))


def test_encrypted_members_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG})
    patched(path, {8: ("H", 1)})
    assert find_in(path) == (["b"], ["is encrypted"])


@pytest.mark.parametrize(
    ("count", "said"), [(3, ["is encrypted"] * 3), (4, ["is encrypted; 3 more members are alike"])]
)
def test_one_line_for_members_that_are_refused_alike(count: int, said: list[str], tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {f"{i}.png": PNG for i in range(count)} | {"ok.png": PNG})
    data = bytearray(path.read_bytes())
    start = 0
    for _ in range(count):
        start = data.index(b"PK\x01\x02", start) + 4
        struct.pack_into("<H", data, start + 4, 1)
    path.write_bytes(bytes(data))
    assert find_in(path) == (["ok"], said)
    assert find_sources([path]).problems[0].path == f"{path}!0.png"


def test_members_that_declare_too_much_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG})
    patched(path, {24: ("I", 2**32 - 2)})
    assert find_in(path) == (["b"], ["holds 4,096 MiB, at most 512 MiB are read"])
    monkeypatch.setattr(archive, "MAX_TOTAL_BYTES", 2**31)
    only_problem(find_sources([path]), "unpacks to 4 GiB, at most 2 GiB are read", "unpack it")
    monkeypatch.setattr(archive, "MAX_MEMBERS", 1)
    only_problem(find_sources([path]), "holds 2 members, at most 1 are read")


def test_unpacked_bytes_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.zip", {"a.bmp": encoded("BMP").ljust(40 * 2**20, b"\0"), "b.png": PNG})
    source = find_sources([path]).sources[0]
    with pytest.raises(InputError, match="unpacks to more than 200 times its size"):
        source.read()
    with pytest.raises(InputError, match="at most 2 MiB are read"):
        archive.read_member(path, "a.bmp", limit=2**21)
    monkeypatch.setattr(archive, "RATIO_COUNTS_FROM", 2**30)
    assert len(source.read()) == 40 * 2**20


def test_a_member_that_declares_too_little_is_found_out(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bmp": encoded("BMP").ljust(2**20, b"\0"), "b.png": PNG})
    patched(path, {24: ("I", 2**12)})
    found, (problem,) = find_in(path)
    assert found == ["b"]
    has(problem, "CRC")


def test_overlapping_members_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG, "c.png": PNG}, zipfile.ZIP_STORED)
    patched(path, {20: ("I", len(PNG) + 50), 24: ("I", len(PNG) + 50)})
    assert find_in(path) == (["c"], ["overlaps another member, as in a zip bomb"] * 2)


def test_a_huge_directory_is_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.zip", {f"{i}.png": PNG for i in range(100)})
    monkeypatch.setattr(archive, "MAX_DIRECTORY_BYTES", 4000)
    only_problem(find_sources([path]), "has a directory of", "at most 4,000 are read")


def test_a_wrong_crc_is_found(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.bmp": encoded("BMP") + bytes(5000)}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[3000] ^= 1
    path.write_bytes(bytes(data))
    (source,) = find_sources([path]).sources
    with pytest.raises(InputError, match=r"a\.zip!a\.bmp: cannot be unzipped: Bad CRC-32"):
        source.read()


def test_a_short_member_with_a_wrong_crc_is_a_problem_at_once(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG}, zipfile.ZIP_STORED)
    data = path.read_bytes()
    path.write_bytes(data.replace(PNG[-20:], bytes(20), 1))
    found, (problem,) = find_in(path)
    assert found == ["b"]
    has(problem, "Bad CRC-32")


def test_an_archive_that_is_cut_short_is_a_problem(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG})
    whole = path.read_bytes()
    for length in range(4, len(whole) - 1, 7):
        path.write_bytes(whole[:length])
        only_problem(find_sources([path]), str(path), "cannot be unzipped", "copy or pack it again")


def test_damaged_archives_never_raise_anything_else(tmp_path: Path) -> None:
    whole = pack(tmp_path / "a.zip", {"p/a.png": PNG, "b.jpg": JPEG}).read_bytes()
    path, random_bytes = tmp_path / "x.zip", np.random.default_rng(0)
    for _ in range(600):
        data = bytearray(whole)
        for at in random_bytes.integers(4, len(data), random_bytes.integers(1, 5)):
            data[at] = random_bytes.integers(256)
        path.write_bytes(bytes(data))
        found = find_sources([path])
        assert found.sources or found.problems
        for source in found.sources:
            try:
                assert source.read() in (PNG, JPEG)
            except InputError as problem:
                has(problem.line(), str(path))


def test_an_archive_that_changes_is_read_anew(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG})
    first, second = find_sources([path]).sources
    pack(path, {"a.png": JPEG})
    assert first.read() == JPEG
    with pytest.raises(InputError, match="not in the archive any more"):
        second.read()
    path.unlink()
    with pytest.raises(InputError, match="does not exist"):
        first.read()


def test_no_file_stays_open(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", {f"{i}.png": PNG for i in range(5)})
    found = find_sources([path])
    found.sources[0].read()
    if Path("/proc/self/fd").exists():
        assert str(path) not in {os.path.realpath(f) for f in Path("/proc/self/fd").iterdir()}
    shutil.rmtree(tmp_path)


def test_an_archive_is_read_by_threads_at_once(tmp_path: Path) -> None:
    files = {f"{i}.png": PNG + bytes([i]) * 5000 for i in range(40)}
    found = find_sources([pack(tmp_path / "a.zip", files)])
    start = threading.Barrier(4)

    def read_all(_: int) -> list[bytes]:
        start.wait()
        return [source.read() for source in found.sources]

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(read_all, range(4))) == [list(files.values())] * 4


def test_ten_thousand_members_are_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pack(tmp_path / "a.zip", {f"s/{i}.png": PNG for i in range(10_000)})
    opened = []

    class Counted(zipfile.ZipFile):
        def __init__(self, file: IO[bytes]) -> None:
            opened.append(file)
            super().__init__(file)

    monkeypatch.setattr(zipfile, "ZipFile", Counted)
    found = find_sources([path])
    assert names(found) == [f"s/{i}" for i in range(10_000)]
    for source in found.sources[::100]:
        source.read()
    assert len(opened) == 1


# --- results are never read ------------------------------------------------------------------------------------------


def write_result(folder: Path) -> Path:
    """Write what `jcs diagnose` leaves of a study, as far as readers look at it."""
    (folder / "overlays").mkdir(parents=True)
    (folder / "report.json").write_text('{\n  "schema": "jcs-ct/report/1"\n}\n')
    (folder / "slices.csv").write_text("index\n1\n")
    for name in ("overlays/slice-0001.png", "mask.png"):
        (folder / name).write_bytes(PNG)
    return folder


def packed(folder: Path, target: Path, form: str) -> Path:
    return Path(shutil.make_archive(str(target), form, folder))


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of two results with its summary, and a copy of it elsewhere."""
    out = tmp_path / "out"
    for name in ("a", "b"):
        write_result(out / name)
    (out / "summary.csv").write_text("case\na\nb\n")
    shutil.copytree(out, tmp_path / "copy")
    return out


@pytest.mark.parametrize("place", ["", "a", "a/overlays", "a/mask.png", "../copy", "../copy/b/overlays"])
def test_results_are_refused_with_their_reason(place: str, results: Path) -> None:
    found = find_sources([results / place], FOR_STUDIES)
    assert found.sources == ()
    (problem,) = found.problems
    assert "results are never read as input" in problem.message


@pytest.mark.parametrize("form", ["zip", "tar", "gztar"])
@pytest.mark.parametrize("what", ["", "a"])
def test_archives_of_results_are_refused_too(form: str, what: str, results: Path, tmp_path: Path) -> None:
    (problem,) = find_sources([packed(results / what, tmp_path / "packed", form)], FOR_STUDIES).problems
    assert "results are never read as input" in problem.message


@pytest.mark.parametrize("form", ["", "zip", "tar"])
def test_studies_beside_results_are_read(form: str, results: Path, tmp_path: Path) -> None:
    (results / "study").mkdir()
    (results / "study" / "1.png").write_bytes(PNG)
    where = packed(results, tmp_path / "packed", form) if form else results
    found = find_sources([where], FOR_STUDIES)
    assert [source.name for source in found.sources] == ["study/1"]
    assert any("2 folders with results of this program, not read: a, b" in note for note in found.notes)
    assert found.problems == ()


def test_what_only_looks_like_a_result_is_read(tmp_path: Path) -> None:
    folder = write_result(tmp_path / "mine")
    (folder / "report.json").write_text("{}")
    for place in (folder / "overlays", packed(folder, tmp_path / "packed", "zip")):
        assert find_sources([place], FOR_STUDIES).problems == ()
