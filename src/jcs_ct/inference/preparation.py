"""A runtime is prepared once on a machine: the network is converted or kernels are compiled, and the result is checked.

The check compares with the plain network, in numbers and in time; its outcome is kept (`inference.records`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from secrets import token_hex
from typing import TYPE_CHECKING

import torch

from jcs_ct.core.errors import JcsError, OutputError, first_line
from jcs_ct.inference import records
from jcs_ct.inference.parity import check_arrays, check_shape, compare
from jcs_ct.inference.records import ParityRecord
from jcs_ct.inference.runtimes import RUNTIMES, file_engine, module_engine
from jcs_ct.weights.store import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.parity import Parity
    from jcs_ct.inference.records import Workload
    from jcs_ct.inference.runtimes import Arrays, Engine, Runtime

RUNS = 5  # of a network in its check, within a second: the fastest counts
SMALL = 96, 128  # sides for PyTorch's own check: the same library, and no choice of algorithm by size


def open_checked(
    workload: Workload, runtime: Runtime, say: Callable[[str], None]
) -> tuple[Engine | None, ParityRecord]:
    """Open a runtime that passed its check, now or before; None in place of the engine when it did not.

    Raises:
        RuntimeFailedError: The file of an earlier check was changed or removed.
    """
    record = records.known_record(workload, runtime)
    if record is None:
        if runtime.suffix:
            say(f"{workload.name} is converted for {runtime.name} and checked, once on this machine")
        elif runtime.compiled:
            say(f"the kernels of {runtime.name} are compiled and checked for {workload.name}, once on this machine")
        return _prepare(workload, runtime, say)
    if not record.ok:
        return None, record
    if runtime.suffix:
        file = records.checked_file(records.folder(workload, runtime), record)
        return file_engine(runtime, file, torch.get_num_threads()), record
    return module_engine(runtime, workload.network(), workload.device), record


def _prepare(workload: Workload, runtime: Runtime, say: Callable[[str], None]) -> tuple[Engine | None, ParityRecord]:
    """Convert, check, and write down the outcome."""
    network, where = workload.network(), records.folder(workload, runtime)
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
        parity, seconds, plain_seconds = _check(workload, runtime, network, engine)
        text, ok = parity.text(), parity.ok
    except JcsError as error:
        text, lasting = error.line(), not runtime.compiled  # a compiler is mended without a change of its version
    except (OSError, MemoryError) as error:  # of this moment, not of the runtime
        text, lasting = first_line(error), False
    except Exception as error:  # noqa: BLE001  # whatever a library meets is the outcome of the check
        text = first_line(error)
    file = path.name if ok and runtime.suffix else ""
    record = ParityRecord(
        **records.identity(workload, runtime),
        file=file,
        file_sha256=sha256_of(path) if file else "",
        ok=ok,
        text=text,
        seconds=round(seconds, 4),
        plain_seconds=round(plain_seconds, 4),
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


def _check(workload: Workload, runtime: Runtime, network: nn.Module, engine: Engine) -> tuple[Parity, float, float]:
    """Compare an engine with the plain network; return how far it is, its seconds, and those of the plain network."""
    at_its_size = runtime.suffix or runtime.compiled or workload.spec.load == "light"
    shape = check_shape(workload.recipe) if at_its_size else SMALL
    arrays = check_arrays(workload.spec, shape, workload.inputs)
    plain = module_engine(RUNTIMES["torch"], network, workload.device)
    engine.run(arrays)  # compiles, allocates
    found, seconds = _timed(engine, arrays)
    expected, plain_seconds = _timed(plain, arrays)
    return compare(workload.spec.outputs, expected, found), seconds, plain_seconds


def _timed(engine: Engine, arrays: Arrays) -> tuple[list[NDArray[np.float32]], float]:
    """Run an engine, a small network some times more; return what it gave, and the seconds of the fastest run."""
    taken: list[float] = []
    while not taken or (len(taken) < RUNS and sum(taken) < 1):
        started = time.perf_counter()
        found = engine.run(arrays)
        taken.append(time.perf_counter() - started)
    return found, min(taken)
