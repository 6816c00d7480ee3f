"""Wheel and sdist: what twine accepts, what is in them, and that an empty environment can run what they install."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist, built by the back end that is installed here."""
    if any(find_spec(name) is None for name in ("build", "hatchling", "twine")):
        if os.environ.get("CI"):
            pytest.fail("build, hatchling or twine is missing, which the extra dev installs")
        pytest.skip("needs build, hatchling and twine: python tools/setup.py --dev")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def test_twine_accepts_both(built: Path) -> None:
    command = [sys.executable, "-m", "twine", "check", "--strict", *map(str, built.iterdir())]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("PASSED") == 2


def test_they_hold_what_is_needed_and_no_more(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    for name in ("assets/jcs-lite.safetensors", "py.typed", "outputs/report/template.html.j2", "service/page/page.js"):
        assert f"jcs_ct/{name}" in names, name
    assert not [name for name in names if not name.startswith(("jcs_ct/", "jcs_ct-"))]
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "LICENSE", "CITATION.cff", "mkdocs.yml", "docs/picture.jpg", "tools/setup.py"} <= inside


def test_an_empty_environment_runs_the_wheel(built: Path, tmp_path: Path) -> None:
    """The wheel alone; what it needs is looked up here, so that PyTorch is not installed once more."""
    venv.create(tmp_path / "venv", with_pip=False, symlinks=os.name != "nt")
    (wheel,) = built.glob("*.whl")
    target = tmp_path / "wheel"
    with zipfile.ZipFile(wheel) as file:
        file.extractall(target)
    python = tmp_path / "venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(target), *libraries])}
    code = "import jcs_ct, sys; sys.exit(not jcs_ct.__file__.startswith(sys.argv[1]))"
    subprocess.run([python, "-c", code, str(target)], env=environment, check=True)
    done = subprocess.run(
        [python, "-m", "jcs_ct", "--version"], env=environment, capture_output=True, text=True, check=True
    )
    assert "weights: jcs-lite " in done.stdout
