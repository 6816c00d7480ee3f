"""Folds keep groups whole and strata even, are the same for the same seed, and are read back as they were written."""

from __future__ import annotations

import functools
import json
import operator
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets_help import copy_file, damage, folders, lists, manifest, picture, save
from jcs_ct.core.errors import InputError, JcsError, OutputError, UsageError
from jcs_ct.datasets.check import check
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.samples import Dataset, Sample
from jcs_ct.datasets.split import Folds, list_files, make_folds, save_folds, save_lists


def imagined(groups: int = 60, seed: int = 0) -> Dataset:
    """A data set of which no file exists: groups of 1 to 9 slices, two labels, three sources."""
    rng = np.random.default_rng(seed)
    samples = []
    for g in range(groups):
        label, source = int(rng.integers(2)), "abc"[int(rng.integers(3))]
        count = int(rng.integers(1, 10))
        samples += [Sample(Path(f"/d/{g}_{k}.png"), None, None, label, f"g{g}", source) for k in range(count)]
    return Dataset(Path("/d"), "classify", tuple(samples), "manifest")


def names(made: Folds) -> list[list[str]]:
    return [[s.path.name for s in fold] for fold in made.folds]


def test_groups_stay_whole_and_strata_even() -> None:
    data = imagined()
    made = make_folds(data, 5, seed=3)
    assert sorted(s.path for fold in made.folds for s in fold) == sorted(s.path for s in data.samples)
    where = [{s.group for s in fold} for fold in made.folds]
    assert sum(len(groups) for groups in where) == 60
    share = Counter((s.label, s.source) for s in data.samples)
    for fold in made.folds:
        for stratum, count in Counter((s.label, s.source) for s in fold).items():
            assert abs(count - share[stratum] / 5) <= 9  # within a group of the largest size
    assert made.facts["counts"][0]["slices"] == len(made.folds[0])
    assert sum(sum(c["labels"].values()) for c in made.facts["counts"]) == len(data.samples)
    assert made.facts["seed"] == 3


def test_seeds() -> None:
    assert names(make_folds(imagined(), seed=1)) == names(make_folds(imagined(), seed=1))
    assert names(make_folds(imagined(), seed=1)) != names(make_folds(imagined(), seed=2))


def test_written_folds_are_read_back_and_do_not_overlap(tmp_path: Path) -> None:
    root = manifest(tmp_path, groups=12)
    text = (root / "labels.csv").read_text().replace(",test", ",train")
    (root / "labels.csv").write_text(text)
    data = open_dataset(root, "classify", folds=None)
    made = make_folds(data, 3, seed=0)
    save_folds(made, data, root / "folds.json")
    again = open_dataset(root, "classify")
    assert [[s.path.name for s in again.samples if s.fold == n] for n in (1, 2, 3)] == names(made)
    assert check(again).ok
    written = json.loads((root / "folds.json").read_text())
    assert written["folds"][0][0] == Path(names(made)[0][0]).stem
    assert written["stratified_by"] == ["label", "source"]
    assert written["made_by"].startswith("jcs-ct ")
    assert all(set(c) >= {"slices", "groups", "labels", "sources"} for c in written["counts"])
    with pytest.raises(OutputError, match="exists already"):
        save_folds(made, data, root / "folds.json")


def test_slices_without_groups(tmp_path: Path) -> None:
    data = open_dataset(folders(tmp_path))
    made = make_folds(data, 3)
    assert sorted(len(fold) for fold in made.folds) == [2, 2, 2]
    assert any("no groups are known" in note for note in made.notes)
    assert made.facts["counts"][0]["labels"] == {"unknown": 2}


def test_the_test_split_is_held_back_and_files_stand_once(tmp_path: Path) -> None:
    lists(tmp_path)
    (tmp_path / "train.txt").write_text((tmp_path / "train.txt").read_text() * 2 + (tmp_path / "test.txt").read_text())
    made = make_folds(open_dataset(tmp_path), 2)
    assert sorted(functools.reduce(operator.iadd, names(made), [])) == ["s00.png", "s01.png", "s02.png", "s03.png"]
    assert "2 slices of the split 'test' are held back: in no fold" in made.notes
    assert made.facts["held_back"] == 2


@pytest.mark.parametrize("copies", [("g3_1.png", "exact"), ("near.png", "near")])
def test_duplicates_join_groups(tmp_path: Path, copies: tuple[str, str]) -> None:
    manifest(tmp_path, groups=8)
    source = tmp_path / "images/g0_0.png"
    if copies[1] == "exact":
        copy_file(source, tmp_path / "images/g3_1.png")
        copy_file(tmp_path / "images/g3_0.png", tmp_path / "images/g5_1.png")
    else:
        grey = np.asarray(Image.open(source))
        save(tmp_path / "images/g3_1.png", (grey * 0.9).astype(np.uint8))
        save(tmp_path / "images/g5_1.png", np.asarray(Image.open(tmp_path / "images/g3_0.png").resize((60, 70))))
    data = open_dataset(tmp_path, "classify", folds=None)
    assert "6 groups become 4, since they share duplicates" in make_folds(data, 2, join_duplicates=True).notes
    for seed in range(4):
        made = make_folds(data, 2, seed, join_duplicates=True)
        together = [{s.group for s in fold} & {"g0", "g3", "g5"} for fold in made.folds]
        assert sorted(map(len, together)) == [0, 3]  # g5 joins g0 over g3
        assert made.facts["joined_duplicates_from"] == 0.95
    seen: list[int] = []

    def watch(found: Any, total: int) -> Any:
        seen.append(total)
        return found

    make_folds(data, 2, join_duplicates=True, watch=watch, workers=1)
    assert seen == [12]
    damage(source)
    with pytest.raises(InputError, match=r"g0_0\.png"):
        make_folds(data, 2, join_duplicates=True)


