"""`jcs bench`: every network on every runtime at every size, in turn, against the plain published computation.

Of each turn every runtime gets one run, so that a machine which is slow for a while is slow for all of them. Figures
are medians; ratios are medians of the turns' ratios.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.bench import worker
from jcs_ct.bench.worker import Task
from jcs_ct.core.duration import left_after
from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.inference.parity import Parity, compare
from jcs_ct.inference.runtimes import RUNTIMES, find_runtime
from jcs_ct.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Given = list[list[NDArray[np.float32]]]

STEADY = 1.25  # slowest turn against fastest of a runtime: more, and something else was running
PATIENCE = 900  # seconds that a process may take for an answer


@dataclass(frozen=True)
class Row:
    """One runtime on one network at one size.

    Attributes:
        network: As it was named.
        runtime: Its name.
        size: "N×H×W".
        seconds: Of each turn, for the whole batch.
        ratio: How many times faster than plain: median of the turns' ratios; 1 for plain itself.
        parity: Worst over the inputs; None for plain itself.
        open_seconds: From a converted file, or from weights, to an engine.
        first_seconds: The first run: compiles and allocates.
        peak: Largest memory of its process, bytes.
        share: Operations a second of the plain computation that this speed stands for, over the matrix speed.
        facts: Library, threads, precision.
        problem: Why there is no figure.
    """

    network: str
    runtime: str
    size: str
    seconds: tuple[float, ...] = ()
    ratio: float = 0.0
    parity: Parity | None = None
    open_seconds: float = 0.0
    first_seconds: float = 0.0
    peak: int = 0
    share: float = 0.0
    facts: dict[str, str] | None = None
    problem: str | None = None

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)

    @property
    def steady(self) -> bool:
        """Whether the turns took about equally long."""
        return max(self.seconds) <= STEADY * min(self.seconds)

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = asdict(self) | {"parity": None if self.parity is None else self.parity.to_dict()}
        return values | ({"median": self.median, "steady": self.steady} if self.seconds else {})


class _Process:
    """A child that answers."""

    def __init__(self, task: Task, arrays: Given) -> None:
        context = multiprocessing.get_context("spawn")
        self.end, theirs = context.Pipe()
        self.process = context.Process(target=worker.serve, args=(theirs, task, arrays), daemon=True)
        self.process.start()
        theirs.close()
        self.hello = self.answer()

    def answer(self) -> dict[str, Any]:
        try:
            if not self.end.poll(PATIENCE):
                return {"error": f"no answer in {PATIENCE} s"}
            found: dict[str, Any] = self.end.recv()
        except (EOFError, OSError):
            return {"error": "its process ended early: perhaps there was too little memory"}
        return found

    def ask(self, command: str, index: int) -> dict[str, Any]:
        try:
            self.end.send((command, index))
        except OSError:
            return {"error": "its process has ended"}
        return self.answer()

    def close(self) -> None:
        self.end.close()
        self.process.join(5)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join(5)


def measure(
    network: str,
    runtimes: Sequence[str],
    size: tuple[int, int, int],
    make: Callable[[str, tuple[int, int, int]], Given],
    repeats: int,
    matrix: float,
    say: Callable[[str], None],
) -> list[Row]:
    """Measure one network at one size.

    Args:
        network: A network of the table (with deterministic weights), or weights.
        runtimes: Names; `torch`, the plain computation, comes first whether named or not. Those that do not run this
            kind of network are left out.
        size: (batch, rows, columns).
        make: Makes the inputs from the recipe of the weights and the size.
        repeats: Turns that count.
        matrix: See `worker.matrix_speed`.
        say: Where to say what happens.

    Raises:
        UsageError: An unknown runtime, or a network without results.
        JcsError: The plain computation failed.
    """
    names = ["torch", *(name for name in runtimes if name != "torch")]
    for name in names:
        find_runtime(name)
    threads, shown = torch.get_num_threads(), "×".join(map(str, size))
    task = Task(network, "torch", threads)
    built = worker.build(task)
    if not built.spec.outputs:
        raise UsageError(f"{network} has no result to compare", hint="name a whole network")
    names = [name for name in names if RUNTIMES[name].runs(built.spec)]
    arrays = make(built.card.recipe, size)
    operations = 2 * worker.multiply_adds(built, arrays[0])
    outputs = built.spec.outputs
    if network in MODELS:
        task = replace(task, heads=worker.level_heads(built, arrays[:2]))
    del built
    rows: dict[str, Row] = {}
    with tempfile.TemporaryDirectory() as folder:
        processes: dict[str, _Process] = {}
        try:
            for name in names:
                say(f"{network} at {shown}: starting {name}")
                problem = _start(name, replace(task, runtime=name), Path(folder), arrays, processes)
                rows[name] = Row(network, name, shown, problem=problem)
            if rows["torch"].problem is not None:
                raise JcsError(f"the plain computation of {network} failed: {rows['torch'].problem}")
            parity = _parity(processes, outputs, len(arrays), rows)
            seconds, peaks = _turns(processes, repeats, rows, say)
        finally:
            for process in processes.values():
                process.close()
    plain = seconds["torch"]
    for name, process in processes.items():
        if rows[name].problem is not None:
            continue
        taken = seconds[name]
        rows[name] = replace(
            rows[name],
            seconds=tuple(taken),
            ratio=statistics.median([a / b for a, b in zip(plain, taken, strict=True)]),
            parity=parity.get(name),
            open_seconds=process.hello["open"],
            first_seconds=process.hello["first"],
            peak=peaks[name],
            share=operations / statistics.median(taken) / matrix,
            facts=process.hello["facts"],
        )
    return list(rows.values())


def _start(name: str, task: Task, folder: Path, arrays: Given, processes: dict[str, _Process]) -> str | None:
    """Start the process of a runtime; return the problem when it cannot be."""
    runtime = RUNTIMES[name]
    try:
        runtime.need()
    except UsageError as error:
        return error.line()
    if runtime.suffix:
        task = replace(task, file=folder / f"{name}{runtime.suffix}")
        converter = multiprocessing.get_context("spawn").Process(target=worker.convert, args=(task,), daemon=True)
        converter.start()
        converter.join(PATIENCE)
        if converter.exitcode != 0:
            converter.terminate()
            return "this network cannot be converted"
    process = _Process(task, arrays)
    if "error" in process.hello:
        process.close()
        return str(process.hello["error"])
    processes[name] = process
    return None


def _parity(
    processes: dict[str, _Process], outputs: Sequence[str], count: int, rows: dict[str, Row]
) -> dict[str, Parity]:
    """Compare every runtime with plain on every input; a process that fails gets its problem into its row."""
    worst: dict[str, Parity] = {}
    for index in range(count):
        expected: Any = None
        for name, process in processes.items():
            if rows[name].problem is not None:
                continue
            found = process.ask("outputs", index)
            if "error" in found:
                rows[name] = replace(rows[name], problem=found["error"])
            elif name == "torch":
                expected = found["outputs"]
            else:
                parity = compare(outputs, expected, found["outputs"])
                worst[name] = worst[name].worst(parity) if name in worst else parity
        if rows["torch"].problem is not None:
            raise JcsError(f"the plain computation failed: {rows['torch'].problem}")
    return worst


def _turns(
    processes: dict[str, _Process], repeats: int, rows: dict[str, Row], say: Callable[[str], None]
) -> tuple[dict[str, list[float]], dict[str, int]]:
    seconds: dict[str, list[float]] = {name: [] for name in processes}
    peaks = dict.fromkeys(processes, 0)
    began = time.monotonic()
    for turn in range(repeats):
        for name, process in processes.items():
            if rows[name].problem is not None:
                continue
            found = process.ask("time", turn)
            if "error" in found:
                rows[name] = replace(rows[name], problem=found["error"])
                continue
            seconds[name].append(found["seconds"])
            peaks[name] = max(peaks[name], found["peak"])
        taken = ", ".join(f"{name} {values[-1]:.3f} s" for name, values in seconds.items() if values)
        say(f"turn {turn + 1} of {repeats}: {taken}{left_after(turn + 1, repeats, began)}")
    return seconds, peaks
