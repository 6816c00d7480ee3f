"""What is to be scored: slices of a data set with their masks or labels, and the predictions that belong to them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.csv_tables import number_of, open_table
from jcs_ct.datasets.folders import files_below
from jcs_ct.datasets.folds import FOLDS
from jcs_ct.datasets.layouts import open_dataset
from jcs_ct.datasets.samples import Sample, numbered, relative_name, short_names, stem_of
from jcs_ct.datasets.slices import mask_of, open_volume
from jcs_ct.evaluate.maps import Stored, how_stored, open_map, read_map, refuse_other_labels
from jcs_ct.evaluate.matching import Matched, match
from jcs_ct.io.files.names import EXTENSIONS, VOLUME_ENDINGS, split_extension, volume_stem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Task
    from jcs_ct.evaluate.maps import Values


@dataclass(frozen=True)
class Case:
    """One slice to be scored.

    Attributes:
        name: What tables call it: its stem where that is distinct.
        group: Its patient; its own path where patients are not known.
        key: Its path below the data set's folder, which predictions are matched with.
        sample: Its files and label.
    """

    name: str
    group: str
    key: str
    sample: Sample


@dataclass(frozen=True)
class Cases:
    """The slices to be scored.

    Attributes:
        cases: In the order of the data set.
        notes: What a user should know, a line each.
    """

    cases: tuple[Case, ...]
    notes: tuple[str, ...]


class Maps(NamedTuple):
    """The maps of slices.

    Attributes:
        files: By the keys of their slices.
        stored: What the levels of pictures stand for.
        values: What was said of them.
    """

    files: dict[str, Path]
    stored: Stored
    values: Values = "auto"

    def read(self, case: Case) -> NDArray[np.float64]:
        """Return the map of a slice: float64, rows × columns, in [0, 1]. Raises InputError as `read_map`."""
        path = self.files[case.key]
        if case.sample.index is None:
            return read_map(path, self.stored)
        found = open_map(path, self.values, case.sample.lesions)
        if case.sample.index >= len(found):
            raise InputError(f"has {len(found)} slices, its volume has more", path=path, hint="write it on its grid")
        plane: NDArray[np.float64] = found[case.sample.index].astype(np.float64)
        return plane


def from_dataset(
    path: Path,
    task: Task,
    *,
    folds: Path | None = None,
    fold: int | None = None,
    split: str | None = None,
    lesions: Sequence[int] = (),
) -> Cases:
    """Return the slices of a data set, or of the test part of one fold, or of one split.

    Args:
        path: Its folder, list or manifest.
        task: "segment" (slices have masks) or "classify" (they have labels).
        folds: A file of folds; by default the `folds.json` of the data set, if there is one.
        fold: Number of a fold, from 1.
        split: "train", "test" …
        lesions: Labels in masks of volumes that are lesion; empty: all above 0.

    Raises:
        InputError: See `open_dataset`.
        UsageError: No such fold or split, or both were asked for.
    """
    if fold is not None and split is not None:
        raise UsageError("a fold and a split were both asked for", hint="give --fold or --split")
    data = open_dataset(path, task, folds=FOLDS if folds is None else folds.absolute(), lesions=lesions)
    samples = data.samples
    if fold is not None:
        samples = data.fold(fold)[1]
    elif split is not None:
        samples = data.part(split)
    return _cases(samples, data.root, data.notes)


def from_masks(folder: Path) -> Cases:
    """Return a slice for each mask in a folder. Raises InputError if there is none."""
    found = [path for name, path in files_below(folder).items() if split_extension(name)[1]]
    if not found:
        raise InputError("holds no mask", path=folder, hint="give a folder with masks, PNG or TIFF")
    return _cases([Sample(image=path, mask=path) for path in found], folder, ())


def _cases(samples: Iterable[Sample], root: Path, notes: tuple[str, ...]) -> Cases:
    samples = list({sample.key: sample for sample in samples}.values())  # a list may name a slice twice
    names = short_names((sample.path for sample in samples), root)
    cases = []
    for sample in samples:
        key = relative_name(sample.path, root)
        cases.append(
            Case(numbered(names[sample.path], sample.index), sample.group or key, numbered(key, sample.index), sample)
        )
    if not any(sample.group for sample in samples):
        notes = (*notes, "patients are not known: slices are resampled one by one, and intervals are too narrow")
    return Cases(tuple(cases), notes)


def match_maps(cases: Cases, folder: Path, values: Values = "auto") -> tuple[Maps, Matched]:
    """Return the file of each slice's map, and what did not match; `values`: what the levels of pictures stand for.

    Where a folder holds `.npy` files they are the maps, and pictures are overlays to look at; `overlays/` is left out.

    Raises:
        InputError: The folder cannot be read, holds no map, or none that belongs to a slice; or its maps hold labels
            (see `how_stored`).
    """
    if not folder.is_dir():
        raise InputError("is not a folder", path=folder, hint="give the folder of the maps")
    files = {n: p for n, p in files_below(folder).items() if not n.startswith("overlays/")}
    if any(case.sample.index is not None for case in cases.cases):
        return _match_volumes(cases, folder, files, values)
    arrays = {name: path for name, path in files.items() if name.endswith(".npy")}
    maps = arrays or {name: path for name, path in files.items() if split_extension(name)[1]}
    if not maps:
        expected = ", ".join(sorted(EXTENSIONS - {".mat"}))
        raise InputError("holds no map", path=folder, hint=f"expected: 8-bit {expected}, or .npy")
    # Maps are called as the slices are, or as the masks are where those have other names (COVID-19-CT100).
    by_slice = match({case.key: case.key for case in cases.cases}, list(maps), "map", str(folder))
    by_mask = match({case.key: str(case.sample.mask) for case in cases.cases}, list(maps), "map", str(folder))
    found = max(by_slice, by_mask, key=lambda matched: len(matched.pairs))
    if not found.pairs:
        first = cases.cases[0].key
        raise InputError(
            f"holds {len(maps)} maps and none of a slice: slices are called {first}, maps {next(iter(maps))}",
            path=folder,
            hint="call maps as their slices",
        )
    chosen = {key: maps[name] for key, name in found.pairs.items()}
    every = list(dict.fromkeys([*chosen.values(), *maps.values()]))  # what is stored is a matter of the whole folder
    return Maps(chosen, how_stored(every, folder, values)), found


def _match_volumes(cases: Cases, folder: Path, files: Mapping[str, Path], values: Values) -> tuple[Maps, Matched]:
    """Return the volume that holds each slice's map, called as the volumes, or as their masks are."""
    volumes = {stem: name for name in files if (stem := volume_stem(name)) is not None}
    if not volumes:
        raise InputError("holds no volume", path=folder, hint=f"expected: {', '.join(VOLUME_ENDINGS)}")

    @cache  # the slices of a volume ask for the same one
    def called(*stems: str) -> list[str]:
        ends = tuple(f"/{stem}" for stem in stems)
        return [name for stem, name in volumes.items() if f"/{stem}".endswith(ends)]

    pairs: dict[str, str] = {}
    problems: dict[Path, InputError] = {}
    for case in cases.cases:
        found = called(*(stem_of(path) for path in (case.sample.path, case.sample.mask) if path))
        if len(found) == 1:
            pairs[case.key] = found[0]
        else:
            what = f"has {len(found)} volumes of maps in {folder}" if found else f"has no volume of maps in {folder}"
            hint = "call maps as their volumes, one each"
            problems[case.sample.path] = InputError(what, path=case.sample.path, hint=hint)
    if not pairs:
        raise next(iter(problems.values()))
    extra = tuple(sorted(set(volumes.values()) - set(pairs.values())))
    chosen = {key: files[name] for key, name in pairs.items()}
    refuse_other_labels(list(chosen.values()), folder, cases.cases[0].sample.lesions)
    return Maps(chosen, Stored(masks=True), values), Matched(pairs, tuple(problems.values()), extra)


