"""`jcs bench`: what is measured, how it is told, and that a runtime which computes something else is an error."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from click.testing import CliRunner

from jcs_ct.bench import networks as speed
from jcs_ct.bench import report as speed_report
from jcs_ct.bench import worker as speed_child
from jcs_ct.bench.networks import Row
from jcs_ct.cli.bench import bench
from jcs_ct.core.errors import UsageError
from jcs_ct.inference import self_check_network
from jcs_ct.inference.parity import Parity
from jcs_ct.models import model_spec

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("text", "size"),
    [("512", (1, 512, 512)), ("256x320", (1, 256, 320)), ("16x224x224", (16, 224, 224)), ("2×64×80", (2, 64, 80))],
)
def test_sizes(text: str, size: tuple[int, int, int]) -> None:
    assert speed_report.parse_size(text) == size


@pytest.mark.parametrize(
    ("network", "size"),
    [
        ("jcs-joint", (1, 512, 512)), ("jcs-classifier", (16, 224, 224)), ("jcs-lite", (1, 256, 320)),
        ("my-weights", (1, 512, 512)),
    ],
)  # fmt: skip
def test_the_usual_size_is_that_of_the_recipe(network: str, size: tuple[int, int, int]) -> None:
    assert speed_report.default_size(network) == size


@pytest.mark.parametrize("text", ["", "x", "0", "1x2x3x4", "-5", "512x", "64x0"])
def test_wrong_sizes(text: str) -> None:
    with pytest.raises(UsageError, match="is not a size"):
        speed_report.parse_size(text)


def test_inputs_come_from_slices() -> None:
    pictures = speed_report.pictures(None, 3)
    assert [picture.shape for picture in pictures] == [(256, 256, 3)] * 3
    assert not np.array_equal(pictures[0], pictures[2])
    (batch,) = speed_report.inputs(pictures, "release-classification", (2, 64, 64))
    assert batch[0].shape == (2, 3, 64, 64)
    lite = speed_report.inputs(pictures, "lung-field", (1, 64, 80))
    assert [given[0].shape for given in lite] == [(1, 1, 64, 80)] * 3
    with pytest.raises(UsageError, match="makes 64×80 of a slice"):
        speed_report.inputs(pictures, "lung-field", (1, 64, 64))


def test_multiplications_are_counted() -> None:
    """Of a 3×3 convolution 64×64 → 64 at 16×16, and of the whole single network as published: 243 G at 512×512."""
    counted = speed_child.multiply_adds("jcs-single", [np.zeros((1, 3, 32, 32), np.float32)])
    per_pixel = 243.018e9 / 512**2
    assert counted == pytest.approx(per_pixel * 32**2, rel=0.01)


def test_flat_maps_are_spread() -> None:
    network = self_check_network("jcs-lite", "cpu")
    arrays = speed_report.inputs(speed_report.pictures(None, 1), "lung-field", (1, 64, 80))
    heads = speed_child.level_heads(network, arrays)
    before = network.one_pass(arrays[0][0][0]).lesion
    assert abs(before.std() - 2) > 0.1
    task = speed_child.Task("jcs-lite", "torch", 1, heads=heads)
    after = speed_child.build(task).one_pass(arrays[0][0][0]).lesion
    assert after.std() == pytest.approx(2, rel=0.01)
    assert after.mean() == pytest.approx(0, abs=0.01)
    gain, shift = heads["lesion.heads.0"]
    assert np.allclose(before * gain + shift, after, atol=1e-3)
    classifier: Any = SimpleNamespace(spec=model_spec("jcs-classifier"))
    assert speed_child.level_heads(classifier, arrays) == {}


def row(**values: Any) -> Row:
    usual: dict[str, Any] = {"seconds": (1.0, 1.1, 1.2), "ratio": 2.5, "parity": Parity(1e-4)}
    return Row("jcs-lite", "openvino", "1×64×80", **usual | values)


def test_rows_say_what_to_think_of_them() -> None:
    assert row().median == 1.1
    assert row().steady
    assert not row(seconds=(1.0, 2.0)).steady
    table = speed_report.to_markdown([row(), row(parity=Parity(0.3)), Row("a", "b", "c", problem="gone")], 1e11, "x")
    lines = table.splitlines()
    assert "1.1000 (1.0000–1.2000) | 2.50 | 1.0e-04 |" in lines[4]
    assert "**failed**" in lines[5]
    assert "| a | c | b | gone |" in lines[6]
    assert len({line.count("|") for line in lines[2:]}) == 1
    values = speed_report.to_json([row()], 1e11, "x")
    assert values["rows"][0]["parity"]["ok"]
    assert json.loads(json.dumps(values))["matrix_gflops"] == 100


def test_every_runtime_in_turn(tmp_path: Path) -> None:
    arguments = [
        "--networks",
        "jcs-lite",
        "--sizes",
        "64x80",
        "--runtimes",
        "torch-tuned,onnxruntime,native",
        "--repeats",
        "2",
    ]
    done = CliRunner().invoke(bench, [*arguments, "--slices", "1", "-o", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "bench.json").read_text())
    assert json.loads(done.stdout) == found
    assert [r["runtime"] for r in found["rows"]] == ["torch", "torch-tuned", "onnxruntime"]
    for r in found["rows"]:
        assert len(r["seconds"]) == 2
        assert min(r["seconds"]) > 0
        assert 50e6 < r["peak"] < 4e9
        assert r["runtime"] == "torch" or r["parity"]["ok"]
    assert found["rows"][2]["parity"]["differences"]["spread"] == pytest.approx(2, rel=0.2)
    assert "| jcs-lite | 1×64×80 | onnxruntime |" in (tmp_path / "bench.md").read_text()
    again = CliRunner().invoke(bench, [*arguments, "-o", str(tmp_path)])
    assert isinstance(again.exception, UsageError)


def test_a_runtime_that_computes_something_else_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "measure", lambda *_: [row(parity=Parity(0.3, 0.9))])
    monkeypatch.setattr(speed_child, "matrix_speed", lambda _: 1e11)
    done = CliRunner().invoke(bench, ["--networks", "jcs-lite", "--slices", "1"])
    assert done.exit_code == 2
    assert "openvino does not compute what jcs-lite computes" in done.stderr
    assert "**failed**" in done.stdout


def test_unknown_names() -> None:
    done = CliRunner().invoke(bench, ["--runtimes", "tensorrt"])
    assert isinstance(done.exception, UsageError)
    assert "known: torch, torch-tuned" in done.exception.line()
