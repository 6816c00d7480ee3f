"""Folds that keep a patient together, with every label of every source spread evenly over them.

scikit-learn's `StratifiedGroupKFold` does the dividing; the stratum of a slice is its label and its source together.
"""

from __future__ import annotations

import json
import os
import warnings
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import JcsError, UsageError
from jcs_ct.core.installing import install_command
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.fingerprint import THRESHOLD, near_pairs, stack_prints
from jcs_ct.datasets.inspection import inspect_all
from jcs_ct.datasets.lists import format_line
from jcs_ct.datasets.samples import Dataset, Sample, short_names

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jcs_ct.datasets.inspection import Watch

MOST_FOLDS = 100


@dataclass(frozen=True)
class Folds:
    """A division of a data set: the samples of each fold, a file once, whatever the lists say.

    `facts` say how it was made and what each fold holds, for `folds.json`; `notes` what a user should know.
    """

    folds: tuple[tuple[Sample, ...], ...]
    facts: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def make_folds(
    dataset: Dataset,
    folds: int = 5,
    seed: int = 0,
    *,
    join_duplicates: bool = False,
    similarity: float = THRESHOLD,
    workers: int = 1,
    watch: Watch | None = None,
) -> Folds:
    """Divide a data set into folds. What is in a split "test" is held back: it is in no fold.

    Args:
        dataset: The data set. Slices without a group are groups of their own.
        folds: How many.
        seed: The same seed, data and version of scikit-learn give the same folds.
        join_duplicates: Read all pictures, and let slices with equal or nearly equal pixels join their groups into one.
        similarity: From where on two pictures are near duplicates (see `fingerprint`).
        workers: Processes that read, with `join_duplicates`.
        watch: As in `jcs_ct.datasets.check.check`, with `join_duplicates`.

    Raises:
        UsageError: There are fewer groups than folds, a fold would be empty, or `folds` is not from 2 to 100.
        InputError: A file cannot be read (`join_duplicates`).
        JcsError: scikit-learn is missing.
    """
    if not 2 <= folds <= MOST_FOLDS:
        raise UsageError(f"{folds} folds were asked for; 2 to {MOST_FOLDS} are possible")
    divider, version = _scikit_learn()
    held_back = {sample.key for sample in dataset.samples if sample.split == "test"}
    # A file stands once; of a volume each slice does.
    once = {sample.key: sample for sample in reversed(dataset.samples) if sample.key not in held_back}
    samples = [once[key] for key in dict.fromkeys(s.key for s in dataset.samples) if key in once]
    notes = []
    if held_back:
        notes.append(f"{len(held_back):,} slices of the split 'test' are held back: in no fold")
    groups = [f"group {s.group}" if s.group is not None else f"slice {i}" for i, s in enumerate(samples)]
    if join_duplicates:
        joined = _join(groups, _duplicates(samples, similarity, workers, watch))
        if len(set(joined)) < len(set(groups)):
            notes.append(f"{len(set(groups)):,} groups become {len(set(joined)):,}, since they share duplicates")
        groups = joined
    if len(set(groups)) < folds:
        raise UsageError(
            f"has {len(set(groups))} groups to divide, fewer than {folds} folds",
            path=dataset.root,
            hint="make fewer folds",
        )
    if all(sample.group is None for sample in samples):
        notes.append("no groups are known: slices of one patient may come into different folds")
    strata = [f"{_word(s.label)}|{_word(s.source)}" for s in samples]
    rare = sorted(name for name, count in Counter(strata).items() if count < folds)
    if rare:
        notes.append(f"too rare to be in every fold (label|source): {', '.join(rare)}")
    numbers = _divide(divider, folds, seed, strata, groups)
    if empty := sorted(set(range(folds)) - set(numbers)):
        raise UsageError(
            f"its groups are so unequal that fold {empty[0] + 1} of {folds} would be empty",
            path=dataset.root,
            hint="make fewer folds, or try another --seed",
        )
    parts = tuple(tuple(s for s, n in zip(samples, numbers, strict=True) if n == fold) for fold in range(folds))
    facts = {
        "made_by": f"jcs-ct {__version__}, scikit-learn {version}",
        "seed": seed,
        "stratified_by": ["label", "source"],
        "joined_duplicates_from": similarity if join_duplicates else None,
        "slices": len(samples),
        "groups": len(set(groups)),
        "held_back": len(held_back),
        "counts": [
            _counts([i for i, number in enumerate(numbers) if number == fold], samples, groups) for fold in range(folds)
        ],
    }
    return Folds(parts, facts, tuple(notes))


def save_folds(made: Folds, dataset: Dataset, path: Path, *, overwrite: bool = False) -> None:
    """Write `folds.json`: slices go by their stems, or by their paths where a stem is not the only one.

    Raises OutputError where the file exists and `overwrite` is false, or cannot be written.
    """
    names = short_names((sample.path for sample in dataset.samples), dataset.root)
    folds = [list(dict.fromkeys(names[s.path] for s in fold)) for fold in made.folds]  # a volume goes by one name
    text = json.dumps({"folds": folds, **made.facts}, indent=1, ensure_ascii=False)
    # Names that are no UTF-8 hold surrogates, of which "\\udcff" is JSON's own spelling, too.
    write_whole(path, (text + "\n").encode(errors="backslashreplace"), overwrite=overwrite)


