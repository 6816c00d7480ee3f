"""Studies on the workers of a Ray cluster: an actor a worker, with weights that are loaded once.

The machines of the cluster see inputs and results under the same paths, and have this package installed. A worker that
dies with its study is replaced, and the study is tried once more elsewhere; then it has failed, by its name. One that
cannot be started is tried some times, and then done without. A run that is killed goes on with `--resume`, as
everywhere. Ray's reports on usage are switched off.
"""

from __future__ import annotations

import os
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from jcs_ct.app.batch import CaseOutcome, Job, there_before
from jcs_ct.app.locks import remove_debris
from jcs_ct.app.shares import longest_first
from jcs_ct.core.errors import JcsError, UsageError, unforeseen
from jcs_ct.core.installing import install_command
from jcs_ct.core.processors import available, threads
from jcs_ct.core.version import __version__

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.study.case import Case
    from jcs_ct.study.settings import Settings

PROCESSORS = 2  # of a worker: a study that has more of them to itself gains little
TRIES = 2  # of a study
STARTS = 3  # of a worker
PATIENCE = 120.0  # seconds without any worker, after which the rest has failed


@dataclass(frozen=True)
class Orders:
    """What a worker needs to know.

    Attributes:
        models, device, runtime: As of `jcs_ct.inference.open_network`.
        settings, out, options: As of `jcs_ct.app.batch.Job`.
        slices: Of all studies together: the runtime is chosen for them, as by a run without a cluster.
        version: Of the package that gives the orders.
    """

    models: tuple[str | None, ...]
    device: str
    runtime: str
    settings: Settings
    out: Path
    options: Mapping[str, Any] = field(default_factory=dict)
    slices: int = 1
    version: str = __version__


class Worker:
    """Diagnoses one case after the other, with weights that are loaded once. It lives in a process of the cluster.

    Raises:
        UsageError: Another version of the package is installed here.
        JcsError: The weights cannot be opened here.
    """

    def __init__(self, orders: Orders) -> None:
        from jcs_ct.core.memory import one_arena
        from jcs_ct.inference import open_network
        from jcs_ct.models import RESULTS
        from jcs_ct.study.settings import Networks

        if orders.version != __version__:
            raise UsageError(f"this machine has version {__version__} of jcs-ct, the run is of {orders.version}")
        one_arena()
        networks = Networks.of([open_network(m, orders.device, RESULTS, orders.runtime) for m in orders.models])
        networks.expect(orders.slices)
        self._job = Job(networks, orders.settings, orders.out, **orders.options)

    def ready(self) -> bool:
        """Return True once the weights are loaded."""
        return True

    def run(self, case: Case) -> tuple[str, str, dict[str, Any] | None, JcsError | None, str, str]:
        """Diagnose a case; return the name that it got, and all of `CaseOutcome` but the case itself."""
        with self._job.held(case) as mine:
            assert mine is not None  # noqa: S101  # it was waited for
            ended = self._job.run(mine)
        return mine.name, ended.status, ended.report, ended.error, ended.note, ended.details


