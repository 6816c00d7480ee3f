"""Whether wheel and sdist install into empty environments: `python tools/install_check.py [--python python3.12] …`.

For each Python that is found (3.10 to 3.13) an environment is made, PyTorch's CPU build and the wheel, then the sdist,
are installed with pip, and `jcs --version`, `jcs doctor` and `jcs diagnose` of a small phantom are run. It takes some
minutes and 1.4 GB for each. Versions that are not on this machine are named; `uv python install` or pyenv can get them.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from setup import CONSTRAINTS, ROOT, install_torch, pip

VERSIONS = ("3.10", "3.11", "3.12", "3.13")
PHANTOM = (
    "from jcs_ct.phantom import make_phantom, true_spacing, write_dicom;"
    "write_dicom(make_phantom(32, 64, spacing=true_spacing(32, 64)), 'study')"
)


def main() -> None:
    """Build, install, run; exit with 1 where one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", action="append", help="a Python to try; default: each that is found")
    options = parser.parse_args()
    found = options.python or [path for version in VERSIONS if (path := find(version))]
    missing = [] if options.python else [version for version in VERSIONS if not find(version)]
    if missing:
        print(f"not on this machine, so not tried: Python {', '.join(missing)}")
    with tempfile.TemporaryDirectory() as folder:
        dist = Path(folder) / "dist"
        subprocess.run([sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(ROOT)], check=True,
                       stdout=subprocess.DEVNULL)  # fmt: skip
        subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, dist.iterdir())], check=True)
        os.environ.pop("PYTHONPATH", None)  # an environment is empty only without it
        faults = [python for python in found if not works(python, dist, Path(folder))]
    sys.exit(f"install_check: does not work with {', '.join(faults)}" if faults else 0)


def find(version: str) -> str | None:
    """Return the path of a Python of this version, of the system, of uv or of pyenv."""
    if sys.version.startswith(f"{version}."):
        return sys.executable
    path = shutil.which(f"python{version}")
    if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode:
        path = None  # a shim of pyenv for a version that is not switched on
    if path is None and (uv := shutil.which("uv")):
        done = subprocess.run([uv, "python", "find", "--no-python-downloads", version], capture_output=True, text=True,
                              check=False)  # fmt: skip
        path = done.stdout.strip() or None if done.returncode == 0 else None
    if path is None:  # pyenv keeps versions that are not switched on
        root = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
        path = next((str(one) for one in sorted(root.glob(f"versions/{version}.*/bin/python"))), None)
    return path


def works(python: str, dist: Path, folder: Path) -> bool:
    """Install wheel and sdist with one Python and run both; say how it went."""
    for file in (*dist.glob("*.whl"), *dist.glob("*.tar.gz")):
        place = folder / "try"
        shutil.rmtree(place, ignore_errors=True)
        subprocess.run([python, "-m", "venv", str(place / "venv")], check=True)
        inside = place / "venv" / ("Scripts" if os.name == "nt" else "bin")
        install_torch(inside / "python")
        pip(inside / "python", "install", "--constraint", str(CONSTRAINTS), str(file))
        subprocess.run([str(inside / "python"), "-c", PHANTOM], cwd=place, check=True)
        environment = os.environ | {"JCS_HOME": str(place / "home")}
        for words in (["--version"], ["doctor"], ["diagnose", "study", "-o", "results"]):
            done = subprocess.run([str(inside / "jcs"), *words], cwd=place, env=environment, capture_output=True,
                                  text=True, check=False)  # fmt: skip
            if done.returncode:
                print(f"{python}, {file.name}: jcs {' '.join(words)} ended with {done.returncode}:\n{done.stderr}")
                return False
        print(f"{python}, {file.name}: installed, diagnosed a phantom")
    return True


if __name__ == "__main__":
    main()
