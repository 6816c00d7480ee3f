"""The public interface for programs: examples that run, weights that are loaded once, results as plain values."""

from __future__ import annotations

import doctest
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from PIL import Image

import jcs_ct
from jcs_ct.core.errors import UsageError
from jcs_ct.phantom import lung_window, make_phantom

if TYPE_CHECKING:
    from jcs_ct import CaseResult

SOURCES = Path(jcs_ct.__file__).parent
WITH_EXAMPLES = sorted(
    ".".join(("jcs_ct", *path.relative_to(SOURCES).with_suffix("").parts)).removesuffix(".__init__")
    for path in SOURCES.rglob("*.py")
    if ">>> " in path.read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Four slices of a phantom: a network takes its time for a whole chest."""
    return [Image.fromarray(lung_window(hu)) for hu in make_phantom(8, 64).hu[2:6]]


@pytest.fixture(scope="module")
def diagnoser() -> jcs_ct.Diagnoser:
    return jcs_ct.Diagnoser(device="cpu", runtime="torch")


@pytest.fixture(scope="module")
def result(diagnoser: jcs_ct.Diagnoser, pictures: list[Image.Image]) -> CaseResult:
    return diagnoser(pictures)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_of_docstrings_do_what_they_say(name: str) -> None:
    flags = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL
    failed, tried = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert tried
    assert not failed


def test_every_public_name_has_an_example() -> None:
    names = [name for name in jcs_ct.__all__ if name != "__version__"]
    assert [name for name in names if ">>>" not in (getattr(jcs_ct, name).__doc__ or "")] == []


@pytest.mark.parametrize(
    ("given", "spins"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "passive"}, "unset")],
)
def test_programs_wait_as_commands_do(given: dict[str, str], spins: str) -> None:
    """It must be said before PyTorch is loaded: OpenMP looks once."""
    code = (
        "import os, sys, jcs_ct; print('torch' in sys.modules, os.environ.get('GOMP_SPINCOUNT', 'unset'))\n"
        "import jcs_ct.core.processors as s; e = {}; s.spin_briefly(e); print(e)"
    )
    around = {k: v for k, v in os.environ.items() if k not in {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"}}
    done = subprocess.run([sys.executable, "-c", code], env=around | given, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [f"False {spins}", "{'GOMP_SPINCOUNT': '1000'}"]


def test_weights_are_loaded_once_for_many_studies(pictures: list[Image.Image]) -> None:
    from jcs_ct.weights import loading
    from jcs_ct.weights.unpickle import read_tensors

    with patch.object(loading, "read_tensors", wraps=read_tensors) as loads:
        diagnoser = jcs_ct.Diagnoser(device="cpu", runtime="torch")
        for _ in range(5):
            diagnoser(pictures[0])
    assert loads.call_count == 1


def test_progress_counts_every_slice(diagnoser: jcs_ct.Diagnoser, pictures: list[Image.Image]) -> None:
    seen: list[tuple[int, int]] = []
    diagnoser(pictures, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_diagnoser_called_from_its_own_progress_does_not_wait_for_itself(pictures: list[Image.Image]) -> None:
    diagnoser, seen = jcs_ct.Diagnoser(device="cpu", runtime="torch"), []

    def again(done: int, total: int) -> None:
        with pytest.raises(UsageError, match="the Diagnoser: was called from the progress of a study") as caught:
            diagnoser(pictures[0])
        seen.append((done, total, bool(caught.value.hint)))

    diagnoser(pictures[:1], progress=again)
    assert seen == [(1, 1, True)]
    diagnoser(pictures[:1])


def test_what_progress_raises_ends_the_study(diagnoser: jcs_ct.Diagnoser, pictures: list[Image.Image]) -> None:
    def stop(done: int, total: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        diagnoser(pictures, progress=stop)


def test_a_result_is_plain_values(result: CaseResult) -> None:
    values = result.to_dict()
    assert values["verdict"]["score"] == round(result.verdict.score, 6)
    values["verdict"]["score"] = -1
    assert result.report["verdict"]["score"] != -1
    rows = result.table()
    assert [row["index"] for row in rows] == list(range(1, 5))
    assert rows[2]["probability"] == round(result.slices[2].probability or 0.0, 6)
    assert result.attention.shape == result.lesion.shape == (4, 64, 64)
    assert result.attention.max() > 0


def test_a_data_frame_of_slices(result: CaseResult) -> None:
    pytest.importorskip("pandas")
    frame = result.frame()
    assert list(frame.index) == list(range(1, 5))
    assert frame["probability"].max() == max(row["probability"] or 0.0 for row in result.table())


def test_without_pandas_the_table_is_named(result: CaseResult, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(UsageError, match=r"needs pandas.*use table\(\)"):
        result.frame()


def test_a_bar_says_the_time_left_once_a_minute() -> None:
    from jcs_ct.cli.bar import Bar

    def said(*, quiet: bool) -> list[str]:
        lines: list[str] = []
        clock = iter([0.0, 10.0, 61.0, 70.0, 125.0, 130.0])
        with Bar(100, lines.append, quiet=quiet, now=lambda: next(clock)) as bar:
            for done in (5, 20, 25, 50, 100):
                bar.to(done)
        return lines

    assert said(quiet=False) == ["jcs: 20 of 100 slices, 4 min left", "jcs: 50 of 100 slices, 2 min left"]
    assert said(quiet=True) == []
