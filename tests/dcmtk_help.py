"""DCMTK's programs: pynetdicom brings some of the same names, which come first in an activated environment."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path


def installed(program: str) -> str | None:
    """Return a program that did not come with this environment of Python, None where there is none."""
    own = Path(sys.executable).parent
    others = [folder for folder in os.get_exec_path() if Path(folder) != own]
    return shutil.which(program, path=os.pathsep.join(others))


def dcmtk(program: str) -> str:
    """Return a program of DCMTK, its bare name where it is missing."""
    return installed(program) or program
