"""Folders whose files belong together by their stems.

| layout | where |
| --- | --- |
| pictures | `images/NAME.*`, `masks/NAME.*` (COVID-19-CT100) |
| features | `features/NAME.mat`, `masks/NAME.*`; with `images/NAME.*` too, a sample has both |
| flat features | `NAME.mat` and its mask `NAME.*` side by side |
| volumes | `images/NAME.nii.gz` or the folder of a DICOM series `images/NAME/`, `masks/NAME.nii.gz` |

Sub-folders count: `images/p1/a.png` belongs to `masks/p1/a.png`. Nothing is concluded from their names. What no stem
matches is matched without the words that say what it is: `tr_im_0001` with `tr_mask_0001` (COVID-19-CT100), `a` with
`a_seg`; only where that leaves no choice.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.samples import Reading, Sample, is_features
from jcs_ct.io.files.names import EXTENSIONS, is_litter, natural_key, split_extension, volume_stem
from jcs_ct.io.files.opening import unreadable
from jcs_ct.io.files.walk import count, few

Stems = dict[str, Path]

_ADD = "add it; for a slice without lesion, one that is 0 everywhere"
_WORDS = frozenset({"im", "img", "image", "ct", "feat", "features", "mask", "seg", "segmentation", "gt", "label"})


def read_folders(root: Path) -> Reading:
    """Read `images/` and/or `features/` with `masks/` below `root`.

    A slice without a mask becomes a problem, a mask without a slice a note. Raises InputError where a folder cannot be
    listed.
    """
    problems: list[InputError] = []
    notes: list[str] = []
    images, features, masks = (
        _stems(files_below(root / name), root / name, problems) if (root / name).is_dir() else {}
        for name in ("images", "features", "masks")
    )
    if (root / "images").is_dir():
        images |= _series(root / "images", masks, images, problems)
    foreign = [stem for stem, path in features.items() if not is_features(path)]
    notes += [f"features/: {features.pop(stem).name} is not a .mat file and is not used" for stem in foreign]
    if images and features and images.keys() != features.keys():
        alone = len(images.keys() ^ features.keys())
        notes.append(f"{count(alone, 'slice')} in only one of images/ and features/")
    stems = sorted(images.keys() | features.keys(), key=natural_key)
    pairs = _pair(stems, masks, notes)
    samples = []
    for stem in stems:
        image, held = images.get(stem), features.get(stem)
        if stem in pairs:
            samples.append(Sample(image, masks.pop(pairs[stem]), held))
        else:
            path = image or held
            problems.append(InputError("has no mask of the same name in masks/", path=path, hint=_ADD))
    if masks:
        notes.append(f"masks/: {count(len(masks), 'mask')} without a slice: {few(sorted(masks, key=natural_key))}")
    return Reading(tuple(samples), tuple(notes), tuple(problems))


def read_flat_features(root: Path) -> Reading:
    """Read `.mat` files in `root`, each with its mask beside it. Problems and errors as in `read_folders`."""
    problems: list[InputError] = []
    files = {name: path for name, path in files_below(root, deep=False).items() if split_extension(name)[1]}
    features = _stems({name: path for name, path in files.items() if is_features(path)}, root, problems)
    masks = _stems({name: path for name, path in files.items() if not is_features(path)}, root, problems)
    notes: list[str] = []
    pairs = _pair(list(features), masks, notes)
    samples = []
    for stem, path in features.items():
        if stem in pairs:
            samples.append(Sample(mask=masks[pairs[stem]], features=path))
        else:
            problems.append(InputError("has no mask of the same name beside it", path=path, hint=_ADD))
    return Reading(tuple(samples), tuple(notes), tuple(problems))


def files_below(root: Path, *, deep: bool = True) -> dict[str, Path]:
    """Return the files in a folder, "/"-separated name below it → path, in natural order; no hidden ones.

    Raises InputError where the folder, or one below it, cannot be listed.
    """

    def fail(error: OSError) -> None:
        raise unreadable(Path(error.filename or root), error) from error

    found: Stems = {}
    for where, folders, files in os.walk(root, onerror=fail):
        prefix = Path(where).relative_to(root)
        folders[:] = [name for name in folders if deep and not is_litter(name)]
        found |= {(prefix / name).as_posix(): Path(where, name) for name in files if not is_litter(name)}
    return {name: found[name] for name in sorted(found, key=natural_key)}


def _series(images: Path, masks: Stems, found: Stems, problems: list[InputError]) -> Stems:
    """Return the folders of DICOM series in `images/`: those that have the name of a mask that is a volume.

    Their files are no slices by name, which was a problem before it was known what they are.
    """
    series = {
        name: images / name
        for name, mask in masks.items()
        if volume_stem(mask.name) is not None and (images / name).is_dir()
    }
    inside = tuple(f"{path}{os.sep}" for path in series.values())
    problems[:] = [p for p in problems if not str(p.path).startswith(inside)] if inside else problems
    for stem in [stem for stem, path in found.items() if inside and str(path).startswith(inside)]:
        del found[stem]
    return series


def _pair(stems: list[str], masks: Stems, notes: list[str]) -> dict[str, str]:
    """Return stem of a slice → stem of its mask."""
    pairs = {stem: stem for stem in stems if stem in masks}
    bare: defaultdict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for which, names in enumerate((stems, masks)):
        for name in names:
            if name not in pairs:
                bare[_without_words(name)][which].append(name)
    found = {slices[0]: those[0] for slices, those in bare.values() if len(slices) == len(those) == 1}
    if found:
        example = next(iter(found.items()))
        notes.append(f"{count(len(found), 'mask')} found by a like name: {example[0]} and {example[1]}")
    return pairs | found


def _without_words(stem: str) -> str:
    folder, slash, name = stem.rpartition("/")
    parts = re.split(r"[ ._-]+", name.casefold())
    return folder + slash + "_".join(part for part in parts if part not in _WORDS)


def _stems(files: dict[str, Path], folder: Path, problems: list[InputError]) -> Stems:
    """Return stem → file; of two files with one stem the first counts, and the other is a problem."""
    found: Stems = {}
    for name, path in files.items():
        volume = volume_stem(Path(name).name)
        stem, extension = split_extension(name)
        if volume is not None:
            stem, extension = (Path(name).parent / volume).as_posix(), "volume"
        if not extension:
            kinds = ", ".join(sorted(EXTENSIONS))
            problems.append(
                InputError("does not have the name of a slice", path=path, hint=f"move it away; expected: {kinds}")
            )
        elif stem in found:
            other = found[stem].relative_to(folder).as_posix()
            problems.append(InputError(f"has the same stem as {other}", path=path, hint="keep one of the two"))
        else:
            found[stem] = path
    return found
