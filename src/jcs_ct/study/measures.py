"""How slices are measured: those of volumes in mm² and ml, against their lungs; pictures in shares of themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from jcs_ct.anatomy.adult_lungs import LungFacts
from jcs_ct.anatomy.burden import BurdenCounter
from jcs_ct.anatomy.lungs import LEFT, RIGHT, Reducer
from jcs_ct.anatomy.plausibility import REFUSED_OFFSET, VolumeCheck
from jcs_ct.core.errors import InputError, NoLungsError
from jcs_ct.imaging.recipes import luminance
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.imaging.window import to_grey
from jcs_ct.study.flow import in_order
from jcs_ct.study.orientation import OrientationCheck
from jcs_ct.study.packed import PackedMap
from jcs_ct.study.picture_series import PictureSeriesCheck

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.anatomy.burden import Burden
    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.study.flow import Clock
    from jcs_ct.study.slices import CaseSlice

LEAST_LUNG_MM2 = 300.0  # of a slice that networks look at; less is the very apex or the recess behind the liver


class SliceMeasurements(NamedTuple):
    """What was measured of a slice, as in `jcs_ct.study.result.SliceResult`.

    Attributes:
        lesion: bool, rows × columns: what counts as lesion.
        lung_mm2, lesion_mm2, lesion_share: None where they are not known, or lesions were not looked for.
        flags: What speaks against the slice, a line each.
    """

    lesion: NDArray[np.bool_]
    lung_mm2: float | None
    lesion_mm2: float | None
    lesion_share: float | None
    flags: tuple[str, ...] = ()


class Measures(Protocol):
    """Measures the slices of one case."""

    @property
    def warnings(self) -> Sequence[str]:
        """What speaks against the study as a whole, a line each, as far as it was measured."""
        ...

    def lungs(self, index: int) -> PackedMap | None:
        """Return the labels of the lungs in a slice; None where they are not known."""
        ...

    def shows_lung(self, index: int) -> bool:
        """Tell whether the networks should look at a slice."""
        ...

    def measure(self, index: int, item: CaseSlice, lesion: NDArray[np.bool_] | None) -> SliceMeasurements:
        """Measure a slice, each once, in order. `lesion`: what a network drew; None where nothing was looked for."""
        ...

    def burden(self) -> Burden | None:
        """Return the lesions of the volume, of what was measured so far; None of pictures."""
        ...


class PictureMeasures:
    """Measures pictures, of which neither the scale nor the lungs are known.

    Args:
        names: Their stems, in order.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._orientation = OrientationCheck(len(names), volume=False)
        self._series = PictureSeriesCheck(names)

    @property
    def warnings(self) -> Sequence[str]:
        """See `Measures`."""
        return [*self._orientation.warnings(), *self._series.warnings()]

    def lungs(self, index: int) -> None:
        """See `Measures`."""

    def shows_lung(self, index: int) -> bool:  # noqa: ARG002  # as in `Measures`
        """See `Measures`."""
        return True

    def measure(self, index: int, item: CaseSlice, lesion: NDArray[np.bool_] | None) -> SliceMeasurements:
        """See `Measures`."""
        grey = luminance(item.image.pixels)
        self._series.add(index, grey)
        orientation = self._orientation.add(index, grey)
        flags = check_slice(item.image.pixels, orientation)
        if lesion is None:
            return SliceMeasurements(np.zeros(item.image.pixels.shape[:2], bool), None, None, None, flags)
        return SliceMeasurements(lesion, None, None, int(np.count_nonzero(lesion)) / lesion.size, flags)

    def burden(self) -> None:
        """See `Measures`."""


class VolumeMeasures:
    """Measures a volume whose lungs are known.

    Args:
        series: The volume.
        lungs: Labels of each slice: 0, 1 right, 2 left.
        lung_mm2: Lung in each slice.
        warnings: See `Measures`.
    """

    def __init__(
        self, series: CTSeries, lungs: Sequence[PackedMap], lung_mm2: Sequence[float], warnings: Sequence[str]
    ) -> None:
        self.warnings = warnings
        self._lungs, self._lung_mm2 = lungs, lung_mm2
        self._area = series.geometry.spacing[1] * series.geometry.spacing[2]
        self._counter = BurdenCounter(series.geometry.spacing, series.geometry.voxel_ml)

    def lungs(self, index: int) -> PackedMap:
        """See `Measures`."""
        return self._lungs[index]

    def shows_lung(self, index: int) -> bool:
        """See `Measures`."""
        return self._lung_mm2[index] >= LEAST_LUNG_MM2

    def measure(self, index: int, item: CaseSlice, lesion: NDArray[np.bool_] | None) -> SliceMeasurements:
        """See `Measures`."""
        assert item.hu is not None  # noqa: S101  # slices of volumes have them
        drawn = np.zeros(item.hu.shape, bool) if lesion is None else lesion
        lung_mm2 = self._counter.add(index, item.hu, drawn, self._lungs[index].levels()).lung_mm2
        counted = self._counter.counted
        if lesion is None:
            return SliceMeasurements(counted, lung_mm2, None, None)
        lesion_mm2 = int(np.count_nonzero(counted)) * self._area
        return SliceMeasurements(counted, lung_mm2, lesion_mm2, min(1.0, lesion_mm2 / lung_mm2) if lung_mm2 else 0.0)

    def burden(self) -> Burden:
        """See `Measures`."""
        return self._counter.result()


def measure_volume(series: CTSeries, clock: Clock) -> VolumeMeasures:
    """Read a volume once, on a reduced copy of which its lungs are found.

    Raises:
        InputError: It holds no Hounsfield units, or shows no lungs.
    """
    spacing = series.geometry.spacing
    reducer, check = Reducer(series.geometry.shape, spacing), VolumeCheck(spacing)
    orientation = OrientationCheck(len(series), volume=True)

    def read(index: int) -> NDArray[np.int16]:
        with clock("read"):
            return series.read(index)

    for index, hu in in_order(read, range(len(series))):
        with clock("lungs"):
            check.add(hu, reducer.add(index, hu))
            if orientation.asks(index):
                orientation.add(index, to_grey(hu))
    if abs(check.offset()) >= REFUSED_OFFSET:
        raise InputError(
            f"holds no Hounsfield units: {check.units()[0]}",
            path=series.label,
            hint="convert it again from DICOM, with its rescale slope and intercept",
        )
    with clock("lungs"):
        found = reducer.find()
    if found.reason:
        raise NoLungsError(
            f"{found.reason}; an axial chest CT is expected", path=series.label, hint="choose another with --series"
        )
    lungs: list[PackedMap] = []
    lung_mm2: list[float] = []
    sides = np.zeros(3, np.int64)
    for index in range(len(series)):
        labels = found.slice(index)
        lungs.append(PackedMap.of_labels(labels))
        lung_mm2.append(float(np.count_nonzero(labels) * (spacing[1] * spacing[2])))
        sides += np.bincount(labels.ravel(), minlength=3)[:3]
    right, left = (float(sides[side] * series.geometry.voxel_ml) for side in (RIGHT, LEFT))
    height = sum(area >= LEAST_LUNG_MM2 for area in lung_mm2) * spacing[0]
    facts = LungFacts((right, left), found.median_hu, height, lung_mm2, found.head_last)
    warnings = [*check.warnings(facts), *orientation.warnings()]
    return VolumeMeasures(series, lungs, lung_mm2, warnings)
