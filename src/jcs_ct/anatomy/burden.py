"""How much of the lungs is affected: volumes, counts and densities of lesions, slice by slice in bounded memory.

The numbers describe the mask that a network drew; they are not a reader's. Of earlier slices only one is kept: lesions
are joined through neighbouring slices, and a lesion that does not go on is counted and forgotten.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Mask = NDArray[np.bool_]
    Labels = NDArray[np.uint8]
    Ints = NDArray[np.signedinteger[Any]]
    Box = tuple[slice, slice]

RIGHT, LEFT = 1, 2
"""Labels of the lungs, as `jcs_ct.anatomy.lungs` gives them: the patient's right and left."""

LEAST_LESION_ML = 0.1  # smaller ones count in the volume, not in the number
SURFACE_MM = 2.0  # the lungs' surface is known to about one reduced pixel: what lies nearer is inside
MOST = 0.5  # of a lesion in a slice; with that much of it inside, all of it belongs to the lung
NEAR_MM = 10.0  # … as far as that beyond the lung's convex hull: consolidation at the pleura that was taken for wall
NOWHERE = (slice(0, 0), slice(0, 0))
HEALTHY_ML = 1.5  # a healthy chest that its network never saw has 1.1 ml marked (docs/lite.md): below is CT-0
GROUND_GLASS = (-750, -300)
CONSOLIDATION = (-300, 50)
"""HU. That −300 HU parts the two served best of eight limits in doi:10.1186/s12879-021-06556-z; the outer limits leave
out aerated lung and what is denser than soft tissue (contrast medium, calcification), and are this package's choice."""

SEVERITY_SOURCE = (
    "CT-0 to CT-4 by the affected share of the lungs (MosMedData, Morozov et al. 2020, arXiv:2005.06465), "
    f"computed from the lesion mask, not graded by a reader; below {HEALTHY_ML:g} ml is CT-0, as in healthy chests"
)


@dataclass(frozen=True)
class Part:
    """One lung, or both.

    Attributes:
        lung_ml: Lung with its lesions; None where no lungs were found at all.
        lesion_ml: Lesions in it.
        share: lesion_ml / lung_ml in [0, 1]; None without lung.
    """

    lung_ml: float | None
    lesion_ml: float
    share: float | None


@dataclass(frozen=True)
class SliceBurden:
    """The areas of one slice.

    Attributes:
        lung_mm2: Lung with its lesions.
        lesion_mm2: Lesions in or next to the lungs.
        share: lesion_mm2 / lung_mm2; None where the slice shows no lung.
        ignored_mm2: What was marked outside of the lungs.
    """

    lung_mm2: float
    lesion_mm2: float
    share: float | None
    ignored_mm2: float


@dataclass(frozen=True)
class Burden:
    """The lesions of a volume.

    Attributes:
        both: Both lungs.
        right, left: Each lung, by the patient's side.
        lesions: Number of separate lesions (voxels that share a corner belong together) of at least `LEAST_LESION_ML`.
        largest_ml: Volume of the largest lesion; None where there is none.
        first_slice, last_slice: The affected slices nearest head and feet, counted from 1; None where there is none.
        mean_hu: Of all lesion voxels; None where there are none.
        ground_glass_share: Share of lesion voxels within `GROUND_GLASS` (both ends included).
        consolidation_share: Share of lesion voxels above −300, up to 50 HU. The rest is neither.
        severity: 0 to 4; None without lungs.
        ignored_ml: What was marked outside of the lungs, and is counted nowhere else.
    """

    both: Part
    right: Part
    left: Part
    lesions: int
    largest_ml: float | None
    first_slice: int | None
    last_slice: int | None
    mean_hu: float | None
    ground_glass_share: float | None
    consolidation_share: float | None
    severity: int | None
    ignored_ml: float

    def to_dict(self) -> dict[str, Any]:
        """Return the `burden` object of report.json."""
        numbers = asdict(self)
        numbers["outside_ml"] = numbers.pop("ignored_ml")
        if (score := self.severity) is not None:
            numbers["severity"] = {"score": score, "name": f"CT-{score}", "source": SEVERITY_SOURCE}
        return {**numbers.pop("both"), **numbers}

    def warnings(self) -> tuple[str, ...]:
        """Return what a reader of the numbers should know, a line each."""
        lines = []
        if self.both.lung_ml is None:
            lines.append("no lungs were found: volumes and shares of the lungs are not known")
        if self.ignored_ml >= LEAST_LESION_ML:
            excluded = "lies outside the lungs and was excluded: no volume or share counts it"
            lines.append(f"{self.ignored_ml:.1f} ml of detected lesion {excluded}")
        return tuple(lines)


