"""A CT volume and where it lies in the patient: what readers give and every later stage takes. No torch here.

**Canonical axes.** Inside the package a volume is (slice, row, column) as a radiologist scrolls through it: slices from
head to feet, rows from front to back, columns from the patient's right to the left. Positions are in mm along
DICOM's patient axes (PS3.3 C.7.6.2): x to the patient's left, y to the back, z to the head ("LPS"). `Axes` says how the
stored array was turned to get there, and turns results back.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import permutations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

CANONICAL = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
"""Directions (x, y, z) along which canonical slices, rows and columns count up."""
LOWEST, HIGHEST = -1024, 3071
"""Hounsfield units that slices are clipped to: what 12 bits hold."""


@dataclass(frozen=True)
class Geometry:
    """Where the voxels of a volume of (slices, rows, columns) lie.

    `affine` is float64 4×4: (slice, row, column, 1) → (x, y, z, 1) in mm, of voxel centres.
    """

    shape: tuple[int, int, int]
    affine: NDArray[np.float64]

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distances in mm between slices, rows and columns."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(lengths[0]), float(lengths[1]), float(lengths[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of a voxel in millilitres."""
        return float(abs(np.linalg.det(self.affine[:3, :3])) / 1000)

    def position(self, index: int) -> float:
        """Return z in mm of the centre of a slice."""
        middle = np.array([index, (self.shape[1] - 1) / 2, (self.shape[2] - 1) / 2, 1.0])
        return float((self.affine @ middle)[2])


@dataclass(frozen=True)
class Axes:
    """How a stored array becomes canonical: `stored.transpose(order)`, then each axis with a true flip is reversed."""

    order: tuple[int, int, int] = (0, 1, 2)
    flips: tuple[bool, bool, bool] = (False, False, False)

    def to_canonical(self, stored: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a stored array with canonical axes."""
        return self._flipped(stored.transpose(self.order))

    def to_stored(self, canonical: NDArray[Any]) -> NDArray[Any]:
        """Return a view of a canonical array with the axes of the stored one."""
        return self._flipped(canonical).transpose(np.argsort(self.order))

    def geometry(self, stored: NDArray[np.float64], shape: Sequence[int]) -> Geometry:
        """Return the canonical geometry of an array with the affine `stored` and the *stored* `shape`."""
        move = np.zeros((4, 4))
        move[3, 3] = 1
        for axis, (source, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            move[source, axis] = -1 if flip else 1
            move[source, 3] = shape[source] - 1 if flip else 0
        slices, rows, columns = (shape[axis] for axis in self.order)
        return Geometry((slices, rows, columns), np.asarray(stored @ move, dtype=np.float64))

    def _flipped(self, array: NDArray[Any]) -> NDArray[Any]:
        return array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]


def canonical_axes(affine: NDArray[np.float64]) -> Axes:
    """Return how an array with this affine (index → LPS mm) becomes canonical; oblique axes go to the nearest ones.

    Raises ValueError where the affine has no inverse.
    """
    directions = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(directions).all() or abs(np.linalg.det(directions)) < 1e-3:
        raise ValueError("the axes of the volume do not span the space")
    likeness = np.array(CANONICAL) @ directions  # canonical axis × stored axis
    best = max(permutations(range(3)), key=lambda order: sum(abs(likeness[i, order[i]]) for i in range(3)))
    flips = tuple(bool(likeness[i, best[i]] < 0) for i in range(3))
    return Axes((best[0], best[1], best[2]), (flips[0], flips[1], flips[2]))


@dataclass(frozen=True)
class OtherSeries:
    """A series of a study beside the one that is read: its number, or None, the number of its images, and why not.

    `open` opens it in place of the one that is read, or raises InputError; None where it cannot be read.
    """

    number: int | None
    slices: int
    reason: str
    open: Callable[[], CTSeries] | None = field(default=None, repr=False)


@dataclass(frozen=True)
class CTSeries:
    """One CT volume, read slice by slice.

    Attributes:
        name: Safe as a folder name; for DICOM it is made of a digest of the series' UID, and tells nothing of the
            patient.
        label: What a message calls it: the path, or "archive.zip!member" of its first file.
        kind: "dicom", or "nifti": any volume whose results are NIfTI files alone, whatever it came as.
        geometry: Of the canonical axes.
        axes: How the stored array was turned. For DICOM its axes are (file, row, column), the files already in the
            order of `sources`, so that only rows and columns can be turned.
        read: Returns canonical slice i (head to feet): int16 HU, rows × columns, padding and values clipped to
            [−1024, 3071]. Raises InputError where the pixels cannot be decoded.
        sources: `jcs_ct.io.files.sources.Source` of the DICOM files in the order of canonical slices; of any other
            volume the file and that of its values, and none where a program handed it over.
        facts: What the header says that does not identify anyone (manufacturer, kernel, kVp, thickness …), for reports.
        warnings: What speaks against the study or limits what can be said of it, a line each.
        study_uid, series_uid: Of DICOM; "" otherwise, and `series_uid` of one that was joined of several. They stay in
            memory; reports hold hashes of them.
        number: Of the series in its study, or None.
        others: The other series of its study, what would be read next first.
        beside: The `Source` of every other file of its study.
        passed: The series of its study that were to be read before it and showed no lungs.
    """

    name: str
    label: str
    kind: Literal["dicom", "nifti"]
    geometry: Geometry
    axes: Axes
    read: Callable[[int], NDArray[np.int16]] = field(repr=False)
    sources: tuple[Any, ...] = field(repr=False)
    facts: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    study_uid: str = field(default="", repr=False)
    series_uid: str = field(default="", repr=False)
    number: int | None = None
    others: tuple[OtherSeries, ...] = ()
    beside: tuple[Any, ...] = field(default=(), repr=False)
    passed: tuple[CTSeries, ...] = field(default=(), repr=False)

    def __len__(self) -> int:
        return self.geometry.shape[0]
