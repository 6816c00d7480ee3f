"""`folds.json`: which slices are in which fold.

    {"folds": [["slice_1", "slice_2"], ["slice_3"]], …}

The first list is fold 1. A slice goes by its stem, its file name, or its path below the data set's folder (with or
without extension). Everything besides "folds" is for readers: who made it, how, and what each fold holds.
"""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.samples import Reading, relative_name, stem_of
from jcs_ct.io.files.kinds import decode_text
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.files.walk import count, few

if TYPE_CHECKING:
    from pathlib import Path

FOLDS = "folds.json"
MAX_BYTES = 256 * 2**20
_EXPECTED = '{"folds": [["name", …], …]} is expected'


def read_folds(path: Path) -> list[list[str]]:
    """Return the names in each fold. Raises InputError where the file cannot be read, or is something else."""
    try:
        content = json.loads(decode_text(read_file(path, MAX_BYTES)))
    except (ValueError, RecursionError) as error:
        where = f"{path}:{error.lineno}" if isinstance(error, json.JSONDecodeError) else path
        raise InputError(f"is not JSON: {error}", path=where, hint=_EXPECTED) from error
    folds = content.get("folds") if isinstance(content, dict) else None
    if not isinstance(folds, list) or not folds:
        raise InputError("has no list of 'folds'", path=path, hint=_EXPECTED)
    for number, fold in enumerate(folds, 1):
        if not isinstance(fold, list) or not all(isinstance(name, str) for name in fold):
            raise InputError(f"fold {number} is not a list of names", path=path, hint=_EXPECTED)
    return folds


def apply_folds(reading: Reading, path: Path, root: Path) -> Reading:
    """Return the samples with the fold that `path` gives them; the samples' own folds no longer count.

    A name of no slice, or of several, and a slice in two folds become problems; slices in no fold a note. Raises
    InputError as `read_folds`.
    """
    folds = read_folds(path)
    files = {sample.path for sample in reading.samples}
    by_name = _names(files, root)
    fold_of: dict[Path, int] = {}
    problems = list(reading.problems)
    for number, fold in enumerate(folds, 1):
        for name in fold:
            found = by_name.get(name.replace("\\", "/"), set())
            if len(found) != 1:
                what = f"which is the name of {len(found)} slices" if found else "which is not a slice of this data set"
                hint = "use paths below the folder" if found else "add the file, or take the name out"
                problems.append(InputError(f"fold {number} names {name!r}, {what}", path=path, hint=hint))
                continue
            (file,) = found
            if fold_of.setdefault(file, number) != number:
                problems.append(
                    InputError(
                        f"{name!r} is in fold {fold_of[file]} and in fold {number}",
                        path=path,
                        hint="a slice belongs to one fold; make folds with `jcs data split`",
                    )
                )
    notes = list(reading.notes)
    without = [relative_name(file, root) for file in sorted(files - fold_of.keys())]
    if without:
        notes.append(f"{path.name}: {count(len(without), 'slice')} in no fold: {few(without)}")
    samples = tuple(replace(sample, fold=fold_of.get(sample.path)) for sample in reading.samples)
    return replace(reading, samples=samples, notes=tuple(notes), problems=tuple(problems))


def _names(files: set[Path], root: Path) -> dict[str, set[Path]]:
    """Return every name that a slice can go by → the slices that it can mean."""
    names: defaultdict[str, set[Path]] = defaultdict(set)
    for file in files:
        whole = relative_name(file, root)
        stem = stem_of(file)
        for name in {stem, file.name, whole, whole[: len(whole) - len(file.name)] + stem}:
            names[name].add(file)
    # A path below the folder means that one slice, whatever others are called.
    return names | {relative_name(file, root): {file} for file in files}