class BurdenCounter:
    """Counts lesions in the slices of a volume, which are given once each, from head to feet.

    Args:
        spacing: mm between slices, rows, columns.
        voxel_ml: Volume of a voxel, where it is not the product of `spacing` (sheared volumes).

    Attributes:
        counted: What was counted of the lesions of the last slice: bool, rows × columns.
    """

    def __init__(self, spacing: tuple[float, float, float], voxel_ml: float | None = None) -> None:
        self._spacing = spacing
        self._voxel_ml = float(np.prod(spacing)) / 1000 if voxel_ml is None else voxel_ml
        self._lung, self._lesion = {RIGHT: 0, LEFT: 0}, {RIGHT: 0, LEFT: 0}  # voxels
        self._ignored = self._hu = self._ground_glass = self._consolidation = 0
        self._last, self._affected = -1, list[int]()  # the first affected slice and the last
        self.counted: Mask = np.zeros((0, 0), bool)
        self._lesions = _Lesions(self._voxel_ml)

    def add(self, index: int, hu: NDArray[np.int16], lesion: Mask, lungs: Labels) -> SliceBurden:
        """Count a slice.

        Args:
            index: Of the slice, 0 nearest the head; higher than in the call before. A slice left out parts lesions.
            hu: int16, rows × columns.
            lesion: bool, rows × columns.
            lungs: uint8, rows × columns: 0 outside, 1 right, 2 left lung.

        Raises:
            ShapeError: The arrays differ in shape, or slices come in another order.
        """
        if not hu.shape == lesion.shape == lungs.shape or hu.ndim != 2:
            raise ShapeError(f"a slice, its lesions and its lungs are {hu.shape}, {lesion.shape} and {lungs.shape}")
        if index <= self._last:
            raise ShapeError(f"slice {index} comes after slice {self._last}; slices are counted from head to feet")
        if index > self._last + 1:
            self._lesions.add(np.zeros(hu.shape, bool), NOWHERE)
        self._last = index
        self.counted = np.zeros(lesion.shape, bool)
        lesions = lung = 0
        box = _box(lesion, self._spacing[1:])
        sides = _sides(lesion, lungs, box, self._spacing[1:])
        counted = self.counted[box] = sides > 0
        for side in (RIGHT, LEFT):
            marked = int(np.count_nonzero(sides == side))
            moved = int(np.count_nonzero(counted & (lungs[box] == side)))  # lung already, of whichever lesion's side
            covered = int(np.count_nonzero(lungs == side)) - moved + marked
            self._lesion[side] += marked
            self._lung[side] += covered
            lesions, lung = lesions + marked, lung + covered
        self._ignored += (ignored := int(np.count_nonzero(lesion[box])) - lesions)
        self._lesions.add(self.counted, box)
        if lesions:
            values = hu[box][counted]
            self._hu += int(values.sum(dtype=np.int64))
            self._ground_glass += int(np.count_nonzero((values >= GROUND_GLASS[0]) & (values <= GROUND_GLASS[1])))
            self._consolidation += int(np.count_nonzero((values > CONSOLIDATION[0]) & (values <= CONSOLIDATION[1])))
            self._affected = [*self._affected[:1], index + 1]
        pixel = self._spacing[1] * self._spacing[2]
        return SliceBurden(lung * pixel, lesions * pixel, lesions / lung if lung else None, ignored * pixel)

    def result(self) -> Burden:
        """Return what was counted so far; more slices may follow."""
        lesion, both = sum(self._lesion.values()), self._part(RIGHT, LEFT)
        number, largest = self._lesions.total()
        return Burden(
            both=both,
            right=self._part(RIGHT),
            left=self._part(LEFT),
            lesions=number,
            largest_ml=largest * self._voxel_ml if largest else None,
            first_slice=self._affected[0] if self._affected else None,
            last_slice=self._affected[-1] if self._affected else None,
            mean_hu=self._hu / lesion if lesion else None,
            ground_glass_share=self._ground_glass / lesion if lesion else None,
            consolidation_share=self._consolidation / lesion if lesion else None,
            severity=None if both.share is None else severity(both.share, both.lesion_ml),
            ignored_ml=self._ignored * self._voxel_ml,
        )

    def _part(self, *sides: int) -> Part:
        lung, lesion = sum(self._lung[side] for side in sides), sum(self._lesion[side] for side in sides)
        lung_ml = lung * self._voxel_ml if any(self._lung.values()) else None
        return Part(lung_ml, lesion * self._voxel_ml, lesion / lung if lung else None)


