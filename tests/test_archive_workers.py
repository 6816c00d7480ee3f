"""A Ray cluster of two machines on this one: as the local run, also where a machine goes away with its study."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from archive_help import blows, studies, write_study
from jcs_ct.app.batch import diagnose_cases
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import with_stable_names
from jcs_ct.archive import workers
from jcs_ct.archive.workers import STARTS, Orders, Worker, _Crew, diagnose_on_ray
from jcs_ct.cli import jcs
from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.core.version import __version__
from jcs_ct.inference import open_network
from jcs_ct.models import RESULTS
from jcs_ct.study.settings import Networks, Settings
from study_help import write_lite

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = Settings(segment="always", frames=False)
STUDIES = studies(5)
SOURCE = Path(__file__).resolve().parent.parent / "src"


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A head without processors, and two nodes of one each."""
    utils: Any = pytest.importorskip("ray.cluster_utils", reason="needs the extra ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(SOURCE), os.environ.get("PYTHONPATH", ""))))
    made = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 80 * 2**20})
    try:
        yield made
    finally:
        made.shutdown()


def reports(out: Path) -> dict[str, Any]:
    found = {path.parent.name: json.loads(path.read_text()) for path in out.glob("*/report.json")}
    return {name: (one["source"]["digest"], one["verdict"], one["slices"]) for name, one in found.items()}


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_machine_goes_away_and_all_studies_are_done(cluster: Any, tmp_path: Path) -> None:
    weights = str(write_lite(tmp_path))
    for i in range(STUDIES):
        write_study(tmp_path / "archive" / f"p{i}", i, 3 + i % 3)
    (tmp_path / "archive" / "broken").mkdir()
    for i in range(4):
        (tmp_path / "archive" / "broken" / f"{i}.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    cases = with_stable_names(gather([str(tmp_path / "archive")]).cases, tmp_path / "out")
    orders = Orders((weights,), "cpu", "torch", SETTINGS, tmp_path / "out", {"resume": True})
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    ended, said = [], list[str]()
    for one in diagnose_on_ray(cases, orders, address=cluster.address, workers=2, say=said.append):
        ended.append(one)
        if len(ended) in blows(STUDIES, 1):  # one machine is pulled out
            cluster.remove_node(nodes.pop(), allow_graceful=False)
            if len(ended) > 1:  # and another comes
                nodes.insert(0, cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20))
    failed = [one for one in ended if one.error is not None]
    assert sorted(one.name for one in ended) == sorted(case.name for case in cases)
    assert [one.name for one in failed] == ["broken"], [one.error and one.error.line() for one in failed]

    networks = Networks.of([open_network(weights, "cpu", RESULTS, "torch")])
    list(diagnose_cases(cases, networks, SETTINGS, tmp_path / "local"))
    assert reports(tmp_path / "out") == reports(tmp_path / "local")
    assert len(reports(tmp_path / "out")) == STUDIES

    again = list(diagnose_cases(cases, networks, SETTINGS, tmp_path / "out", resume=True))
    assert sorted(one.status for one in again) == ["failed", *["kept"] * STUDIES]


class _FakeRay:
    """As much of Ray as the crew asks for, in this process; what a worker raises comes as Ray brings it."""

    class exceptions:  # noqa: N801  # its name
        class RayError(Exception):
            pass

        class RayTaskError(RayError):
            pass

    def __init__(self) -> None:
        self.started = 0

    def cluster_resources(self) -> dict[str, float]:
        return {"CPU": 2.0}

    def put(self, value: Any) -> Any:
        return value

    def remote(self, **_: Any) -> Any:
        return lambda kind: SimpleNamespace(remote=lambda orders: self._actor(kind, orders))

    def _actor(self, kind: Any, orders: Any) -> Any:
        self.started += 1
        try:
            made, problem = kind(orders), None
        except JcsError as error:
            made, problem = None, self.exceptions.RayError(f"The actor died\n{type(error).__name__}: {error}")

        def call(name: str) -> Any:
            return SimpleNamespace(remote=lambda *given: _Promise(made, name, given, problem))

        return SimpleNamespace(ready=call("ready"), run=call("run"))

    def wait(self, promises: list[Any], **_: Any) -> tuple[list[Any], list[Any]]:
        return promises[:1], promises[1:]

    def get(self, promise: Any) -> Any:
        if promise.problem is not None:
            raise promise.problem
        return getattr(promise.made, promise.name)(*promise.given)


