"""COVID-CS feature files: written, read back, read under any name, refused when they cannot be such a file."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.io.features import dequantise, quantise, read_features, write_features

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def values(*shape: int) -> NDArray[np.uint8]:
    return np.random.default_rng(len(shape)).integers(0, 256, shape, dtype=np.uint8)


def mat(**arrays: Any) -> bytes:
    buffer = BytesIO()
    savemat(buffer, arrays, do_compression=True)
    return buffer.getvalue()


VGG, RES2NET, SMALL = values(1, 64, 20, 18), values(1, 64, 10, 9), values(64, 112, 112)


def test_quantising_saturates_and_cuts_off() -> None:
    features = np.array([0.0, 0.049, 0.0501, 1.0, 12.75, 12.8, 13.0, 1e9, np.inf], dtype=np.float32)
    np.testing.assert_array_equal(quantise(features), [0, 0, 1, 20, 255, 255, 255, 255, 255])
    codes = np.arange(256, dtype=np.uint8)
    np.testing.assert_allclose(dequantise(codes), codes / 20, rtol=1e-6)


def test_segmentation_files_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    write_features(path, {"vgg": VGG[0], "res2net": RES2NET[0]})
    raw = loadmat(path)
    assert raw["vgg_feats"].shape == VGG.shape
    assert raw["res2net_feats"].dtype == np.uint8
    read = read_features(path.read_bytes(), "a", "a.mat")
    assert read.vgg is not None
    assert read.res2net is not None
    np.testing.assert_array_equal(read.vgg, VGG[0])
    np.testing.assert_array_equal(read.res2net, RES2NET[0])
    with pytest.raises(OutputError, match="exists already"):
        write_features(path, {"vgg": VGG[0]})


def test_classification_files_round_trip(tmp_path: Path) -> None:
    write_features(tmp_path / "c.mat", {"res2net": SMALL})
    assert loadmat(tmp_path / "c.mat")["res2net_feats"].shape == (64, 112, 112)
    read = read_features((tmp_path / "c.mat").read_bytes(), "c", "c.mat", ["res2net"])
    assert read.vgg is None
    np.testing.assert_array_equal(read.res2net, SMALL)


@pytest.mark.parametrize(
    "arrays",
    [
        {"vgg_feats": VGG, "res2net_feats": RES2NET},
        {"a": VGG, "b": RES2NET},
        {"b": RES2NET, "a": VGG},
        {"VGG16": VGG[0], "other": RES2NET},
        {"x": VGG, "Res2Net_stage1": RES2NET[0], "label": np.array([[1]])},
    ],
)
def test_two_arrays_under_any_name(arrays: dict[str, Any]) -> None:
    read = read_features(mat(**arrays), "n", "n.mat")
    np.testing.assert_array_equal(read.vgg, VGG[0])
    np.testing.assert_array_equal(read.res2net, RES2NET[0])


@pytest.mark.parametrize(("wanted", "shape"), [("vgg", (1, 64, 30, 30)), ("res2net", (64, 112, 112))])
def test_one_array_under_any_name(wanted: str, shape: tuple[int, ...]) -> None:
    array = values(*shape)
    read = read_features(mat(data=array), "n", "n.mat", [wanted])
    np.testing.assert_array_equal(getattr(read, wanted), array.reshape(shape[-3:]))


def damaged(data: bytes) -> bytes:
    return data[:200] + bytes(255 - b for b in data[200:400]) + data[400:]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "damaged or no MATLAB"),
        (b"MATLAB 5.0 MAT-file" + b" " * 200, "damaged or no MATLAB"),
        (mat(vgg_feats=VGG, res2net_feats=RES2NET)[:-3000], "damaged"),
        (damaged(mat(vgg_feats=VGG, res2net_feats=RES2NET)), "damaged"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + bytes(600), r"v7\.3 \(HDF5\) file, v5 was expected"),
        (b"\x89HDF\r\n\x1a\n" + bytes(600), r"v7\.3"),
        (mat(), "holds no array"),
        (mat(image=values(512, 512)), "holds image uint8 512×512"),
        (mat(x=values(32, 64, 64)), "64 channels"),
        (mat(x=values(2, 64, 16, 16)), "64 channels"),
        (mat(vgg_feats=VGG.astype(np.float64) / 20, res2net_feats=RES2NET), "is double"),
        (mat(vgg_feats=VGG), "no stage-1 features of res2net"),
        (mat(vgg_feats=VGG, res2net_feats=values(1, 64, 20, 18)), r"10×9 was expected for Res2Net"),
        (mat(vgg_a=VGG, vgg_b=VGG, res2net=RES2NET), "two arrays for vgg: vgg_a and vgg_b"),
        (mat(a=VGG, b=RES2NET, c=RES2NET), "3 arrays of 64 channels"),
        (mat(vgg_feats=VGG * 0, res2net_feats=RES2NET), "zero everywhere"),
        (mat(vgg_feats=np.zeros((64, 1, 2049), np.uint8), res2net_feats=RES2NET), "sides up to 2048"),
    ],
)
def test_what_cannot_be_such_a_file_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_features(data, "bad", "bad.mat")
    assert caught.value.line().startswith("bad.mat: ")
    assert "\n" not in caught.value.line()


def test_no_damage_gives_anything_but_an_input_error() -> None:
    good = mat(vgg_feats=VGG[:, :, :4, :4], res2net_feats=RES2NET[:, :, :2, :2])
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(400):
        data = bytearray(good)
        for position in rng.integers(0, len(good), rng.integers(1, 6)):
            data[position] = rng.integers(0, 256)
        cut = int(rng.integers(1, len(good))) if rng.random() < 0.3 else len(good)
        try:
            read_features(bytes(data[:cut]), "f", "f.mat")
        except InputError:
            refused += 1
    assert refused > 100