def severity(share: float, lesion_ml: float) -> int:
    """Return the CT grade, 0 to 4, of the affected share of the lungs: none, below 25 %, 50 %, up to 75 %, above.

    Args:
        share: In [0, 1].
        lesion_ml: Below `HEALTHY_ML` it counts as none.
    """
    if share <= 0 or lesion_ml < HEALTHY_ML:
        return 0
    return 1 + int(share >= 0.25) + int(share >= 0.5) + int(share > 0.75)


class _Lesions:
    """Counts connected lesions of which only the last slice is known."""

    def __init__(self, voxel_ml: float) -> None:
        self._least = LEAST_LESION_ML / voxel_ml * (1 - 1e-9)  # voxels
        self._number = self._largest = 0
        self._labels: Ints | None = None  # of the slice before, 1…n
        self._sizes = np.zeros(0, np.int64)  # voxels so far, of its labels

    def add(self, lesion: Mask, box: Box) -> None:
        from scipy import ndimage, sparse

        labels, count = ndimage.label(lesion[box], np.ones((3, 3)))
        before = len(self._sizes)
        if self._labels is None:
            self._labels = np.zeros(lesion.shape, np.int32)
        old, new = _touching(self._labels, labels, box)
        links = sparse.coo_matrix((np.ones(len(old)), (old - 1, before + new - 1)), shape=(before + count,) * 2)
        number, groups = sparse.csgraph.connected_components(links, directed=False)
        sizes = np.zeros(number, np.int64)
        np.add.at(sizes, groups[:before], self._sizes)  # a lesion in two pieces may be one further on
        np.add.at(sizes, groups[before:], np.bincount(labels.ravel(), minlength=count + 1)[1:])
        here = np.unique(groups[before:])
        self._number, self._largest = self.total(np.delete(sizes, here))
        numbers = 1 + np.searchsorted(here, groups[before:])
        self._labels = np.zeros(lesion.shape, np.int32)
        self._labels[box] = np.concatenate([[0], numbers]).astype(np.int32)[labels]
        self._sizes = sizes[here]

    def total(self, ended: Ints | None = None) -> tuple[int, int]:
        """Return the number of lesions, and the voxels of the largest; with `ended` only of those that do not go on."""
        sizes = self._sizes if ended is None else ended
        return self._number + int((sizes >= self._least).sum()), max(self._largest, int(sizes.max(initial=0)))


def _box(mask: Mask, spacing: tuple[float, float]) -> Box:
    """Return the box that holds a mask and `SURFACE_MM` around it; an empty one where the mask is empty."""
    found = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not found[0].size:
        return NOWHERE
    margins = (int(SURFACE_MM / mm) + 1 for mm in spacing)
    rows, columns = (
        slice(max(0, int(line[0]) - margin), int(line[-1]) + 1 + margin)
        for line, margin in zip(found, margins, strict=True)
    )
    return rows, columns


def _touching(before: Ints, labels: Ints, box: Box) -> tuple[Ints, Ints]:
    """Return the pairs of labels of neighbouring slices that share a face, an edge or a corner.

    Args:
        before: Of the whole slice before.
        labels: Of the box.
        box: Of the slice.
    """
    rows, columns = np.nonzero(labels)
    here = labels[rows, columns]
    padded = np.pad(before, 1)[box[0].start : box[0].stop + 2, box[1].start : box[1].stop + 2]
    found = []
    for down, across in np.ndindex(3, 3):
        there = padded[rows + down, columns + across]
        found.append(np.unique(there[there > 0].astype(np.int64) * 2**32 + here[there > 0]))
    keys = np.unique(np.concatenate(found))
    return keys >> 32, keys & (2**32 - 1)


