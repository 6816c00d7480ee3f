"""How long whole studies take, by stage: what `jcs bench study` measures.

Every study runs in a process of its own, from the start of Python to the finished folder, as `jcs diagnose` does it.
Reading, the networks and measuring overlap, so that their sum may exceed the total.
"""

from __future__ import annotations

import gc
import shutil
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from jcs_ct.bench.child import Child, peak
from jcs_ct.core.duration import left_after
from jcs_ct.core.errors import InputError, JcsError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from multiprocessing.connection import Connection

    from jcs_ct.study.settings import Networks

STAGES = ("start", "find", "read", "lungs", "network", "measure", "pictures", "write")
"""What is timed: Python, libraries and weights; the series of the folder; decoding; the lungs; the networks; lesions
and their measures; pictures of the report; files. `read`, `network` and the two after it run side by side."""
SCHEMA = "jcs-ct/bench-study/1"
PATIENCE = 7200  # seconds that a study may take


@dataclass(frozen=True)
class Job:
    """One study to run.

    Attributes:
        study: Where it is.
        models: Weights, or names of networks of the table (with the deterministic weights of the self-check).
        runtime: For all of them.
        segment: "always", "positive" or "never"; None: as `jcs diagnose` chooses.
        warm: Run it once before what is timed, in the same process.
        prepare: Convert and check what the runtime needs, and diagnose nothing.
    """

    study: Path
    models: tuple[str, ...]
    runtime: str
    segment: Literal["always", "positive", "never"] | None = None
    warm: bool = False
    prepare: bool = False


@dataclass(frozen=True)
class Timed:
    """How one run went.

    Attributes:
        seconds: From the start of the process to the finished folder; of a warm one, of the second study alone.
        stages: By stage, see `STAGES`.
        peak: Largest memory of the process, bytes.
        runtimes: Which runtime executed each network.
        slices: Of the study.
        looked: Slices that the networks saw.
        positive: The verdict.
    """

    seconds: float
    stages: dict[str, float]
    peak: int
    runtimes: dict[str, str]
    slices: int
    looked: int
    positive: bool


@dataclass
class StudyRow:
    """All runs of one job.

    Attributes:
        name: What it is called in the table.
        job: What ran.
        runs: How each went.
    """

    name: str
    job: Job
    runs: list[Timed] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(run.seconds for run in self.runs)

    def stage(self, name: str) -> float:
        """Median seconds of a stage."""
        return statistics.median(run.stages.get(name, 0.0) for run in self.runs)

    @property
    def peak(self) -> int:
        """Largest memory, bytes."""
        return max(run.peak for run in self.runs)

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "name": self.name,
            "study": self.job.study.name,
            "models": list(self.job.models),
            "runtime": self.job.runtime,
            "segment": self.job.segment,
            "median": self.median,
            "peak": self.peak,
            "stages": {name: self.stage(name) for name in STAGES},
            "runs": [asdict(run) for run in self.runs],
        }


def measure(rows: Sequence[StudyRow], repeats: int, say: Callable[[str], None]) -> None:
    """Run every job once in each turn, so that a machine which is slow for a while is slow for all.

    Before that, networks are converted and checked for the runtimes, once on a machine; that does not count.

    Raises:
        JcsError: A study failed.
    """
    for row in rows:
        if row.job.runtime != "torch":
            run = run_once(replace(row.job, prepare=True))
            say(
                f"{row.name}: {', '.join(f'{a} on {b}' for a, b in run.runtimes.items())}; ready in {run.seconds:.1f} s"
            )
    began, done = time.monotonic(), 0
    for turn in range(repeats):
        for row in rows:
            run = run_once(row.job)
            row.runs.append(run)
            done += 1
            left = left_after(done, repeats * len(rows), began)
            say(f"turn {turn + 1} of {repeats}: {row.name}: {run.seconds:.2f} s, {run.peak / 2**20:.0f} MiB{left}")


