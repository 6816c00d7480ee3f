"""Figures where the home of the user is none: no line of Matplotlib's, or one of ours."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from typing import TYPE_CHECKING

import pytest

from jcs_ct.core import caches
from jcs_ct.core.errors import OutputError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="where Matplotlib looks on Linux")
DRAW = """
import os
from jcs_ct.outputs.images import colour_table
print(colour_table("plasma").shape, os.environ.get("MPLCONFIGDIR", ""))
"""


def drawn(**environment: str | None) -> tuple[str, str]:
    given = {k: v for k, v in os.environ.items() if not k.startswith("XDG_") and k != "MPLCONFIGDIR"}
    for name, value in environment.items():
        given.pop(name, None)
        if value is not None:
            given[name] = value
    done = subprocess.run([sys.executable, "-c", DRAW], env=given, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_a_home_that_is_none_is_no_matter(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    out, said = drawn(HOME=str(tmp_path / "file"), TMPDIR=str(tmp_path))
    assert said == ""
    assert out.startswith(f"(256, 3) {tmp_path / 'jcs-ct-'}")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]  # taken away at the end


def test_a_home_that_is_one_is_used(tmp_path: Path) -> None:
    assert drawn(HOME=str(tmp_path)) == ("(256, 3) \n", "")
    assert (tmp_path / ".config" / "matplotlib").is_dir()


def test_nothing_to_write_into_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MPLCONFIGDIR", raising=False)
    monkeypatch.delitem(sys.modules, "matplotlib", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "file"))
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setattr(caches, "SHARED", str(tmp_path / "none"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "nowhere"))
    with pytest.raises(OutputError, match=r"there is no writable folder for temporary files \(set TMPDIR"):
        caches.cache_for_figures.__wrapped__()
    assert "MPLCONFIGDIR" not in os.environ


def test_temporary_files_have_a_last_resort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none() -> str:
        raise FileNotFoundError

    monkeypatch.setattr(tempfile, "gettempdir", none)
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setenv("TMPDIR", "")
    monkeypatch.setattr(caches, "SHARED", str(tmp_path))
    caches.place_for_temporary_files()
    assert os.environ["TMPDIR"] == tempfile.tempdir
    assert str(tempfile.tempdir).startswith(str(tmp_path / "jcs-ct-"))
