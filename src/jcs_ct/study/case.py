"""A case: the slices of one study, whatever they came as, in the order in which they are looked through."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from jcs_ct.io.kinds import Kind
from jcs_ct.io.names import safe_name
from jcs_ct.io.raster import read_slice
from jcs_ct.types import SliceImage
from jcs_ct.window import to_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.io.sources import Source
    from jcs_ct.series import CTSeries


@dataclass(frozen=True)
class CaseSlice:
    """One slice of a case.

    Attributes:
        image: As the networks see it: lung-windowed, 8 bits.
        hu: int16 Hounsfield units, rows × columns; None for a picture.
    """

    image: SliceImage
    hu: NDArray[np.int16] | None


@dataclass(frozen=True)
class Case:
    """What one verdict is given on.

    Attributes:
        name: Folder of its results.
        label: What a message calls it.
        kind: How its slices came.
        series: The volume, or None for pictures.
        pictures: The pictures in their order; empty for a volume.
        sources: Every file that it is read from, so that no result replaces one.
    """

    name: str
    label: str
    kind: Literal["dicom", "nifti", "pictures"]
    series: CTSeries | None = None
    pictures: tuple[Source, ...] = ()
    sources: tuple[Source, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return len(self.pictures) if self.series is None else len(self.series)

    def slice(self, index: int) -> CaseSlice:
        """Read slice `index`. Raises InputError where it cannot be read."""
        if self.series is None:
            return CaseSlice(read_slice(self.pictures[index]), None)
        hu = self.series.read(index)
        grey = to_grey(hu)
        pixels = np.repeat(grey[:, :, None], 3, axis=2)
        return CaseSlice(SliceImage(f"{self.name}-{index + 1:04d}", f"{self.label}, slice {index + 1}", pixels), hu)


def of_series(series: CTSeries) -> Case:
    """Return the case of a volume."""
    return Case(series.name, series.label, series.kind, series, (), tuple(series.sources))


def of_pictures(sources: Sequence[Source], top: Path, *, apart: bool) -> list[Case]:
    """Return the cases that pictures make: those of one folder are one study.

    Args:
        sources: Pictures found in one INPUT.
        top: That INPUT: a folder, an archive, a list or a picture.
        apart: Whether INPUT is a single picture.
    """
    groups: dict[str, list[Source]] = {}
    for source in sources:
        if source.kind is not Kind.MAT:
            groups.setdefault(str(PurePosixPath(source.name).parent), []).append(source)
    cases = []
    base = safe_name(top.resolve().name.removesuffix(top.suffix) if not top.is_dir() else top.resolve().name) or "study"
    for parent, members in groups.items():
        name = base if apart or parent == "." else "_".join((base, *PurePosixPath(parent).parts))
        label = str(top) if parent == "." else f"{top}/{parent}"
        cases.append(Case(name, label, "pictures", None, tuple(members), tuple(members)))
    return cases


def tell_cases_apart(cases: Sequence[Case]) -> list[Case]:
    """Return the cases with a number behind names that occur twice (whatever their capitals)."""
    from dataclasses import replace

    seen: dict[str, int] = {}
    told = []
    for case in cases:
        key = case.name.casefold()
        seen[key] = seen.get(key, 0) + 1
        told.append(case if seen[key] == 1 else replace(case, name=f"{case.name}-{seen[key]}"))
    return told