def list_files(made: Folds, folder: Path) -> list[Path]:
    """Return the paths that `save_lists` writes."""
    return [folder / f"fold{n}" / name for n in range(1, len(made.folds) + 1) for name in ("train.txt", "test.txt")]


def save_lists(made: Folds, folder: Path, *, overwrite: bool = False) -> None:
    """Write the release's lists for each fold: `FOLDER/fold1/train.txt` and `test.txt`, and so on.

    Paths are relative to the list, so that `FOLDER/fold1` is a data set by itself.

    Raises:
        UsageError: A sample has no mask: such lists hold a picture and a mask per line.
        OutputError: A file exists and `overwrite` is false, or cannot be written.
    """
    without = next((s for fold in made.folds for s in fold if s.mask is None), None)
    sliced = next((s for fold in made.folds for s in fold if s.index is not None), None)
    if sliced is not None:
        raise UsageError("is a volume, and lists are of pictures", path=sliced.path, hint="use folds.json alone")
    if without is not None:
        raise UsageError("has no mask, and lists are for segmentation", path=without.path, hint="use folds.json alone")
    for number, test in enumerate(made.folds, 1):
        train = [s for other, fold in enumerate(made.folds, 1) if other != number for s in fold]
        for name, samples in (("train.txt", train), ("test.txt", test)):
            path = folder / f"fold{number}" / name
            lines = [format_line(_relative(s.path, path), _relative(s.mask or s.path, path)) for s in samples]
            text = "".join(f"{line}\n" for line in lines)
            write_whole(path, text.encode(errors="surrogateescape"), overwrite=overwrite)


def _scikit_learn() -> tuple[Any, str]:
    try:
        # Without type stubs of its own; whether that is noted elsewhere is not this module's matter.
        import sklearn  # type: ignore[import-untyped,unused-ignore]
        from sklearn.model_selection import StratifiedGroupKFold  # type: ignore[import-untyped,unused-ignore]
    except ImportError as error:
        raise JcsError("folds are made by scikit-learn, which is missing", hint=install_command("train")) from error
    return StratifiedGroupKFold, str(sklearn.__version__)


def _divide(divider: Any, folds: int, seed: int, strata: list[str], groups: list[str]) -> list[int]:
    """Return the fold of each slice, from 0."""
    common = Counter(strata)
    # A stratum smaller than the number of folds cannot be in all of them; scikit-learn refuses when all are so small.
    if max(common.values()) < folds:
        strata = ["all"] * len(strata)
    numbers = [0] * len(strata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # rare strata are named in the notes
        divided = divider(folds, shuffle=True, random_state=seed).split(strata, strata, groups)
        for number, (_, members) in enumerate(divided):
            for i in members.tolist():
                numbers[i] = number
    return numbers


def _duplicates(
    samples: Sequence[Sample], similarity: float, workers: int, watch: Watch | None
) -> Iterator[tuple[int, int]]:
    """Yield pairs of slices with equal or nearly equal pixels, enough of them to connect all that are."""
    files = [Sample(sample.image, features=sample.features, index=sample.index) for sample in samples]
    inspected = list(inspect_all(files, workers, watch))
    first: dict[bytes, int] = {}
    for i, found in enumerate(inspected):
        if found.faults:
            raise found.faults[0][1]
        assert found.content is not None  # noqa: S101  # without a fault it was read
        if first.setdefault(found.content, i) != i:
            yield first[found.content], i
    distinct = list(first.values())
    for one, other, _ in near_pairs(stack_prints(inspected[i].print for i in distinct), similarity):
        yield from ((distinct[a], distinct[b]) for a, b in zip(one.tolist(), other.tolist(), strict=True))


def _join(groups: list[str], pairs: Iterable[tuple[int, int]]) -> list[str]:
    """Return the groups, those that a pair connects (over others, too) under one name."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = group = parent[parent[group]]
        return group

    for i, j in pairs:
        parent[root(groups[j])] = root(groups[i])
    return [root(group) for group in groups]


def _counts(members: list[int], samples: Sequence[Sample], groups: Sequence[str]) -> dict[str, Any]:
    tables: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for i in members:
        tables["labels"][_word(samples[i].label)] += 1
        tables["sources"][_word(samples[i].source)] += 1
        tables["labels_and_sources"][f"{_word(samples[i].label)}|{_word(samples[i].source)}"] += 1
    counts = {name: dict(sorted(table.items())) for name, table in tables.items()}
    return {"slices": len(members), "groups": len({groups[i] for i in members}), **counts}


def _word(value: object) -> str:
    return "unknown" if value is None else str(value)


def _relative(path: Path, list_file: Path) -> str:
    try:
        return Path(os.path.relpath(path.resolve(), list_file.parent.resolve())).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
