"""A Ray cluster of two machines on this one: as the local run, also where a machine goes away with its study."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from archive_help import write_study
from jcs_ct.app.batch import diagnose_cases
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import with_stable_names
from jcs_ct.archive.workers import Orders, diagnose_on_ray
from jcs_ct.cli import jcs
from jcs_ct.core.errors import UsageError
from jcs_ct.inference import open_network
from jcs_ct.models import RESULTS
from jcs_ct.study.settings import Networks, Settings
from study_help import write_lite

if TYPE_CHECKING:
    from collections.abc import Iterator

SETTINGS = Settings(segment="always", frames=False)
STUDIES = 5
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
    orders = Orders((weights,), "cpu", "torch", SETTINGS, tmp_path / "out", resume=True)
    nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(2)]
    ended, said = [], list[str]()
    for one in diagnose_on_ray(cases, orders, address=cluster.address, workers=2, say=said.append):
        ended.append(one)
        if len(ended) == 1:  # one machine is pulled out
            cluster.remove_node(nodes[1], allow_graceful=False)
    failed = [one for one in ended if one.error is not None]
    assert sorted(one.name for one in ended) == sorted(case.name for case in cases)
    assert [one.name for one in failed] == ["broken"], [one.error and one.error.line() for one in failed]

    networks = Networks.of([open_network(weights, "cpu", RESULTS, "torch")])
    list(diagnose_cases(cases, networks, SETTINGS, tmp_path / "local"))
    assert reports(tmp_path / "out") == reports(tmp_path / "local")
    assert len(reports(tmp_path / "out")) == STUDIES

    again = list(diagnose_cases(cases, networks, SETTINGS, tmp_path / "out", resume=True))
    assert sorted(one.status for one in again) == ["failed", *["kept"] * STUDIES]


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