def diagnose_on_ray(
    cases: Sequence[Case],
    orders: Orders,
    *,
    address: str | None = None,
    workers: int | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Iterator[CaseOutcome]:
    """Diagnose cases with distinct names on a cluster, the longest first; yield how each ended, as they end.

    `address` is of the cluster, as `ray.init` takes it; by default one is made on this machine and ended afterwards.
    There are as many workers as its processors allow, unless `workers` says how many.

    Raises:
        UsageError: Ray is not installed, or there is no cluster at the address.
    """
    ray = _start(address)
    slices = max(1, sum(map(len, cases)))
    options = {**orders.options, "there_before": there_before(cases, orders.out)}
    orders = replace(orders, options=options, slices=slices)
    try:
        yield from _Crew(ray, orders, workers, say).run(cases)
    finally:
        ray.shutdown()
        remove_debris(orders.out)  # of workers whose machine went away


def _start(address: str | None) -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would send what it finds to its makers
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise UsageError("--engine ray needs Ray, which is not installed", hint=install_command("ray")) from error
    given: dict[str, Any] = {"address": address}
    if address is None:
        given = {"num_cpus": available(), "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, configure_logging=False, **given)
    except (ConnectionError, ValueError, RuntimeError) as error:
        text = (str(error).splitlines() or [""])[0][:200]
        raise UsageError(
            f"no Ray cluster at {address or 'this machine'}: {text}", hint="run `ray status` to see more"
        ) from error
    return ray


class _Crew:
    """The workers: those that are free, those at work, those that are still loading their weights."""

    def __init__(self, ray: Any, orders: Orders, workers: int | None, say: Callable[[str], None]) -> None:
        processors = int(ray.cluster_resources().get("CPU", 1))
        each = min(threads(processes=max(1, available() // PROCESSORS)), processors)
        if workers is not None:
            each = max(1, min(each, processors // workers))
        self._ray, self._say = ray, say
        self._wanted = workers or max(1, processors // each)
        self._actor = ray.remote(num_cpus=each, max_restarts=0)(Worker)
        self._orders = ray.put(orders)
        self._loading: dict[Any, tuple[Any, int]] = {}
        self._problem = "no worker of the cluster is left"
        self._free: list[Any] = []
        self._at_work: dict[Any, tuple[Any, Case]] = {}
        self._tries: Counter[str] = Counter()

    def run(self, cases: Sequence[Case]) -> Iterator[CaseOutcome]:
        """Yield how cases end, as they end."""
        queue = deque(longest_first(cases))
        for _ in range(min(self._wanted, len(queue))):
            self._hire()
        alone_since = time.monotonic()
        while queue or self._at_work:
            if not (self._free or self._at_work or self._loading):
                yield from (_failed(case, self._problem) for case in queue)
                return
            while queue and self._free:
                worker, case = self._free.pop(), queue.popleft()
                self._at_work[worker.run.remote(case)] = worker, case
            ready, _ = self._ray.wait([*self._at_work, *self._loading], num_returns=1, timeout=5.0)
            if self._at_work or ready:
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since > PATIENCE:
                yield from (_failed(case, self._problem) for case in queue)
                return
            for one in ready:
                if one in self._loading:
                    self._begin(one)
                    continue
                worker, case = self._at_work.pop(one)
                ended = self._result(one, worker, case)
                if ended is None:
                    queue.appendleft(case)
                else:
                    yield ended

    def _hire(self, before: int = 0) -> None:
        """Have a worker started, after so many that could not be."""
        worker = self._actor.remote(self._orders)
        self._loading[worker.ready.remote()] = worker, before

    def _begin(self, ready: Any) -> None:
        worker, before = self._loading.pop(ready)
        try:
            self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            self._problem = f"a worker could not be started: {(str(error).splitlines() or [''])[-1][:200]}"
            self._say(self._problem)
            if before + 1 < STARTS:  # what made one fail may be gone, or another machine's turn
                time.sleep(1.0)
                self._hire(before + 1)
        else:
            self._free.append(worker)

    def _result(self, done: Any, worker: Any, case: Case) -> CaseOutcome | None:
        """Return how a case ended, or None where its worker died and it is to be tried once more."""
        try:
            name, status, report, error, note, details = self._ray.get(done)
        except self._ray.exceptions.RayTaskError as raised:
            self._free.append(worker)
            return CaseOutcome(case, "failed", None, unforeseen(raised, case.label))
        except self._ray.exceptions.RayError as raised:
            self._tries[case.name] += 1
            self._say(f"{case.name}: its worker is gone ({type(raised).__name__})")
            self._hire()
            return None if self._tries[case.name] < TRIES else _failed(case, f"{TRIES} workers died with it")
        self._free.append(worker)
        return CaseOutcome(replace(case, name=name), status, report, error, note, details)


def _failed(case: Case, why: str) -> CaseOutcome:
    return CaseOutcome(
        case, "failed", None, JcsError(f"failed: {why}", path=case.label, hint="run it again with --resume")
    )
