"""From a path to a data set: which layout lies there, read into one type.

| layout | task | what lies there |
| --- | --- | --- |
| lists | segment | `train.txt`, `val.txt`, `test.txt`: `image mask` per line (see `lists`) |
| manifest | both | a `.csv` with a column `file` (see `manifest`); to segment, with a column `mask` |
| folders | segment | `images/` and/or `features/` with `masks/`, equal stems (see `folders`) |
| flat features | segment | `NAME.mat` with `NAME.png` beside it |
| nnU-Net | segment | `dataset.json`, `imagesTr/`, `labelsTr/` (see `volumes`) |

Feature files take the place of pictures in all of them, and so do volumes in folders and manifests. What names its
files (lists, a manifest) goes before folders, where the rest is only what happens to lie there. A `folds.json` beside
any of them gives the folds.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.csv_tables import open_table
from jcs_ct.datasets.folders import files_below, read_flat_features, read_folders
from jcs_ct.datasets.folds import FOLDS, apply_folds
from jcs_ct.datasets.lists import LISTS, read_lists
from jcs_ct.datasets.manifest import COLUMNS, read_manifest
from jcs_ct.datasets.samples import Dataset, Reading, Sample, Task, is_features
from jcs_ct.datasets.volumes import NNUNET, expand, read_nnunet
from jcs_ct.io.files.names import EXTENSIONS
from jcs_ct.io.files.sources import LIST_EXTENSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_EXPECTED = {
    "segment": "train.txt with 'image mask' per line, images/ or features/ with masks/, .mat files with masks beside "
    "them, nnU-Net's dataset.json with imagesTr/ and labelsTr/, or a .csv with the columns file,mask",
    "classify": "a .csv with the columns file,label[,group,source,split], its files beside it, in images/ or features/",
}


def open_dataset(
    path: str | Path,
    task: Task | None = None,
    *,
    folds: str | Path | None = FOLDS,
    labels: Mapping[str, int] | None = None,
    lesions: Sequence[int] = (),
    strict: bool = True,
) -> Dataset:
    """Open a data set: find its layout and read its lists. No picture is opened; of volumes the masks are.

    Args:
        path: Its folder; or one list (`.txt`) or manifest (`.csv`), where a folder holds several.
        task: "segment": every sample has a mask. "classify": every sample has a label. None: either.
        folds: A file of folds, relative to the data set's folder; by default `folds.json` if there is one. None: none.
        labels: Further names of labels in a manifest, to 0 or 1.
        lesions: Labels in masks of volumes that are lesion; empty: all above 0.
        strict: Raise for the first thing that is wrong with the lists, instead of returning all of them as problems.

    Raises:
        InputError: There is no layout for the task, or several; nothing in it; or (`strict`) a problem.
    """
    start = Path(path)
    if not start.exists():
        raise InputError("does not exist", path=start, hint="give the folder of a data set")
    root = start if start.is_dir() else start.parent
    layout, reading = _read(start, task, labels)
    reading = expand(_with_what_the_task_needs(reading, task), lesions)
    if folds is not None and (folds != FOLDS or (root / FOLDS).is_file()):
        reading = apply_folds(reading, root / folds, root)
    if reading.problems and (strict or not reading.samples):
        first = reading.problems[0]
        others = f" (and {len(reading.problems) - 1:,} more problems; see `jcs data check`)"
        raise InputError(
            first.message + (others if len(reading.problems) > 1 else ""), path=first.path, hint=first.hint
        )
    if not reading.samples:
        raise InputError(f"is read as {layout}, and there is no slice in it", path=start, hint="fill its lists")
    return Dataset(root, task, reading.samples, layout, reading.notes, reading.problems, reading.label_names)


def _read(start: Path, task: Task | None, labels: Mapping[str, int] | None) -> tuple[str, Reading]:
    if start.is_file():
        return _read_file(start, labels)
    lists = [start / name for name in LISTS if task != "classify" and (start / name).is_file()]
    tables, notes = _manifests(start, task)
    candidates = [", ".join(file.name for file in lists)] * bool(lists) + [table.name for table in tables]
    if len(candidates) > 1:
        raise InputError(
            f"can be read in {len(candidates)} ways: {' or '.join(candidates)}",
            path=start,
            hint="give the file itself, or move the others away",
        )
    if lists:
        layout, reading = "lists", read_lists({file: LISTS[file.name] for file in lists})
    elif tables:
        layout, reading = "manifest", read_manifest(tables[0], labels)
    else:
        layout, reading = _read_unnamed(start, task)
    said = f"read as {layout}" + "".join(f" ({files})" for files in candidates)
    return layout, replace(reading, notes=(said, *notes, *reading.notes))


def _read_file(path: Path, labels: Mapping[str, int] | None) -> tuple[str, Reading]:
    if path.suffix.lower() == ".csv":
        return "manifest", read_manifest(path, labels)
    if path.suffix.lower() in LIST_EXTENSIONS:
        return "lists", read_lists({path: LISTS.get(path.name, path.stem)})
    raise InputError(
        "is neither a list (.txt) nor a manifest (.csv)",
        path=path,
        hint="give the folder of the data set, or such a file",
    )


def _manifests(root: Path, task: Task | None) -> tuple[list[Path], list[str]]:
    """Return the CSV files in a folder that can be read for the task, and notes on the others."""
    found, notes = [], []
    needed = {"segment": ("file", "mask"), "classify": ("file", "label"), None: ("file",)}[task]
    for path in sorted(root.glob("*.[cC][sS][vV]")):
        columns = open_table(path, COLUMNS).header
        missing = [column for column in needed if column not in columns]
        if not missing:
            found.append(path)
        else:
            notes.append(f"{path.name} is not read: no column {' and '.join(map(repr, missing))}")
    return found, notes


def _read_unnamed(root: Path, task: Task | None) -> tuple[str, Reading]:
    folders = [name for name in ("images", "features") if (root / name).is_dir()]
    if task != "classify":
        if (root / NNUNET).is_file() and (root / "imagesTr").is_dir():
            return "nnU-Net", read_nnunet(root)
        if folders and (root / "masks").is_dir():
            return "folders", read_folders(root)
        if any(is_features(path) for path in files_below(root, deep=False).values()):
            return "flat features", read_flat_features(root)
    expected = _EXPECTED[task] if task else f"{_EXPECTED['segment']}; or {_EXPECTED['classify']}"
    held = sorted(f"{p.name}/" if p.is_dir() else p.name for p in root.iterdir() if not p.name.startswith("."))
    pictures = sum(Path(name).suffix.lower() in EXTENSIONS for name in held)
    shown = ", ".join(held[:6]) + (", …" if len(held) > 6 else "") or "nothing"
    raise InputError(
        f"holds no data set{f' to {task}' if task else ''}, but {shown}",
        path=root,
        hint=f"expected: {expected}" + (f"; the {pictures} pictures need a list" if pictures else ""),
    )


def _with_what_the_task_needs(reading: Reading, task: Task | None) -> Reading:
    """Turn samples that the task cannot use into problems."""
    if task is None:
        return reading
    needed = "mask" if task == "segment" else "label"
    usable: list[Sample] = []
    problems = list(reading.problems)
    for sample in reading.samples:
        if getattr(sample, needed) is not None:
            usable.append(sample)
        else:
            problems.append(InputError(f"has no {needed} ({sample.origin})", path=sample.path, hint=f"add a {needed}"))
    return replace(reading, samples=tuple(usable), problems=tuple(problems))
