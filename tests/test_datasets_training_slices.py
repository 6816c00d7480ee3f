"""Slices that a network was trained on are known again; others are not."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from jcs_ct.cli import main
from jcs_ct.core.errors import InputError
from jcs_ct.datasets.fingerprint import digest, fingerprint, turned
from jcs_ct.datasets.samples import Sample
from jcs_ct.datasets.training_slices import (
    BITS,
    FARTHEST,
    TrainingSlices,
    coarse_hashes,
    read_training_slices,
    training_hashes,
)
from jcs_ct.evaluate.inputs import Case
from jcs_ct.evaluate.slice_reader import SliceReader
from jcs_ct.io.features import write_features
from jcs_ct.phantom import lung_window, make_phantom, write_dicom
from jcs_ct.weights.store import find_hashes, hashes_path, remove, shipped

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray


def rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def blobs(seed: int, size: int = 160) -> NDArray[np.uint8]:
    """A smooth random picture, unlike one of another seed."""
    random = np.random.default_rng(seed).normal(size=(12, 12)).astype(np.float32)
    picture = np.asarray(Image.fromarray(random).resize((size, size), Image.Resampling.BICUBIC))
    result: NDArray[np.uint8] = (128 + 120 * picture / np.abs(picture).max()).clip(0, 255).astype(np.uint8)
    return result


def find(learned: TrainingSlices, grey: NDArray[np.uint8]) -> str | None:
    return learned.find(digest(rgb(grey)), fingerprint(rgb(grey)))


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, TrainingSlices]:
    """Twelve pictures, and their hashes."""
    samples = []
    for seed in range(12):
        path = tmp_path / f"trained/{seed}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(blobs(seed)).save(path)
        samples.append(Sample(image=path, label=1))
    return tmp_path / "trained", training_hashes([*samples, samples[0]])


def test_the_same_pixels_are_known_under_any_name(trained: tuple[Path, TrainingSlices]) -> None:
    learned = trained[1]
    assert len(learned) == 12
    assert [find(learned, blobs(seed)) for seed in range(12)] == ["same"] * 12
    assert [find(learned, blobs(seed)) for seed in range(12, 60)] == [None] * 48
    assert find(learned, np.full((64, 64), 9, np.uint8)) is None


def changed(grey: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    picture, rows = Image.fromarray(grey), grey.shape[0]
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", quality=60)
    one_pixel = grey.copy()
    one_pixel[3, 5] ^= 1
    return {
        "JPEG": np.asarray(Image.open(jpeg)),
        "smaller": np.asarray(picture.resize((rows // 2, rows // 2), Image.Resampling.BILINEAR)),
        "larger": np.asarray(picture.resize((2 * rows, 2 * rows), Image.Resampling.BICUBIC)),
        "brighter": (grey * 0.8 + 25).astype(np.uint8),
        "one pixel": one_pixel,
        "turned": np.rot90(grey),
        "upside down": grey[::-1],
        "mirrored": grey[:, ::-1],
        "transposed": grey.T,
    }


@pytest.mark.parametrize("way", list(changed(blobs(0))))
def test_changed_slices_are_similar(trained: tuple[Path, TrainingSlices], way: str) -> None:
    found = [find(trained[1], np.ascontiguousarray(changed(blobs(seed))[way])) for seed in range(12)]
    assert found == ["similar"] * 12
    others = [find(trained[1], np.ascontiguousarray(changed(blobs(seed))[way])) for seed in range(12, 24)]
    assert others == [None] * 12


def test_turned_fingerprints_are_those_of_turned_pictures() -> None:
    """Of a picture whose side is a multiple of 64, every cell of the reduction is the same whichever way it lies."""
    grey = blobs(3, 192)
    ways = [
        np.ascontiguousarray(one[::down, ::across]) for one in (grey, grey.T) for down in (1, -1) for across in (1, -1)
    ]
    for found, picture in zip(turned(fingerprint(rgb(grey))), ways, strict=True):
        assert np.abs(found.astype(int) - fingerprint(rgb(picture))).max() <= 1


def test_the_limit_is_a_number_of_bits() -> None:
    """The looks of a kept slice with exactly `FARTHEST` bits changed are similar, with one more they are not."""
    print_ = fingerprint(rgb(blobs(1)))
    bits = np.unpackbits(coarse_hashes(print_[None]), axis=1)
    for flipped, expected in ((FARTHEST, "similar"), (FARTHEST + 1, None)):
        other = bits.copy()
        other[0, :flipped] ^= 1
        learned = TrainingSlices(np.array([7], np.uint64), np.packbits(other, axis=1))
        assert learned.find(b"\0" * 32, print_) == expected
    assert bits.shape == (1, BITS)


def test_the_signs_never_change() -> None:
    """What a file of hashes holds must mean the same in every version, on every machine."""
    ramp = np.arange(-287, 288).clip(-127, 127).astype(np.int8)
    assert coarse_hashes(ramp[None]).tobytes().hex() == "5f6cea66af8095457ff29a975b02597f46a2ea18eda85728"


def test_a_file_of_hashes(trained: tuple[Path, TrainingSlices], tmp_path: Path) -> None:
    learned, path = trained[1], tmp_path / "x.hashes"
    data = learned.to_bytes()
    assert len(data) == len(b"jcs-ct hashes 1 12\n") + 12 * 32
    path.write_bytes(data)
    again = read_training_slices(path)
    assert (again.digests == learned.digests).all()
    assert (again.looks == learned.looks).all()
    empty = TrainingSlices.from_bytes(training_hashes([]).to_bytes(), path)
    assert (len(empty), find(empty, blobs(0))) == (0, None)
    for wrong, text in (
        (b"", "holds no hashes of training slices"),
        (b"\x89PNG\r\n\x1a\n", "holds no hashes of training slices"),
        (b"jcs-ct hashes 2 12\n" + data[19:], "holds no hashes of training slices"),
        (data[:-1], "holds 383 bytes of hashes; 12 slices need 384"),
        (data[:19] + data[27:35] + data[19:27] + data[35:], "out of order"),
    ):
        path.write_bytes(wrong)
        with pytest.raises(InputError, match=text):
            read_training_slices(path)


def test_features_are_compared_exactly(tmp_path: Path) -> None:
    arrays = np.random.default_rng(0).integers(0, 255, (2, 64, 16, 16)).astype(np.uint8)
    for name, vgg in zip(("a", "b"), arrays, strict=True):
        write_features(tmp_path / f"{name}.mat", {"vgg": vgg})
    learned = training_hashes([Sample(features=tmp_path / "a.mat")])
    spec = SimpleNamespace(task="segmentation", feature_arrays=("vgg",), outputs=("maps",))
    network: Any = SimpleNamespace(card=SimpleNamespace(name="n"), spec=spec)
    door = SliceReader(network, learned)
    cases = [Case(name, name, name, Sample(features=tmp_path / f"{name}.mat")) for name in "ab"]
    for case in cases:
        door.read(case)
    found = door.report(cases)["training_data"]
    assert (found["same"], found["similar"], found["share"]) == (["a"], [], 0.5)


def tool() -> Any:
    path = Path(__file__).parent.parent / "tools/training_hashes.py"
    spec = importlib.util.spec_from_file_location("training_hashes_tool", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # data classes look their module up
    spec.loader.exec_module(module)
    return module


def test_a_manifest_of_pictures_and_of_slices_of_a_volume(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_phantom(slices=9, size=96)
    write_dicom(study, tmp_path / "volume")
    Image.fromarray(blobs(0)).save(tmp_path / "p.png")
    (tmp_path / "m.csv").write_text("file,slice,label\np.png,,1\nvolume,4,0\nvolume,6,0\np.png,,1\n")
    monkeypatch.setattr("sys.argv", ["tool", str(tmp_path / "m.csv"), str(tmp_path / "n.hashes")])
    tool().main()
    learned = read_training_slices(tmp_path / "n.hashes")
    assert len(learned) == 3
    assert find(learned, blobs(0)) == "same"
    slices = [find(learned, lung_window(hu)) for hu in study.hu]
    assert {slices[4], slices[6]} <= {"same", "similar"}
    with pytest.raises(InputError, match="has 9 slices, slice 9 was asked for"):
        training_hashes([Sample(image=tmp_path / "volume", index=9)])


def test_a_slice_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png"):
        training_hashes([Sample(image=tmp_path / "gone.png")])


def test_the_shipped_hashes_are_compact_and_belong_to_real_slices(real_data: Path) -> None:
    path = hashes_path(shipped())
    assert path.stat().st_size < 200_000
    learned = read_training_slices(path)
    assert len(learned) > 3000
    images = sorted((real_data / "ct100/images").glob("*.png"))[:5]
    for image in images:
        assert find(learned, np.asarray(Image.open(image).convert("L"))) == "same"
    phantom = make_phantom(slices=12, size=256)
    assert [find(learned, lung_window(hu)) for hu in phantom.hu] == [None] * 12


@pytest.fixture
def evaluate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`evaluate(learned, *pictures)` scores pictures with a stub: (what it says, scores)."""
    import jcs_ct.inference as runtime
    from jcs_ct.inference import apply
    from jcs_ct.weights import store

    card = SimpleNamespace(name="stub", threshold=0.5, weights_sha256="0" * 64)
    network = SimpleNamespace(
        card=card, threshold=0.5, covid_threshold=0.5, spec=SimpleNamespace(task="lite"), slices=1
    )
    monkeypatch.setattr(runtime, "open_network", lambda *_: network)
    monkeypatch.setattr(apply, "segment", lambda item, _net: item.pixels[..., 0].astype(np.float32) / 255)
    monkeypatch.setattr(apply, "classify", lambda item, _net: float(item.pixels.mean()) / 255)

    def run(kind: str, learned: TrainingSlices | None, *pictures: NDArray[np.uint8]) -> tuple[str, Any]:
        root = tmp_path / "set"
        for name in ("images", "masks"):
            (root / name).mkdir(parents=True)
        for i, picture in enumerate(pictures):
            Image.fromarray(picture).save(root / f"images/s{i}.png")
            Image.fromarray((picture > 128).astype(np.uint8) * 255).save(root / f"masks/s{i}.png")
        (tmp_path / "l.csv").write_text(
            "file,label\n" + "".join(f"set/images/s{i}.png,{i % 2}\n" for i in range(len(pictures)))
        )
        if learned is not None:
            (tmp_path / "stub.hashes").write_bytes(learned.to_bytes())
        monkeypatch.setattr(store, "locate", lambda _model: tmp_path / "stub.safetensors")
        data = {"segment": ("--data", root), "classify": ("--labels", tmp_path / "l.csv")}[kind]
        with pytest.raises(SystemExit) as ended:
            main(["evaluate", kind, *map(str, data), "-m", "stub", "-o", str(tmp_path / "out"), "--resamples", "0"])
        said = capsys.readouterr().err
        assert ended.value.code == 0, said
        return said, json.loads((tmp_path / "out/scores.json").read_text())

    return run


