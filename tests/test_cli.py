"""The commands on slices: what they write, what they say, how they end."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat

from jcs_ct.cli import main
from jcs_ct.core.errors import OutputError, UsageError, unforeseen
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

NAMES = ("jcs-single", "jcs-joint", "jcs-classifier")


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory, filled: Callable[..., Any]) -> Path:
    """A JCS_HOME with three networks, imported from official-looking files; two of the classifier to compare."""
    import torch

    from jcs_ct.weights import import_file

    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JCS_HOME", str(folder))
        for name in NAMES:
            torch.save(filled(name).state_dict(), folder / "official.pth")
            import_file(folder / "official.pth", name=name)
        state = {k: v * 1.01 if k == "fc.weight" else v for k, v in filled("jcs-classifier").state_dict().items()}
        torch.save(state, folder / "official.pth")
        import_file(folder / "official.pth", name="other-classifier")
    return folder


@pytest.fixture
def jcs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`jcs(*arguments)` runs the command in an empty folder: (exit status, standard output, standard error)."""
    monkeypatch.setenv("JCS_HOME", str(home))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return run


@pytest.fixture
def slices(tmp_path: Path, slice_pixels: NDArray[np.uint8]) -> Path:
    """A folder with two slices of 96×80."""
    folder = tmp_path / "slices"
    folder.mkdir()
    Image.fromarray(slice_pixels[:, :, 0]).save(folder / "a 1.png")
    Image.fromarray(255 - slice_pixels).save(folder / "schädel–β.jpg")
    return folder


def pixels_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_segment(
    jcs: Callable[..., Any], slices: Path, tmp_path: Path, slice_pixels: NDArray[np.uint8], home: Path
) -> None:
    status, out, err = jcs(
        "segment", slices, "-o", "maps", "-m", "jcs-single", "--overlay", "--json", "--device", "cpu"
    )
    assert status == 0, err
    report = json.loads(out)
    assert [c["map"] for c in report["cases"]] == ["maps/a 1.png", "maps/schädel–β.png"]
    written = pixels_of(tmp_path / "maps/a 1.png")
    assert written.dtype == np.uint8
    assert written.shape == (96, 80)
    # The same by hand, from the stages: prepare, run, sigmoid, back, floor(255·p).
    import torch
    from scipy.special import expit
    from torch.nn import functional as F

    from jcs_ct import create_model
    from jcs_ct.imaging.recipes import RECIPES, prepare

    values, _ = prepare(slice_pixels, RECIPES["release-segmentation"])
    with torch.inference_mode():
        logits = create_model("jcs-single", "jcs-single")(torch.from_numpy(values)[None])[:, :1]
    p = F.interpolate(torch.from_numpy(expit(logits.numpy())), size=(96, 80), mode="bilinear", antialias=True)
    np.testing.assert_array_equal(written, np.floor(255 * p.numpy()[0, 0].astype(np.float64)).astype(np.uint8))
    assert 0 < written.mean() < 255
    assert {p.name for p in (tmp_path / "maps/overlays").iterdir()} == {"a 1.png", "schädel–β.png"}
    # Nothing is overwritten, and no half-written file stays behind.
    before = (tmp_path / "maps/a 1.png").stat().st_mtime_ns
    status, _, err = jcs("segment", slices, "-o", "maps", "-m", "jcs-single")
    assert (status, (tmp_path / "maps/a 1.png").stat().st_mtime_ns) == (2, before)
    assert "exists already, and 1 more" in err
    assert not list(tmp_path.rglob("*.part"))


