"""`jcs evaluate` on small folders made here: what it writes, what it says, and its exit status."""

from __future__ import annotations

import csv
import json
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from jcs_ct.cli import main
from jcs_ct.core.errors import InputError
from jcs_ct.datasets.samples import Sample
from jcs_ct.evaluate.maps import read_map
from jcs_ct.evaluate.matching import match
from jcs_ct.io.features import write_features
from jcs_ct.metrics import release_iou
from jcs_ct.outputs import plots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    Jcs = Callable[..., tuple[int, str]]

SIDE = 40


@pytest.fixture
def jcs(capsys: pytest.CaptureFixture[str]) -> Jcs:
    def run(*arguments: object) -> tuple[int, str]:
        with pytest.raises(SystemExit) as stop:
            main(["evaluate", *map(str, arguments)])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.err + captured.out

    return run


def save(path: Path, pixels: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(path)


def disc(row: float, column: float, radius: float) -> NDArray[np.bool_]:
    rows, columns = np.mgrid[0:SIDE, 0:SIDE]
    return np.asarray(np.hypot(rows - row, columns - column) < radius)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Four slices; the last one has no lesion."""
    root, rng = tmp_path / "data", np.random.default_rng(0)
    for i in range(4):
        mask = disc(10 + 5 * i, 18, 6) if i < 3 else np.zeros((SIDE, SIDE), bool)
        save(root / f"images/s{i}.png", 100 + 80 * mask + rng.integers(0, 20, mask.shape))
        save(root / f"masks/s{i}.png", 255 * mask)
        level = 200 * np.roll(mask, 1, axis=0) + 20 * (i < 3)
        save(tmp_path / f"maps/s{i}.png", level)
        save(tmp_path / f"other/s{i}.png", 180 * np.roll(mask, 4, axis=1))
        (tmp_path / "attention").mkdir(exist_ok=True)
        np.save(tmp_path / f"attention/s{i}.npy", (level / 255).astype(np.float32))
    return root


def scores(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "scores.json").read_text())
    return content


def table(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


def test_maps_against_masks(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    status, said = jcs("segment", "--data", data, "--predictions", tmp_path / "maps", "-o", out, "--resamples", 50)
    assert status == 0, said
    assert "patients are not known" in said
    found, rows = scores(out), table(out / "per_image.csv")
    assert [row["slice"] for row in rows] == ["s0", "s1", "s2", "s3"]
    dice = [float(row["dice"]) for row in rows[:3]]
    assert rows[3]["dice"] == ""
    assert found["per_image"]["dice"]["value"] == pytest.approx(np.mean(dice), abs=1e-12)
    assert found["per_image"]["dice"]["images_undefined"] == 1
    assert found["per_image"]["dice"]["low"] <= np.mean(dice) <= found["per_image"]["dice"]["high"]
    tp, wrong = (sum(float(row[k]) for row in rows for k in keys) for keys in (("tp",), ("fp", "fn")))
    assert found["pooled"]["dice"]["value"] == pytest.approx(2 * tp / (2 * tp + wrong))
    assert found["empty_masks"] | {"meaning": ""} == {
        "policy": "exclude", "meaning": "", "masks_empty": 1, "predictions_empty": 1, "both_empty": 1,
    }  # fmt: skip
    assert found["release"]["iou"] is None
    assert found["release"]["images_undefined"] == 1
    assert (out / "dice.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "scores.md").read_text()
    assert "1 undefined" in text
    assert 'Policy for empty masks: "exclude"' in text
    assert jcs("segment", "--data", data, "--predictions", tmp_path / "maps", "-o", out)[0] == 2  # no --overwrite


def test_the_other_policy_and_millimetres(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    outs = [tmp_path / "px", tmp_path / "mm"]
    common = ("segment", "--data", data, "--predictions", tmp_path / "maps", "--resamples", 0, "--empty", "one")
    assert jcs(*common, "-o", outs[0])[0] == 0
    status, said = jcs(*common, "-o", outs[1], "--spacing", 0.5, 0.5, "--json")
    assert status == 0
    px, mm = (scores(out) for out in outs)
    assert px["per_image"]["dice"]["images_undefined"] == 0
    assert px["per_image"]["dice"]["low"] is None
    assert mm["hd95_unit"] == "mm"
    assert mm["per_image"]["hd95"]["value"] == pytest.approx(px["per_image"]["hd95"]["value"] / 2)
    assert json.loads(said[said.index("{") :])["scores"]["hd95_unit"] == "mm"


def test_two_models_on_the_same_slices(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    maps, other = tmp_path / "maps", tmp_path / "other"
    (other / "s1.png").unlink()
    common = ("segment", "--data", data, "--predictions", maps, "--resamples", 100)
    status, said = jcs(*common, "--against", other, "-o", out)
    assert status == 1
    assert "s1.png: has no map in" in said
    found = scores(out)
    assert found["slices"] == 3
    difference = found["difference"]["per_image"]["dice"]
    assert difference["value"] == pytest.approx(
        found["per_image"]["dice"]["value"] - found["against"]["per_image"]["dice"]["value"]
    )
    assert difference["above"] == 1
    assert len(table(out / "per_image_against.csv")) == 3
    assert "difference" in (out / "scores.md").read_text()
    assert jcs(*common, "--against", maps, "-o", tmp_path / "x")[0] == 2


def test_what_does_not_fit_is_named_and_the_rest_is_scored(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    save(maps / "s0.png", np.zeros((SIDE, SIDE + 1)))
    (maps / "s1.png").write_bytes(b"\x89PNG\r\n\x1a\n but no more")
    save(maps / "extra.png", np.zeros((SIDE, SIDE)))
    save(maps / "overlays/s0.png", np.zeros((9, 9, 3)))
    status, said = jcs("segment", "--data", data, "--predictions", maps, "-o", tmp_path / "out", "--quiet")
    assert status == 1
    assert "s0.png: is 40 × 41, its mask s0.png is 40 × 40" in said
    assert "s1.png: cannot be decoded as" in said
    status, said = jcs("segment", "--data", data, "--predictions", maps, "-o", tmp_path / "out2")
    assert "1 predictions belong to none of the slices chosen, and are not scored: extra.png" in said
    for wrong in (np.broadcast_to([0, 1, 2], (SIDE, SIDE, 3)), np.zeros((SIDE, SIDE, 4))):
        save(maps / "s2.png", wrong)
        assert (
            "an 8-bit grey map is expected"
            in jcs("segment", "--data", data, "--predictions", maps, "-o", tmp_path / "o3", "--overwrite")[1]
        )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--predictions", "maps"], "neither of --data and --masks was given"),
        (["--data", "data"], "neither of --predictions and --model was given"),
        (["--data", "data", "--predictions", "maps", "--model", "x"], "both of --predictions and --model were given"),
        (["--masks", "data/masks", "--model", "x"], "--masks goes without --model"),
        (["--masks", "maps/none", "--predictions", "maps"], "does not exist"),
        (["--data", "data", "--predictions", "none"], "none: is not a folder"),
        (["--data", "data", "--predictions", "maps", "--fold", "3"], "has no fold 3"),
        (["--data", "data", "--predictions", "maps", "--fold", "1", "--split", "test"], "give --fold or --split"),
        (["--data", "data", "--predictions", "maps", "--split", "test"], "has no split 'test'"),
        (["--data", "data", "--predictions", "empty"], "holds no map"),
        (["--data", "data", "--predictions", "strange"], "holds 1 maps and none of a slice"),
        (["--masks", "empty", "--predictions", "maps"], "holds no mask"),
    ],
)
def test_unusable_arguments(
    jcs: Jcs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], text: str
) -> None:
    (tmp_path / "empty").mkdir()
    save(tmp_path / "strange/unknown.png", np.zeros((4, 4)))
    monkeypatch.chdir(tmp_path)
    status, said = jcs("segment", *arguments, "-o", "out")
    assert status == 2, said
    assert text in said
    assert not (tmp_path / "out").exists()


def test_folds_lists_and_a_folder_of_masks(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    (tmp_path / "folds.json").write_text(json.dumps({"folds": [["s0", "s2"], ["s1", "s3"]]}))
    common = ("--predictions", tmp_path / "maps", "--resamples", 0)
    out = tmp_path / "fold"
    assert jcs("segment", "--data", data, *common, "--folds", tmp_path / "folds.json", "--fold", 1, "-o", out)[0] == 0
    assert [row["slice"] for row in table(out / "per_image.csv")] == ["s0", "s2"]
    (data / "test.txt").write_text("images/s1.png masks/s1.png\n")
    out = tmp_path / "list"
    assert jcs("segment", "--data", data / "test.txt", *common, "-o", out)[0] == 0
    assert scores(out)["slices"] == 1
    out = tmp_path / "masks-only"
    assert jcs("segment", "--masks", data / "masks", *common, "-o", out)[0] == 0
    assert scores(out)["slices"] == 4


def network(task: str) -> Any:
    card = SimpleNamespace(name="stub", threshold=0.6, weights_sha256="0" * 64)
    return SimpleNamespace(card=card, threshold=0.6, covid_threshold=0.6, spec=SimpleNamespace(task=task))


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network that is as sure as the slice is bright."""
    import jcs_ct.inference as runtime
    from jcs_ct.inference import apply

    monkeypatch.setattr(runtime, "open_network", lambda model, device, tasks, *_: network(tasks[0]))
    monkeypatch.setattr(apply, "segment", lambda item, net: item.pixels[..., 0].astype(np.float32) / 255)
    monkeypatch.setattr(apply, "classify", lambda item, net: float(item.pixels.mean()) / 255)


@pytest.mark.usefixtures("stub")
def test_a_model_scores_as_its_stored_maps_do(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    found: list[dict[str, Any]] = []
    for arguments in (["--model", "stub"], ["--predictions", str(data / "images"), "--threshold", "0.6"]):
        out = tmp_path / f"out{len(found)}"
        status, said = jcs("segment", "--data", data, *arguments, "-o", out, "--resamples", 20)
        assert status == 0, said
        found.append(scores(out))
        assert found[-1].pop("predictions") in {"stub", str(data / "images")}
    assert found[0].pop("guard")["flagged"] == 4
    assert found[0].pop("training_data")["known"] is False
    assert len({scored.pop("fingerprint")["data"] for scored in found}) == 1
    assert found[0] == found[1]
    assert found[0]["threshold"] == 0.6
    (data / "images/s0.png").write_bytes(b"no picture")
    status, said = jcs("segment", "--data", data, "--model", "stub", "-o", tmp_path / "broken")
    assert status == 1
    assert "s0.png" in said


@pytest.fixture
def labels(tmp_path: Path) -> Path:
    """60 patients with 4 slices each from two hospitals, and one of a third; probabilities of two models."""
    rng = np.random.default_rng(0)
    rows = ["file,label,group,source"]
    tables: dict[str, list[str]] = {"good": ["file,probability,label"], "bad": ["file,probability"]}
    for patient in range(61):
        label = patient % 2
        source = "third" if patient == 60 else "ab"[patient // 30]
        for i in range(4):
            name = f"p{patient}/{i}.png"
            rows.append(f"{name},{label},p{patient},{source}")
            p = 1 / (1 + math.exp(-(3 * label - 1.5 + rng.normal())))
            tables["good"].append(f"scans/{name},{p:.6f},{int(p > 0.5)}")
            tables["bad"].append(f"{name},{rng.random():.6f}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    for name, lines in tables.items():
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    return tmp_path / "labels.csv"


def test_probabilities_against_labels(jcs: Jcs, labels: Path, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    out = tmp_path / "out"
    common = ("classify", "--labels", labels, "--predictions", tmp_path / "good.csv", "--resamples", 40)
    status, said = jcs(*common, "-o", out, "--against", tmp_path / "bad.csv")
    assert status == 0, said
    found = scores(out)
    truth = [int(row["label"]) for row in table(labels)]
    p = [float(row["probability"]) for row in table(tmp_path / "good.csv")]
    assert found["overall"]["auc"]["value"] == pytest.approx(metrics.roc_auc_score(truth, p))
    assert found["overall"]["groups"] == 61
    assert set(found["per_source"]) == {"a", "b", "third"}
    assert found["per_source"]["third"]["auc"]["value"] is None
    assert found["per_source"]["a"]["slices"] == 120
    rules = found["patients"]["rules"]
    assert rules["release-count"]["sensitivity"]["value"] == 0  # four slices each: never more than 18
    assert rules["fraction"]["sensitivity"]["value"] == 1
    assert rules["top-k"]["auc"]["value"] > 0.9
    assert rules["top-k"]["calibration"].startswith("slope and intercept fitted on the other patients")
    assert found["difference"]["auc"]["above"] == 1
    text = (out / "scores.md").read_text()
    assert "Comparison on the same slices" in text
    assert "| third | 4 | 0 | 1 | not defined |" in text
    why = "because all 4 slices have the label 0 (no COVID-19): one class"
    assert f"\nthird: AUC, average precision and sensitivity are not defined, {why}.\n" in text
    why = "because the only one of the groups has the label 0 (no COVID-19): one class"
    assert f"\nthird: AUC and sensitivity are not defined, {why}.\n" in text
    assert "–" not in text.replace("–", "", 0).split("## Slices")[1].partition("###")[0]
    for name in ("roc.png", "precision_recall.png", "calibration.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    alone = tmp_path / "alone"
    assert jcs(*common, "-o", alone, "--seed", 0)[0] == 0
    assert {k: v for k, v in found.items() if k not in {"against", "difference"}} == scores(alone)


@pytest.mark.parametrize(
    ("label", "text"),
    [
        (1, "AUC and specificity are not defined, because all 4 slices have the label 1 (COVID-19): one class"),
        (
            0,
            (
                "AUC, average precision and sensitivity are not defined, because all 4 slices have the label 0 "
                "(no COVID-19): one class"
            ),
        ),
    ],
)
def test_slices_of_one_class_have_no_auc(jcs: Jcs, label: int, text: str, tmp_path: Path) -> None:
    rows = [f"s{i}.png,{label},{i / 4}" for i in range(4)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *(row.rpartition(",")[0] for row in rows)]))
    (tmp_path / "p.csv").write_text("\n".join(["file,x,probability", *rows]))
    out, words = (
        tmp_path / "out",
        ("classify", "--labels", tmp_path / "labels.csv", "--predictions", tmp_path / "p.csv"),
    )
    status, said = jcs(*words, "-o", out)
    assert status == 0, said
    assert f"jcs: note: {text}\n" in said
    assert scores(out)["undefined"] == text
    assert f"\n{text}.\n" in (out / "scores.md").read_text()
    assert "nan" not in "".join(p.read_text() for p in out.iterdir() if p.suffix in (".md", ".json")).lower()


def test_empty_masks_have_no_dice(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    for i in range(4):
        save(data / f"masks/s{i}.png", np.zeros((SIDE, SIDE)))
        save(tmp_path / f"maps/s{i}.png", np.zeros((SIDE, SIDE)))
    out, text = tmp_path / "out", "because no lesion is in the 4 masks and none is marked"
    status, said = jcs("segment", "--data", data, "--predictions", tmp_path / "maps", "-o", out)
    assert status == 0, said
    why = "HD95, pooled Dice, pooled IoU, pooled mIoU with background, pooled sensitivity and pooled precision are "
    why += f"not defined, {text}"
    assert why in said
    assert f"{why}; the release's IoU is not defined, because 4 slices have no lesion in the mask" in said
    assert why in (out / "scores.md").read_text()
    assert {row["undefined"] for row in table(out / "per_image.csv")} == {"no lesion is in the mask and the map"}
    for i in range(4):
        save(tmp_path / f"maps/s{i}.png", 200 * disc(18, 18, 6))
        np.save(tmp_path / f"attention/s{i}.npy", disc(18, 18, 6).astype(np.float32))
    status, said = jcs("segment", "--data", data, "--predictions", tmp_path / "maps", "-o", out, "--overwrite")
    assert (
        "jcs: note: sensitivity and pooled sensitivity are not defined, because no lesion is in the 4 masks; " in said
    )
    assert "HD95 is not defined, because no slice has a lesion both in its mask and in its map\n" in said
    assert {row["undefined"] for row in table(out / "per_image.csv")} == {"no lesion is in the mask"}
    status, said = jcs("explain", "--data", data, "--maps", tmp_path / "attention", "-o", tmp_path / "e")
    why = "dice at 0.75 and lesion share are not defined, because no lesion is in the 4 masks"
    assert why in said
    assert why in (tmp_path / "e" / "scores.md").read_text()


def test_figures_say_what_is_not_defined(monkeypatch: pytest.MonkeyPatch) -> None:
    assert plots._area(math.nan) == "not defined: one class"
    assert plots._area(0.5) == "0.500"
    drawn: list[str] = []
    monkeypatch.setattr(plots, "_png", lambda figure: drawn.extend(t.get_text() for t in figure.legends[0].texts))
    plots.dice_plot(["a", "b"], {"m": np.array([math.nan, math.nan])}, 0.5)
    assert drawn == ["m: mean not defined, because no lesion is in masks and maps, 2 undefined"]


def test_rows_that_do_not_fit_are_named(jcs: Jcs, labels: Path, tmp_path: Path) -> None:
    good = tmp_path / "good.csv"
    lines = good.read_text().splitlines()
    good.write_text("\n".join([*lines[:-1], lines[1], "unknown.png,0.5,1"]))
    status, said = jcs("classify", "--labels", labels, "--predictions", good, "-o", tmp_path / "out", "--resamples", 5)
    assert status == 1
    assert "p60/3.png: has no row in" in said
    assert "p0/0.png: has 2 rows in" in said
    assert "unknown.png" in said
    assert scores(tmp_path / "out")["overall"]["slices"] == 242
    for content, text in (
        ("file,p\na.png,1", "has the columns file, p"),
        ("file,probability\na.png,1.5", "good.csv:2: has the file 'a.png' with the probability '1.5'"),
        ("file,probability\na.png,yes", "a number from 0 to 1 is expected"),
        ("file,probability\n", "has no row"),
        ("", "good.csv"),
    ):
        good.write_text(content)
        status, said = jcs("classify", "--labels", labels, "--predictions", good, "-o", tmp_path / "out2")
        assert status == 2
        assert text in said


@pytest.mark.usefixtures("stub")
def test_a_classifier_on_few_patients(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    (data / "labels.csv").write_text("file,label\n" + "".join(f"s{i}.png,{int(i < 3)}\n" for i in range(4)))
    status, said = jcs("classify", "--labels", data / "labels.csv", "--model", "stub", "-o", tmp_path / "out")
    assert status == 0, said
    found = scores(tmp_path / "out")
    assert found["overall"]["auc"]["value"] == 1
    assert found["threshold"] == 0.6
    assert found["patients"]["rules"]["top-k"]["calibration"].startswith("not calibrated")
    assert found["per_source"] == {}


@pytest.mark.usefixtures("stub")
def test_attention_against_masks_and_the_network(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    attention = tmp_path / "attention"
    save(attention / "s0.png", np.zeros((9, 9)))  # an overlay beside the arrays
    out = tmp_path / "plain"
    assert jcs("explain", "--masks", data / "masks", "--maps", attention, "-o", out, "--resamples", 20)[0] == 0
    found = scores(out)
    assert found["masks_empty"] == found["maps_zero"] == 1
    assert 0.8 < found["scores"]["pointing_game"]["value"] < 1
    assert "deletion" not in found["scores"]
    out = tmp_path / "model"
    status, said = jcs("explain", "--data", data, "--maps", attention, "--model", "x", "-o", out, "--steps", 5)
    assert status == 0, said
    found = scores(out)
    assert found["scores"]["deletion"]["value"] < found["scores"]["insertion"]["value"]
    assert len(found["curves"]["deletion"]) == 6
    assert (out / "perturbation.png").read_bytes().startswith(b"\x89PNG")
    assert "energy_inside" in (out / "scores.md").read_text()
    assert len(table(out / "per_image.csv")) == 4


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (np.zeros((SIDE, SIDE, 2)), "a map, rows × columns, is expected"),
        (np.full((SIDE, SIDE), 2.0), "holds values from 2 to 2"),
        (np.full((SIDE, SIDE), np.nan), "0 to 1 and no NaN"),
        (np.zeros((SIDE, SIDE), int), "is not a floating-point array"),
        (np.array(["a"], dtype=object), "damaged NumPy file"),
        (None, "a picture or a .npy file is expected"),
    ],
)
def test_arrays_that_are_no_map(jcs: Jcs, data: Path, tmp_path: Path, values: Any, text: str) -> None:
    attention = tmp_path / "attention"
    if values is None:
        (attention / "s0.npy").write_text("words")
    else:
        np.save(attention / "s0.npy", values, allow_pickle=True)
    status, said = jcs("explain", "--data", data, "--maps", attention, "-o", tmp_path / "out", "--resamples", 0)
    assert status == 1
    assert text in said
    assert scores(tmp_path / "out")["slices"] == 3


def test_nothing_that_can_be_scored_writes_nothing(jcs: Jcs, data: Path, tmp_path: Path) -> None:
    for i in range(4):
        save(tmp_path / f"maps/s{i}.png", np.zeros((8, 8)))
        np.save(tmp_path / f"attention/s{i}.npy", np.zeros((8, 8)))
    assert jcs("segment", "--data", data, "--predictions", tmp_path / "maps", "-o", tmp_path / "out")[0] == 2
    assert jcs("explain", "--data", data, "--maps", tmp_path / "attention", "-o", tmp_path / "out")[0] == 2
    assert not (tmp_path / "out").exists()


def test_maps_of_one_bit_and_of_a_palette_are_read(tmp_path: Path) -> None:
    from jcs_ct.evaluate.maps import read_map

    mask = disc(20, 20, 9)
    Image.fromarray(mask).save(tmp_path / "bit.png")
    Image.fromarray((255 * mask).astype(np.uint8)).convert("P").save(tmp_path / "palette.png")
    for name in ("bit.png", "palette.png"):
        assert (read_map(tmp_path / name) == mask).all()


def test_matching() -> None:
    def pairs(slices: list[str], predictions: list[str]) -> tuple[dict[str, str], int, tuple[str, ...]]:
        found = match({name: name for name in slices}, predictions, "map", "maps")
        return found.pairs, len(found.problems), found.extra

    assert pairs(["images/a.jpg"], ["a.png"]) == ({"images/a.jpg": "a.png"}, 0, ())
    assert pairs(["images/p1/a.png", "images/p2/a.png"], ["p2/a.png", "p1/a.png"])[0] == {
        "images/p1/a.png": "p1/a.png",
        "images/p2/a.png": "p2/a.png",
    }
    assert pairs(["p1/a.png", "p2/a.png"], ["p1/a.png"]) == ({"p1/a.png": "p1/a.png"}, 1, ())
    assert pairs(["p1/a.png", "p2/a.png"], ["a.png"]) == ({}, 2, ("a.png",))
    assert pairs(["a.png"], ["x/a.png", "y/a.png"])[1] == 1
    assert pairs(["p1/a.png"], ["x/a.png", "p1/a.npy"])[0] == {"p1/a.png": "p1/a.npy"}
    assert pairs(["a?.png"], ["a_.png"])[0] == {"a?.png": "a_.png"}
    assert pairs(["p/a.png"], ["scan.zip!p/a.png", "scan.zip!q/a.png"])[0] == {"p/a.png": "scan.zip!p/a.png"}


def test_masks_of_ct100_as_their_own_predictions(jcs: Jcs, real_data: Path, tmp_path: Path) -> None:
    out, masks = tmp_path / "out", real_data / "ct100/masks"
    folder = real_data / "ct100"
    status, said = jcs("segment", "--data", folder, "--fold", 2, "--predictions", masks, "-o", out, "--resamples", 10)
    assert status == 0, said
    found = scores(out)
    assert found["slices"] == 20
    for name in ("dice", "iou", "miou", "sensitivity", "specificity", "precision"):
        assert found["per_image"][name]["value"] == found["pooled"][name]["value"] == 1
    for name in ("s_measure", "weighted_f", "e_measure_adaptive"):
        # The S-measure's guard against 0/0 shows where a quadrant holds a handful of lesion pixels.
        assert found["per_image"][name]["value"] == pytest.approx(1, abs=1e-3 if name == "s_measure" else 1e-5)
    assert found["per_image"]["hd95"]["value"] == found["release"]["mae"] == 0
    assert found["release"]["iou"] == 1  # no lesion of this fold covers half of its slice
    half = np.zeros((1, 4, 4))
    half[:, :2] = 1
    assert release_iou(half, half) == 0


def test_a_map_that_claims_terabytes_is_one_problem(tmp_path: Path) -> None:
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 10000000), }".ljust(117) + b"\n"
    (tmp_path / "s0.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(100))
    with pytest.raises(InputError, match="damaged NumPy file"):
        read_map(tmp_path / "s0.npy")


def test_a_negative_seed_is_refused(jcs: Jcs, tmp_path: Path) -> None:
    status, said = jcs("segment", "--masks", tmp_path, "--predictions", tmp_path, "-o", tmp_path / "o", "--seed", -1)
    assert status == 2
    assert "--seed" in said


def test_maps_from_half_size_features_are_scored_on_the_grid_of_the_mask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.evaluate.slice_reader import SliceReader
    from jcs_ct.inference import apply

    write_features(tmp_path / "s.mat", {"vgg": np.full((64, 16, 16), 9, np.uint8)})
    Image.fromarray(np.full((32, 32), 255, np.uint8)).save(tmp_path / "m.png")
    half = np.zeros((16, 16), np.float32)
    half[:8] = 1
    monkeypatch.setattr(apply, "segment", lambda item, net: half)
    stub = SimpleNamespace(spec=SimpleNamespace(outputs=("lesions",), feature_arrays=("vgg",)))
    sample = Sample(mask=tmp_path / "m.png", features=tmp_path / "s.mat")
    case = Case("s", "s", "s", sample)
    found = SliceReader(stub, None).lesion_map(case)  # type: ignore[arg-type]
    assert found.shape == (32, 32)
    assert (found[:15] == 1).all()
    assert (found[17:] == 0).all()


def lesions(tmp_path: Path, **values: int) -> Path:
    """Three masks in `masks`, and for each keyword a folder of the same lesions, stored as that level."""
    for i in range(3):
        mask = disc(12 + 6 * i, 20, 5 + i)
        for name, level in {"masks": 255, **values}.items():
            save(tmp_path / f"{name}/s{i}.png", level * mask)
    return tmp_path / "masks"


def test_maps_of_0_and_1_are_masks(jcs: Jcs, tmp_path: Path) -> None:
    masks = lesions(tmp_path, ones=1)
    common = ("segment", "--masks", masks, "--resamples", 0)
    status, said = jcs(*common, "--predictions", tmp_path / "ones", "-o", tmp_path / "out")
    assert status == 0
    note = "ones: its maps hold only 0 and 1 and are read as masks, 1 is lesion; if they are"
    assert note in said
    assert scores(tmp_path / "out")["per_image"]["dice"]["value"] == 1
    assert scores(tmp_path / "out")["release"]["mae"] == 0
    # Both sides of a comparison are looked at, each by itself.
    status, said = jcs(*common, "--predictions", masks, "--against", tmp_path / "ones", "-o", tmp_path / "both")
    assert said.count("read as masks") == 1
    assert scores(tmp_path / "both")["against"]["per_image"]["dice"]["value"] == 1
    # Said by the user, nothing is looked for.
    for given, dice in (("probabilities", 0), ("masks", 1)):
        out = tmp_path / given
        _, said = jcs(*common, "--predictions", tmp_path / "ones", "-o", out, "--map-values", given)
        assert scores(out)["per_image"]["dice"]["value"] == dice
        assert "read as masks" not in said


def test_one_map_of_probabilities_settles_it_for_the_folder(jcs: Jcs, tmp_path: Path) -> None:
    """A map with no level above 1 may well be one of probabilities, where its slice shows nothing."""
    masks = lesions(tmp_path, maps=1)
    save(tmp_path / "maps/s2.png", 200 * disc(24, 20, 7))
    arguments = ("segment", "--masks", masks, "--predictions", tmp_path / "maps", "--resamples", 0)
    assert "read as masks" not in jcs(*arguments, "-o", tmp_path / "out")[1]
    assert [float(row["dice"]) for row in table(tmp_path / "out/per_image.csv")] == [0, 0, 1]
    # Also where that map belongs to no slice that is scored.
    (masks / "s2.png").unlink()
    assert "read as masks" not in jcs(*arguments, "-o", tmp_path / "out2")[1]


@pytest.mark.parametrize(
    ("levels", "shown"), [((1, 2), "0, 1 and 2"), ((2, 2), "0 and 2"), ((1, 3), "0, 1 and 3"), ((7, 8), "0, 7 and 8")]
)
def test_maps_of_labels_are_refused(jcs: Jcs, tmp_path: Path, levels: tuple[int, int], shown: str) -> None:
    masks = lesions(tmp_path, labels=levels[1])
    save(tmp_path / "labels/s0.png", np.where(disc(12, 20, 5), levels[1], levels[0] * disc(30, 20, 6)))
    arguments = ("segment", "--masks", masks, "--predictions", tmp_path / "labels", "--resamples", 0)
    status, said = jcs(*arguments, "-o", tmp_path / "out")
    assert status == 2
    line = f"labels: its maps hold only the values {shown}, as labels do; probabilities from 0 to 255 or masks are"
    assert line in said
    assert "--map-values masks if every value but 0 is lesion" in said
    assert not (tmp_path / "out").exists()
    assert jcs(*arguments, "-o", tmp_path / "out", "--map-values", "masks")[0] == 0
    dice = [float(row["dice"]) for row in table(tmp_path / "out/per_image.csv")]
    assert dice[1:] == [1, 1]
    assert dice[0] < 1  # the other label counts as lesion too


def test_maps_that_are_no_labels_are_left_alone(jcs: Jcs, tmp_path: Path) -> None:
    masks = lesions(tmp_path, zero=0, nine=9, percent=100, attention=1)
    for name in ("zero", "nine", "percent"):
        status, said = jcs(
            "segment", "--masks", masks, "--predictions", tmp_path / name, "-o", tmp_path / f"o{name}", "--resamples", 0
        )
        assert (status, "read as masks" in said) == (0, False)
        assert ("no map reaches the threshold 0.5" in said) == (name != "zero")
        assert ("the highest value is 0.392 (100 of 255)" in said) == (name == "percent")
    status, said = jcs("explain", "--masks", masks, "--maps", tmp_path / "attention", "-o", tmp_path / "e")
    assert (status, "read as masks" in said) == (0, True)
    assert scores(tmp_path / "e")["scores"]["pointing_game"]["value"] == 1


@pytest.mark.parametrize(
    ("low", "high", "shown"), [(127, 255, "0, 127 and 255"), (1, 255, "0, 1 and 255"), (0, 255, "")]
)
def test_few_levels_are_named(jcs: Jcs, tmp_path: Path, low: int, high: int, shown: str) -> None:
    """Labels that were stretched; masks of 1 among masks of 255."""
    masks = lesions(tmp_path, maps=high)
    save(tmp_path / "maps/s0.png", np.where(disc(12, 20, 5), high, low * disc(30, 20, 6)))
    status, said = jcs(
        "segment", "--masks", masks, "--predictions", tmp_path / "maps", "-o", tmp_path / "out", "--resamples", 0
    )
    note = (
        f"maps: its maps hold only the values {shown} and are read as probabilities, v/255; if they are labels, write"
    )
    assert (status, note in said, "hold only the values" in said) == (0, bool(shown), bool(shown))


def test_black_and_white_exchanged_is_named(jcs: Jcs, tmp_path: Path) -> None:
    masks = lesions(tmp_path, maps=255)
    for i in range(2):  # two of three: also where some are right
        save(tmp_path / f"maps/s{i}.png", 255 - 255 * disc(12 + 6 * i, 20, 5 + i))
    common = ("segment", "--resamples", 0)
    _, said = jcs(*common, "--masks", masks, "--predictions", tmp_path / "maps", "-o", tmp_path / "a")
    assert "maps: 2 of 3 maps mark more than half of their slice: are 0 and 255 exchanged?" in said
    _, said = jcs(*common, "--masks", tmp_path / "maps", "--predictions", masks, "-o", tmp_path / "b")
    assert "note: 2 of 3 masks mark more than half of their slice: are 0 and 255 exchanged?" in said
    _, said = jcs(*common, "--masks", masks, "--predictions", masks, "-o", tmp_path / "c")
    assert "are 0 and 255 exchanged" not in said


def test_stored_maps_of_half_size_features_are_scored(jcs: Jcs, tmp_path: Path) -> None:
    """256 × 256 for a slice of 512 × 512; of another size they do not belong to features, and are refused."""
    mask = np.zeros((512, 512), np.uint8)
    mask[100:200, 200:360] = 255
    for name, size in (("half", 256), ("third", 171)):
        save(tmp_path / f"masks_{name}/s.png", mask)
        small = Image.fromarray(mask).resize((size, size), Image.Resampling.BOX)
        save(tmp_path / f"{name}/s.png", np.asarray(small))
    common = ("--resamples", 0, "-o", tmp_path / "out", "--overwrite")
    status, said = jcs("segment", "--masks", tmp_path / "masks_half", "--predictions", tmp_path / "half", *common)
    assert status == 0, said
    assert "1 maps of 256 × 256, as stage-1 features give, were brought to the grid of their masks" in said
    assert scores(tmp_path / "out")["per_image"]["dice"]["value"] == pytest.approx(1, abs=1e-3)
    status, said = jcs("segment", "--masks", tmp_path / "masks_third", "--predictions", tmp_path / "third", *common)
    assert status == 2
    assert "is 171 × 171, its mask s.png is 512 × 512" in said


def test_the_runtime_is_obeyed(jcs: Jcs, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that is missing is refused with the words of `classify`; another one is what the network is given."""
    import jcs_ct.inference as runtime
    from jcs_ct.core.errors import UsageError
    from jcs_ct.inference import apply

    asked: list[Any] = []

    def opened(model: object, device: str, tasks: Any, name: str, _say: object) -> Any:
        asked.append((device, name))
        if name == "onnxruntime":
            raise UsageError("runtime onnxruntime needs onnxruntime, which is not installed")
        found = network(tasks[0])
        found.slices = 1
        asked.append(found)
        return found

    monkeypatch.setattr(runtime, "open_network", opened)
    monkeypatch.setattr(apply, "segment", lambda item, net: item.pixels[..., 0].astype(np.float32) / 255)
    common = ("segment", "--data", data, "--model", "stub", "--resamples", 0, "--device", "cpu", "-o", tmp_path / "out")
    status, said = jcs(*common, "--runtime", "onnxruntime")
    assert status == 2
    assert "runtime onnxruntime needs onnxruntime, which is not installed" in said
    assert not (tmp_path / "out").exists()
    assert jcs(*common, "--runtime", "openvino")[0] == 0
    assert asked[:2] == [("cpu", "onnxruntime"), ("cpu", "openvino")]
    assert asked[2].slices == 4

    def refused(item: Any, net: Any) -> Any:
        raise UsageError("runtime openvino does not run jcs-lite")

    monkeypatch.setattr(apply, "segment", refused)
    status, said = jcs(*common, "--runtime", "openvino", "--overwrite")
    assert status == 2
    assert said.count("does not run jcs-lite") == 1  # no further slice can mend it


def test_a_table_does_not_name_slices_of_volumes(jcs: Jcs, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text("file,slice,label\nv.nii.gz,0,1\nv.nii.gz,1,0\n")
    (tmp_path / "p.csv").write_text("file,probability\nv.nii.gz,0.5\n")
    words = ("--labels", tmp_path / "labels.csv", "--predictions", tmp_path / "p.csv", "-o", tmp_path / "o")
    status, said = jcs("classify", *words)
    assert status == 2
    assert "names pictures, the data are slices of volumes" in said
