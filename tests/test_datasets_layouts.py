"""Every layout is read into samples, and whatever is wrong with one is named with its file and line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from datasets_help import folders, lesion, lists, manifest, picture, save
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.folders import read_folders
from jcs_ct.datasets.folds import read_folds
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.lists import format_line, read_lists
from jcs_ct.datasets.masks import decode_mask, read_mask
from jcs_ct.datasets.samples import Dataset, Sample, short_names
from jcs_ct.io.features import write_features


def features(path: Path, seed: int = 0, *names: str) -> Path:
    rng = np.random.default_rng(seed)
    sizes = {"vgg": 8, "res2net": 4}
    write_features(
        path, {n: rng.integers(1, 255, (64, sizes[n], sizes[n]), dtype=np.uint8) for n in names or ("vgg", "res2net")}
    )
    return path


def problems(path: Path, task: Any = None, **how: Any) -> list[str]:
    return [problem.line() for problem in open_dataset(path, task, strict=False, **how).problems]


# --- lists


def test_lists_of_the_release(tmp_path: Path) -> None:
    data = open_dataset(lists(tmp_path), "segment")
    assert data.layout == "lists"
    assert [s.split for s in data.samples] == ["train"] * 4 + ["test"] * 2
    first = data.samples[0]
    assert (first.image, first.mask) == (tmp_path / "images/s00.png", tmp_path / "masks/s00.png")
    assert (first.features, first.label, first.origin) == (None, None, "train.txt:1")
    assert "read as lists (train.txt, test.txt)" in data.notes
    assert len(data.part("test")) == 2
    with pytest.raises(UsageError, match="no split 'val'; its splits: test, train"):
        data.part("val")


@pytest.mark.parametrize(
    "names", [("a.png", "b.png"), ("a b.png", "c.png"), ('q"x.png', r"back\slash y.png"), ("#a.png", " lead.png")]
)
def test_a_written_line_is_read_back(tmp_path: Path, names: tuple[str, str]) -> None:
    (tmp_path / "train.txt").write_text(f"\n# a comment\n{format_line(*names)}\n")
    (sample,) = read_lists({tmp_path / "train.txt": "train"}).samples
    assert (sample.image, sample.mask) == (tmp_path / names[0], tmp_path / names[1])
    assert sample.origin == "train.txt:3"


def test_spaces_without_quotes_are_resolved_by_what_exists(tmp_path: Path) -> None:
    save(tmp_path / "my images" / "a 1.png", picture(0))
    save(tmp_path / "my masks" / "a 1.png", lesion(0))
    (tmp_path / "train.txt").write_text("my images/a 1.png my masks/a 1.png\n")
    (sample,) = open_dataset(tmp_path).samples
    assert sample.mask == tmp_path / "my masks" / "a 1.png"


def test_lists_from_windows(tmp_path: Path) -> None:
    lists(tmp_path)
    (tmp_path / "train.txt").write_bytes("images\\s00.png masks\\s00.png\r\n".encode("utf-16"))
    data = open_dataset(tmp_path / "train.txt")
    assert data.samples[0].mask == tmp_path / "masks/s00.png"
    assert [s.split for s in open_dataset(save_as(tmp_path, "mine.txt")).samples] == ["mine"]


def save_as(root: Path, name: str) -> Path:
    (root / name).write_text("images/s00.png masks/s00.png\n")
    return root / name


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a.png", "train.txt:2: holds one path, 'a.png'; a picture and its mask are expected"),
        ("x y.png z.png", "train.txt:2: 'x y.png z.png' is not a picture and its mask"),
        ('"a.png b.png', "train.txt:2: '\"a.png b.png' is not a picture and its mask"),
        ("a b a b", "can be split in 2 ways into two files that exist: 'a b a b'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    for name in ("a", "b a b", "a b a", "b"):
        save(tmp_path / f"{name}.png", picture(0)).rename(tmp_path / name)
    (tmp_path / "train.txt").write_text(f"a b\n{line}\n")
    with pytest.raises(InputError) as error:
        open_dataset(tmp_path)
    assert message in error.value.line()
    assert "double quotes" in error.value.line() or "add the mask" in error.value.line()
    assert len(open_dataset(tmp_path, strict=False).samples) == 1


def test_a_list_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_bytes(b"\xff\x00\xfe images")
    with pytest.raises(InputError, match="neither UTF-8 nor UTF-16"):
        open_dataset(tmp_path)


# --- manifests


def test_manifest(tmp_path: Path) -> None:
    data = open_dataset(manifest(tmp_path), "classify")
    assert data.layout == "manifest"
    third = data.samples[2]
    assert third == Sample(tmp_path / "images/g1_0.png", None, None, 1, "g1", "a", "train", None, "labels.csv:4")
    assert third.path == third.image


def test_manifest_with_names_of_labels_masks_and_folds(tmp_path: Path) -> None:
    folders(tmp_path)
    features(tmp_path / "features" / "f.mat", 0, "res2net")
    (tmp_path / "data.CSV").write_text(
        "\ufeffFile; Label ;mask;fold;scanner\ns00.png;COVID;s00.png;1;x\n\ns01.png;CP;;2;\nf.mat;normal;;;y\n", "utf-8"
    )
    data = open_dataset(tmp_path, "classify", labels={"cp": 0})
    assert [(s.label, s.fold, s.mask is not None) for s in data.samples] == [
        (1, 1, True),
        (0, 2, False),
        (0, None, False),
    ]
    assert data.samples[2].features == tmp_path / "features/f.mat"
    assert data.samples[2].image is None
    assert "data.CSV: columns not used: scanner" in data.notes
    assert "data.CSV: labels taken as COVID → 1, CP → 0, normal → 0 (1 = COVID-19)" in data.notes
    assert "data.CSV: 1 of 3 rows have no fold" in data.notes
    train, test = data.fold(1)
    assert [s.path.name for s in train] == ["s01.png"]
    assert [s.path.name for s in test] == ["s00.png"]
    with pytest.raises(UsageError, match="no fold 3; its folds: 1, 2"):
        data.fold(3)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.png,CP", "labels.csv:3: has the label 'CP'; 1 (COVID-19) or 0 is expected"),
        ("a.png", "labels.csv:3: has 1 cells, the header has 2"),
        (",1", "labels.csv:3: names no file"),
        ("a.png,", "has no label (labels.csv:3) (add a label)"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, row: str, message: str) -> None:
    save(tmp_path / "a.png", picture(0))
    (tmp_path / "labels.csv").write_text(f"file,label\na.png,1\n{row}\n")
    assert message in problems(tmp_path, "classify")[0]
    with pytest.raises(InputError):
        open_dataset(tmp_path, "classify")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,1\n", "labels.csv:1: has the columns name, label; 'file' is expected"),
        ("file,label,label\na,1,1\n", "labels.csv:1: has the column 'label' twice"),
        ("file,fold\na,zero\n", "labels.csv:2: has the fold 'zero'; a number from 1 is expected"),
        ("file,label\n", "there is no slice in it"),
        ("", "has the columns none; 'file' is expected"),
        ('file,label\n"' + "x" * 200_000 + '",1\n', "is not a CSV table: field larger than field limit"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "labels.csv").write_text(text)
    with pytest.raises(InputError) as error:
        open_dataset(tmp_path / "labels.csv")
    assert message in error.value.line()


def test_a_table_that_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes(b"file\xff,label")
    with pytest.raises(InputError, match="neither UTF-8 nor UTF-16"):
        open_dataset(tmp_path)


# --- folders


def test_folders(tmp_path: Path) -> None:
    data = open_dataset(folders(tmp_path), "segment")
    assert data.layout == "folders"
    assert next((s.image, s.mask) for s in data.samples) == (tmp_path / "images/s00.png", tmp_path / "masks/s00.png")
    assert data.folds == ()


def test_folders_name_what_has_no_partner(tmp_path: Path) -> None:
    folders(tmp_path, 2)
    save(tmp_path / "images/p1/x.png", picture(3))
    save(tmp_path / "images/s00.jpg", picture(3))
    save(tmp_path / "masks/extra.png", lesion(1))
    (tmp_path / "images/notes.doc").write_text("x")
    (tmp_path / "images/.hidden").write_text("x")
    said = "\n".join(problems(tmp_path))
    assert "x.png: has no mask of the same name in masks/" in said
    assert "s00.png: has the same stem as s00.jpg" in said
    assert "notes.doc: does not have the name of a slice" in said
    assert len(problems(tmp_path)) == 3
    assert "masks/: 1 mask without a slice: extra" in open_dataset(tmp_path, strict=False).notes
    with pytest.raises(InputError, match=r"and 2 more problems; see `jcs data check`"):
        open_dataset(tmp_path)


def test_masks_of_a_like_name(tmp_path: Path) -> None:
    for i in (1, 2):
        save(tmp_path / f"images/tr_im_{i}.png", picture(i))
        save(tmp_path / f"masks/tr_mask_{i}.png", lesion(i))
    save(tmp_path / "images/a.png", picture(5))
    save(tmp_path / "masks/a_seg.png", lesion(5))
    data = open_dataset(tmp_path)
    assert [s.mask.name for s in data.samples if s.mask] == ["a_seg.png", "tr_mask_1.png", "tr_mask_2.png"]
    assert "3 masks found by a like name: a and a_seg" in data.notes
    save(tmp_path / "masks/a_gt.png", lesion(5))  # now there is a choice
    assert "a.png: has no mask" in problems(tmp_path)[0]


def test_feature_folders(tmp_path: Path) -> None:
    for i in range(2):
        features(tmp_path / f"features/s{i}.mat", i)
        save(tmp_path / f"masks/s{i}.png", lesion(i, 8, 8))
    save(tmp_path / "features/readme.png", picture(0))
    save(tmp_path / "images/s0.png", picture(0))
    data = open_dataset(tmp_path, "segment")
    both, alone = data.samples
    assert both.image is not None
    assert both.features is not None
    assert (alone.image, alone.path) == (None, tmp_path / "features/s1.mat")
    assert "features/: readme.png is not a .mat file and is not used" in data.notes
    assert "1 slice in only one of images/ and features/" in data.notes


def test_flat_features(tmp_path: Path) -> None:
    features(tmp_path / "a.mat")
    save(tmp_path / "a.png", lesion(0, 8, 8))
    features(tmp_path / "b.mat", 1)
    (tmp_path / "readme.md").write_text("x")
    data = open_dataset(tmp_path, "segment", strict=False)
    assert data.layout == "flat features"
    assert data.samples == (Sample(mask=tmp_path / "a.png", features=tmp_path / "a.mat"),)
    assert "b.mat: has no mask of the same name beside it" in data.problems[0].line()


def test_features_in_lists(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("f/a.mat masks/a.png\n")
    (sample,) = open_dataset(tmp_path).samples
    assert (sample.image, sample.features) == (None, tmp_path / "f/a.mat")


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folders(tmp_path)

    def refuse(where: Any, onerror: Any) -> Any:
        onerror(PermissionError(13, "Permission denied", str(where)))
        return iter(())

    monkeypatch.setattr("os.walk", refuse)
    with pytest.raises(InputError, match="cannot be read: Permission denied"):
        read_folders(tmp_path)


# --- folds


def test_folds_of_both_forms(tmp_path: Path) -> None:
    folders(tmp_path)
    for content in (
        {"folds": [["s00", "s01"], ["s02", "s03.png", "images/s04.png"]], "unused": ["s05"]},
        {"folds": [["images/s00", "s01"], ["s02", "s03", "images\\s04.png"]], "seed": 3, "counts": [{}]},
    ):
        (tmp_path / "folds.json").write_text(json.dumps(content))
        data = open_dataset(tmp_path)
        assert [s.fold for s in data.samples] == [1, 1, 2, 2, 2, None]
        assert "folds.json: 1 slice in no fold: images/s05.png" in data.notes
    assert open_dataset(tmp_path, folds=None).folds == ()


def test_folds_elsewhere(tmp_path: Path) -> None:
    folders(tmp_path / "data")
    (tmp_path / "mine.json").write_text('{"folds": [["s00"], ["s01"]]}')
    assert open_dataset(tmp_path / "data", folds=tmp_path / "mine.json").folds == (1, 2)
    assert open_dataset(tmp_path / "data", folds="../mine.json").folds == (1, 2)
    with pytest.raises(InputError, match=r"none\.json: does not exist"):
        open_dataset(tmp_path / "data", folds="none.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"folds": [["s00"], ["s00"]]}', "'s00' is in fold 1 and in fold 2"),
        ('{"folds": [["s99"]]}', "fold 1 names 's99', which is not a slice of this data set"),
        ('{"folds": [["twin"]]}', "fold 1 names 'twin', which is the name of 2 slices"),
        ("[]", "has no list of 'folds'"),
        ('{"folds": []}', "has no list of 'folds'"),
        ('{"folds": [["s00"], 3]}', "fold 2 is not a list of names"),
        ('{"folds":\n [', "folds.json:2: is not JSON"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_bad_folds_are_named(tmp_path: Path, content: str, message: str) -> None:
    folders(tmp_path, 1)
    for folder in ("a", "b"):
        save(tmp_path / "images" / folder / "twin.png", picture(1))
        save(tmp_path / "masks" / folder / "twin.png", lesion(1))
    (tmp_path / "folds.json").write_text(content)
    with pytest.raises(InputError) as error:
        open_dataset(tmp_path)
    assert message in error.value.line()


def test_names_in_folds_are_distinct(tmp_path: Path) -> None:
    paths = [tmp_path / "a/x.png", tmp_path / "b/x.png", tmp_path / "b/y.png", Path("/elsewhere/x.png")]
    assert list(short_names(paths, tmp_path).values()) == ["a/x.png", "b/x.png", "y", "/elsewhere/x.png"]


def test_folds_are_read_as_names(tmp_path: Path) -> None:
    (tmp_path / "f.json").write_text('{"folds": [["a"]]}')
    assert read_folds(tmp_path / "f.json") == [["a"]]


# --- which layout


def test_lists_go_before_folders_and_two_that_name_files_are_ambiguous(tmp_path: Path) -> None:
    lists(tmp_path)
    (tmp_path / "data.csv").write_text("file,mask\ns00.png,s00.png\n")
    (tmp_path / "other.csv").write_text("id,age\n1,2\n")
    with pytest.raises(InputError, match=r"can be read in 2 ways: train\.txt, test\.txt or data\.csv"):
        open_dataset(tmp_path, "segment")
    data = open_dataset(tmp_path / "data.csv", "segment")
    assert data.samples[0].mask == tmp_path / "masks/s00.png"
    (tmp_path / "data.csv").write_text("file,label\ns00.png,1\n")
    assert open_dataset(tmp_path, "segment").layout == "lists"
    assert "other.csv is not read: no column 'file' and 'label'" in open_dataset(tmp_path, "classify").notes


def test_what_is_no_data_set(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_dataset(tmp_path / "none")
    with pytest.raises(InputError, match="holds no data set, but nothing"):
        open_dataset(tmp_path)
    for i in range(8):
        save(tmp_path / f"{i}.png", picture(i))
    with pytest.raises(InputError, match=r"holds no data set to classify, but 0\.png, .*…; the|the 8 pictures need"):
        open_dataset(tmp_path, "classify")
    with pytest.raises(InputError, match="is neither a list"):
        open_dataset(tmp_path / "0.png")
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n")
    with pytest.raises(InputError, match="has no mask"):
        open_dataset(tmp_path / "labels.csv", "segment")


def test_a_sample_without_a_file_says_so() -> None:
    with pytest.raises(UsageError, match="neither a picture nor features"):
        _ = Sample(origin="x:1").path
    with pytest.raises(UsageError, match="no fold 1; its folds: none"):
        Dataset(Path(), None, (), "lists").fold(1)


# --- masks


@pytest.mark.parametrize("values", [(0, 255), (0, 1), (0, 0), (255, 255)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1"])
def test_masks_of_every_mode(tmp_path: Path, values: tuple[int, int], mode: str) -> None:
    if mode == "1":  # where 1 would be rounded to 0
        values = values[0], 255 if values[1] else 0
    grey = np.full((40, 50), values[0], dtype=np.uint8)
    grey[5:9, 6:20] = values[1]
    Image.fromarray(grey).convert(mode).save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == (grey > 0)).all()


def test_a_palette_of_colours_counts_classes(tmp_path: Path) -> None:
    mask = Image.fromarray(lesion(0) // 255).convert("P")
    mask.putpalette([0, 0, 0, 255, 0, 0])
    mask.save(tmp_path / "m.png")
    assert (read_mask(tmp_path / "m.png") == (lesion(0) > 0)).all()


def test_masks_with_other_values_are_refused(tmp_path: Path) -> None:
    grey = lesion(0)
    for odd, message in (
        (np.where(grey > 0, 128, 0).astype(np.uint8), r"holds 2 different values \(0, 128\)"),
        (picture(0), r"different values \(.*, …\); 0 and 255, or 0 and 1, are expected"),
        (np.stack([grey, grey, grey // 2], axis=2), "is coloured"),
    ):
        with pytest.raises(InputError, match=message):
            read_mask(save(tmp_path / "m.png", odd))


def test_masks_that_are_none(tmp_path: Path) -> None:
    data = save(tmp_path / "m.png", picture(0)).read_bytes()
    with pytest.raises(InputError, match="m: cannot be decoded as a PNG picture"):
        decode_mask(data[: len(data) // 2], "m")
    with pytest.raises(InputError, match="m: is a text file"):
        decode_mask(b"hello", "m")
    with pytest.raises(InputError, match="9000 × 2 pixels"):
        read_mask(save(tmp_path / "long.bmp", np.zeros((9000, 2), dtype=np.uint8)))


# --- real data


def test_ct100(real_data: Path) -> None:
    data = open_dataset(real_data / "ct100", "segment")
    assert data.layout == "folders"
    assert len(data.samples) == 81
    assert data.folds == (1, 2, 3, 4)
    assert [s.path.stem for s in data.samples if s.fold is None] == ["tr_im_0048"]
    train, test = data.fold(2)
    assert (len(train), len(test)) == (60, 20)
    masks = {s.path.stem: read_mask(s.mask) for s in data.samples if s.mask}
    assert [name for name, mask in masks.items() if not mask.any()] == ["tr_im_0048"]


def test_ct_classification(real_data: Path) -> None:
    data = open_dataset(real_data / "ct_classification", "classify")
    assert len(data.samples) == 3661
    assert {s.source for s in data.samples} == {"ucsd", "mosmed", "sarscov2", "nor", "other"}
    assert all(s.image and s.image.parent.name == "images" for s in data.samples)
    assert "labels.csv: columns not used: ucsd_official_split" in data.notes
