"""`jcs bench study`: whole studies in processes of their own, by stage; failures are named."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from jcs_ct.bench import studies as speed
from jcs_ct.bench.studies import STAGES, Job, StudyRow, Timed, phantoms, run_once, to_markdown
from jcs_ct.cli.bench import bench
from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.phantom import write_dicom
from study_help import small_phantom, write_lite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))


@pytest.fixture
def study(tmp_path: Path) -> Path:
    write_dicom(small_phantom(), tmp_path / "ct")
    return tmp_path / "ct"


def test_a_study_is_timed_by_stage(study: Path, tmp_path: Path) -> None:
    weights = str(write_lite(tmp_path))
    run = run_once(Job(study, (weights,), "torch"))
    assert set(run.stages) == set(STAGES)
    assert all(run.stages[stage] > 0 for stage in STAGES)
    alone = sum(run.stages[stage] for stage in ("start", "find", "write"))
    assert alone < run.seconds
    assert run.stages["start"] > 0.2, "Python and PyTorch are loaded in this time"
    assert 100e6 < run.peak < 4e9
    assert (run.slices, 0 < run.looked <= 24) == (24, True)
    assert list(run.runtimes.values()) == ["torch"]
    warm = run_once(Job(study, ("jcs-lite",), "torch-tuned", "never", warm=True))
    assert warm.stages["start"] == pytest.approx(0, abs=1e-6)
    assert warm.seconds < run.seconds
    assert list(warm.runtimes.values()) == ["torch-tuned"]


def test_a_study_that_fails_is_named(tmp_path: Path) -> None:
    weights = str(write_lite(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(JcsError, match=r"could not be run: .*one is measured"):
        run_once(Job(tmp_path / "empty", (weights,), "torch"))
    with pytest.raises(JcsError, match="could not be run"):
        run_once(Job(tmp_path / "empty", ("no-such-weights",), "torch"))


def timed(seconds: float, slices: int) -> Timed:
    return Timed(seconds, dict.fromkeys(STAGES, seconds / 10), 200 * 2**20, {"jcs-lite": "torch"}, slices, 20, True)


def test_tables(tmp_path: Path) -> None:
    job = Job(tmp_path, ("jcs-lite",), "torch")
    rows = [StudyRow("torch", job, [timed(4.0, 40), timed(6.0, 40)]), StudyRow("auto", job, [timed(2.0, 40)] * 2)]
    lines = to_markdown(rows).splitlines()
    assert lines[2].startswith("| torch | 5.00 (4.00–6.00) | 1.00 | 0.1250 | 200 | 0.50 |")
    assert lines[3].startswith("| auto | 2.00 (2.00–2.00) | 2.50 |")
    assert len({line.count("|") for line in lines}) == 1
    values = rows[0].to_dict()
    assert json.loads(json.dumps(values))["stages"]["network"] == pytest.approx(0.5)


def test_phantoms_of_other_lengths_are_the_same_chest(tmp_path: Path) -> None:
    from jcs_ct.app.gather import gather

    folders = phantoms([6, 12], tmp_path, size=64)
    assert [path.name for path in folders] == ["6 slices", "12 slices"]
    series = [gather([str(path)]).cases[0].series for path in folders]
    lengths = [s.geometry.shape[0] * s.geometry.spacing[0] for s in series if s is not None]
    assert lengths == pytest.approx([300, 300])


def test_the_command(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs: list[Job] = []

    def run(job: Job) -> Timed:
        jobs.append(job)
        return timed(1.0, 24)

    monkeypatch.setattr(speed, "run_once", run)
    done = CliRunner().invoke(bench, ["study", str(study), "--repeats", "2", "--segment", "never", "--json"])
    assert done.exit_code == 0, done.output
    assert [row["name"] for row in json.loads(done.stdout)["rows"]] == ["torch", "auto"]
    assert [(job.runtime, job.prepare) for job in jobs] == [
        ("auto", True), ("torch", False), ("auto", False), ("torch", False), ("auto", False),
    ]  # fmt: skip
    assert {job.segment for job in jobs} == {"never"}
    made: Callable[..., list[Path]] = lambda lengths, folder: [folder / f"{n} slices" for n in lengths]  # noqa: E731
    monkeypatch.setattr(speed, "phantoms", made)
    done = CliRunner().invoke(bench, ["study", "--lengths", "5,10", "--runtimes", "torch", "--repeats", "1"])
    assert done.exit_code == 0, done.output
    assert "| 10 slices, torch | 1.00" in done.stdout
    assert all(job.warm for job in jobs[5:])


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        ([], "one study or --lengths"),
        (["x", "--lengths", "5"], "one study or --lengths"),
        (["x", "--runtimes", "tensorrt"], "no runtime is called 'tensorrt'"),
        (["--lengths", "5,ten"], "not numbers of slices"),
        (["--lengths", "0"], "not numbers of slices"),
        (["--lengths", "1000"], "not numbers of slices"),
    ],
)
def test_wrong_arguments(arguments: list[str], what: str) -> None:
    done = CliRunner().invoke(bench, ["study", *arguments])
    assert isinstance(done.exception, UsageError)
    assert what in done.exception.line()
