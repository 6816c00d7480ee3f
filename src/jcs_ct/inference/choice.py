"""Which runtime executes a network: the one that was asked for, or the fastest that passed its check here.

Nothing falls back in silence: a runtime that was named either passes its check or is an error, and `auto` says what it
took (commands: with --verbose; reports: always) and why another did not come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from jcs_ct.core.errors import UsageError
from jcs_ct.inference.preparation import open_checked
from jcs_ct.inference.records import known_record
from jcs_ct.inference.runtimes import RUNTIMES, RuntimeFailedError, find_runtime, module_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.inference.records import ParityRecord, Workload
    from jcs_ct.inference.runtimes import Engine, Runtime
    from jcs_ct.models import Load


class Cost(NamedTuple):
    """From how many slices on a runtime has paid, against `torch-tuned`, for what it takes to start.

    Attributes:
        opening: Where it was prepared before.
        preparing: Where the network is converted, or kernels are compiled, and the check is made.
    """

    opening: int
    preparing: int


COSTS: dict[str, dict[Load, Cost]] = {  # as measured, the fastest first (docs/performance.md)
    "native": {"heavy": Cost(1, 12), "medium": Cost(1, 150)},
    "openvino": {"heavy": Cost(1, 64), "medium": Cost(1, 500), "light": Cost(20, 150)},
    "onnxruntime": {"heavy": Cost(1, 64), "medium": Cost(1, 500), "light": Cost(20, 150)},
}


@dataclass(frozen=True)
class Choice:
    """A runtime that is ready.

    Attributes:
        name: Its name.
        engine: What runs.
        text: Why it was taken, on one line.
    """

    name: str
    engine: Engine
    text: str


class Chosen(str):
    """A line that says which runtime was taken, and why: commands print it to those who ask for details."""

    __slots__ = ()


def payoff(load: Load, slices: int) -> int:
    """Return how many of the thresholds of `COSTS` a number of slices reaches: equal numbers have equal choices."""
    costs = [by_load[load] for by_load in COSTS.values() if load in by_load]
    return sum(slices >= threshold for cost in costs for threshold in cost)


def choose(workload: Workload, runtime: str, slices: int, say: Callable[[str], None]) -> Choice:
    """Return the runtime for a network, ready to run.

    Args:
        workload: The network.
        runtime: "auto" or a name.
        slices: How many will come, as far as it is known: few are not worth a conversion.
        say: Where to say what takes time, and what did not pass.

    Raises:
        UsageError: An unknown runtime, one that is not installed, or not for this network or device.
        RuntimeFailedError: The named runtime failed its check, or its file was changed.
    """
    if runtime == "torch":
        return _plain(workload, "as asked")
    if runtime == "auto":
        return (
            _fastest(workload, slices, say)
            or _tuned(workload, say)
            or _plain(workload, "no other runtime passed its check")
        )
    named = find_runtime(runtime)
    named.need()
    if workload.device not in named.devices:
        raise UsageError(
            f"runtime {runtime} does not run on {workload.device}", hint="--device cpu, or --runtime torch"
        )
    if not named.runs(workload.spec):
        raise UsageError(f"runtime {runtime} does not run {workload.spec.name}", hint="use --runtime auto or torch")
    engine, record = open_checked(workload, named, say)
    if engine is None:
        raise RuntimeFailedError(
            f"runtime {runtime} did not pass its check for {workload.name}: {record.text}",
            hint="use --runtime auto or torch",
        )
    return Choice(runtime, engine, f"as asked; {record.text}")


def _fastest(workload: Workload, slices: int, say: Callable[[str], None]) -> Choice | None:
    """Return the runtime of `COSTS` that was fastest in its check; None where none pays.

    Every runtime with a record counts; without any, the first for which that pays is prepared now.
    """
    ready: list[tuple[float, Runtime, ParityRecord, Engine | None]] = []
    for name, costs in COSTS.items():
        runtime, cost = RUNTIMES[name], costs.get(workload.spec.load)
        if cost is None or not runtime.fits(workload.spec, workload.device) or slices < cost.opening:
            continue
        engine, record = None, known_record(workload, runtime)
        if record is None and not ready and slices >= cost.preparing:
            engine, record = open_checked(workload, runtime, say)
        if record is None:
            continue
        if not record.ok:
            say(f"runtime {name} is left out, it did not pass its check for {workload.name}: {record.text}")
        elif record.seconds >= record.plain_seconds:
            say(f"runtime {name} is left out: it is not faster than torch here")
        else:
            ready.append((record.seconds / record.plain_seconds, runtime, record, engine))
    if not ready:
        return None
    _, runtime, record, engine = min(ready, key=lambda entry: entry[0])
    engine = engine or open_checked(workload, runtime, say)[0]
    return None if engine is None else Choice(runtime.name, engine, f"the fastest that passed its check; {record.text}")


def _tuned(workload: Workload, say: Callable[[str], None]) -> Choice | None:
    """Return `torch-tuned` if it passes its check."""
    try:
        engine, record = open_checked(workload, RUNTIMES["torch-tuned"], say)
        if engine is not None:
            return Choice("torch-tuned", engine, f"the fastest that passed its check; {record.text}")
        say(f"runtime torch-tuned is left out, it did not pass its check for {workload.name}: {record.text}")
    except UsageError as error:  # a network that cannot be fused
        say(f"runtime torch-tuned is left out: {error.line()}")
    return None


def _plain(workload: Workload, text: str) -> Choice:
    """Return `torch`, which is right by definition. Raises UsageError for a backbone, which has no result."""
    return Choice("torch", module_engine(RUNTIMES["torch"], workload.network(), workload.device), text)
