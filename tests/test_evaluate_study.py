"""`jcs evaluate study`: verdicts of whole studies against labels, with scikit-learn as the oracle."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from sklearn.metrics import brier_score_loss, roc_auc_score

from jcs_ct.cli import main
from jcs_ct.core.errors import InputError
from jcs_ct.evaluate.record import differences
from jcs_ct.evaluate.study import read_studies, record, report, to_csv, to_markdown
from jcs_ct.evaluate.study_matching import copies, input_digest, read_labels

if TYPE_CHECKING:
    from pathlib import Path

LABELS = {"a": 1, "b": 1, "c": 1, "d": 0, "e": 0, "f": 0}
SCORES = {"a": 0.9, "b": 0.7, "c": 0.3, "d": 0.4, "e": 0.2, "f": 0.1}


def written(out: Path, name: str, score: float, **changes: Any) -> None:
    verdict = {
        "rule": "top-k", "score": score, "limit": 0.5, "positive": score >= 0.5, "probability": score, "reliable": True,
    }  # fmt: skip
    content = {
        "verdict": verdict | changes.pop("verdict", {}),
        "model": {"name": "jcs-lite", "weights_sha256": "ab" * 32},
        "source": {"path": f"/in/{name}.nii.gz"},
    } | changes
    (out / name).mkdir(parents=True)
    (out / name / "report.json").write_text(json.dumps(content), encoding="utf-8")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    for name, score in SCORES.items():
        written(tmp_path / "out", name, score)
    return tmp_path / "out"


def evaluated(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    with pytest.raises(SystemExit) as end:
        main(["evaluate", "study", *map(str, words)])
    return int(end.value.code or 0), "".join(capsys.readouterr())


def labels_at(path: Path, rows: list[str], header: str = "study,label,group") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def all_labels(folder: Path) -> Path:
    return labels_at(folder / "labels.csv", [f"{name},{label},p{name}" for name, label in LABELS.items()])


def test_scores_are_those_of_scikit_learn(tmp_path: Path, results: Path) -> None:
    studies, problems, extra = read_studies(results, read_labels(all_labels(tmp_path)))
    assert (problems, extra) == ([], [])
    found = report(studies, "out", resamples=50, seed=0)["overall"]
    truth, values = list(LABELS.values()), list(SCORES.values())
    assert found["auc"]["value"] == pytest.approx(roc_auc_score(truth, values))
    assert found["calibration"]["brier"] == pytest.approx(brier_score_loss(truth, values))
    assert {key: found["confusion"][key] for key in ("tp", "fn", "fp", "tn")} == {"tp": 2, "fn": 1, "fp": 0, "tn": 3}
    assert found["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert found["sensitivity"]["low"] <= 2 / 3 <= found["sensitivity"]["high"]


def test_no_doubt_improves_a_figure(tmp_path: Path) -> None:
    for name, score in SCORES.items():
        call = "indeterminate" if name in "cd" else "positive" if score >= 0.5 else "negative"
        written(tmp_path / "out", name, score, verdict={"call": call, "positive": call == "positive"})
    studies, _, _ = read_studies(tmp_path / "out", read_labels(all_labels(tmp_path)))
    content = report(studies, "out", resamples=0, seed=0)
    assert content["overall"]["sensitivity"]["value"] == pytest.approx(2 / 3)  # c counts as missed, as its score says
    assert content["overall"]["confusion"]["tn"] == 3
    assert content["decided"]["studies"] == 4
    assert content["decided"]["sensitivity"]["value"] == 1.0
    text = to_markdown(content).decode()
    assert "2 of 6 verdicts are indeterminate" in text
    assert "| c | COVID-19 | indeterminate | 0.300 | yes |" in text
    assert to_csv(studies).decode().splitlines()[3].startswith("c,1,pc,0.3,indeterminate,False,True")


def test_counts_of_slices_are_ranked_and_not_called_probabilities(tmp_path: Path) -> None:
    for name, label in LABELS.items():
        rule = {"rule": "release-count", "limit": 19, "probability": None, "positive": bool(label)}
        written(tmp_path / "out", name, 30.0 * label + 2, verdict=rule)
    studies, _, _ = read_studies(tmp_path / "out", read_labels(all_labels(tmp_path)))
    found = report(studies, "out", resamples=0, seed=0)["overall"]
    assert found["auc"]["value"] == 1.0
    assert found["calibration"] is None


@pytest.mark.parametrize("name", ["a", "a.nii.gz"])
def test_a_study_is_found_by_its_folder_or_its_path(tmp_path: Path, results: Path, name: str) -> None:
    labels = read_labels(labels_at(tmp_path / "l.csv", [f"{name},1"], "study,label"))
    studies, problems, extra = read_studies(results, labels)
    assert [(s.name, s.group, s.score) for s in studies] == [(name, name, 0.9)]
    assert problems == []
    assert extra == ["b", "c", "d", "e", "f"]


def test_what_has_no_result_and_what_is_no_report_are_named(tmp_path: Path, results: Path) -> None:
    (results / "b" / "report.json").write_text("{}", encoding="utf-8")
    labels = read_labels(labels_at(tmp_path / "l.csv", ["a,1", "b,1", "z,0"], "study,label"))
    studies, problems, _ = read_studies(results, labels)
    assert [s.name for s in studies] == ["a"]
    assert any("is not a report" in str(p) for p in problems)
    assert sorted(str(p.path) for p in problems if "has no result" in str(p)) == ["b", "z"]


@pytest.mark.parametrize(
    ("rows", "said"),
    [(["a,1", "a,0"], "names the study 'a' again"), (["a,maybe"], "has the label 'maybe'"), ([",1"], "'' as study")],
)
def test_bad_tables_are_refused_with_the_line(tmp_path: Path, rows: list[str], said: str) -> None:
    path = labels_at(tmp_path / "l.csv", rows, "study,label")
    with pytest.raises(InputError, match=said) as error:
        read_labels(path)
    assert str(error.value.path).endswith(f"l.csv:{1 + len(rows)}")


def test_verdicts_of_two_networks_are_not_mixed(tmp_path: Path, results: Path) -> None:
    written(results, "g", 0.5, model={"name": "other", "weights_sha256": "cd" * 32})
    rows = [f"{name},1" for name in (*LABELS, "g")]
    studies, _, _ = read_studies(results, read_labels(labels_at(tmp_path / "l.csv", rows, "study,label")))
    with pytest.raises(InputError, match="verdicts of 2 kinds"):
        report(studies, "out", resamples=0, seed=0)


def test_one_class_says_what_is_not_defined(tmp_path: Path, results: Path) -> None:
    labels = read_labels(labels_at(tmp_path / "l.csv", ["a,1", "b,1"], "study,label"))
    content = report(read_studies(results, labels)[0], "out", resamples=0, seed=0)
    assert content["undefined"] == (
        "AUC and specificity are not defined, because all 2 studies have the label 1 (COVID-19): one class"
    )


def test_the_command_writes_scores_a_table_and_a_figure(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(results, "extra", 0.5)
    out = tmp_path / "scores"
    words = ("--labels", all_labels(tmp_path), "--results", results, "-o", out)
    status, said = evaluated(capsys, *words)
    assert status == 0, said
    assert "1 results have no label" in said
    assert "| c | COVID-19 | negative | 0.300 | yes |" in (out / "scores.md").read_text(encoding="utf-8")
    with (out / "studies.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == list(LABELS)
    with Image.open(out / "verdicts.png") as picture:
        assert picture.size[0] > 1000
    assert evaluated(capsys, *words)[0] == 2


def test_verdicts_that_are_not_reliable_have_their_reasons_in_the_table_and_are_refused_on_demand(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(results / "a")
    written(results, "a", 0.9, verdict={"reliable": False, "reasons": ["lacks 2 slices", "tilt"]})
    words = ("--labels", all_labels(tmp_path), "--results", results, "-o")
    assert evaluated(capsys, *words, tmp_path / "s")[0] == 0
    with (tmp_path / "s/studies.csv").open(newline="", encoding="utf-8") as file:
        assert [row["flags"] for row in csv.DictReader(file)] == ["lacks 2 slices; tilt", *[""] * (len(LABELS) - 1)]
    status, said = evaluated(capsys, *words, tmp_path / "t", "--strict")
    assert status == 1  # the others are scored
    assert "a: has a verdict that is not reliable: lacks 2 slices; tilt (leave --strict out" in said
    with (tmp_path / "t/studies.csv").open(newline="", encoding="utf-8") as file:
        assert [row["name"] for row in csv.DictReader(file)] == [name for name in LABELS if name != "a"]


def test_no_study_with_a_result_is_an_error(tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = labels_at(tmp_path / "l.csv", ["z,1"], "study,label")
    status, said = evaluated(capsys, "--labels", labels, "--results", results, "-o", tmp_path / "s")
    assert status == 2
    assert "names no study that has a result" in said


def collided(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """Two wards with a study of the same name; the folders of results say nothing of the wards."""
    out, digests = tmp_path / "r", {}
    for ward, case, score in (("one", "chest", 0.9), ("two", "chest-5e1f00aa", 0.2)):
        path = tmp_path / ward / "chest.nii"
        path.parent.mkdir()
        path.write_bytes(ward.encode())
        digests[ward] = hashlib.sha256(hashlib.sha256(ward.encode()).digest()).hexdigest()
        source = {"path": f"/mnt/{score}/chest.nii", "kind": "nifti", "digest": digests[ward]}
        written(out, case, score, source=source)
    return out, digests


@pytest.mark.parametrize("way", ["digest", "file", "path", "folder"])
def test_names_that_collide_are_told_apart(tmp_path: Path, way: str) -> None:
    out, digests = collided(tmp_path)
    assert input_digest(tmp_path / "one" / "chest.nii", {}) == digests["one"]
    names = {"digest": ("chest", "chest.nii"), "file": ("one/chest.nii", "two/chest.nii")}
    names["folder"] = ("chest", "chest-5e1f00aa")
    names["path"] = ("x/0.9/chest.nii", "0.2/chest.nii")
    rows = [f"{name},{label},{d[:12]}" for name, label, d in zip(names[way], (1, 0), digests.values(), strict=True)]
    rows = rows if way == "digest" else [row.rpartition(",")[0] for row in rows]
    table = labels_at(tmp_path / "l.csv", rows, "study,label,digest" if way == "digest" else "study,label")
    studies, problems, extra = read_studies(out, read_labels(table))
    assert [(s.name, s.label, s.score) for s in studies] == [(names[way][0], 1, 0.9), (names[way][1], 0, 0.2)]
    assert (problems, extra) == ([], [])


def test_what_cannot_be_told_apart_or_is_another_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = collided(tmp_path)
    written(out, "d", 0.4)
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "chest.nii").write_bytes(b"of another patient")
    rows = ["chest.nii,1,", "three/chest.nii,0,", "chest,1,0123456789", "d,0,", "d.nii.gz,0,"]
    table = labels_at(tmp_path / "l.csv", rows, "study,label,digest")
    status, said = evaluated(capsys, "--labels", table, "--results", out, "-o", tmp_path / "s", "--resamples", 0)
    assert status == 1
    assert f"chest.nii: has 2 results: chest, chest-5e1f00aa in {out} (" in said
    both = "chest, chest-5e1f00aa have the name, and not"
    assert f"three/chest.nii: has no result in {out}: {both} its path and its bytes (" in said
    assert f"chest: has no result in {out}: {both} its digest 01234567… (" in said
    assert "d.nii.gz: has the result d, which is that of d already (keep one row of a study)" in said
    assert "jcs: 1 study scored, 4 failed" in said
    assert evaluated(capsys, "--labels", table, "--results", out, "-o", tmp_path / "s", "--runtime", "onnx")[0] == 2


def test_scores_of_other_studies_are_not_compared(tmp_path: Path) -> None:
    out, _ = collided(tmp_path)
    table = read_labels(labels_at(tmp_path / "l.csv", ["one/chest.nii,1"], "study,label"))
    studies, _, _ = read_studies(out, table)
    one = record(studies, "out", {})
    other = record([replace(studies[0], digest="ff" * 32)], "out", {})
    (line,) = differences(one, other)
    assert line == "1 slice (one/chest.nii) has another picture, mask, label or patient"
    renamed = record([replace(studies[0], name="x", group="x")], "elsewhere", {})
    assert differences(one, renamed) == []
    assert renamed.made_by == one.made_by != record([replace(studies[0], score=0.8)], "out", {}).made_by
    assert copies(["a", "b", "a", "", ""]) == 1


def test_studies_that_were_trained_on_are_named(
    tmp_path: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(results, "g", 0.8, cautions=[{"code": "trained-on", "text": "…"}])
    table = labels_at(tmp_path / "l.csv", ["a,1", "d,0", "g,1"], "study,label")
    words = ("--labels", table, "--results", results, "-o", tmp_path / "s", "--resamples", 0)
    status, said = evaluated(capsys, *words)
    assert status == 0
    text = "1 of 3 studies (33 %: g) hold slices that jcs-lite was trained on: scores on them are too good; "
    assert f"jcs: note: {text}score studies of other patients\n" in said
    assert f"**{text}" in (tmp_path / "s" / "scores.md").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "s" / "scores.json").read_text())["training_data"]["seen"] == 1
