"""The guard stands before every door: what `diagnose` says of a slice, the commands on slices and `evaluate` say."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from PIL import Image

from jcs_ct.cli import main
from jcs_ct.core.warning import code_of
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.inference.apply import SliceAttention
from jcs_ct.phantom import lung_window, make_phantom
from study_help import small_phantom

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Jcs = Callable[..., tuple[int, str, str]]

SIZE = 128
DOORS = {
    "classify": ("classify", "set/images", "-m", "stub", "-o", "out.csv"),
    "segment": ("segment", "set/images", "-m", "stub", "-o", "out"),
    "explain": ("explain", "set/images", "-m", "stub", "-o", "out"),
    "features": ("features", "set/images", "-m", "stub", "-o", "out"),
    "evaluate segment": ("evaluate", "segment", "--data", "set", "-m", "stub", "-o", "out", "--resamples", "0"),
    "evaluate classify": ("evaluate", "classify", "--labels", "labels.csv", "-m", "stub", "-o", "out"),
    "evaluate explain": (
        *("evaluate", "explain", "--data", "set", "--maps", "maps", "-m", "stub", "-o", "out"),
        *("--steps", "1", "--resamples", "0"),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def chest() -> NDArray[np.uint8]:
    """Three slices of a phantom that the guard has nothing against."""
    slices = lung_window(make_phantom(slices=9, size=SIZE).hu[3:6])
    assert all(not check_slice(np.repeat(one[..., None], 3, axis=2)) for one in slices)
    return slices


@pytest.fixture
def folder(tmp_path: Path, chest: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set of three chest slices and one of noise; one of the former has an alpha channel."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(5).integers(0, 256, (SIZE, SIZE)).astype(np.uint8)
    for name in ("set/images", "set/masks", "maps"):
        (tmp_path / name).mkdir(parents=True)
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[50:60, 30:40] = 255
    for name, grey in zip(("a", "b", "c", "z"), (*chest, noise), strict=True):
        picture = Image.fromarray(grey)
        if name == "b":
            picture.putalpha(
                Image.fromarray(np.where(np.arange(SIZE)[:, None] < 3, 0, 255 + 0 * grey).astype(np.uint8))
            )
        picture.save(tmp_path / f"set/images/{name}.png")
        Image.fromarray(mask).save(tmp_path / f"set/masks/{name}.png")
        np.save(tmp_path / f"maps/{name}.npy", (mask / 255).astype(np.float32))
    rows = "".join(f"set/images/{name}.png,{label}\n" for name, label in zip("abcz", (1, 0, 1, 0), strict=True))
    (tmp_path / "labels.csv").write_text("file,label\n" + rows)
    return tmp_path


@pytest.fixture
def jcs(folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Jcs:
    """`jcs(*arguments)` with a network that is as sure as the slice is bright: (exit status, output, what it says)."""
    import jcs_ct.inference as runtime
    from jcs_ct.inference import apply

    card = SimpleNamespace(name="stub", threshold=0.5, weights_sha256="0" * 64)
    spec = SimpleNamespace(task="lite", feature_arrays=("vgg",))
    network = SimpleNamespace(card=card, threshold=0.5, covid_threshold=0.5, spec=spec, slices=1)

    def attend(image: Any, *_: Any) -> SliceAttention:
        return SliceAttention(image, np.ones((SIZE, SIZE), np.float32), 0.5, None, None, None, "layer")

    monkeypatch.setattr(runtime, "open_network", lambda *_: network)
    monkeypatch.setattr(apply, "segment", lambda item, _net: item.pixels[..., 0].astype(np.float32) / 255)
    monkeypatch.setattr(apply, "classify", lambda item, _net: float(item.pixels.mean()) / 255)
    monkeypatch.setattr(apply, "explain", attend)
    monkeypatch.setattr(apply, "features", lambda *_, **__: {"vgg": np.full((64, 16, 16), 7, np.uint8)})

    def run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
        out, err = capfd.readouterr()
        assert "Traceback" not in err
        return int(ended.value.code or 0), out, err

    return run


def flags_of_noise(folder: Path) -> tuple[str, ...]:
    return check_slice(np.asarray(Image.open(folder / "set/images/z.png").convert("RGB")))


@pytest.mark.parametrize("door", DOORS)
def test_flags_and_notes_are_said(door: str, jcs: Jcs, folder: Path) -> None:
    status, out, err = jcs(*DOORS[door], "--json")
    assert status == 0, err
    notes = json.loads(out)["notes"]
    flags = flags_of_noise(folder)
    assert "the picture is as rough as noise or text; a CT slice is smoother" in flags
    flagged = [note for note in notes if "not look like an axial chest slice" in note]
    assert len(flagged) == 1
    assert flagged[0].endswith(f"z.png: does not look like an axial chest slice in a lung window: {'; '.join(flags)}")
    assert [note for note in notes if note.endswith("b.png: partly transparent; laid over black")]
    assert all(f"jcs: note: {note}" in err for note in notes)


@pytest.mark.parametrize("door", ["classify", "segment", "explain", "features"])
def test_flags_are_a_field_of_each_slice(door: str, jcs: Jcs, folder: Path) -> None:
    cases = json.loads(jcs(*DOORS[door], "--json")[1])["cases"]
    assert [case["flags"] for case in cases] == [[], [], [], list(flags_of_noise(folder))]


@pytest.mark.parametrize("door", [name for name in DOORS if name.startswith("evaluate")])
def test_flags_are_in_the_scores(door: str, jcs: Jcs, folder: Path) -> None:
    assert jcs(*DOORS[door])[0] == 0
    scores = json.loads((folder / "out/scores.json").read_text())
    assert scores["guard"] == {"flagged": 1, "slices": {"z": list(flags_of_noise(folder))}}
    assert "1 do not look like axial chest slices in a lung window" in (folder / "out/scores.md").read_text()


def test_the_table_ends_with_the_flags(jcs: Jcs, folder: Path) -> None:
    jcs(*DOORS["classify"])
    with (folder / "out.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["file", "probability", "label", "flags"]
    assert [row["flags"] for row in rows] == ["", "", "", "; ".join(flags_of_noise(folder))]
    # `evaluate` takes the table as it did without that column.
    status, _, err = jcs("evaluate", "classify", "--labels", "labels.csv", "--predictions", "out.csv", "-o", "scores")
    assert status == 0, err


@pytest.mark.parametrize("door", DOORS)
def test_strict_refuses_what_is_flagged(door: str, jcs: Jcs, folder: Path) -> None:
    status, out, err = jcs(*DOORS[door], "--strict", "--json")
    assert status == 1
    found = json.loads(out)
    assert [failed["source"].rpartition("/")[2] for failed in found["failed"]] == ["z.png"]
    assert "an axial chest slice in a lung window: the picture is as rough" in found["failed"][0]["message"]
    assert len(found["cases"]) == 3
    assert f"3 slices {'scored' if door.startswith('evaluate') else 'done'}, 1 failed" in err
    assert not list(folder.glob("out/z.*"))
    assert not (folder / "out.csv").exists() or "z.png" not in (folder / "out.csv").read_text()


@pytest.fixture(scope="module")
def faulty() -> dict[str, NDArray[np.uint8]]:
    """A slice of a chest that lies wrong, each in its way; and its lungs alone, as segmentation tools hand them on."""
    study = make_phantom(slices=9, size=SIZE)
    slices, lungs = lung_window(study.hu), study.lungs > 0
    return {
        "inverted": 255 - slices[4],
        "turned": np.rot90(slices[4]),
        "cut": np.where(lungs[4], slices[4], 0).astype(np.uint8),
    }


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("fault", ["inverted", "turned", "cut"])
def test_what_lies_wrong_or_is_cut_out_is_flagged_at_every_door(
    fault: str, door: str, jcs: Jcs, folder: Path, faulty: dict[str, NDArray[np.uint8]]
) -> None:
    for name in "abc":
        (folder / f"set/images/{name}.png").unlink()
        (folder / f"set/masks/{name}.png").unlink()
    (folder / "labels.csv").write_text("file,label\nset/images/z.png,1\n")
    Image.fromarray(np.ascontiguousarray(faulty[fault])).save(folder / "set/images/z.png")
    flags = flags_of_noise(folder)
    assert [code_of(flag) for flag in flags] == {"cut": ["no-lungs-in-slice", "inverted"]}.get(fault, [fault])
    status, out, err = jcs(*DOORS[door], "--json")
    assert status == 0, err
    assert [note for note in json.loads(out)["notes"] if note.endswith("; ".join(flags))]
    assert jcs(*DOORS[door], "--strict", "--overwrite")[0] == 2


@pytest.mark.parametrize("door", ["evaluate segment", "evaluate explain"])
def test_the_tables_of_slices_end_with_their_flags(door: str, jcs: Jcs, folder: Path) -> None:
    assert jcs(*DOORS[door])[0] == 0
    with (folder / "out/per_image.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-1] == "flags"
    assert [row["flags"] for row in rows] == ["", "", "", "; ".join(flags_of_noise(folder))]


def test_flags_stand_in_the_table_of_maps_that_were_made_before(jcs: Jcs, folder: Path) -> None:
    """No network runs, but the slices lie there."""
    words = ("evaluate", "segment", "--data", "set", "--predictions", "set/masks", "-o", "out", "--resamples", "0")
    assert jcs(*words)[0] == 0
    with (folder / "out/per_image.csv").open(encoding="utf-8") as file:
        assert [row["flags"] for row in csv.DictReader(file)] == ["", "", "", "; ".join(flags_of_noise(folder))]


@pytest.mark.parametrize(
    ("fault", "said"),
    [("none", ""), ("turned", "the slices lie wrong"), ("solid", "no lungs: 2 ml of aerated lung found")],
)
def test_slices_of_volumes_have_the_flags_of_their_volume(fault: str, said: str, jcs: Jcs, folder: Path) -> None:
    """Slices of 10 mm with coarse pixels are flagged in any case, as `diagnose` does."""
    study = small_phantom()
    solid = np.where(study.lungs > 0, 40, study.hu).astype(np.int16)
    hu = {"none": study.hu, "turned": study.hu.transpose(0, 2, 1), "solid": solid}[fault]
    affine = np.diag([-study.spacing[2], -study.spacing[1], -study.spacing[0], 1.0])
    library: Any = nibabel
    for part, values in (("images", hu), ("masks", np.zeros(hu.shape, np.int16))):
        (folder / "vol" / part).mkdir(parents=True)
        library.save(library.Nifti1Image(values.transpose(2, 1, 0), affine), folder / f"vol/{part}/{fault}.nii")
    words = ("evaluate", "segment", "--data", "vol", "-m", "stub", "-o", "out", "--resamples", "0")
    status, out, err = jcs(*words, "--json")
    assert status == 0, err
    with (folder / "out/per_image.csv").open(encoding="utf-8") as file:
        (flags,) = {row["flags"] for row in csv.DictReader(file)}
    assert "thick slices: 10 mm" in flags
    assert (said in flags) if said else len(flags.split("; ")) == 4  # two of them have a semicolon of their own
    assert len([note for note in json.loads(out)["notes"] if note.endswith(f"{fault}.nii: not reliable: {flags}")]) == 1
    assert jcs(*words, "--strict", "--overwrite")[0] != 0


def test_a_runtime_or_strict_without_a_network_is_refused(jcs: Jcs, folder: Path) -> None:
    common = ("evaluate", "segment", "--masks", "set/masks", "--predictions", "set/masks", "-o", "out")
    for option in (("--runtime", "onnxruntime"), ("--strict",)):
        status, _, err = jcs(*common, *option)
        assert status == 2
        assert f"{option[0]} is for a network, and none runs here" in err
    assert not (folder / "out").exists()


@pytest.mark.parametrize("door", ["classify", "segment", "explain", "features"])
def test_notes_and_flags_have_codes(door: str, jcs: Jcs, folder: Path) -> None:
    """The same ones as in the report of a study (`tests/test_study_notes.py`)."""
    status, out, err = jcs(*DOORS[door], "--json")
    assert status == 0, err
    _, b, c, z = (case["warnings"] for case in json.loads(out)["cases"])
    assert b == [{"code": "alpha", "text": "partly transparent; laid over black"}]
    assert c == []
    assert [one["text"] for one in z] == list(flags_of_noise(folder))
    assert {"rough"} <= {one["code"] for one in z}
