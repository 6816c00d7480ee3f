"""A case: the slices of one study, whatever they came as, in the order in which they are looked through."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Literal

from jcs_ct.core.errors import InputError
from jcs_ct.core.types import SliceImage
from jcs_ct.imaging.recipes import grey_as_rgb
from jcs_ct.imaging.window import to_grey
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.names import safe_name
from jcs_ct.io.pictures import read_slice
from jcs_ct.study.measures import PictureMeasures, measure_volume
from jcs_ct.study.slices import CaseSlice, Unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.io.files.sources import Source
    from jcs_ct.study.flow import Clock
    from jcs_ct.study.measures import Measures


@dataclass(frozen=True)
class Case(ABC):
    """What one verdict is given on. A new kind of input is another class of these members.

    Attributes:
        name: Folder of its results.
        label: What a message calls it.
        kind: How its slices came.
        sources: Every file that it is read from, so that no result replaces one.
        warnings: What spoke against it when it was found, a line each.
        series: The volume, with its geometry; None for slices without one.
    """

    name: str
    label: str
    kind: Literal["dicom", "nifti", "pictures"]
    sources: tuple[Source, ...]
    warnings: tuple[str, ...]
    series: CTSeries | None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def slice(self, index: int) -> CaseSlice | Unreadable:
        """Read slice `index`. Raises InputError where that ends the case."""

    @abstractmethod
    def slice_of(self, index: int, decoded: NDArray[Any]) -> CaseSlice:
        """Return slice `index` from what was decoded before, see `CaseSlice.decoded`."""

    @abstractmethod
    def picture_name(self, index: int) -> str:
        """Return the stem of a picture; "" of a volume, whose file names might say too much."""

    @abstractmethod
    def measures(self, clock: Clock) -> Measures:
        """Return how its slices are measured; of a volume, this reads it and finds the lungs.

        Raises:
            InputError: It holds no Hounsfield units, or shows no lungs.
        """


@dataclass(frozen=True)
class VolumeCase(Case):
    """A volume of Hounsfield units. One slice that cannot be read ends it: the volume would have a hole."""

    series: CTSeries

    @classmethod
    def of(cls, series: CTSeries) -> VolumeCase:
        """Return the case of a volume."""
        return cls(series.name, series.label, series.kind, series.sources, series.warnings, series)

    def __len__(self) -> int:
        return len(self.series)

    def slice(self, index: int) -> CaseSlice:
        """See `Case`."""
        return self.slice_of(index, self.series.read(index))

    def slice_of(self, index: int, decoded: NDArray[np.int16]) -> CaseSlice:
        """See `Case`."""
        pixels = grey_as_rgb(to_grey(decoded))
        name, source = f"{self.name}-{index + 1:04d}", f"{self.label}, slice {index + 1}"
        return CaseSlice(SliceImage(name, source, pixels), decoded)

    def picture_name(self, index: int) -> str:  # noqa: ARG002  # as in `Case`
        """See `Case`."""
        return ""

    def measures(self, clock: Clock) -> Measures:
        """See `Case`."""
        return measure_volume(self.series, clock)


@dataclass(frozen=True)
class PictureCase(Case):
    """Pictures of slices, already lung-windowed, whose scale is not known. Those that cannot be read are left out."""

    def __len__(self) -> int:
        return len(self.sources)

    def slice(self, index: int) -> CaseSlice | Unreadable:
        """See `Case`."""
        try:
            return CaseSlice(read_slice(self.sources[index]), None)
        except InputError as error:
            return Unreadable(error.message)

    def slice_of(self, index: int, decoded: NDArray[np.uint8]) -> CaseSlice:
        """See `Case`."""
        return CaseSlice(SliceImage(self.sources[index].name, self.sources[index].label, decoded), None)

    def picture_name(self, index: int) -> str:
        """See `Case`."""
        return self.sources[index].name.rpartition("/")[2]

    def measures(self, clock: Clock) -> Measures:  # noqa: ARG002  # as in `Case`
        """See `Case`."""
        return PictureMeasures([self.picture_name(index) for index in range(len(self))])


def picture_cases(sources: Sequence[Source], inputs: Sequence[str]) -> list[PictureCase]:
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
    return [_picture_case(top, inner, members) for (top, inner), members in groups.items()]


def _picture_case(top: str, inner: str, members: Sequence[Source]) -> PictureCase:
    path = Path(top).resolve()
    base = path.stem if path.is_file() else path.name
    name = "_".join(part for part in (base, *PurePosixPath(inner).parts) if part) or "study"
    return PictureCase(safe_name(name), f"{top}!{inner}" if inner else top, "pictures", tuple(members), (), None)