def _sides(lesion: Mask, lungs: Labels, box: Box, spacing: tuple[float, float]) -> Labels:
    """Return the lung that each lesion pixel of a box belongs to; 0 where there is no lesion, or none of a lung.

    Args:
        lesion: bool, rows × columns.
        lungs: uint8, rows × columns.
        box: That holds all of the lesions.
        spacing: mm between rows, columns.
    """
    sides: Labels = np.where(lesion[box], lungs[box], np.uint8(0))
    rest = lesion[box] & (lungs[box] == 0)
    if rest.any():
        rest &= _of_the_lungs(lesion[box], lungs[box] > 0, spacing)
    if not rest.any():
        return sides
    right, left = (rest & _neighbourhood(lungs == side, box, spacing) for side in (RIGHT, LEFT))
    if (right & left).any():  # both reach across the mediastinum: the nearer middle counts
        middles = [float(np.nonzero(lungs == side)[1].mean()) for side in (RIGHT, LEFT)]
        nearer = np.arange(lungs.shape[1])[box[1]] < sum(middles) / 2
        right, left = right & ~(left & ~nearer), left & ~(right & nearer)
    sides[right], sides[left] = RIGHT, LEFT
    return sides


def _of_the_lungs(lesion: Mask, lungs: Mask, spacing: tuple[float, float]) -> Mask:
    """Return what of a slice's lesions belongs to the lungs: what their surface holds, and lesions mostly in it.

    A ring of chest wall that touches a lung is cut; consolidation at the pleura comes in whole, where the search for
    the lungs left some of it out.
    """
    from scipy import ndimage

    held = lesion & lungs
    rest = lesion & ~lungs
    box = _box(rest, spacing)
    if lungs[box].any():  # else there is no distance
        held[box] |= rest[box] & (ndimage.distance_transform_edt(~lungs[box], spacing) <= SURFACE_MM)
    labels, count = ndimage.label(lesion, np.ones((3, 3)))
    whole, inside = (np.bincount(labels[mask], minlength=count + 1) for mask in (lesion, held))
    belongs: Mask = (inside >= MOST * whole)[labels] & lesion
    return held | belongs


def _neighbourhood(lung: Mask, box: Box, spacing: tuple[float, float]) -> Mask:
    """Return, in a box of a slice, the convex hull of a lung, moved outwards by `NEAR_MM`."""
    rows = np.flatnonzero(lung.any(axis=1))
    if not rows.size:
        return lung[box]
    height, width = lung.shape
    first, last = lung[rows].argmax(axis=1), width - 1 - lung[rows, ::-1].argmax(axis=1)
    inside = np.arange(rows[0], rows[-1] + 1)
    start, end = np.interp(inside, *_envelope(rows, first)), -np.interp(inside, *_envelope(rows, -last))
    lowest, highest = np.full(height, np.inf), np.full(height, -np.inf)
    most = int(NEAR_MM / spacing[0])
    for down in range(-most, most + 1):  # grown by a disc: every row reaches its neighbours, less far sideways
        across = np.sqrt(NEAR_MM**2 - (down * spacing[0]) ** 2) / spacing[1]
        kept = (inside + down >= 0) & (inside + down < height)
        here = inside[kept] + down
        lowest[here] = np.minimum(lowest[here], start[kept] - across)
        highest[here] = np.maximum(highest[here], end[kept] + across)
    columns = np.arange(width)[box[1]]
    near: Mask = (columns >= lowest[box[0], None]) & (columns <= highest[box[0], None])
    return near


def _envelope(x: NDArray[np.intp], y: NDArray[np.intp]) -> tuple[list[int], list[int]]:
    """Return the corners of the lower convex hull of points with ascending x (Andrew's chain)."""
    hull: list[tuple[int, int]] = []
    for point in zip(x.tolist(), y.tolist(), strict=True):
        while len(hull) > 1:
            (x0, y0), (x1, y1) = hull[-2:]
            if (x1 - x0) * (point[1] - y0) > (y1 - y0) * (point[0] - x0):
                break
            hull.pop()
        hull.append(point)
    return [p[0] for p in hull], [p[1] for p in hull]