def run_once(job: Job) -> Timed:
    """Run one study in a new process. Raises JcsError where it fails."""
    child = Child(_serve, job, time.time(), patience=PATIENCE)  # the clock that both processes share
    try:
        found: Timed = child.answer()
    except JcsError as error:
        raise JcsError(f"the study could not be run: {error.line()}", path=job.study) from error
    finally:
        child.close()
    return found


def _serve(end: Connection, job: Job, started: float) -> None:
    end.send(_run(job, started))


def _run(job: Job, started: float) -> Timed:
    from jcs_ct.app.batch import freeze_what_is_loaded
    from jcs_ct.core.memory import one_arena
    from jcs_ct.inference import open_network, self_check_network
    from jcs_ct.models import MODELS
    from jcs_ct.study.settings import Networks
    from jcs_ct.weights.store import SHIPPED

    def network(name: str) -> Any:
        if name in MODELS and name != SHIPPED:
            found = self_check_network(name, "cpu", job.runtime)
            found.card = replace(found.card, threshold=0.5)  # these maps are timed and thrown away
            return found
        return open_network(None if name == SHIPPED else name, "cpu", runtime=job.runtime)

    one_arena()  # this and the freezing as the command does
    networks = Networks.of([network(name) for name in job.models])
    gc.freeze()
    if job.warm:
        _time_study(job, networks, started)
        freeze_what_is_loaded()
    return _time_study(job, networks, None if job.warm else started)


def _time_study(job: Job, networks: Networks, started: float | None) -> Timed:
    """Diagnose the study once and keep nothing; time counts from `started`, or from now where that is None."""
    from jcs_ct.app.examine import examine_case
    from jcs_ct.app.gather import gather
    from jcs_ct.study.settings import Settings

    begun = time.time()
    started = begun if started is None else started
    cases = gather([str(job.study)]).cases
    if len(cases) != 1:
        raise InputError(f"holds {len(cases)} studies, one is measured", path=job.study)
    networks.expect(len(cases[0]))
    found = time.time() - begun
    if job.prepare:
        names = {used.card.name: used.start().name for used in networks.all}
        return Timed(time.time() - started, {}, peak(), names, len(cases[0]), 0, positive=False)
    out = Path(tempfile.mkdtemp())
    try:
        result = examine_case(cases[0], networks, Settings(segment=job.segment or networks.usual_segment))
        result.save(out, overwrite=True)
        seconds = time.time() - started
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return Timed(
        seconds,
        {"start": begun - started, "find": found, **result.study.clock.seconds},
        peak(),
        {n.card.name: n.runtime for n in networks.all},
        len(result.slices),
        sum(s.probability is not None for s in result.slices),
        result.verdict.positive,
    )


def phantoms(lengths: Sequence[int], folder: Path, size: int = 512) -> list[Path]:
    """Write a phantom study for each number of slices, the same chest cut thinner and thinner; return the folders."""
    from jcs_ct.phantom import make_phantom, write_dicom

    folders = []
    for count in lengths:
        study = make_phantom(slices=count, size=size, spacing=(300 / count, 358 / size, 358 / size))
        folders.append(folder / f"{count} slices")
        write_dicom(study, folders[-1])
    return folders


def to_markdown(rows: Sequence[StudyRow]) -> str:
    """Return a table for people: against the first row, with the seconds of the stages."""
    lines = [
        "| study | s (range) | times faster | s a slice | peak MiB | " + " | ".join(STAGES) + " |",
        "| --- | ---: | ---: | ---: | ---: |" + " ---: |" * len(STAGES),
    ]
    for row in rows:
        taken = [run.seconds for run in row.runs]
        spread = f"{row.median:.2f} ({min(taken):.2f}–{max(taken):.2f})"
        ratio = statistics.median(a.seconds / b.seconds for a, b in zip(rows[0].runs, row.runs, strict=True))
        stages = " | ".join(f"{row.stage(name):.2f}" for name in STAGES)
        per_slice = row.median / row.runs[0].slices
        lines.append(f"| {row.name} | {spread} | {ratio:.2f} | {per_slice:.4f} | {row.peak / 2**20:.0f} | {stages} |")
    return "\n".join(lines) + "\n"