@dataclass(eq=False)
class _Promise:
    made: Any
    name: str
    given: tuple[Any, ...]
    problem: Exception | None


@pytest.mark.parametrize(
    ("model", "version", "why"),
    [("gone.safetensors", __version__, "gone.safetensors"), (None, "0.0.1", "the run is of 0.0.1")],
)
def test_workers_that_cannot_start_end_the_run_by_name(
    model: str | None, version: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before, they were started anew for ever."""
    monkeypatch.setattr("jcs_ct.archive.workers.time.sleep", lambda _: None)
    write_study(tmp_path / "in", 1)
    cases = gather([str(tmp_path / "in")]).cases
    ray, said = _FakeRay(), list[str]()
    orders = Orders((model and str(tmp_path / model),), "cpu", "torch", SETTINGS, tmp_path, version=version)
    (ended,) = _Crew(ray, orders, 1, said.append).run(cases)
    assert ended.error is not None
    for text in ("a worker could not be started", why, str(tmp_path / "in")):
        assert text in ended.error.line()
    assert ray.started == len(said) == STARTS


def test_a_study_that_kills_two_workers_has_failed_and_the_next_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        write_study(tmp_path / "in" / name, 1)
    cases = gather([str(tmp_path / "in" / name) for name in ("a", "b")]).cases

    class Fatal(_FakeRay):
        def get(self, promise: Any) -> Any:
            if promise.name == "run" and promise.given[0].name == "a":
                raise self.exceptions.RayError("killed")
            return super().get(promise)

    class Quick(Worker):
        def __init__(self, _: Orders) -> None:
            pass

        def run(self, case: Any) -> Any:
            return case.name, "done", {"case": case.name}, None, "", ""

    ray, said = Fatal(), list[str]()
    monkeypatch.setattr(workers, "Worker", Quick)
    orders = Orders((None,), "cpu", "torch", SETTINGS, tmp_path / "out")
    ended = {one.name: one for one in _Crew(ray, orders, 1, said.append).run(cases)}
    assert ended["a"].error is not None
    assert "2 workers died with it" in ended["a"].error.line()
    assert (ended["b"].status, ray.started) == ("done", 3)
    assert [text.partition(" (")[0] for text in said] == ["a: its worker is gone"] * 2


def test_a_worker_chooses_its_runtime_for_all_slices_as_a_run_without_a_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chosen for one slice it was another runtime: slower, and other last digits."""
    for i in range(2):
        write_study(tmp_path / "in" / str(i), i, 3 + i)
    cases, seen = gather([str(tmp_path / "in" / str(i)) for i in range(2)]).cases, []
    ray: Any = SimpleNamespace(shutdown=lambda: None)
    monkeypatch.setattr(workers, "_start", lambda _: ray)
    monkeypatch.setattr(_Crew, "__init__", lambda _self, _ray, orders, *_: seen.append(orders))
    monkeypatch.setattr(_Crew, "run", lambda *_: iter(()))
    assert list(diagnose_on_ray(cases, Orders((None,), "cpu", "auto", SETTINGS, tmp_path))) == []
    assert Worker(replace(seen[0]))._job.networks.screen.slices == 3 + 4


def test_without_ray_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    orders = Orders((None,), "cpu", "torch", SETTINGS, tmp_path)
    with pytest.raises(UsageError, match=r"\[ray\]"):
        list(diagnose_on_ray([], orders))
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"


def test_options_of_a_cluster_need_one(tmp_path: Path) -> None:
    for given in (["--workers", "2"], ["--address", "auto"]):
        result = CliRunner().invoke(jcs, ["diagnose", str(tmp_path), "-o", str(tmp_path / "o"), *given])
        assert isinstance(result.exception, UsageError)
        assert "--engine ray" in result.exception.line()
