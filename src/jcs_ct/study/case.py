"""A case: the slices of one study, whatever they came as, in the order in which they are looked through."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

import numpy as np

from jcs_ct.core.types import SliceImage
from jcs_ct.imaging.window import to_grey
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.names import safe_name
from jcs_ct.io.pictures import read_slice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.io.files.sources import Source


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
    """

    name: str
    label: str
    kind: Literal["dicom", "nifti", "pictures"]
    series: CTSeries | None = None
    pictures: tuple[Source, ...] = ()

    def __len__(self) -> int:
        return len(self.pictures) if self.series is None else len(self.series)

    @property
    def sources(self) -> tuple[Source, ...]:
        """Every file that it is read from, so that no result replaces one."""
        return self.pictures if self.series is None else self.series.sources

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
    return Case(series.name, series.label, series.kind, series)


def of_pictures(sources: Sequence[Source], inputs: Sequence[str]) -> list[Case]:
    """Return the cases that pictures make: those of one folder or archive are one study, a named file is its own.

    Args:
        sources: The pictures, in their order.
        inputs: The INPUT arguments.
    """
    named = {Path(item).resolve() for item in inputs if Path(item).is_file()}
    groups: dict[tuple[str, str], list[Source]] = {}
    for source in sources:
        if source.kind is Kind.MAT:
            continue
        if source.member is not None:
            inner = str(PurePosixPath(source.member).parent)
            key = (str(source.path), "" if inner == "." else inner)
        elif source.path.resolve() in named:
            key = (str(source.path), "")
        else:
            key = (str(source.path.parent), "")
        groups.setdefault(key, []).append(source)
    cases = []
    for (top, inner), members in groups.items():
        path = Path(top).resolve()
        base = path.stem if path.is_file() else path.name
        name = "_".join(part for part in (base, *PurePosixPath(inner).parts) if part) or "study"
        label = f"{top}!{inner}" if inner else top
        cases.append(Case(safe_name(name), label, "pictures", pictures=tuple(members)))
    return cases