def test_rare_strata_are_named() -> None:
    samples = tuple(Sample(Path(f"/d/{i}.png"), label=i % 2, group=f"g{i}", source="abcdefgh"[i]) for i in range(8))
    data = Dataset(Path("/d"), None, samples, "manifest")
    made = make_folds(data, 3)
    assert sorted(map(len, made.folds)) == [2, 3, 3]
    assert any("too rare to be in every fold (label|source): 0|a, 0|c" in note for note in made.notes)
    assert make_folds(Dataset(Path("/d"), None, (*imagined().samples, *samples), "manifest"), 5).folds


def test_what_cannot_be_divided(tmp_path: Path) -> None:
    data = imagined(3)
    with pytest.raises(UsageError, match=r"has 3 groups to divide, fewer than 5 folds"):
        make_folds(data)
    for folds in (1, 101):
        with pytest.raises(UsageError, match="2 to 100 are possible"):
            make_folds(data, folds)
    with pytest.raises(UsageError, match="has no mask, and lists are for segmentation"):
        save_lists(make_folds(data, 3), tmp_path)
    unequal = [
        Sample(Path(f"/d/{i}.png"), None, None, int(label), f"g{group}", "a")
        for i, (label, group) in enumerate(zip("001100001", "000001123", strict=True))
    ]
    with pytest.raises(UsageError, match="so unequal that fold 3 of 4 would be empty"):
        make_folds(Dataset(Path("/d"), "classify", tuple(unequal), "manifest"), 4)


def test_without_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(JcsError, match=r'pip install .*\[train\]"'):
        make_folds(imagined())


@pytest.mark.parametrize("where", ["lists", "data set/lists"])
def test_lists_of_each_fold_are_data_sets(tmp_path: Path, where: str) -> None:
    root = folders(tmp_path / "data set")
    copy_file(root / "images/s00.png", root / 'images/q "1.png')
    copy_file(root / "masks/s00.png", root / 'masks/q "1.png')
    save(root / 'images/q "1.png', picture(77))
    made = make_folds(open_dataset(root), 3)
    out = tmp_path / where
    save_lists(made, out)
    assert [path for path in list_files(made, out) if not path.is_file()] == []
    tested = []
    for number, fold in enumerate(made.folds, 1):
        data = open_dataset(out / f"fold{number}", "segment")
        assert [s.path.resolve() for s in data.part("test")] == [s.path for s in fold]
        assert len(data.part("train")) == 7 - len(fold)
        assert check(data).ok
        tested += [s.path.name for s in data.part("test")]
    assert len(set(tested)) == 7


@pytest.mark.skipif(sys.platform != "linux", reason="other systems know no such names")
def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    folders(tmp_path)
    for folder in ("images", "masks"):
        (tmp_path / folder / "s00.png").rename(tmp_path / folder / "\udcff.png")
    data = open_dataset(tmp_path)
    made = make_folds(data, 2)
    save_folds(made, data, tmp_path / "folds.json")
    save_lists(made, tmp_path / "lists")
    assert {s.fold for s in open_dataset(tmp_path).samples} == {1, 2}
    assert check(open_dataset(tmp_path)).ok


def test_lists_on_another_drive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> str:
        raise ValueError("path is on mount 'D:', start on mount 'C:'")

    made = make_folds(open_dataset(folders(tmp_path / "data")), 2)
    monkeypatch.setattr("os.path.relpath", refuse)
    save_lists(made, tmp_path / "lists")
    first = (tmp_path / "lists/fold1/test.txt").read_text().split()[0]
    assert first == made.folds[0][0].path.resolve().as_posix()


def test_real_folds(real_data: Path) -> None:
    data = open_dataset(real_data / "ct_classification", "classify")
    made = make_folds(data, 5, seed=0)
    assert sum(map(len, made.folds)) == 3661
    groups = [{s.group for s in fold} for fold in made.folds]
    assert sum(map(len, groups)) == len(set.union(*groups)) == 1182
    for fold in made.folds:
        assert abs(len(fold) - 3661 / 5) < 40
        assert abs(sum(s.label or 0 for s in fold) / len(fold) - 1903 / 3661) < 0.02
        assert {s.source for s in fold} >= {"ucsd", "mosmed", "sarscov2", "nor"}
    assert any("1|other" in c["labels_and_sources"] for c in made.facts["counts"])
