"""Set up an environment: `python3 tools/setup.py [--dev] [--venv DIR]`. Needs Python 3.10 or newer, and pip's index.

PyTorch comes first and on its own, because a plain `pip install torch` on Linux takes several GB of CUDA libraries. On
a machine without an NVIDIA driver the CPU build is taken from wherever pip is configured to look, else through uv,
which knows where PyTorch keeps its CPU builds. Everything else is pinned in requirements/.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TORCH = "2.13.0"
CONSTRAINTS = ROOT / "requirements" / "constraints.txt"


def main() -> None:
    """Make or complete the environment; does nothing when it is complete and up to date."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, default=ROOT / ".venv", help="folder of the environment")
    parser.add_argument("--dev", action="store_true", help="with what the tests need")
    options = parser.parse_args()
    if sys.version_info < (3, 10):  # noqa: UP036  # this file is what runs before any requirement is checked
        sys.exit(f"setup: Python {platform.python_version()} is running this, 3.10 or newer is needed")

    python = options.venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        try:
            venv.create(options.venv, with_pip=True)
        except subprocess.CalledProcessError:
            sys.exit("setup: this Python cannot make environments with pip (Debian: apt-get install python3-venv)")
    stamp, wanted = options.venv / ".jcs-setup", _fingerprint(dev=options.dev)
    if stamp.exists() and stamp.read_text() == wanted:
        return
    stamp.unlink(missing_ok=True)

    print(f"setup: installing 1.4 GB or more into {options.venv}; it takes a minute or longer (log: setup.log there)")
    install_torch(python)
    extra = "[dev]" if options.dev else ""
    pip(python, "install", "--constraint", str(CONSTRAINTS), "--editable", f"{ROOT}{extra}")
    if options.dev:  # references that the tests compare with; their own requirements would pull torchvision
        pip(python, "install", "--no-deps", "--requirement", str(ROOT / "requirements" / "references.txt"))
    refuse_cuda_on_cpu(python)
    stamp.write_text(wanted)
    print(f"setup: {options.venv} is ready, {megabytes(options.venv)} MB")


def has_nvidia() -> bool:
    """Whether an NVIDIA driver is installed."""
    return shutil.which("nvidia-smi") is not None or Path("/dev/nvidiactl").exists()


def install_torch(python: Path) -> None:
    """Install PyTorch: the CPU build on Linux without an NVIDIA driver, else the platform's usual one."""
    if subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        return
    if platform.system() != "Linux" or has_nvidia():
        pip(python, "install", f"torch=={TORCH}")
        return
    build = f"torch=={TORCH}+cpu"
    if pip(python, "install", build, "--constraint", str(CONSTRAINTS), check=False, silent=True):
        return
    pip(python, "install", "uv")
    command = [str(python), "-m", "uv", "pip", "install", "--python", str(python), "--torch-backend", "cpu"]
    command.append(f"torch=={TORCH}")
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(
            f"setup: no CPU build of PyTorch {TORCH} could be had. Put the wheel torch-{TORCH}+cpu for this Python "
            "into a folder, set PIP_FIND_LINKS to it, and run this again."
        )


def pip(python: Path, *arguments: str, check: bool = True, silent: bool = False) -> bool:
    """Run pip of the environment; exit with its status where `check` is true, else return whether it succeeded.

    What pip says goes into a log beside the environment, and is printed where pip fails, unless `silent`.
    """
    log = python.parent.parent / "setup.log"
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(command, check=False, stdout=file, stderr=subprocess.STDOUT)
    if done.returncode != 0 and not silent:
        print(log.read_text(encoding="utf-8", errors="replace"), file=sys.stderr)
    if check and done.returncode != 0:
        sys.exit(done.returncode)
    return done.returncode == 0


def refuse_cuda_on_cpu(python: Path) -> None:
    """Exit if CUDA packages came along on a machine that cannot use them."""
    if has_nvidia():
        return
    script = (
        "from importlib.metadata import distributions as d\n"
        "print(*[n for x in d() if (n := x.metadata['Name'] or '').startswith(('nvidia-', 'triton'))])"
    )
    found = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True).stdout.strip()
    if found:
        sys.exit(f"setup: CUDA packages were installed on a machine without an NVIDIA driver: {found}")


def megabytes(folder: Path) -> int:
    """Return the size of everything in `folder`."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if not f.is_dir()) // 2**20


def _fingerprint(*, dev: bool) -> str:
    files = [ROOT / "pyproject.toml", *sorted((ROOT / "requirements").glob("*.txt"))]
    return f"{sys.version}\n{dev}\n{ROOT}\n" + "\n".join(f.read_text() for f in files)


if __name__ == "__main__":
    main()
