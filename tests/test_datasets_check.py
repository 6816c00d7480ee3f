"""The check finds every planted fault, stays quiet on clean data, and its fingerprint is the formula it says."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from datasets_help import copy_file, damage, folders, lesion, lists, manifest, picture, release_lists, save
from jcs_ct.core.errors import UsageError
from jcs_ct.datasets.check import KINDS, WARNINGS, CheckReport, check
from jcs_ct.datasets.fingerprint import FREQUENCIES, LENGTH, THRESHOLD, digest, fingerprint, low_frequencies, near_pairs
from jcs_ct.datasets.inspection import inspect
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.samples import Sample
from jcs_ct.io.features import write_features

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray


def checked(root: Path, **how: Any) -> CheckReport:
    return check(open_dataset(root, strict=False), **how)


def found(report: CheckReport) -> dict[str, list[str]]:
    return {kind: [f.error().line() for f in report.of(kind)] for kind in KINDS if report.of(kind)}


def rgb(grey: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.repeat(grey[..., None], 3, axis=2)


def alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    pairs = list(near_pairs(np.stack([fingerprint(rgb(one)), fingerprint(rgb(other))]), -1))
    return float(pairs[0][2][0])


def changed(grey: NDArray[np.uint8]) -> dict[str, NDArray[np.uint8]]:
    """A picture as it comes back from a web page, a slide, another viewer."""
    image = Image.fromarray(grey)
    rows, columns = grey.shape
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=50)
    return {
        "smaller": np.asarray(image.resize((columns // 2, rows // 2), Image.Resampling.BICUBIC)),
        "larger": np.asarray(image.resize((columns * 2, rows * 3 // 2), Image.Resampling.BILINEAR)),
        "jpeg": np.asarray(Image.open(jpeg)),
        "brighter": (grey * 1.1 + 8).clip(0, 255).astype(np.uint8),
        "darker": (grey * 0.9 - 8).clip(0, 255).astype(np.uint8),
    }


# --- clean data


@pytest.mark.parametrize("make", [folders, lists, manifest])
def test_clean_data_is_quiet(tmp_path: Path, make: Any) -> None:
    report = checked(make(tmp_path))
    assert found(report) == {}
    assert report.ok
    assert report.duplicates["near_duplicates"] == 0
    assert report.as_text().endswith("no fault, 0 warnings")
    assert json.loads(json.dumps(report.as_dict()))["ok"]


def test_clean_features_are_quiet(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def array(side: int) -> NDArray[np.uint8]:
        return rng.integers(1, 255, (64, side, side), dtype=np.uint8)

    for i, arrays in enumerate(({"vgg": array(8), "res2net": array(4)}, {"vgg": array(8)}, {"res2net": array(4)})):
        write_features(tmp_path / f"features/s{i}.mat", arrays)
        save(tmp_path / f"masks/s{i}.png", lesion(i))
    report = checked(tmp_path)
    assert found(report) == {}
    assert any("stage-1 features are compared exactly" in note for note in report.notes)
    copy_file(tmp_path / "features/s0.mat", tmp_path / "features/s9.mat")
    save(tmp_path / "masks/s9.png", lesion(0))
    damage(tmp_path / "features/s1.mat")
    (tmp_path / "features/s2.mat").write_text("no MATLAB file")
    report = checked(tmp_path)
    assert found(report).keys() == {"unreadable", "exact-duplicate"}
    assert len(report.of("unreadable")) == 2
    assert report.counts["masks"] == 4


def test_no_near_and_counts(tmp_path: Path) -> None:
    report = checked(manifest(tmp_path), similarity=None)
    assert report.duplicates == {"exact_duplicates": 0}
    assert report.counts == {
        "samples": 12,
        "slices": 12,
        "masks": 0,
        "groups": 6,
        "labels": {"0": 6, "1": 6},
        "sources": {"a": 8, "b": 4},
        "splits": {"test": 4, "train": 8},
        "folds": {},
    }


# --- planted faults


def test_missing_and_unreadable(tmp_path: Path) -> None:
    lists(tmp_path)
    (tmp_path / "images/s00.png").unlink()
    (tmp_path / "masks/s01.png").unlink()
    damage(tmp_path / "images/s02.png")
    damage(tmp_path / "masks/s03.png")
    (tmp_path / "images/s04.png").write_bytes(b"")
    report = checked(tmp_path)
    assert [f.path for f in report.of("missing")] == ["images/s00.png", "masks/s01.png"]
    assert [f.path for f in report.of("unreadable")] == ["images/s02.png", "masks/s03.png", "images/s04.png"]
    assert found(report).keys() == {"missing", "unreadable"}
    assert not report.ok


def test_a_missing_file_in_two_lists_still_overlaps(tmp_path: Path) -> None:
    lists(tmp_path)
    (tmp_path / "test.txt").write_text("images/s00.png masks/s00.png\n")
    (tmp_path / "images/s00.png").unlink()
    report = checked(tmp_path)
    assert [f.path for f in report.of("missing")] == ["images/s00.png"]
    assert [f.path for f in report.of("slice-overlap")] == ["images/s00.png"]


def test_masks(tmp_path: Path) -> None:
    folders(tmp_path)
    save(tmp_path / "masks/s00.png", lesion(0, 80, 96))
    save(tmp_path / "masks/s01.png", np.where(lesion(1) > 0, 200, 0).astype(np.uint8))
    save(tmp_path / "masks/s02.png", np.zeros((96, 80), dtype=np.uint8))
    save(tmp_path / "masks/s03.png", lesion(3) // 255)
    save(tmp_path / "masks/s04.png", rgb(lesion(4)))
    assert found(checked(tmp_path)) == {
        "size-mismatch": [
            "masks/s00.png: has 80 × 96 pixels, its slice s00.png has 96 × 80 (write the mask on the grid of the slice)"
        ],
        "mask-values": [
            (
                "masks/s01.png: holds 2 different values (0, 200); 0 and 255, or 0 and 1, are expected"
                " (save masks as PNG with the values 0 and 255)"
            )
        ],
        "empty-mask": ["images/s02.png: has a mask without lesion (if the slice has a lesion, the mask is wrong)"],
    }


def test_lists_and_doubtful_pictures(tmp_path: Path) -> None:
    folders(tmp_path)
    save(tmp_path / "images/s00.png", lesion(0))
    save(tmp_path / "images/extra.png", picture(9))
    report = checked(tmp_path)
    assert found(report) == {
        "list": [
            (
                "images/extra.png: has no mask of the same name in masks/"
                " (add it; for a slice without lesion, one that is 0 everywhere)"
            )
        ],
        "doubtful": ["images/s00.png: only two grey levels, as a mask has"],
    }


def test_labels_twice(tmp_path: Path) -> None:
    manifest(tmp_path)
    copy_file(tmp_path / "images/g0_0.png", tmp_path / "images/copy.png")
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("g0_0.png,1,g0,a,train\ng1_0.png,1,g1,a,train\ncopy.png,1,g0,a,train\n")
    report = checked(tmp_path)
    assert [f.path for f in report.of("two-labels")] == ["images/g0_0.png"]
    assert "has the same pixels as images/copy.png, and has the labels 0 (labels.csv:2) and 1 (labels.csv:" in (
        report.of("two-labels")[0].message
    )
    assert [f.message for f in report.of("repeated")] == ["is listed 2 times (labels.csv:4, labels.csv:15)"]


def test_exact_duplicates_within_a_part(tmp_path: Path) -> None:
    manifest(tmp_path)
    image = Image.open(tmp_path / "images/g0_0.png").convert("RGB")
    image.save(tmp_path / "images/copy.bmp")  # another file, the same pixels
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("copy.bmp,0,g2,a,train\n")
    report = checked(tmp_path)
    assert report.ok
    assert found(report) == {
        "exact-duplicate": [
            "images/g0_0.png: has the same pixels as images/copy.bmp, in the groups g0 and g2 (keep one)"
        ]
    }
    assert report.duplicates["exact_duplicates"] == 1


def test_overlaps_of_splits(tmp_path: Path) -> None:
    manifest(tmp_path)
    copy_file(tmp_path / "images/g0_0.png", tmp_path / "images/copy.png")
    save(tmp_path / "images/near.png", changed(picture(102))["smaller"])
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("g0_1.png,0,g0,a,test\ncopy.png,0,x,a,test\nnear.png,1,y,a,test\n")
    report = checked(tmp_path)
    lines = found(report)
    assert lines.keys() == {"slice-overlap", "group-overlap", "near-overlap"}
    assert (
        "images/g0_0.png: has the same pixels as images/copy.png, and is in train (labels.csv:2) and in test"
        in (lines["slice-overlap"][0])
    )
    assert "images/g0_1.png: is in train (labels.csv:3) and in test (labels.csv:14)" in lines["slice-overlap"][1]
    assert "group g0: is in test (1 slice) and in train (2 slices)" in lines["group-overlap"][0]
    assert "images/g1_0.png: is like images/near.png (0.9" in lines["near-overlap"][0]
    assert "in train (labels.csv:4) and in test (labels.csv:16)" in lines["near-overlap"][0]


def test_overlaps_of_folds(tmp_path: Path) -> None:
    folders(tmp_path)
    copy_file(tmp_path / "images/s00.png", tmp_path / "images/s05.png")
    (tmp_path / "folds.json").write_text('{"folds": [["s00", "s01"], ["s02"], ["s04", "s05", "s01"]]}')
    report = checked(tmp_path)
    lines = found(report)
    assert lines.keys() == {"list", "slice-overlap"}
    assert "'s01' is in fold 1 and in fold 3" in lines["list"][0]
    assert (
        "images/s00.png: has the same pixels as images/s05.png, and is in fold 1 and in fold 3"
        in lines["slice-overlap"][0]
    )


def test_overlaps_of_folders(tmp_path: Path) -> None:
    one, other = folders(tmp_path / "one"), folders(tmp_path / "other", 2)
    for i in (0, 1):
        save(other / f"images/s0{i}.png", picture(50 + i))
    sets = [open_dataset(one), open_dataset(other)]
    assert found(check(sets)) == {}
    copy_file(one / "images/s03.png", other / "images/s01.png")
    (finding,) = check(sets).findings
    assert finding.kind == "slice-overlap"
    assert finding.path == str(one / "images/s03.png")
    assert f"is in {one} and in {other}" in finding.message


def test_near_duplicates_by_group(tmp_path: Path) -> None:
    manifest(tmp_path)
    save(tmp_path / "images/same.png", changed(picture(100))["jpeg"])
    save(tmp_path / "images/else.png", changed(picture(102))["brighter"])
    save(tmp_path / "images/none.png", changed(picture(104))["darker"])
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("same.png,0,g0,a,train\nelse.png,1,other,a,train\nnone.png,0,,a,train\n")
    report = checked(tmp_path)
    assert report.ok
    assert [f.path for f in report.of("near-duplicate")] == ["images/g1_0.png", "images/g2_0.png"]
    assert "of the group other instead of g1" in report.of("near-duplicate")[0].message
    assert "of the group" not in report.of("near-duplicate")[1].message
    assert report.duplicates["near_duplicates"] == 3
    assert report.duplicates["near_duplicates_within_a_group"] == 1
    assert report.duplicates["near_duplicates_across_groups"] == 2


def test_very_many_near_duplicates_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jcs_ct.datasets.check.MOST_PAIRS", 2)
    folders(tmp_path)
    for i, copy in enumerate(changed(picture(0)).values()):
        save(tmp_path / f"images/s0{i + 1}.png", copy)
        save(tmp_path / f"masks/s0{i + 1}.png", np.full(copy.shape, 255, dtype=np.uint8))
    report = checked(tmp_path)
    assert report.duplicates["near_duplicates"] == 15
    assert len(report.of("near-duplicate")) == 2
    assert "only the first 2 near duplicates across groups are named" in report.notes


def test_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no data set"):
        check([])
    with pytest.raises(UsageError, match="more than 0 and at most 1"):
        checked(folders(tmp_path, 1), similarity=1.5)


def test_processes_find_the_same(tmp_path: Path) -> None:
    lists(tmp_path)
    damage(tmp_path / "images/s02.png")
    seen: list[int] = []

    def watch(results: Any, total: int) -> Any:
        seen.append(total)
        return results

    assert checked(tmp_path, workers=2, watch=watch) == checked(tmp_path)
    assert seen == [6]


# --- twelve faults, each by itself


def _edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def _near(root: Path, group: str, split: str) -> None:
    save(root / "images/near.png", changed(picture(101))["smaller"])
    with (root / "labels.csv").open("a") as file:
        file.write(f"near.png,0,{group},a,{split}\n")


PLANTED: dict[str, tuple[Any, Any, str]] = {
    "a missing picture": (lists, lambda d: (d / "images/s00.png").unlink(), "missing"),
    "a missing mask": (lists, lambda d: (d / "masks/s05.png").unlink(), "missing"),
    "a truncated picture": (folders, lambda d: damage(d / "images/s01.png"), "unreadable"),
    "an empty file": (folders, lambda d: (d / "masks/s01.png").write_bytes(b""), "unreadable"),
    "a mask of another size": (lists, lambda d: save(d / "masks/s02.png", lesion(2, 90, 80)), "size-mismatch"),
    "a mask of grey levels": (folders, lambda d: save(d / "masks/s03.png", picture(3)), "mask-values"),
    "an empty mask": (folders, lambda d: save(d / "masks/s04.png", 0 * lesion(4)), "empty-mask"),
    "a mask of lesion alone": (folders, lambda d: save(d / "masks/s04.png", 0 * lesion(4) + 255), "mask-values"),
    "two labels": (manifest, lambda d: _edit(d / "labels.csv", "g0_1.png,0", "g0_0.png,1"), "two-labels"),
    "a slice in two splits": (
        lists,
        lambda d: _edit(d / "test.txt", "s04.png masks/s04", "s01.png masks/s01"),
        "slice-overlap",
    ),
    "a group in two splits": (manifest, lambda d: _edit(d / "labels.csv", ",g5,", ",g1,"), "group-overlap"),
    "a near duplicate in two splits": (manifest, lambda d: _near(d, "new", "test"), "near-overlap"),
    "a near duplicate in two groups": (manifest, lambda d: _near(d, "new", "train"), "near-duplicate"),
}


@pytest.mark.parametrize("name", PLANTED)
def test_each_planted_fault_is_found_and_nothing_else(tmp_path: Path, name: str) -> None:
    make, plant, kind = PLANTED[name]
    plant(make(tmp_path))
    report = checked(tmp_path)
    # A slice with two labels is one that is listed twice, too.
    assert [f.kind for f in report.findings if f.kind != "repeated" or kind != "two-labels"] == [kind]
    assert report.ok == (kind in WARNINGS)


# --- the report


def test_report_as_text_and_markdown(tmp_path: Path) -> None:
    lists(tmp_path)
    copy_file(tmp_path / "train.txt", tmp_path / "test.txt")
    (tmp_path / "images/s00.png").rename(tmp_path / "images/a|<b>.png")
    for name in ("train.txt", "test.txt"):
        (tmp_path / name).write_text((tmp_path / name).read_text().replace("images/s00", "images/a|<b>"))
    report = checked(tmp_path)
    text = report.as_text(limit=3)
    assert "FAULT: slices in more than one part of a division (4)" in text
    assert "… and 1 more" in text
    assert text.endswith("4 faults, 0 warnings")
    markdown = report.as_markdown(limit=3)
    assert "| images/a\\|\\<b>.png | is in train (train.txt:1) and in test (test.txt:1) |" in markdown
    assert "| … | and 1 more, in report.json |" in markdown
    assert set(KINDS) >= WARNINGS
    assert all(finding["fault"] for finding in report.as_dict()["findings"])


# --- the fingerprint


def test_low_frequencies_are_scipys() -> None:
    small = np.random.default_rng(0).normal(128, 40, (64, 64)).astype(np.float32)
    expected = dctn(small.astype(np.float64), norm="ortho")[:FREQUENCIES, :FREQUENCIES]
    np.testing.assert_allclose(low_frequencies(small), expected, atol=1e-2)


def test_fingerprints_are_the_formula() -> None:
    grey = picture(3, 128, 192)  # 64×64 cells of 2×3 pixels
    small = np.rint(grey.reshape(64, 2, 64, 3).mean(axis=(1, 3)))
    down, across = np.mgrid[:24, :24]
    expected = (dctn(small, norm="ortho")[:24, :24] * np.hypot(down, across)).ravel()[1:]
    expected *= 127 / np.abs(expected).max()
    # Pillow rounds a cell's mean of exactly one half the other way.
    assert np.abs(fingerprint(rgb(grey)) - expected).max() < 2


def test_near_pairs_are_all_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    prints = np.random.default_rng(1).integers(-127, 128, (50, LENGTH)).astype(np.int8)
    prints[7], prints[40] = prints[3], prints[3] // 2
    prints[11] = 0
    unit = prints / np.maximum(np.linalg.norm(prints.astype(float), axis=1, keepdims=True), 1)
    cosine = unit @ unit.T
    for block in (2048, 16, 7):
        monkeypatch.setattr("jcs_ct.datasets.fingerprint._BLOCK", block)
        for threshold in (0.95, 0.05):
            got = {(a, b): s for i, j, v in near_pairs(prints, threshold) for a, b, s in zip(i, j, v, strict=True)}
            expected = {(a, b) for a, b in zip(*np.nonzero(np.triu(cosine, 1) >= threshold), strict=True)}
            assert got.keys() == expected
            assert all(abs(s - cosine[pair]) < 1e-5 for pair, s in got.items())


@pytest.mark.parametrize("seed", range(4))
def test_changed_copies_are_found(seed: int) -> None:
    grey = picture(seed)
    assert {name: alike(grey, copy) >= THRESHOLD for name, copy in changed(grey).items()} == dict.fromkeys(
        changed(grey), True
    )
    assert alike(grey, picture(seed + 100)) < 0.9


def test_without_structure_nothing_is_alike() -> None:
    blank = np.full((64, 64), 99, dtype=np.uint8)
    assert not fingerprint(rgb(blank)).any()
    assert alike(blank, blank) == 0


def test_digests_tell_shapes_apart() -> None:
    grey = picture(0, 64, 96)
    assert digest(grey) == digest(grey.copy()) == digest(np.asfortranarray(grey))
    assert len({digest(grey), digest(grey.reshape(96, 64)), digest(grey, None), digest(None, grey)}) == 4


# --- real data


def test_ct100_is_clean(real_data: Path) -> None:
    report = checked(real_data / "ct100")
    assert found(report) == {
        "empty-mask": [
            "images/tr_im_0048.png: has a mask without lesion (if the slice has a lesion, the mask is wrong)"
        ]
    }


def test_the_lists_of_the_release_leak_20_slices(real_data: Path, tmp_path: Path) -> None:
    report = checked(release_lists(real_data, tmp_path))
    leaked = sorted((real_data / "ct100" / "images").iterdir())[:20]
    assert [f.path for f in report.of("slice-overlap")] == [path.as_posix() for path in leaked]
    assert [f.kind for f in report.faults] == ["slice-overlap"] * 20
    assert report.counts["samples"] == 99


def test_real_slices_changed_and_of_others(real_data: Path) -> None:
    """On a part of the slices behind the threshold: changed copies above it, slices of other groups below."""
    samples = open_dataset(real_data / "ct_classification").samples[::40]
    prints = [inspect(Sample(sample.image)).print for sample in samples]
    assert all(one is not None for one in prints)
    stacked = np.stack([one for one in prints if one is not None])
    assert not list(near_pairs(stacked))
    for sample in samples[::6]:
        assert sample.image is not None
        grey = np.asarray(Image.open(sample.image).convert("L"))
        assert min(alike(grey, copy) for copy in changed(grey).values()) >= THRESHOLD


@pytest.mark.parametrize("by_group", [True, False])
def test_a_random_split_of_real_slices_is_flagged(real_data: Path, tmp_path: Path, by_group: bool) -> None:
    data = open_dataset(real_data / "ct_classification", "classify")
    rng = np.random.default_rng(0)
    groups = sorted({s.group or "" for s in data.samples})
    tested = set(rng.permutation(groups)[: len(groups) // 5].tolist())
    rows = ["file,label,group,source,split"]
    for s in data.samples[::4]:
        test = (s.group in tested) if by_group else rng.random() < 0.2
        rows.append(f"{s.image},{s.label},{s.group},{s.source},{'test' if test else 'train'}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    report = checked(tmp_path)
    assert report.ok == by_group
    assert by_group or len(report.of("group-overlap")) > 30
