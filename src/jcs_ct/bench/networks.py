"""`jcs bench`: every network on every runtime at every size, in turn, against the plain published computation.

Of each turn every runtime gets one run, so that a machine which is slow for a while is slow for all of them. Figures
are medians; ratios are medians of the turns' ratios.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from jcs_ct.bench import worker
from jcs_ct.bench.child import STEADY, Child
from jcs_ct.bench.worker import Task
from jcs_ct.core.duration import left_after
from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.inference.parity import Parity, compare
from jcs_ct.inference.runtimes import RUNTIMES, find_runtime
from jcs_ct.models import MODELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    Given = list[list[NDArray[np.float32]]]

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
    operations = 2 * worker.multiply_adds(built.spec.name, arrays[0])
    outputs = built.spec.outputs
    if network in MODELS:
        task = replace(task, heads=worker.level_heads(built, arrays[:2]))
    del built
    rows = {name: Row(network, name, shown) for name in names}
    with tempfile.TemporaryDirectory() as folder:
        children: dict[str, Child] = {}
        try:
            for name in names:
                say(f"{network} at {shown}: starting {name}")
                with _problem_into(rows, name):
                    file = _converted(replace(task, runtime=name), Path(folder))
                    children[name] = Child(
                        worker.serve, replace(task, runtime=name, file=file), arrays, patience=PATIENCE
                    )
                    hello = children[name].answer()
                    rows[name] = replace(
                        rows[name], open_seconds=hello["open"], first_seconds=hello["first"], facts=hello["facts"]
                    )
            _compare_outputs(children, outputs, len(arrays), rows)
            seconds = _turns(children, repeats, rows, say)
        finally:
            for child in children.values():
                child.close()
    for name, taken in seconds.items():
        if rows[name].problem is None:
            ratio = statistics.median([a / b for a, b in zip(seconds["torch"], taken, strict=True)])
            share = operations / statistics.median(taken) / matrix
            rows[name] = replace(rows[name], seconds=tuple(taken), ratio=ratio, share=share)
    return list(rows.values())


@contextmanager
def _problem_into(rows: dict[str, Row], name: str) -> Iterator[None]:
    """Put a problem of the block into the row of a runtime. Raises JcsError where it is one of plain."""
    try:
        yield
    except JcsError as error:
        if name == "torch":
            raise JcsError(f"the plain computation of {rows[name].network} failed: {error.line()}") from error
        rows[name] = replace(rows[name], problem=error.line())


def _converted(task: Task, folder: Path) -> Path | None:
    """Return the file that the runtime of a task opens, or None. Raises JcsError where it cannot be made."""
    runtime = RUNTIMES[task.runtime]
    runtime.need()
    if not runtime.suffix:
        return None
    file = folder / f"{task.runtime}{runtime.suffix}"
    child = Child(worker.convert, replace(task, file=file), patience=PATIENCE)
    try:
        child.answer()
    finally:
        child.close()
    return file


def _compare_outputs(children: dict[str, Child], outputs: Sequence[str], count: int, rows: dict[str, Row]) -> None:
    """Compare every runtime with plain on every input, and put the worst into its row."""
    for index in range(count):
        expected: Any = None
        for name, child in children.items():
            if rows[name].problem is not None:
                continue
            with _problem_into(rows, name):
                found = child.ask("outputs", index)["outputs"]
                if name == "torch":
                    expected = found
                    continue
                parity, before = compare(outputs, expected, found), rows[name].parity
                rows[name] = replace(rows[name], parity=parity if before is None else before.worst(parity))


def _turns(
    children: dict[str, Child], repeats: int, rows: dict[str, Row], say: Callable[[str], None]
) -> dict[str, list[float]]:
    """Return the seconds of every turn of every runtime, and put its memory into its row."""
    seconds: dict[str, list[float]] = {name: [] for name in children}
    began = time.monotonic()
    for turn in range(repeats):
        for name, child in children.items():
            if rows[name].problem is not None:
                continue
            with _problem_into(rows, name):
                found = child.ask("time", turn)
                seconds[name].append(found["seconds"])
                rows[name] = replace(rows[name], peak=max(rows[name].peak, found["peak"]))
        taken = ", ".join(f"{name} {values[-1]:.3f} s" for name, values in seconds.items() if values)
        say(f"turn {turn + 1} of {repeats}: {taken}{left_after(turn + 1, repeats, began)}")
    return seconds
