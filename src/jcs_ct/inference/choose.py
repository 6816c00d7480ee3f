"""Which runtime executes a network: the one that was asked for, or the fastest that passed its check here.

Nothing falls back in silence: a runtime that was named either passes its check or is an error, and `auto` says what it
took and why another did not come.
"""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.core.errors import JcsError, OutputError, UsageError
from jcs_ct.inference import prepared
from jcs_ct.inference.engines import RUNTIMES, RuntimeFailedError, file_engine, find_runtime, module_engine
from jcs_ct.inference.fold import OUTPUTS
from jcs_ct.inference.parity import check_arrays, check_shape, compare
from jcs_ct.inference.prepared import Record
from jcs_ct.weights.store import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.engines import Arrays, Engine, Runtime
    from jcs_ct.models import ModelSpec

# What `auto` prepares: the fastest as measured (docs/performance.md) that is there
ORDERS = {
    "segmentation": ("native", "openvino", "onnxruntime"),
    "classification": ("native", "openvino", "onnxruntime"),
    "lite": ("openvino", "onnxruntime"),
}
WORTH = {"segmentation": 64, "classification": 500, "lite": 150}  # slices from which the run itself pays it back
WORTH_COMPILING = {"segmentation": 12, "classification": 150}  # kernels, for which nothing is converted
STARTS = {"lite": 20}  # slices from which opening a converted file is paid back; of the others, one is enough
RUNS = 5  # of a network in its check, within a second: the fastest counts
SMALL = 96, 128  # sides for PyTorch's own check: the same library, and no choice of algorithm by size


