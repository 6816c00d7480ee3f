"""A computed chest as DICOM series of every kind, and ways to spoil one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom

from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.io.studies import FoundSeries, find_series

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray
    from pydicom import Dataset

    from jcs_ct.core.geometry import CTSeries

Vector = tuple[float, float, float]
HEAD_FIRST: tuple[Vector, Vector, Vector] = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
SPACING = (8.0, 5.0, 4.0)
SHAPE = (20, 48, 80)  # 160 mm along the body
CENTRE = np.array([5.0, -20.0, -300.0])


def body(points: NDArray[np.float64]) -> NDArray[np.int16]:
    """HU at positions (…, 3) in mm: an ellipse with two lungs, and a bright ball to the left, front and head of it."""
    x, y, z = np.moveaxis(points - CENTRE, -1, 0)
    hu = np.full(x.shape, -1000, np.int16)
    tissue = 40 + np.rint(50 * np.sin(x / 9) * np.cos(y / 7) + 20 * np.sin(z / 11))
    hu = np.where((x / 140) ** 2 + (y / 95) ** 2 < 1, tissue, hu).astype(np.int16)
    for side in (-1, 1):
        hu[((x - 62 * side) / 48) ** 2 + (y / 65) ** 2 < 1] = -820
    hu[(x - 60) ** 2 + (y + 40) ** 2 + (z - 50) ** 2 < 14**2] = 700
    return hu


def grid(shape: tuple[int, ...], affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions of all voxels, (…, 3)."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), axis=-1)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def write_body(
    folder: Path,
    direction: tuple[Vector, Vector, Vector] = HEAD_FIRST,
    *,
    spacing: Vector = SPACING,
    shape: tuple[int, int, int] = SHAPE,
    key: str = "",
    stem: str = "ct",
) -> list[Path]:
    """Write the body with stored axes that run along `direction` (slices, rows, columns)."""
    steps = np.array(direction).T * np.array(spacing)
    origin = CENTRE - steps @ ((np.array(shape) - 1) / 2)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = steps, origin
    hu = body(grid(shape, affine))
    start = (float(origin[0]), float(origin[1]), float(origin[2]))
    return write_ct_series(folder, hu, spacing, start, direction=direction, key=key, stem=stem)


def edit(paths: list[Path], change: Callable[[Any, int], None]) -> list[Path]:
    """Change the header or the pixels of each file."""
    for index, path in enumerate(paths):
        dataset = pydicom.dcmread(path)
        change(dataset, index)
        dataset.save_as(path)
    return paths


def setting(**values: Any) -> Callable[[Dataset, int], None]:
    """A change for `edit`: set these elements; None takes one away."""

    def change(dataset: Dataset, _index: int) -> None:
        for keyword, value in values.items():
            if value is not None:
                setattr(dataset, keyword, value)
            elif keyword in dataset:
                delattr(dataset, keyword)

    return change


def pixels(dataset: Any) -> NDArray[np.uint16]:
    """The stored values of an uncompressed image."""
    return np.frombuffer(dataset.PixelData, "<u2").reshape(dataset.Rows, dataset.Columns).copy()


def volume(series: CTSeries) -> NDArray[np.int16]:
    return np.stack([series.read(index) for index in range(len(series))])


def only(found: FoundSeries) -> CTSeries:
    """The one series that was chosen, without a problem."""
    assert not found.problems, found.problems
    (series,) = found.series
    return series


def read_only(*inputs: Path, **options: Any) -> CTSeries:
    return only(find_series(list(inputs), **options))


def refused(*inputs: Path, **options: Any) -> str:
    """The one line with which everything is refused."""
    found = find_series(list(inputs), **options)
    assert not found.series
    (problem,) = found.problems
    line = problem.line()
    assert "\n" not in line
    return line
