"""Exported networks: right in the program that reads them, with a manifest that guards them."""

from __future__ import annotations

import json
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from jcs_ct.core.errors import JcsError, OutputError, UsageError, WeightsError
from jcs_ct.inference import Network, open_network, self_check_network
from jcs_ct.inference import export as exporting
from jcs_ct.inference.export import export
from jcs_ct.inference.exported import FORMATS
from jcs_ct.inference.fused import FusedNetwork
from jcs_ct.inference.golden import self_check_card
from jcs_ct.inference.manifest import read_manifest
from runtime_help import TINY, expected, far, noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

SHAPES = ((1, 64, 80), (2, 51, 67))
NAMES = {"onnx": "net.onnx", "openvino": "net.xml", "torchscript": "net.ts", "monai-bundle": "bundle"}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`jcs-lite` in every format."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in FORMATS:
        export(self_check_network("jcs-lite", "cpu"), kind, folder / NAMES[kind], shapes=SHAPES)
    return folder


def copied(made: Path, tmp_path: Path, kind: str) -> Path:
    for path in made.glob("net.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path / NAMES[kind]


def test_onnx_runs_at_other_sizes(made: Path, filled: Callable[..., nn.Module]) -> None:
    import onnxruntime

    session: Any = onnxruntime.InferenceSession(str(made / "net.onnx"), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert given.shape == ["batch", 1, "height", "width"]
    assert [out.name for out in session.get_outputs()] == ["logit", "evidence", "lesion"]
    for shape in ((3, 64, 80), (1, 45, 99)):
        array = noise(1, *shape)
        assert far(expected(filled("jcs-lite"), array), session.run(None, {"image": array})) < 1e-4


def test_torchscript_and_bundle_run_without_this_package(made: Path, filled: Callable[..., nn.Module]) -> None:
    array = noise(1, 2, 45, 99)
    plain = expected(filled("jcs-lite"), array)
    for path, outputs in ((made / "net.ts", plain), (made / "bundle/models/model.ts", plain[2:])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            script: Any = torch.jit.load(str(path))
            with torch.inference_mode():
                found = script(torch.from_numpy(array))
        found = found if isinstance(found, tuple) else (found,)
        assert far(outputs, [t.numpy() for t in found]) < 1e-4


def test_monai_verifies_the_bundle(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle: Any = pytest.importorskip("monai.bundle")
    configs = made / "bundle/configs"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        bundle.verify_net_in_out(
            net_id="network_def",
            meta_file=str(configs / "metadata.json"),
            config_file=str(configs / "inference.json"),
            bundle_root=str(made / "bundle"),
            device="cpu",
        )
        parser: Any = bundle.ConfigParser.load_config_file(str(configs / "inference.json"))
    metadata = json.loads((configs / "metadata.json").read_text())
    assert metadata["network_data_format"]["inputs"]["image"]["num_channels"] == 1
    assert parser["evaluator"]["_target_"] == "SupervisedEvaluator"
    assert "not be used to diagnose" in metadata["intended_use"]


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torchscript"])
def test_an_export_comes_back_as_a_model(kind: str, made: Path) -> None:
    network = open_network(str(made / NAMES[kind]))
    array = noise(1, 1, *TINY)[0]
    found, plain = network.one_pass(array), self_check_network("jcs-lite", "cpu").one_pass(array)
    assert np.abs(found.lesion - plain.lesion).max() < 1e-3
    assert found.logit == pytest.approx(plain.logit, abs=1e-3)
    with pytest.raises(UsageError, match="exported file, which gives results for pictures only"):
        network.module()
    with pytest.raises(UsageError, match=r"--runtime and --device"):
        open_network(str(made / NAMES[kind]), runtime="torch-tuned")


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torchscript"])
def test_an_edited_export_is_named(kind: str, made: Path, tmp_path: Path) -> None:
    path = copied(made, tmp_path, kind)
    edited = path.with_suffix(".bin") if kind == "openvino" else path
    data = bytearray(edited.read_bytes())
    data[len(data) // 2] ^= 1
    edited.write_bytes(data)
    with pytest.raises(WeightsError, match=rf"{edited.name}: was changed since it was exported") as found:
        open_network(str(path))
    assert found.value.exit_status == 2
    edited.unlink()
    with pytest.raises(WeightsError, match=r"no such file|is missing from"):
        open_network(str(path))


def test_manifests_are_needed_and_read_with_care(made: Path, tmp_path: Path) -> None:
    path = copied(made, tmp_path, "onnx")
    manifest = path.with_name("net.onnx.json")
    text = manifest.read_text()
    values = json.loads(text)
    for content, message in (
        ("{", "not valid JSON"),
        ("[]", "is not the manifest"),
        (json.dumps(values | {"schema": "other/1"}), "is not the manifest"),
        (json.dumps({k: v for k, v in values.items() if k != "parity"}), "lacks 'parity'"),
        (json.dumps(values | {"files": {"../weights": "0"}}), "not beside it"),
        (json.dumps(values | {"files": {"other.onnx": "0"}}), "is the manifest of other.onnx"),
    ):
        manifest.write_text(content)
        with pytest.raises(WeightsError, match=message):
            open_network(str(path))
    manifest.unlink()
    with pytest.raises(WeightsError, match="needs the manifest beside it"):
        open_network(str(path))
    manifest.write_text(text)
    found = read_manifest(manifest)
    assert [check["ok"] for check in found.parity] == [True, True]
    assert found.parity[0]["checked_with"] == "onnxruntime"
    assert found.inputs[0]["shape"] == ["batch", 1, "height", "width"]


def test_what_is_there_is_kept(made: Path, tmp_path: Path) -> None:
    network = self_check_network("jcs-lite", "cpu")
    path = copied(made, tmp_path, "torchscript")
    before = path.stat().st_mtime_ns
    with pytest.raises(OutputError, match="exists already"):
        export(network, "torchscript", path)
    assert path.stat().st_mtime_ns == before
    (tmp_path / "work").mkdir()
    (tmp_path / "work/thesis.tex").write_text("years")
    with pytest.raises(OutputError, match=r"is not a bundle of jcs-ct"):
        export(network, "monai-bundle", tmp_path / "work", overwrite=True)
    assert (tmp_path / "work/thesis.tex").exists()
    with pytest.raises(UsageError, match=r"ends in \.onnx"):
        export(network, "onnx", tmp_path / "net.bin")
    with pytest.raises(UsageError, match="known: onnx"):
        export(network, "keras")
    with pytest.raises(UsageError, match="is a backbone"):
        export(Network(None, self_check_card("vgg16-bn"), torch.device("cpu")), "onnx")


def test_a_wrong_export_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Other(FusedNetwork):
        def forward(self, *inputs: Any) -> Any:
            logit, evidence, lesion = super().forward(*inputs)
            return logit, evidence, lesion + 1.5

    monkeypatch.setattr(exporting, "FusedNetwork", Other)
    with pytest.raises(JcsError, match=r"does not compute what the network computes .*nothing was written") as failed:
        export(self_check_network("jcs-lite", "cpu"), "torchscript", tmp_path / "net.ts", shapes=SHAPES[:1])
    assert failed.value.exit_status == 2
    assert not list(tmp_path.iterdir())


def test_the_command(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from jcs_ct.cli.models import FORMATS as OFFERED
    from jcs_ct.cli.models import models

    assert tuple(FORMATS) == OFFERED
    monkeypatch.setattr("jcs_ct.inference.open_network", lambda *_, **__: self_check_network("jcs-lite", "cpu"))
    monkeypatch.setattr(exporting, "check_shape", lambda _: TINY)
    out = tmp_path / "lite.ts"
    done = CliRunner().invoke(models, ["export", "any", "--format", "torchscript", "-o", str(out), "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["files"].keys() == {"lite.ts"}
    assert "lite.ts.json" in done.stderr
    assert "checked with torchscript at 1×64×80" in done.stderr