def match_table(cases: Cases, table: Path) -> tuple[dict[str, float], Matched]:
    """Return the probability of each slice (by key) from a table `file,probability`, and what did not match.

    Raises InputError as `read_probabilities`.
    """
    if any(case.sample.index is not None for case in cases.cases):
        raise InputError("names pictures, the data are slices of volumes", path=table, hint="score --model instead")
    rows = read_probabilities(table)
    # Rows of one name stay apart here, so that `match` can name them.
    found = match({case.key: case.key for case in cases.cases}, [name for name, _ in rows], "row", str(table))
    values = dict(rows)
    return {key: values[name] for key, name in found.pairs.items()}, found


def read_probabilities(path: Path) -> list[tuple[str, float]]:
    """Return the rows of a table with the columns `file` and `probability`, such as `jcs classify` writes.

    Raises InputError where it cannot be read, has other columns or no row, or a probability is not a number in [0, 1].
    """
    hint = "expected: file,probability, as `jcs classify` writes"
    table = open_table(path, ("file", "probability"))
    if not {"file", "probability"} <= set(table.header):
        raise InputError(f"has the columns {', '.join(table.header) or 'none'}", path=path, hint=hint)
    if any(table.header.count(name) > 1 for name in ("file", "probability")):
        raise InputError("has a column twice", path=f"{path}:1", hint="keep one")
    rows = []
    for cells in table:
        row = table.by_column(cells)
        try:
            value = number_of(row["probability"], table.delimiter)
        except ValueError:
            value = -1.0
        if not 0 <= value <= 1 or not row["file"]:
            raise InputError(
                f"has the file {row['file']!r} with the probability {row['probability']!r}; "
                "a number from 0 to 1 is expected",
                path=f"{path}:{table.line}",
            )
        rows.append((row["file"], value))
    if not rows:
        raise InputError("has no row", path=path, hint=hint)
    return rows


def volume_of(case: Case) -> tuple[str, float] | None:
    """Return name and ml of a voxel of the volume that a slice is of; None for a picture."""
    if case.sample.index is None:
        return None
    return case.name.rpartition(", slice ")[0], open_volume(str(case.sample.path)).geometry.voxel_ml


def mask_for(case: Case, shape: tuple[int, ...], prediction: str) -> NDArray[np.bool_]:
    """Return the mask of a slice: bool, rows × columns, which must be the `shape` of its `prediction` (its name).

    Raises InputError as `read_mask`, or where the shapes differ.
    """
    mask = mask_of(case.sample)
    if shape != mask.shape:
        assert case.sample.mask is not None  # noqa: S101  # its mask was read
        raise InputError(
            f"is {shape[0]} × {shape[1]}, its mask {case.sample.mask.name} is {mask.shape[0]} × {mask.shape[1]}",
            path=prediction,
            hint="maps must be on the grid of the slice; do not resize them",
        )
    return mask
