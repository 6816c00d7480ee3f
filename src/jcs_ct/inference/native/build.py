"""Compile the kernels, once on a machine, and load them.

`JCS_HOME/native/KEY/` holds the library and its SHA-256, which is written last; the key stands for sources, compiler
and processor. The compiler is `$CC`, `cc`, `gcc` or `clang`, or else the one in the Python package `ziglang`.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import OutputError
from jcs_ct.core.installing import install_command
from jcs_ct.core.whole_files import write_whole
from jcs_ct.inference.native.plan import COp
from jcs_ct.inference.records import machine
from jcs_ct.inference.runtimes import RuntimeFailedError
from jcs_ct.weights.store import home, sha256_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOURCE = Path(__file__).parent / "source"
FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread")
NATIVE_FLAGS = ("-march=native", "-mcpu=native", "")  # how compilers call this processor: the first that works
PATIENCE = 300  # seconds that compiling may take


class Library:
    """Compiled kernels.

    Args:
        file: The shared library.
        compiler: What made it.

    Raises:
        RuntimeFailedError: It cannot be loaded, or was made of other sources.
    """

    def __init__(self, file: Path, compiler: str) -> None:
        self.compiler = compiler
        try:
            found = ctypes.CDLL(str(file))
            self._run, self._size = found.jcs_run, found.jcs_size
        except (OSError, AttributeError) as error:
            raise RuntimeFailedError(
                f"cannot be loaded: {error}", path=file, hint=f"remove the folder {file.parent}"
            ) from error
        self._size.restype = ctypes.c_size_t
        if self._size() != ctypes.sizeof(COp):
            raise RuntimeFailedError("holds other kernels", path=file, hint=f"remove the folder {file.parent}")
        pointer, number, size = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t
        self._run.argtypes, self._run.restype = (pointer, number, number, pointer, size), number

    def run(self, ops: ctypes.Array[COp], threads: int, scratch: NDArray[np.float32]) -> None:
        """Execute operations.

        Args:
            ops: Placed, see `jcs_ct.inference.native.plan.Plan.place`.
            threads: How many share the work.
            scratch: Memory that is divided among them.

        Raises:
            MemoryError: There is too little.
        """
        if self._run(ctypes.addressof(ops), len(ops), threads, scratch.ctypes.data, scratch.size // threads // 16 * 16):
            raise MemoryError("too little for the threads of the kernels")

    def run_one(self, op: COp, threads: int = 1) -> None:
        """Execute an operation that needs no scratch memory."""
        self.run((COp * 1)(op), threads, np.empty(0, np.float32))


def compiler() -> tuple[str, ...] | None:
    """Return the command of a C compiler, or None."""
    named = os.environ.get("CC", "").split()
    for command in [named] if named else [["cc"], ["gcc"], ["clang"]]:
        found = shutil.which(command[0])
        if found:
            return (found, *command[1:])
    return (sys.executable, "-m", "ziglang", "cc") if find_spec("ziglang") else None


def version() -> str:
    """Return what stands for the kernels: parts of the SHA-256 of sources, options and processor, and the compiler."""
    command = compiler()
    compiled_by = _compiler_version(command) if command else "no compiler"
    return f"{_source_digest()[:16]}, {_processor_features()[:16]}, {compiled_by}"


@cache
def _compiler_version(command: tuple[str, ...]) -> str:
    try:
        done = subprocess.run(  # noqa: S603
            [*command, "--version"], capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return (done.stdout.strip().splitlines() or ["unknown"])[0]


@cache
def _processor_features() -> str:
    """Return a SHA-256 of what the processor can do: those of one name may differ, in virtual machines and on ARM."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # elsewhere the name has to do
        lines = []
    found = {line for line in lines if line.split(":")[0].strip() in ("flags", "Features", "CPU part")}
    return hashlib.sha256("\n".join(sorted(found)).encode()).hexdigest()


@cache
def _source_digest() -> str:
    digest = hashlib.sha256(" ".join((*FLAGS, *NATIVE_FLAGS)).encode())
    for file in sorted(SOURCE.glob("*.[ch]")):
        digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()


def library() -> Library:
    """Return the kernels, compiled for this machine.

    Raises:
        RuntimeFailedError: There is no compiler, it fails, or what it made was changed since.
        OutputError: `JCS_HOME` cannot be written.
    """
    command = compiler()
    if command is None:
        raise RuntimeFailedError("there is no C compiler", hint=f"install one, or {install_command('native')}")
    key = hashlib.sha256("\n".join((*command, version(), machine())).encode()).hexdigest()[:16]
    where = home() / "native" / key
    noted = where / "SHA-256"  # of the library, whose name begins with it: processes may compile at the same time
    if not noted.is_file():
        write_whole(noted, _compile(command, where).encode(), overwrite=True)
    expected = noted.read_text("utf-8", "replace").strip()
    file = where / f"{expected[:16]}.so"
    if not file.is_file() or sha256_of(file) != expected:
        raise RuntimeFailedError(
            "was changed since it was compiled, or is gone", path=file, hint=f"remove the folder {where}"
        )
    return Library(file, _compiler_version(command))


def _compile(command: tuple[str, ...], where: Path) -> str:
    """Compile into a folder; return the SHA-256 of the library."""
    parts, first = [*command, *FLAGS, *map(str, sorted(SOURCE.glob("*.c"))), "-lm"], ""
    try:
        where.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=where) as folder:
            made = Path(folder) / "kernels.so"
            for flag in NATIVE_FLAGS:
                given = [*parts, *filter(None, [flag]), "-o", str(made)]
                done = subprocess.run(  # noqa: S603
                    given, capture_output=True, text=True, errors="replace", check=False, timeout=PATIENCE
                )
                if done.returncode == 0 and made.is_file():
                    digest = sha256_of(made)
                    made.replace(where / f"{digest[:16]}.so")
                    return digest
                first = first or (done.stderr.strip().splitlines() or ["it says nothing"])[0]
    except OSError as error:
        raise OutputError(f"the kernels cannot be compiled there: {error}", path=where) from error
    except subprocess.TimeoutExpired as error:
        raise RuntimeFailedError(f"{command[0]} did not compile the kernels in {PATIENCE} s") from error
    raise RuntimeFailedError(
        f"{command[0]} cannot compile the kernels: {first:.200}",
        hint="set CC to another compiler, or use another --runtime",
    )
