"""A runtime is prepared once on a machine: the network is converted or kernels are compiled, and the result is checked.

The check compares with the plain network, in numbers and in time; its outcome is kept (`inference.records`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING

import torch

from jcs_ct.core.errors import JcsError, OutputError
from jcs_ct.inference import records
from jcs_ct.inference.parity import check_arrays, check_shape, compare
from jcs_ct.inference.records import ParityRecord
from jcs_ct.inference.runtimes import RUNTIMES, file_engine, module_engine
from jcs_ct.weights.store import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.runtimes import Arrays, Engine, Runtime
    from jcs_ct.models import ModelSpec

RUNS = 5  # of a network in its check, within a second: the fastest counts
SMALL = 96, 128  # sides for PyTorch's own check: the same library, and no choice of algorithm by size


@dataclass(frozen=True)
class Workload:
    """A network to execute: which weights, on what, in which form.

    Attributes:
        name: Of the weights.
        spec: The network.
        weights: SHA-256 that stands for them.
        recipe: Their preprocessing.
        inputs: "image" or "features".
        device: "cpu", "cuda" or "mps".
        network: Makes the plain network, in evaluation mode, on the device.
    """

    name: str
    spec: ModelSpec
    weights: str
    recipe: str
    inputs: str
    device: str
    network: Callable[[], nn.Module]


def known_record(workload: Workload, runtime: Runtime) -> ParityRecord | None:
    """Return the record of an earlier check that still counts."""
    where = records.folder(runtime, workload.spec.name, workload.weights, workload.inputs, workload.device)
    record = records.read(where)
    about = (runtime, workload.weights, workload.inputs, workload.device)
    return record if record is not None and record.fits(*about) else None


def open_checked(
    workload: Workload, runtime: Runtime, say: Callable[[str], None]
) -> tuple[Engine | None, ParityRecord]:
    """Open a runtime that passed its check, now or before; None in place of the engine when it did not.

    Raises:
        RuntimeFailedError: The file of an earlier check was changed or removed.
    """
    where = records.folder(runtime, workload.spec.name, workload.weights, workload.inputs, workload.device)
    record = known_record(workload, runtime)
    if record is None:
        if runtime.suffix:
            say(f"{workload.name} is converted for {runtime.name} and checked, once on this machine")
        elif runtime.compiled:
            say(f"the kernels of {runtime.name} are compiled and checked for {workload.name}, once on this machine")
        return _prepare(workload, runtime, where, say)
    if not record.ok:
        return None, record
    if runtime.suffix:
        return file_engine(runtime, records.checked_file(where, record), torch.get_num_threads()), record
    return module_engine(runtime, workload.network(), workload.device), record


def _prepare(
    workload: Workload, runtime: Runtime, where: Path, say: Callable[[str], None]
) -> tuple[Engine | None, ParityRecord]:
    """Convert, check, and write down the outcome."""
    network = workload.network()
    path, engine, lasting = where / f"network-{token_hex(4)}{runtime.suffix}", None, True
    seconds, plain_seconds, ok = 0.0, 0.0, False
    try:
        if runtime.suffix:
            where.mkdir(parents=True, exist_ok=True)
            example = [torch.from_numpy(a) for a in check_arrays(workload.spec, SMALL, workload.inputs)]
            runtime.module.convert(network, example, path)
            engine = file_engine(runtime, path, torch.get_num_threads())
        else:
            engine = module_engine(runtime, network, workload.device)
        text, ok, seconds, plain_seconds = _check(workload, runtime, network, engine)
    except JcsError as error:
        text, lasting = error.line(), not runtime.compiled  # a compiler is mended without a change of its version
    except (OSError, MemoryError) as error:  # of this moment, not of the runtime
        text, lasting = f"{type(error).__name__}: {error}", False
    except Exception as error:  # noqa: BLE001  # whatever a library meets is the outcome of the check
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
    file = path.name if ok and runtime.suffix else ""
    record = ParityRecord(
        runtime.name,
        records.versions(runtime),
        records.machine(workload.device),
        workload.weights,
        workload.inputs,
        file,
        sha256_of(path) if file else "",
        ok,
        text,
        round(seconds, 4),
        round(plain_seconds, 4),
    )
    old = records.read(where)
    if lasting:
        try:
            records.write(where, record)
        except OutputError as error:
            say(f"the check of {runtime.name} is made again next time, its outcome cannot be kept: {error.line()}")
    for name in {old.file if old else "", "" if file else path.name} - {"", file}:
        with suppress(OSError):
            (where / name).unlink(missing_ok=True)
    return (engine if ok else None), record


def _check(workload: Workload, runtime: Runtime, network: nn.Module, engine: Engine) -> tuple[str, bool, float, float]:
    """Compare an engine with the plain network; return (text, passed, seconds, plain seconds)."""
    real = runtime.suffix or runtime.compiled or workload.spec.load == "light"
    shape = check_shape(workload.recipe) if real else SMALL
    arrays = check_arrays(workload.spec, shape, workload.inputs)
    plain = module_engine(RUNTIMES["torch"], network, workload.device)
    engine.run(arrays)  # compiles, allocates
    found, seconds = _timed(engine, arrays)
    expected, plain_seconds = _timed(plain, arrays)
    parity = compare(workload.spec.outputs, expected, found)
    return parity.text(), parity.ok, seconds, plain_seconds


def _timed(engine: Engine, arrays: Arrays) -> tuple[list[NDArray[np.float32]], float]:
    """Run an engine, a small network some times more; return what it gave, and the seconds of the fastest run."""
    taken: list[float] = []
    while not taken or (len(taken) < RUNS and sum(taken) < 1):
        started = time.perf_counter()
        found = engine.run(arrays)
        taken.append(time.perf_counter() - started)
    return found, min(taken)