def test_classify(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    (slices / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(20))
    status, _, err = jcs("classify", slices, "-o", "t.csv", "-m", "jcs-classifier", "--threshold", "0.1")
    assert status == 1
    assert "2 slices done, 1 failed" in err
    assert err.count("bad.png") == 1
    with (tmp_path / "t.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [list(r) for r in rows] == [["file", "probability", "label", "flags"]] * 2
    assert all(0 <= float(r["probability"]) <= 1 for r in rows)
    assert all(int(r["label"]) == (float(r["probability"]) >= 0.1) for r in rows)
    assert jcs("classify", slices / "bad.png", "-o", "none.csv", "-m", "jcs-classifier")[0] == 2
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("method", ["grad-cam", "layer-cam", "grad-cam-release"])
def test_explain(method: str, jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    status, _, err = jcs("explain", slices / "a 1.png", "-o", "out", "-m", "jcs-classifier", "--method", method)
    assert status == 0, err
    attention = np.load(tmp_path / "out/a 1.npy")
    assert attention.dtype == np.float32
    assert attention.shape == (96, 80)
    assert attention.min() >= 0
    assert attention.max() <= 1
    assert pixels_of(tmp_path / "out/a 1.png").shape[1] >= 80
    outside = attention[:5].any() or attention[-5:].any()
    assert outside == (method != "grad-cam-release")


def test_explain_side_by_side(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    both = ("-m", "jcs-classifier", "-m", "other-classifier")
    status, out, err = jcs("explain", slices / "a 1.png", "-o", "out", *both, "--json", "--colormap", "viridis")
    assert status == 0, err
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "a 1.jcs-classifier.npy",
        "a 1.other-classifier.npy",
        "a 1.png",
    ]
    assert len(json.loads(out)["cases"][0]["probability"]) == 2
    assert jcs("explain", slices, "-o", "o2", "-m", "jcs-classifier", "-m", "jcs-classifier")[0] == 2


def test_explain_a_segmenter(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    status, out, err = jcs("explain", slices / "a 1.png", "-o", "out", "-m", "jcs-single", "--json")
    assert status == 0, err
    case = json.loads(out)["cases"][0]
    attention = np.load(tmp_path / "out/a 1.npy")
    assert attention.any() == (case["degenerate"][0] is None)


def test_an_empty_attention_map_is_said(
    jcs: Callable[..., Any], slices: Path, tmp_path: Path, home: Path, filled: Callable[..., Any]
) -> None:
    """With a last layer of zeros the gradient is zero: no map, and no division by zero."""
    import torch

    from jcs_ct.weights import import_file

    state = {k: v * 0 if k == "fc.weight" else v for k, v in filled("jcs-classifier").state_dict().items()}
    torch.save(state, tmp_path / "zero.pth")
    import_file(tmp_path / "zero.pth", name="zero-head", overwrite=True)
    status, _, err = jcs("explain", slices / "a 1.png", "-o", "out", "-m", "zero-head")
    assert status == 0
    assert "is empty: zero everywhere" in err
    assert not np.load(tmp_path / "out/a 1.npy").any()


def test_features_and_back(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    one = slices / "a 1.png"
    assert jcs("features", one, "-o", "half", "-m", "jcs-joint", "--half")[0] == 0
    half = loadmat(tmp_path / "half/a 1.mat")
    assert half["vgg_feats"].shape == (1, 64, 256, 256)
    assert half["res2net_feats"].shape == (1, 64, 128, 128)
    assert half["vgg_feats"].dtype == np.uint8
    assert jcs("features", one, "-o", "cls", "-m", "jcs-classifier")[0] == 0
    assert loadmat(tmp_path / "cls/a 1.mat")["res2net_feats"].shape == (64, 112, 112)
    # The features go through the networks like the picture, but for their quantisation.
    assert jcs("classify", tmp_path / "cls", "-o", "f.csv", "-m", "jcs-classifier")[0] == 0
    assert jcs("classify", one, "-o", "i.csv", "-m", "jcs-classifier")[0] == 0
    from_features, from_image = ((tmp_path / n).read_text().splitlines()[1].split(",")[1] for n in ("f.csv", "i.csv"))
    assert float(from_features) == pytest.approx(float(from_image), abs=0.05)
    status, _, err = jcs("segment", tmp_path / "half", "-o", "maps", "-m", "jcs-joint", "--overlay")
    assert status == 0
    assert "hold no picture" in err
    assert pixels_of(tmp_path / "maps/a 1.png").shape == (256, 256)
    status, _, err = jcs("segment", tmp_path / "cls", "-o", "m2", "-m", "jcs-joint")
    assert status == 2
    assert "no stage-1 features of vgg" in err
    assert jcs("features", tmp_path / "half", "-o", "again", "-m", "jcs-joint")[0] == 2
    status, _, err = jcs("features", one, "-o", "again", "-m", "jcs-classifier", "--half")
    assert (status, "have one size" in err) == (2, True)
    assert jcs("features", one, "-o", "again", "-m", "jcs-joint", "-m", "jcs-single")[0] == 2


def test_full_size_features(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    status, out, _ = jcs("features", slices / "a 1.png", "-o", "full", "-m", "jcs-joint", "--json")
    assert status == 0
    shapes = json.loads(out)["cases"][0]["shapes"]
    assert shapes == {"vgg": [64, 512, 512], "res2net": [64, 256, 256]}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["segment", "slices", "-o", "x", "-m", "nothing"], "nothing"),
        (["segment", "slices", "-o", "x", "-m", "jcs-classifier"], "gives lesions"),
        (["classify", "slices", "-o", "x.csv", "-m", "jcs-single"], "gives probability"),
        (["explain", "slices", "-o", "x", "-m", "jcs-classifier", "--layer", "layer9"], "no layer is called 'layer9'"),
        (["explain", "slices", "-o", "x", "-m", "jcs-single", "--method", "grad-cam-release"], "explains a classifier"),
        (["explain", "slices", "-o", "x", "-m", "jcs-classifier", "--colormap", "nice"], "nice"),
        (["segment", "slices", "-o", "slices", "-m", "jcs-single"], "no slice to work on"),
        (["segment", "slices/a 1.png", "-o", "slices", "-m", "jcs-single", "--overwrite"], "no slice to work on"),
        (["segment", "slices", "-o", "x", "-m", "unknown"], "no weights are called 'unknown'"),
        (["segment", "slices"], "Missing option"),
        (["segment", "slices", "-o", "x", "--device", "tpu"], "not one of"),
        (["segment", "slices", "-o", "x", "-m", "jcs-single", "--device", "mps"], "not available here"),
        (["paint"], "No such command"),
    ],
)
def test_wrong_arguments_end_with_2(
    arguments: list[str], says: str, jcs: Callable[..., Any], slices: Path, tmp_path: Path
) -> None:
    status, out, err = jcs(*arguments)
    assert (status, out) == (2, "")
    assert says in err
    assert not list((tmp_path / "x").rglob("*")) if (tmp_path / "x").exists() else True


def test_an_unforeseen_fault_is_one_line_and_the_others_go_on(
    jcs: Callable[..., Any], slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jcs_ct.inference import apply

    real = apply.classify

    def faulty(item: Any, network: Any) -> float:
        if item.name.startswith("a"):
            raise RuntimeError("boom\nand more")
        return real(item, network)

    monkeypatch.setattr(apply, "classify", faulty)
    status, _, err = jcs("classify", slices, "-o", "t.csv", "-m", "jcs-classifier")
    assert status == 1
    assert "failed: RuntimeError: boom (unexpected" in err


def test_a_fault_outside_of_a_case_is_one_line(
    jcs: Callable[..., Any], slices: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jcs_ct.inference.open_network", lambda *_a, **_k: 1 / 0)
    status, _, err = jcs("classify", slices, "-o", "t.csv", "-m", "jcs-classifier")
    assert status == 1
    assert "unexpected ZeroDivisionError" in err


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("[enforce fail] not enough memory: you tried to")])
def test_memory_that_ran_out_is_called_so(
    jcs: Callable[..., Any], slices: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_arguments: Any, **_ways: Any) -> None:
        raise error

    monkeypatch.setattr("jcs_ct.inference.open_network", fail)
    status, _, err = jcs("classify", slices, "-o", "t.csv")
    assert status == 2
    assert "jcs: error: memory ran out (end other programs, or raise the limit: ulimit -v" in err
    assert unforeseen(error, "a.png").line().startswith("a.png: memory ran out (end other programs")


def test_weights_that_give_nan_write_nothing(
    jcs: Callable[..., Any], slices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jcs_ct.inference.torch_engine import PlainEngine

    monkeypatch.setattr(PlainEngine, "run", lambda *_: [np.full((1, 2), np.nan, np.float32)])
    status, _, err = jcs("classify", slices, "-o", "t.csv", "-m", "jcs-classifier", "--runtime", "torch")
    assert status == 2
    assert err.count("not finite") == 2
    assert not (tmp_path / "t.csv").exists()


def test_quiet_and_verbose(jcs: Callable[..., Any], slices: Path) -> None:
    assert jcs("classify", slices, "-o", "q.csv", "-m", "jcs-classifier", "--quiet") == (0, "", "")
    _, _, err = jcs("classify", slices, "-o", "v.csv", "-m", "jcs-classifier", "--verbose")
    assert err.count("p = ") == 2


def test_the_output_folder_is_not_read_again(jcs: Callable[..., Any], slices: Path) -> None:
    assert jcs("explain", slices, "-o", slices / "out", "-m", "jcs-classifier")[0] == 0
    status, _, err = jcs("explain", slices, "-o", slices / "out", "-m", "jcs-classifier", "--overwrite")
    assert status == 0
    assert "2 files in the output folder" in err
    assert "2 slices done" in err


def test_an_input_is_never_replaced(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("slices/a 1.png\n")
    (tmp_path / "t.csv").symlink_to(slices / "a 1.png")
    status, _, err = jcs("classify", "list.txt", "-o", "t.csv", "-m", "jcs-classifier", "--overwrite")
    assert status == 2
    assert "a result would replace it" in err


def test_a_list_is_never_replaced(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"{slices}\n", encoding="utf-8")
    status, _, err = jcs("classify", "list.txt", "-m", "jcs-classifier", "-o", "list.txt", "--overwrite")
    assert status == 2
    assert "is an input" in err
    assert (tmp_path / "list.txt").read_text(encoding="utf-8") == f"{slices}\n"


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OutputError, match="device or a pipe"):
        write_whole(tmp_path / "pipe", b"x", overwrite=True)
    assert (tmp_path / "pipe").is_fifo()


def test_two_results_of_one_name_are_refused(jcs: Callable[..., Any], slices: Path) -> None:
    (slices / "overlays").mkdir()
    (slices / "overlays" / "a 1.png").write_bytes((slices / "a 1.png").read_bytes())
    status, _, err = jcs("segment", slices, "-m", "jcs-single", "-o", "out", "--overlay", "--overwrite")
    assert status == 2
    assert "two results would have this name" in err


@pytest.mark.parametrize("command", ["segment", "classify"])
def test_a_threshold_that_is_no_number_is_refused(command: str, jcs: Callable[..., Any], slices: Path) -> None:
    status, _, err = jcs(command, slices, "-m", "jcs-classifier", "-o", "out", "--threshold", "nan")
    assert status == 2
    assert "nan is not a number" in err


def test_a_wrong_layer_ends_at_once(jcs: Callable[..., Any], slices: Path) -> None:
    status, _, err = jcs("explain", slices, "-m", "jcs-classifier", "-o", "out", "--layer", "nope")
    assert status == 2
    assert err.count("no layer is called 'nope'") == 1


def test_png_in_memory_is_what_the_zip_gives(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "s.zip", "w") as archive:
        for path in sorted(slices.iterdir()):
            archive.write(path, f"deep/{path.name}")
    assert jcs("classify", "s.zip", "-o", "z.csv", "-m", "jcs-classifier")[0] == 0
    assert jcs("classify", slices, "-o", "f.csv", "-m", "jcs-classifier")[0] == 0
    zipped, folder = (
        [row[1] for row in csv.reader((tmp_path / n).read_text(encoding="utf-8").splitlines())]
        for n in ("z.csv", "f.csv")
    )
    assert zipped == folder


def test_one_network_segments_and_then_explains(jcs: Callable[..., Any], slice_pixels: NDArray[np.uint8]) -> None:
    """What ran without gradients first must still be able to carry them."""
    from jcs_ct.core.types import SliceImage
    from jcs_ct.inference import apply, open_network

    network = open_network("jcs-classifier", "cpu")
    image = SliceImage("a", "a", slice_pixels)
    assert 0 <= apply.classify(image, network) <= 1
    assert apply.explain(image, network, "grad-cam").map.shape == (96, 80)
    with pytest.raises(UsageError, match="no attention method"):
        apply.explain(image, network, "cam")


SMALL_DEMO = ("demo", "-o", "d", "--slices", "32", "--size", "128")


def test_demo(jcs: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Path] = []

    def show(page: Path) -> bool:
        opened.append(page)
        return True

    monkeypatch.setattr("jcs_ct.cli.demo.show", show)
    status, out, err = jcs(*SMALL_DEMO, "--json", "--open")
    assert status == 0, err
    assert err.count(" ok\n") == 3
    cases = json.loads(out)["cases"]
    assert [c["network"] for c in cases if "network" in c] == list(NAMES)
    # A whole chest of an adult's size: they differ, and only what makes this test quick speaks against the verdicts.
    ill, healthy = (c["verdict"] for c in cases if "verdict" in c)
    assert ill["score"] > 0.5 > 0.2 > healthy["score"], err
    reasons = {reason.partition(":")[0] for reason in (*ill["reasons"], *healthy["reasons"])}
    assert reasons == {"coarse pixels", "thick slices"}
    assert opened == [Path("d/diagnosis/phantom-with-lesions/report.html")]
    assert (tmp_path / "d/diagnosis/phantom-healthy/report.html").is_file()
    assert len(list((tmp_path / "d/phantom-healthy/dicom").glob("*.dcm"))) == 32
    assert (tmp_path / "d/phantom-truth.png").is_file()
    assert jcs(*SMALL_DEMO)[0] == 2


def test_demo_tells_of_networks_that_compute_something_else(
    jcs: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from jcs_ct.inference import golden

    monkeypatch.setattr(golden, "check", lambda: [golden.GoldenResult("jcs-single", 1.0, 1e-5)])
    monkeypatch.setattr("jcs_ct.cli.demo._diagnosed", lambda *_: [Path("a"), Path("b")])
    status, _, err = jcs(*SMALL_DEMO)
    assert status == 1
    assert "self-check failed: jcs-single" in err


def test_a_browser_is_opened_where_somebody_sits_in_front_only(monkeypatch: pytest.MonkeyPatch) -> None:
    from jcs_ct.cli import demo

    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    for name in ("CI", "SSH_CONNECTION", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DISPLAY", ":0")
    assert demo.has_desktop()
    monkeypatch.setenv("SSH_CONNECTION", "somewhere")
    assert not demo.has_desktop()
    monkeypatch.delenv("SSH_CONNECTION")
    monkeypatch.delenv("DISPLAY")
    assert not demo.has_desktop()


def test_two_backbones_make_one_feature_file(
    jcs: Callable[..., Any], slices: Path, tmp_path: Path, filled: Callable[..., Any]
) -> None:
    """ImageNet backbones come in two files; together they make what a joint network's file holds."""
    import torch

    from jcs_ct.weights import import_file

    state = filled("jcs-joint").state_dict()
    for prefix, name in (("vgg16.", "imagenet-vgg"), ("res2net.", "imagenet-res2net")):
        part = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        torch.save(part, tmp_path / f"{name}.pth")
        import_file(tmp_path / f"{name}.pth", name=name, bn_eps=0.0, overwrite=True)
    both = ("-m", "imagenet-res2net", "-m", "imagenet-vgg")
    one = slices / "a 1.png"
    assert jcs("features", one, "-o", "two", *both, "--half")[0] == 0
    assert jcs("features", one, "-o", "joint", "-m", "jcs-joint", "--half")[0] == 0
    two, joint = loadmat(tmp_path / "two/a 1.mat"), loadmat(tmp_path / "joint/a 1.mat")
    for name in ("vgg_feats", "res2net_feats"):
        np.testing.assert_array_equal(two[name], joint[name])


def test_a_dash_is_no_output(jcs: Callable[..., Any], slices: Path, tmp_path: Path) -> None:
    status, _, err = jcs("classify", slices, "-o", "-", "-m", "jcs-classifier")
    assert status == 2
    assert "standard output, which is not supported" in err
    assert not (tmp_path / "-").exists()


def test_an_early_error_is_json_too(jcs: Callable[..., Any], slices: Path) -> None:
    status, out, err = jcs("segment", slices, "-o", "x", "-m", "nothing-of-this-name", "--json")
    found = json.loads(out)["error"]
    assert status == found["exit_status"] == 2
    assert "nothing-of-this-name" in found["message"]
    assert found["message"] in err


def test_an_empty_layer_is_not_the_default(jcs: Callable[..., Any], slices: Path) -> None:
    status, _, err = jcs("explain", slices, "-m", "jcs-classifier", "-o", "out", "--layer", "")
    assert status == 2
    assert "the name of the layer is empty" in err
