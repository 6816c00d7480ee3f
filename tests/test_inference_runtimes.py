"""Runtimes compute what the network computes, say which one is taken, and never fall back in silence."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn

from jcs_ct.core.errors import UsageError
from jcs_ct.inference import Network, choice, onnx_engine, records, runtimes, torch_engine
from jcs_ct.inference.fused import FusedNetwork, fused
from jcs_ct.inference.golden import self_check_card
from jcs_ct.inference.native import build
from jcs_ct.inference.parity import Parity, check_arrays, compare
from jcs_ct.inference.runtimes import RUNTIMES, RuntimeFailedError, file_engine, module_engine
from jcs_ct.models import MODELS, build_model, model_spec
from jcs_ct.weights.store import home
from runtime_help import TINY, Wrong, expected, far, lite, many, noise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jcs_ct.inference.runtimes import Runtime

NETWORKS = ("jcs-single", "jcs-joint", "jcs-classifier", "jcs-lite")
CONVERTED = [
    (name, runtime.name)
    for name in ("jcs-lite", "jcs-joint", "jcs-classifier")
    for runtime in RUNTIMES.values()
    if runtime.suffix
]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def converted(
    filled: Callable[..., nn.Module], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Runtime], Path]:
    """Networks as the files that runtimes open; two runtimes that are written for alike share them."""
    made: dict[tuple[str, object], Path] = {}

    def get(name: str, runtime: Runtime) -> Path:
        convert = runtime.module.convert
        if (name, convert) not in made:
            file = tmp_path_factory.mktemp("converted") / f"network{runtime.suffix}"
            convert(filled(name), [torch.from_numpy(noise(MODELS[name].channels, 1, 96, 128))], file)
            made[name, convert] = file
        return made[name, convert]

    return get


@pytest.mark.parametrize("name", NETWORKS)
def test_fusing_changes_no_result_and_not_the_network(name: str, filled: Callable[..., nn.Module]) -> None:
    network = filled(name)
    before = {key: tensor.clone() for key, tensor in network.state_dict().items()}
    array = noise(1 if name == "jcs-lite" else 3, 2, 50, 70)
    plain = expected(network, array)
    tuned = module_engine(RUNTIMES["torch-tuned"], network, "cpu")
    assert far(plain, tuned.run([array])) < 2e-5
    published = module_engine(RUNTIMES["torch"], network, "cpu").run([array])
    assert np.array_equal(plain[0], published[0])
    assert far(plain, published) < (2e-6 if name == "jcs-classifier" else 1e-30), "its evidence is computed twice here"
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert all(p.is_contiguous() for p in network.parameters()), "the plain network keeps its memory format"


def test_features_fuse_as_well(filled: Callable[..., nn.Module]) -> None:
    network = filled("jcs-single", "features")
    array = np.abs(noise(64, 1, 40, 48))
    assert far(expected(network, array), module_engine(RUNTIMES["torch-tuned"], network, "cpu").run([array])) < 2e-5


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's")
def test_kept_memory_is_not_mapped_again() -> None:
    code = (
        "import resource, torch\nfrom jcs_ct.inference.torch_engine import never_return_blocks\n"
        "def faults():\n"
        "    for _ in range(2): torch.ones(12_000_000)\n"
        "    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "    torch.ones(12_000_000)\n"
        "    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before\n"
        "print(faults(), never_return_blocks(), faults())"
    )
    found = []
    for _ in range(3):  # one process in some thirty has its pages mapped afresh all the same, on a busy machine
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        fresh, kept, after = done.stdout.split()
        if kept == "False":
            pytest.skip("not glibc")
        found.append(int(after) / int(fresh))
        if found[-1] < 0.1:
            break
    assert min(found) < 0.1


def test_what_cannot_be_fused_is_named() -> None:
    with pytest.raises(UsageError, match="--runtime torch only"):
        FusedNetwork(build_model("vgg16-bn"))
    alone = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    with pytest.raises(UsageError, match="batch norm 1 is in a block that cannot be fused"):
        fused(alone)


@pytest.mark.parametrize(("name", "runtime"), CONVERTED)
def test_converted_networks_agree_at_other_sizes(
    runtime: str,
    name: str,
    filled: Callable[..., nn.Module],
    converted: Callable[[str, Runtime], Path],
    capfd: pytest.CaptureFixture[str],
) -> None:
    """The joint network has everything that went wrong once: average pooling, split groups, odd sizes."""
    table, network, channels = RUNTIMES[runtime], filled(name), MODELS[name].channels
    engine = file_engine(table, converted(name, table), 1)
    for shape in ((1, 64, 80), (2, 35, 53)):
        array = noise(channels, *shape)
        plain, found = expected(network, array), engine.run([array])
        assert far(plain, found) < 2e-3
        again = engine.run([noise(channels, 1, 64, 80)])
        assert far(plain, found) < 2e-3, "a result is a copy, the next run does not write into it"
        assert again[0].dtype == np.float32
    assert capfd.readouterr().out == "", "standard output belongs to results"


def test_nothing_is_reported_to_vendors(tmp_path: Path) -> None:
    code = (
        "import sys, torch\nfrom pathlib import Path\nfrom jcs_ct.inference.golden import filled_model\n"
        "from jcs_ct.inference.runtimes import RUNTIMES, file_engine\n"
        "r = RUNTIMES['openvino']; file = Path(sys.argv[1]) / ('n' + r.suffix)\n"
        "r.module.convert(filled_model('jcs-lite'), [torch.rand(1, 1, 64, 80)], file); file_engine(r, file, 1)\n"
        "print(sorted(m for m in sys.modules if m.startswith('openvino_telemetry.')))"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_runtime_is_checked_once_and_its_file_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    array = noise(1, 1, *TINY)[0]
    first = lite("onnxruntime", said).one_pass(array)
    assert len(said) == 1
    assert "once on this machine" in said[0]
    monkeypatch.setattr(onnx_engine, "convert", lambda *_: pytest.fail("converted again"))
    again = lite("onnxruntime").one_pass(array)
    assert np.array_equal(first.lesion, again.lesion)
    plain = lite("torch").one_pass(array)
    assert np.abs(plain.lesion - first.lesion).max() < 1e-4
    assert first.logit == pytest.approx(plain.logit, abs=1e-4)


def test_auto_takes_the_fastest_that_passed_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    assert lite("auto", said).start().name == "torch-tuned", "nothing is converted for a small network unasked"
    assert "runtime torch-tuned for jcs-lite" in said[-1]

    def took(runtime: str, seconds: float) -> None:
        lite(runtime).start()
        (where,) = (home() / "runtimes").glob(f"*-{runtime}")
        record = records.read(where)
        assert record is not None
        records.write(where, replace(record, seconds=seconds, plain_seconds=1.0))

    took("onnxruntime", 0.5)
    took("openvino", 0.25)
    network = lite("auto", said)
    assert network.start().name == "torch-tuned", "opening a converted file does not pay for one slice"
    assert many(lite("auto", said)).start().name == "openvino", "it was the faster in its check"
    took("openvino", 1.5)
    assert many(lite("auto", said)).start().name == "onnxruntime"
    assert any("openvino is left out: it is not faster than torch here" in line for line in said)
    monkeypatch.setattr(records, "machine", lambda _device: "another processor")
    assert many(lite("auto", said)).start().name == "torch-tuned", "what passed elsewhere says nothing here"


def test_auto_converts_when_enough_is_to_come(monkeypatch: pytest.MonkeyPatch) -> None:
    for costs in (choice.COSTS["openvino"], choice.COSTS["onnxruntime"]):
        monkeypatch.setitem(costs, "light", choice.Cost(20, 200))
    said: list[str] = []
    assert many(lite("auto", said), 199).start().name == "torch-tuned"
    chosen = many(lite("auto", said), 200).start()
    assert "converted for openvino and checked, once on this machine" in said[1]
    assert chosen.name in ("openvino", "onnxruntime", "torch-tuned"), (
        "on a slow day its check may say that it does not pay"
    )


def test_what_is_expected_decides_anew_and_no_choice_is_made_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def chosen(workload: Any, runtime: str, slices: int, say: Any) -> choice.Choice:
        asked.append(slices)
        return choice.Choice(f"for {slices}", engine=None, text="")  # type: ignore[arg-type]

    monkeypatch.setattr("jcs_ct.inference.network.choose", chosen)
    monkeypatch.setattr(choice, "COSTS", {"openvino": {"light": choice.Cost(20, 150)}})
    network, names = lite("auto", []), []
    for slices in (1, 19, 20, 149, 12, 400, 30, 150):
        network.expect(slices)
        names.append(network.start().name)
    assert names == ["for 1", "for 1", "for 20", "for 20", "for 1", "for 400", "for 20", "for 400"]
    assert asked == [1, 20, 400]
    network = lite("torch", [])
    network.expect(1)
    first = network.start()
    network.expect(400)
    assert network.start() is first, "what was asked for stays"


def test_a_runtime_that_is_wrong_is_an_error_when_named_and_left_out_by_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx_engine, "engine", Wrong)
    with pytest.raises(
        RuntimeFailedError, match=r"onnxruntime did not pass its check for jcs-lite.*differ by"
    ) as failed:
        lite("onnxruntime").start()
    assert failed.value.exit_status == 2
    with pytest.raises(RuntimeFailedError, match="did not pass"):
        lite("onnxruntime").start()  # from the record, without another conversion
    record = records.read(next((home() / "runtimes").iterdir()))
    assert record is not None
    assert not record.ok
    assert not record.file
    said: list[str] = []
    assert many(lite("auto", said)).start().name == "torch-tuned"
    assert any("onnxruntime is left out, it did not pass its check" in line for line in said)


def test_auto_falls_back_on_the_plain_network_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_engine, "TunedEngine", Wrong)
    said: list[str] = []
    assert lite("auto", said).start().name == "torch"
    assert "torch-tuned is left out, it did not pass its check" in said[-2]
    assert "no other runtime passed its check" in said[-1]


def test_an_edited_file_is_named() -> None:
    lite("onnxruntime").start()
    (file,) = (home() / "runtimes").glob("*/network-*.onnx")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    for runtime in ("onnxruntime", "auto"):
        with pytest.raises(RuntimeFailedError, match=r"network-.*\.onnx: was changed since it was checked") as failed:
            many(lite(runtime)).start()
        assert "remove the folder" in failed.value.line()
    file.unlink()
    with pytest.raises(RuntimeFailedError, match="is gone"):
        lite("onnxruntime").start()


@pytest.mark.parametrize("runtime", [name for name in RUNTIMES if RUNTIMES[name].extra])
def test_a_missing_runtime_names_the_command(runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "find_spec", lambda name: None if name != "onnx" else True)
    monkeypatch.setattr(build, "find_spec", lambda _name: None)
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    extra = RUNTIMES[runtime].extra
    with pytest.raises(UsageError, match=rf'not installed \(pip install .*\[{extra}\]"'):
        lite(runtime).start()
    said: list[str] = []
    assert lite("auto", said).start().name == "torch-tuned"


def test_wrong_runtimes_are_refused() -> None:
    for name in ("tensorrt", "ncnn"):
        with pytest.raises(UsageError, match=rf"no runtime is called '{name}' .*onnxruntime"):
            lite(name).start()
    with pytest.raises(UsageError, match="native does not run jcs-lite"):
        lite("native").start()
    network = lite("openvino")
    network.device = torch.device("cuda")
    with pytest.raises(UsageError, match="openvino does not run on cuda"):
        network.start()
    from jcs_ct.cli.common import RUNTIMES as OFFERED

    assert OFFERED == runtimes.CHOICES


def test_the_plain_network_stays_for_attention() -> None:
    network = lite("torch-tuned")
    array = noise(1, 1, *TINY)[0]
    assert network.runtime == "torch", "nothing ran yet, and nothing is started to say so"
    found = network.one_pass(array)
    assert network.runtime == "torch-tuned"
    with torch.inference_mode():
        out: Any = network.module()(*network.tensors([array]))
    assert np.abs(out.maps[0, 0].numpy() - found.lesion).max() < 1e-4
    together = network.passes([array, array[:, ::-1]])
    assert np.abs(together[0].lesion - found.lesion).max() < 1e-4
    assert not np.allclose(together[1].lesion, found.lesion)


def test_a_home_that_cannot_be_written_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("JCS_HOME", str(tmp_path / "file"))
    said: list[str] = []
    assert lite("auto", said).start().name == "torch-tuned"
    assert "its outcome cannot be kept" in said[0]
    with pytest.raises(RuntimeFailedError, match=r"NotADirectoryError|FileExistsError"):
        lite("onnxruntime").start()


def test_records_that_cannot_be_read_count_as_none(tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text("{")
    assert records.read(tmp_path) is None
    (tmp_path / "record.json").write_text(json.dumps({"schema": "another"}))
    assert records.read(tmp_path) is None


def test_parity_counts_what_it_says() -> None:
    lesion = np.zeros((1, 1, 10, 10), np.float32)
    lesion[..., :5] = 2
    off = lesion.copy()
    off[0, 0, 0, 9] = 1  # one of a hundred pixels becomes lesion
    parity = compare(("lesion",), [lesion], [off], 0.6)
    assert parity.pixels == pytest.approx(0.99)
    assert parity.probability == pytest.approx(1 / (1 + np.exp(-1)) - 0.5)
    assert not parity.ok
    logits = np.array([[1.0, 4.0]], np.float32)
    assert compare(("logits",), [logits], [logits + np.float32(0.002)]).logits == pytest.approx(0.0005, rel=1e-3)
    assert not compare(("logits",), [logits], [logits * np.float32(1.01)]).ok
    assert not compare(("logits",), [logits], [np.full_like(logits, np.nan)]).ok, "NaN is within no limit"
    assert not compare(("lesion",), [lesion], [lesion[:, :, :5]]).ok, "another shape"
    same = compare(("lesion",), [lesion], [lesion])
    assert same.ok
    assert same.worst(parity) == Parity(parity.probability, parity.pixels, None, None, same.spread)


@pytest.mark.parametrize("name", NETWORKS)
def test_check_inputs_look_like_inputs(name: str) -> None:

    spec = model_spec(name)
    (image,) = check_arrays(spec, (48, 60), batch=2)
    assert image.shape == (2, spec.channels, 48, 60)
    assert image.std() > 0.2
    assert not np.array_equal(image[0], image[1])
    if spec.feature_arrays:
        features = check_arrays(spec, (49, 60), "features")
        assert [f.shape for f in features] == [
            (1, 64, 49, 60) if which == "vgg" else (1, 64, 25, 30) for which in spec.feature_arrays
        ]


@pytest.mark.parametrize("method", ["grad-cam", "grad-cam-release"])
def test_grad_cam_of_a_classifier_comes_with_its_pass(method: str, filled: Callable[..., nn.Module]) -> None:
    """What a runtime without gradients gives is what gradients give, on the slice's grid."""
    from jcs_ct.core.types import SliceImage
    from jcs_ct.inference import apply

    pixels = np.random.default_rng(5).integers(0, 256, (90, 110, 3), np.uint8)
    image = SliceImage("slice", "slice", pixels)
    found = []
    for runtime in ("torch", "torch-tuned"):
        card = replace(self_check_card("jcs-classifier"), recipe="release-classification@64", threshold=0.5)
        network = Network(filled("jcs-classifier").state_dict(), card, torch.device("cpu"), runtime)
        found.append(apply.explain(image, network, method))
        assert network.runtime == runtime
    by_gradient, by_pass = found
    assert by_gradient.map.max() > 0.9
    assert np.abs(by_gradient.map - by_pass.map).max() < 1e-4
    assert by_pass.probability == pytest.approx(by_gradient.probability, abs=1e-6)
    assert (by_pass.layer, by_pass.degenerate) == (by_gradient.layer, by_gradient.degenerate)
    deeper = apply.explain(image, network, "layer-cam")
    assert np.abs(deeper.map - by_pass.map).max() > 1e-3, "other methods still use gradients"