@dataclass(frozen=True)
class Subject:
    """What is to be executed.

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


@dataclass(frozen=True)
class Chosen:
    """A runtime that is ready.

    Attributes:
        name: Its name.
        engine: What runs; None for `torch`, where the network itself does.
        text: Why it was taken, on one line.
    """

    name: str
    engine: Engine | None
    text: str


def choose(subject: Subject, runtime: str, slices: int, say: Callable[[str], None]) -> Chosen:
    """Return the runtime for a network, ready to run.

    Args:
        subject: The network.
        runtime: "auto" or a name.
        slices: How many will come, as far as it is known: few are not worth a conversion.
        say: Where to say what takes time, and what did not pass.

    Raises:
        UsageError: An unknown runtime, one that is not installed, or not for this network or device.
        RuntimeFailedError: The named runtime failed its check, or its file was changed.
    """
    if runtime == "torch":
        return Chosen("torch", None, "as asked")
    if runtime != "auto":
        chosen = find_runtime(runtime)
        chosen.need()
        if subject.device not in chosen.devices:
            raise UsageError(
                f"runtime {runtime} does not run on {subject.device}", hint="--device cpu, or --runtime torch"
            )
        if subject.spec.task not in chosen.tasks:
            what = "jcs-lite" if subject.spec.task == "lite" else "backbones"
            raise UsageError(f"runtime {runtime} does not run {what}", hint="use --runtime auto or torch")
        engine, record = open_checked(subject, chosen, say)
        if engine is None:
            raise _failed(subject, record)
        return Chosen(runtime, engine, f"as asked; {record.text}")
    if subject.spec.task not in OUTPUTS:
        return Chosen("torch", None, "backbones run on it only")
    return _auto(subject, slices, say)


def _auto(subject: Subject, slices: int, say: Callable[[str], None]) -> Chosen:
    """Take the fastest of the others by their checks, else `torch-tuned`, else `torch`."""
    task = subject.spec.task
    here = [r for r in map(RUNTIMES.__getitem__, ORDERS[task]) if not r.missing and subject.device in r.devices]
    ready: list[tuple[float, Runtime, Record, Engine | None]] = []
    for runtime in here if slices >= STARTS.get(task, 1) else ():
        engine, record = None, known_record(subject, runtime)
        if record is None and not ready and slices >= (WORTH_COMPILING if runtime.compiled else WORTH)[task]:
            engine, record = open_checked(subject, runtime, say)
        if record is None:
            continue
        if not record.ok:
            say(f"runtime {runtime.name} is left out, it did not pass its check for {subject.name}: {record.text}")
        elif record.seconds >= record.plain_seconds:
            say(f"runtime {runtime.name} is left out: it is not faster than torch here")
        else:
            ready.append((record.seconds / record.plain_seconds, runtime, record, engine))
    if ready:
        _, runtime, record, engine = min(ready, key=lambda entry: entry[0])
        engine = engine or open_checked(subject, runtime, say)[0]
        if engine is not None:
            return Chosen(runtime.name, engine, f"the fastest that passed its check; {record.text}")
    try:
        engine, record = open_checked(subject, RUNTIMES["torch-tuned"], say)
    except UsageError as error:  # a network that cannot be folded
        say(f"runtime torch-tuned is left out: {error.line()}")
        return Chosen("torch", None, "no other runtime passed its check")
    if engine is not None:
        return Chosen("torch-tuned", engine, f"the fastest that passed its check; {record.text}")
    say(f"runtime torch-tuned is left out, it did not pass its check for {subject.name}: {record.text}")
    return Chosen("torch", None, "no other runtime passed its check")


def known_record(subject: Subject, runtime: Runtime) -> Record | None:
    """Return the record of an earlier check that still counts."""
    where = prepared.folder(runtime, subject.spec.name, subject.weights, subject.inputs, subject.device)
    record = prepared.read(where)
    return (
        record if record is not None and record.fits(runtime, subject.weights, subject.inputs, subject.device) else None
    )


def open_checked(subject: Subject, runtime: Runtime, say: Callable[[str], None]) -> tuple[Engine | None, Record]:
    """Open a runtime that passed its check, now or before; None in place of the engine when it did not.

    Raises:
        RuntimeFailedError: The file of an earlier check was changed or removed.
    """
    where = prepared.folder(runtime, subject.spec.name, subject.weights, subject.inputs, subject.device)
    record = known_record(subject, runtime)
    if record is None:
        if runtime.suffix:
            say(f"{subject.name} is converted for {runtime.name} and checked, once on this machine")
        elif runtime.compiled:
            say(f"the kernels of {runtime.name} are compiled and checked for {subject.name}, once on this machine")
        return _prepare(subject, runtime, where, say)
    if not record.ok:
        return None, record
    if runtime.suffix:
        return file_engine(runtime, prepared.checked_file(where, record), torch.get_num_threads()), record
    return module_engine(runtime, subject.network(), subject.device), record


def _prepare(
    subject: Subject, runtime: Runtime, where: Path, say: Callable[[str], None]
) -> tuple[Engine | None, Record]:
    """Convert, check, and write down the outcome."""
    network = subject.network()
    path, engine, lasting = where / f"network-{token_hex(4)}{runtime.suffix}", None, True
    seconds, plain_seconds, ok = 0.0, 0.0, False
    try:
        if runtime.suffix:
            where.mkdir(parents=True, exist_ok=True)
            example = [torch.from_numpy(a) for a in check_arrays(subject.spec, SMALL, subject.inputs)]
            runtime.module.convert(network, example, path)
            engine = file_engine(runtime, path, torch.get_num_threads())
        else:
            engine = module_engine(runtime, network, subject.device)
        text, ok, seconds, plain_seconds = _check(subject, runtime, network, engine)
    except JcsError as error:
        text, lasting = error.line(), not runtime.compiled  # a compiler is mended without a change of its version
    except (OSError, MemoryError) as error:  # of this moment, not of the runtime
        text, lasting = f"{type(error).__name__}: {error}", False
    except Exception as error:  # noqa: BLE001  # whatever a library meets is the outcome of the check
        text = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]:.200}"
    file = path.name if ok and runtime.suffix else ""
    record = Record(
        runtime.name,
        prepared.versions(runtime),
        prepared.machine(subject.device),
        subject.weights,
        subject.inputs,
        file,
        sha256_of(path) if file else "",
        ok,
        text,
        round(seconds, 4),
        round(plain_seconds, 4),
    )
    old = prepared.read(where)
    if lasting:
        try:
            prepared.write(where, record)
        except OutputError as error:
            say(f"the check of {runtime.name} is made again next time, its outcome cannot be kept: {error.line()}")
    for name in {old.file if old else "", "" if file else path.name} - {"", file}:
        with suppress(OSError):
            (where / name).unlink(missing_ok=True)
    return (engine if ok else None), record


def _check(subject: Subject, runtime: Runtime, network: nn.Module, engine: Engine) -> tuple[str, bool, float, float]:
    """Compare an engine with the plain network; return (text, passed, seconds, plain seconds)."""
    real = runtime.suffix or runtime.compiled or subject.spec.task == "lite"
    shape = check_shape(subject.recipe) if real else SMALL
    arrays = check_arrays(subject.spec, shape, subject.inputs)
    plain: Any = module_engine(RUNTIMES["torch"], network, subject.device)
    engine.run(arrays)  # compiles, allocates
    found, seconds = _timed(engine, arrays)
    expected, plain_seconds = _timed(plain, arrays)
    parity = compare(OUTPUTS[subject.spec.task], expected, found)
    return parity.text(), parity.ok, seconds, plain_seconds


def _timed(engine: Engine, arrays: Arrays) -> tuple[list[NDArray[np.float32]], float]:
    """Run an engine, a small network some times more; return what it gave, and the seconds of the fastest run."""
    taken: list[float] = []
    while not taken or (len(taken) < RUNS and sum(taken) < 1):
        started = time.perf_counter()
        found = engine.run(arrays)
        taken.append(time.perf_counter() - started)
    return found, min(taken)


def _failed(subject: Subject, record: Record) -> RuntimeFailedError:
    return RuntimeFailedError(
        f"runtime {record.runtime} did not pass its check for {subject.name}: {record.text}",
        hint="use --runtime auto or torch",
    )
