"""What every layout is read into: samples, and the data set they make. No pixels are read here."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.io.files.names import volume_stem

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Task = Literal["segment", "classify"]


@dataclass(frozen=True)
class Sample:
    """One slice with what is known of it. Paths are not promised to exist: `jcs_ct.datasets.check` looks.

    Attributes:
        image: The picture of the slice.
        mask: Its lesion mask, on the same grid.
        features: Stage-1 features of the slice (`.mat`), instead of the picture or beside it.
        label: 1 = COVID-19, 0 = not.
        group: Whom the slice is of: a patient, or the study where patients are not known. Never to be divided.
        source: The hospital, scanner or collection it comes from.
        split: Part of a fixed division: "train", "val", "test" …
        fold: Number of its fold, from 1.
        index: Which slice of a volume it is (canonical: 0 is nearest the head), where `image` is a NIfTI file or the
            folder of a DICOM series; None where `image` is a picture.
        empty: It is known to show no lesion: as a mask without a lesion pixel, where no mask file is at hand.
        lesions: Labels in the mask of a volume that are lesion; empty: all above 0.
        origin: Where it is written down ("train.txt:3"), for messages; "" for what was found in a folder.
    """

    image: Path | None = None
    mask: Path | None = None
    features: Path | None = None
    label: int | None = None
    group: str | None = None
    source: str | None = None
    split: str | None = None
    fold: int | None = None
    origin: str = ""
    index: int | None = None
    empty: bool = False
    lesions: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[Path, int | None]:
        """What tells it from other slices: its file, and which slice of it."""
        return self.path, self.index

    @property
    def files(self) -> Sample:
        """What is read of it, and nothing else that is known: equal for samples of the same files."""
        return Sample(self.image, self.mask, self.features, index=self.index, lesions=self.lesions)

    @property
    def path(self) -> Path:
        """The file the slice itself is in: the picture, or else the features."""
        path = self.image or self.features
        if path is None:
            raise UsageError("a sample has neither a picture nor features", path=self.origin or None)
        return path


@dataclass(frozen=True)
class Dataset:
    """A data set as it lies on disk.

    Attributes:
        root: Its folder.
        task: What it was opened for; None: for whatever it holds.
        samples: In the order of its lists, or in natural order.
        layout: Which layout was found, see the table of `jcs_ct.datasets.layouts`.
        notes: What a user should know, a line each.
        problems: What is wrong with its lists; none where it was opened strictly.
        label_names: What nnU-Net's `dataset.json` says that the labels of masks mean, as JSON; "" where nothing does.
    """

    root: Path
    task: Task | None
    samples: tuple[Sample, ...]
    layout: str
    notes: tuple[str, ...] = ()
    problems: tuple[InputError, ...] = ()
    label_names: str = ""

    @property
    def folds(self) -> tuple[int, ...]:
        """The numbers of its folds, in order; empty where it has none."""
        return tuple(sorted({sample.fold for sample in self.samples if sample.fold is not None}))

    def part(self, split: str) -> tuple[Sample, ...]:
        """Return the samples of a split ("train", "test" …). Raises UsageError where there are none."""
        chosen = tuple(sample for sample in self.samples if sample.split == split)
        if not chosen:
            known = ", ".join(sorted({s.split for s in self.samples if s.split})) or "none"
            raise UsageError(
                f"has no split {split!r}; its splits: {known}", path=self.root, hint="choose one of them, or --fold"
            )
        return chosen

    def fold(self, number: int) -> tuple[tuple[Sample, ...], tuple[Sample, ...]]:
        """Return the samples to train on and to test on for a fold; those in no fold are in neither.

        Raises UsageError where there is no such fold.
        """
        if number not in self.folds:
            known = ", ".join(map(str, self.folds)) or "none; `jcs data split` makes them"
            raise UsageError(f"has no fold {number}; its folds: {known}", path=self.root, hint="choose one of them")
        return (
            tuple(s for s in self.samples if s.fold is not None and s.fold != number),
            tuple(s for s in self.samples if s.fold == number),
        )


@dataclass(frozen=True)
class Reading:
    """What one layout's reader returns."""

    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    problems: tuple[InputError, ...] = ()
    label_names: str = ""


def relative_name(path: Path, root: Path) -> str:
    """Return a path as messages and lists name it: "/"-separated below `root`, else in full."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.as_posix()


def stem_of(path: Path) -> str:
    """Return a file name without its extension, that of a volume in whole (`a` of `a.nii.gz`)."""
    return volume_stem(path.name) or path.stem


def numbered(name: str, index: int | None) -> str:
    """Return what a slice is called: its file's name, and of a volume its number, from 1."""
    return name if index is None else f"{name}, slice {index + 1}"


def short_names(paths: Iterable[Path], root: Path) -> dict[Path, str]:
    """Return a distinct name for each path: its stem; its path below `root` for those whose stem is not the only one.

    Stems are what COVID-19-CT100's `folds.json` holds.
    """
    distinct = list(dict.fromkeys(paths))
    stems = Counter(stem_of(path) for path in distinct)
    return {path: stem_of(path) if stems[stem_of(path)] == 1 else relative_name(path, root) for path in distinct}


def is_features(path: Path) -> bool:
    """Return whether a path is called as a feature file is. Its content is looked at when it is read."""
    return path.suffix.lower() == ".mat"
