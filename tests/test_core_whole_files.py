"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jcs_ct.core import unfinished
from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import whole_file, write_whole


def test_a_file_is_whole_and_as_readable_as_any_other(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "a.txt", b"whole")
    (tmp_path / "plain.txt").write_bytes(b"")
    assert (tmp_path / "deep/a.txt").read_bytes() == b"whole"
    modes = [stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "deep/a.txt", tmp_path / "plain.txt")]
    assert modes[0] == modes[1]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", b"old")

    def half_way() -> None:
        with whole_file(tmp_path / "a.txt", overwrite=True) as temporary:
            temporary.write_bytes(b"ne")
            raise ValueError("half-way")

    with pytest.raises(ValueError, match="half-way"):
        half_way()
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.txt", b"old")]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    write_whole(tmp_path / "a.txt", b"old")
    with pytest.raises(OutputError, match="exists already"):
        write_whole(tmp_path / "a.txt", b"new")
    with pytest.raises(OutputError, match="is a folder"):
        write_whole(tmp_path, b"new", overwrite=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or a pipe"):
        write_whole(tmp_path / "pipe", b"new", overwrite=True)


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    write_whole(tmp_path / "there/target.txt", b"old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "there/target.txt")
    with pytest.raises(OutputError, match="exists already"):
        write_whole(tmp_path / "link.txt", b"new")
    write_whole(tmp_path / "link.txt", b"new", overwrite=True)
    assert (tmp_path / "link.txt").is_symlink()
    assert (tmp_path / "there/target.txt").read_bytes() == b"new"
    (tmp_path / "dangling.txt").symlink_to(tmp_path / "there/made.txt")
    write_whole(tmp_path / "dangling.txt", b"made")
    assert (tmp_path / "there/made.txt").read_bytes() == b"made"


WRITER = """
import sys, threading
from pathlib import Path
from jcs_ct.cli import _listen_to_stops
from jcs_ct.core.whole_files import whole_file

_listen_to_stops()
folder = Path(sys.argv[1])

def write(name):
    while True:
        with whole_file(folder / name, overwrite=True) as temporary:
            temporary.write_bytes(b"whole" * 20000)

try:
    print("ready", flush=True)
    write("a")
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_stop_at_any_moment_leaves_nothing_half_written(stop: signal.Signals, tmp_path: Path) -> None:
    for wait in range(5):
        child = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)],
            stdout=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(stop, signal.SIG_DFL),  # tests may run where it is ignored
        )
        try:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            time.sleep(wait / 200)
            child.send_signal(stop)
            assert child.wait(20) == 130
            child.stdout.close()
        finally:
            child.kill()
        assert {path.name for path in tmp_path.iterdir()} <= {"a"}
        assert (tmp_path / "a").stat().st_size == 100_000 if (tmp_path / "a").exists() else True


def test_what_was_ignored_at_the_start_stays_ignored(tmp_path: Path) -> None:
    """As behind `nohup`."""
    child = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path)],
        stdout=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"ready\n"
    child.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert child.poll() is None
    child.terminate()
    assert child.wait(20) == 130
    child.stdout.close()


def test_what_a_stop_left_is_removed_when_the_process_ends(tmp_path: Path) -> None:
    """A stop may come within the clean-up itself, or while a thread still writes."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(b"half")
    (tmp_path / "file.part").write_bytes(b"half")
    (tmp_path / "whole").write_bytes(b"whole")
    for name in ("folder", "file.part", "whole", "never made"):
        unfinished.register(tmp_path / name)
    unfinished.unregister(tmp_path / "whole")
    unfinished.remove_all()
    assert [path.name for path in tmp_path.iterdir()] == ["whole"]


def test_a_folder_that_may_not_be_entered_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", refused)
    with pytest.raises(OutputError, match="cannot be written: Permission denied"), whole_file(tmp_path / "a" / "b"):
        raise AssertionError("it was begun")