@pytest.mark.parametrize("kind", ["segment", "classify"])
def test_evaluate_names_the_share(
    kind: str, evaluate: Callable[..., Any], trained: tuple[Path, TrainingSlices], tmp_path: Path
) -> None:
    said, scores = evaluate(kind, trained[1], blobs(3), changed(blobs(5))["JPEG"], blobs(40), blobs(41), blobs(42))
    text = (
        "2 of 5 slices (40 %) are among those that stub was trained on (1 pixel for pixel, 1 nearly the same): "
        "scores on them are too good; score slices of other patients"
    )
    assert f"jcs: note: {text}" in said
    found = scores["training_data"]
    assert (found["same"], found["similar"]) == (["s0"], ["s1"])
    assert (found["seen"], found["share"], found["trained_on"], found["known"]) == (2, 0.4, 12, True)
    assert f"**{text}.**" in (tmp_path / "out/scores.md").read_text()


def test_evaluate_says_nothing_of_slices_that_are_new(
    evaluate: Callable[..., Any], trained: tuple[Path, TrainingSlices], tmp_path: Path
) -> None:
    said, scores = evaluate("segment", trained[1], blobs(40), blobs(41))
    assert "trained" not in said
    text = "none of the 2 slices was found among the 12 that stub was trained on"
    assert scores["training_data"] == {
        "known": True, "trained_on": 12, "seen": 0, "share": 0, "same": [], "similar": [], "text": text,
    }  # fmt: skip
    assert f"\nN{text[1:]}." in (tmp_path / "out/scores.md").read_text()


