"""The tutorials: every command and every line of Python of a page is run, on phantoms, in a short form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from itertools import groupby
from pathlib import Path

import pytest

from orthanc_help import PLUGIN, program, running

ROOT = Path(__file__).resolve().parent.parent
PAGES = {path.stem: path for path in sorted((ROOT / "docs/tutorials").glob("*.md"))} | {
    "python": ROOT / "docs/python.md"
}
BLOCK = re.compile(r"^```(?P<language>sh|python)(?: title=\"(?P<title>[^\"]*)\")?\n(?P<code>.*?)^```$", re.M | re.S)
MAKE_DATA = "python tools/phantom_data.py data\n"
SHORT = {  # what takes long → what shows the same in seconds
    "--size 128 --batch 4 --epochs 1": "--size 32 --batch 8 --epochs 1",
    "--steps 200": "--steps 2",
    "--resamples 200": "--resamples 20",
    "phantom_020.png": "phantom_010.png",
}
SECONDS = 300


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return (language, title, code) of the blocks of a page that can be run."""
    found = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [(block["language"], block["title"] or "", block["code"]) for block in found]


def script_of(page: Path, titles: tuple[str, ...] = ("",)) -> str:
    """Return the page as one script of the shell: its Python stands in it as documents of `python -`."""
    chosen = [(language, code) for language, title, code in blocks(page) if title in titles]
    parts = ["set -euo pipefail"]
    for language, codes in groupby(chosen, key=lambda block: block[0]):  # Python goes on where the last block ended
        code = "".join(code for _, code in codes)
        parts.append(code if language == "sh" else f"python - <<'END_OF_PYTHON'\n{code}END_OF_PYTHON\n")
    text = "\n".join(parts).replace(MAKE_DATA, "")
    for long, short in SHORT.items():
        text = text.replace(long, short)
    return text


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The data that the pages make first, smaller."""
    folder = tmp_path_factory.mktemp("tutorials") / "data"
    command = [sys.executable, str(ROOT / "tools/phantom_data.py"), str(folder)]
    subprocess.run([*command, "--patients", "2", "--slices", "16", "--size", "64"], check=True, timeout=SECONDS)
    return folder


def run(script: str, phantoms: Path, folder: Path, **variables: str) -> str:
    """Run a script in a folder with the data, `jcs` and `python` of this environment; return what it printed."""
    if not (folder / "data").exists():
        shutil.copytree(phantoms, folder / "data")
    commands = folder / "bin"
    commands.mkdir(exist_ok=True)
    for name, words in (("python", ""), ("jcs", " -m jcs_ct")):
        (commands / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
        (commands / name).chmod(0o755)
    environment = os.environ | {"JCS_HOME": str(phantoms.parent / "home"), **variables}
    environment["PATH"] = f"{commands}{os.pathsep}{os.environ['PATH']}"
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("needs bash")
    done = subprocess.run(
        [bash, "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, phantoms: Path, tmp_path: Path) -> None:
    said = run(script_of(PAGES[name]), phantoms, tmp_path)
    assert "Traceback" not in said


def test_pages_have_blocks_that_are_run() -> None:
    for page in PAGES.values():
        assert any(not title for _, title, _ in blocks(page)), page
    titles = {title for page in PAGES.values() for _, title, _ in blocks(page)}
    assert titles == {
        "",
        "needs Orthanc",
        "needs Slurm",
        "needs the published checkpoints",
        "needs a PACS",
        "takes hours",
    }
    together = "".join(page.read_text(encoding="utf-8") for page in PAGES.values())
    assert [long for long in SHORT if long not in together] == []


def test_orthanc_and_back(phantoms: Path, tmp_path: Path) -> None:
    if program() is None or not PLUGIN.exists():  # in CI that fails elsewhere: `test_orthanc.py`
        pytest.skip("needs Orthanc (sudo bash tools/system.sh)")
    (tmp_path / "orthanc").mkdir()
    with running(tmp_path / "orthanc") as server:
        run(script_of(PAGES["orthanc"], ("", "needs Orthanc")), phantoms, tmp_path, ORTHANC=server.url)
        (study,) = server.get("/studies").json()
        series = [server.get(f"/series/{one}").json() for one in server.get(f"/studies/{study}").json()["Series"]]
    assert sorted(one["MainDicomTags"]["Modality"] for one in series) == ["CT", "SEG", "SR"]
