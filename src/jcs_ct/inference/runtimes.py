"""Runtimes behind one small protocol: a network goes in, an object that maps arrays to arrays comes out.

A runtime with files of its own (`suffix`) converts a network once and opens what it wrote; the others take the modules
as they are. Each lives in a module of its own, which imports its library when an engine is made.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from jcs_ct.core.errors import JcsError, UsageError, first_line
from jcs_ct.core.installing import install_command

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.models import ModelSpec

    Arrays = Sequence[NDArray[np.float32]]


class RuntimeFailedError(JcsError):
    """A runtime that cannot convert or run a network, or computes something else than the network."""


class Engine(Protocol):
    """A network that runs.

    Attributes:
        facts: Library, version, threads, precision: what a report of speed has to say.
    """

    facts: dict[str, str]

    def run(self, arrays: Arrays) -> list[NDArray[np.float32]]:
        """Run a batch.

        Args:
            arrays: float32 N×C×H×W, one for each input of the network.

        Returns:
            float32, in the order of `ModelSpec.outputs`.
        """
        ...


@runtime_checkable
class ConcurrentEngine(Engine, Protocol):
    """An engine that several threads may call at once."""

    def share(self, calls: int) -> int:
        """Divide its processors among so many calls at once and return how many there may be. No call is under way."""
        ...


@dataclass(frozen=True)
class Runtime:
    """One way to execute networks.

    Attributes:
        name: What users call it.
        library: The distribution that does the work.
        home: The module with `engine(source, threads)` and `convert(network, example, file)` where it opens files, or
            with `engine(name, network, device)` where it takes the module.
        summary: A line for a list.
        packages: What must be importable.
        extra: The extra of this package that installs them; empty for what is always there.
        suffix: Of the file that it opens; empty when it opens none.
        devices: Where it runs.
        compiled: Whether it is source of this package, which needs a C compiler.
    """

    name: str
    library: str
    home: str
    summary: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    suffix: str = ""
    devices: tuple[str, ...] = ("cpu",)
    compiled: bool = False

    def runs(self, spec: ModelSpec) -> bool:
        """Tell whether it can execute a network: any with results, of the kernels of this package those with a plan."""
        return bool(spec.native_plan if self.compiled else spec.outputs)

    def fits(self, spec: ModelSpec, device: str) -> bool:
        """Tell whether it is installed and can execute a network on a device."""
        return self.runs(spec) and device in self.devices and not self.missing

    @property
    def missing(self) -> str | None:
        """What is not installed, a package or a compiler, or None."""
        if self.compiled and _build().compiler() is None:
            return "a C compiler"
        return next((name for name in self.packages if find_spec(name) is None), None)

    @property
    def version(self) -> str:
        """The version of the library; of what is compiled, of sources and compiler."""
        return str(_build().version()) if self.compiled else metadata.version(self.library)

    def need(self) -> None:
        """Raise UsageError, with the command that mends it, when something is missing."""
        if self.missing:
            raise UsageError(
                f"runtime {self.name} needs {self.missing}, which is not installed",
                hint=install_command(self.extra),
            )

    @property
    def module(self) -> Any:
        """Its module. Raises UsageError as `need` does."""
        self.need()
        return import_module(self.home)


_HERE = "jcs_ct.inference"
_EVERYWHERE = ("cpu", "cuda", "mps")
RUNTIMES: dict[str, Runtime] = {
    r.name: r
    for r in (
        Runtime("torch", "torch", f"{_HERE}.torch_engine", "the plain published computation", devices=_EVERYWHERE),
        Runtime("torch-tuned", "torch", f"{_HERE}.torch_engine", "fused norms, channels last", devices=_EVERYWHERE),
        Runtime(
            "openvino",
            "openvino",
            f"{_HERE}.openvino_engine",
            "fused layers",
            packages=("openvino", "onnx"),
            extra="openvino",
            suffix=".onnx",
        ),
        Runtime(
            "onnxruntime",
            "onnxruntime",
            f"{_HERE}.onnx_engine",
            "fused layers",
            packages=("onnxruntime", "onnx"),
            extra="onnx",
            suffix=".onnx",
        ),
        Runtime(
            "native",
            "jcs-ct's kernels",
            f"{_HERE}.native.engine",
            "Winograd convolutions of this package, compiled on the machine",
            extra="native",
            compiled=True,
        ),
    )
}
CHOICES = ("auto", *RUNTIMES)


def _build() -> Any:
    return import_module(f"{_HERE}.native.build")  # it imports from here


def find_runtime(name: str) -> Runtime:
    """Return an entry of the table. Raises UsageError with the known names for an unknown one."""
    if name not in RUNTIMES:
        raise UsageError(f"no runtime is called {name!r}", hint=f"known: {', '.join(CHOICES)}")
    return RUNTIMES[name]


def file_engine(runtime: Runtime, file: Path, threads: int) -> Engine:
    """Open what `runtime` converted. Raises RuntimeFailedError when it cannot."""
    try:
        engine: Engine = runtime.module.engine(file, threads)
    except JcsError:
        raise
    except Exception as error:
        raise RuntimeFailedError(
            f"cannot be opened by {runtime.name}: {first_line(error)}", path=file, hint="remove the file and try again"
        ) from error
    return engine


def module_engine(runtime: Runtime, network: nn.Module, device: str) -> Engine:
    """Return an engine of a runtime without files, for a network in evaluation mode."""
    engine: Engine = runtime.module.engine(runtime.name, network, device)
    return engine


@contextmanager
def quiet_output() -> Iterator[None]:
    """Keep what native libraries print off both streams: standard output belongs to results."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), 1)
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        for number, descriptor in enumerate(kept, 1):
            os.dup2(descriptor, number)
            os.close(descriptor)