def test_weights_that_do_not_say_are_named(evaluate: Callable[..., Any], tmp_path: Path) -> None:
    said, scores = evaluate("segment", None, blobs(40), blobs(41))
    assert "stub does not say which slices it was trained on: whether these were among them is not known" in said
    assert scores["training_data"]["known"] is False


def test_damaged_hashes_end_at_once(
    evaluate: Callable[..., Any], trained: tuple[Path, TrainingSlices], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TrainingSlices, "to_bytes", lambda _self: b"nothing")
    with pytest.raises(AssertionError, match="holds no hashes of training slices"):
        evaluate("segment", trained[1], blobs(3))


def test_hashes_follow_their_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: tuple[Path, TrainingSlices], filled: Callable[..., Any]
) -> None:
    """Imported with them, found by their checksum, and gone when other weights take the name."""
    import torch

    from jcs_ct.weights import import_file, load, write

    monkeypatch.setenv("JCS_HOME", str(tmp_path / "home"))
    state = filled("jcs-classifier").state_dict()
    torch.save(state, tmp_path / "official.pth")
    card = import_file(tmp_path / "official.pth", name="mine")
    kept = tmp_path / "home/weights/mine.hashes"
    assert not kept.exists()
    assert find_hashes("mine", card) is None
    tensors, card = load("mine")
    run = tmp_path / "run/best.safetensors"
    run.parent.mkdir()
    card = write(run, tensors, replace(card, name="best"))
    hashes_path(run).write_bytes(trained[1].to_bytes())
    assert find_hashes(run, card) == hashes_path(run)
    import_file(run, name="mine", overwrite=True)
    assert kept.read_bytes() == trained[1].to_bytes()
    assert find_hashes(tmp_path / "elsewhere.onnx", card) == kept  # the same checksum
    import_file(tmp_path / "official.pth", name="mine", overwrite=True)
    assert not kept.exists()
    import_file(run, name="mine", overwrite=True)
    assert kept.exists()
    remove("mine")
    assert not list(kept.parent.iterdir())
