"""Files that appear whole or not at all."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import whole_file, write_whole

if TYPE_CHECKING:
    from pathlib import Path


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
