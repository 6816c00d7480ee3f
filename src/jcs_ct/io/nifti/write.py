"""Masks and maps on the grid of the volume that they were made from, as NIfTI files that are written slice by slice."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import OutputError
from jcs_ct.core.geometry import Axes
from jcs_ct.core.whole_files import whole_file
from jcs_ct.io.nifti.volume import GRID, LPS, NiftiSeries, nibabel_library

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from jcs_ct.core.geometry import CTSeries

    Slice = Callable[[int], NDArray[Any]]

TYPES = (np.uint8, np.int16, np.float32)
COLUMN_ROW_SLICE = Axes((2, 1, 0))  # how results of DICOM are stored
SLAB = 2**24  # bytes of a volume that are held at once where the file's slices are not the canonical ones


def write_nifti_slices(
    path: Path, read: Slice, dtype: DTypeLike, series: CTSeries, *,
    slope: float = 1.0, overwrite: bool = False, level: int = 5,
) -> None:  # fmt: skip
    """Write a mask or a map on the grid of the file or series that it was made from, packed, whole or not at all.

    For a NIfTI input the stored axes and the header's own geometry come back, bit for bit. For DICOM the array is
    (column, row, slice) of the canonical volume with its RAS affine. The same data give the same bytes. Of the volume
    one slice is in memory at a time, or `SLAB` bytes where the stored slices are not axial.

    Args:
        path: Ends in `.nii.gz`.
        read: Returns canonical slice i: rows × columns. Called more than once where the stored slices are not axial.
        dtype: Of the slices: uint8, int16 or float32.
        series: What they belong to.
        slope: What a stored 1 means, e.g. 1/255 for a map in uint8; programs multiply by it.
        overwrite: Replace an existing file.
        level: Of gzip, 1 (fast) to 9.

    Raises:
        OutputError: The shape or the type does not fit, the file exists, or it cannot be written.
    """
    kind, shape = np.dtype(dtype), series.geometry.shape
    if kind not in TYPES:
        raise _misfit(path, kind, shape, shape)

    def checked(index: int) -> NDArray[Any]:
        found = read(index)
        if found.shape != shape[1:] or found.dtype != kind:
            raise _misfit(path, found.dtype, (1, *found.shape), (1, *shape[1:]))
        return found

    axes = series.axes if isinstance(series, NiftiSeries) else COLUMN_ROW_SLICE
    header = _header(series, axes, kind, slope)
    with (
        whole_file(path, overwrite=overwrite) as temporary,
        temporary.open("wb") as file,
        gzip.GzipFile("", "wb", level, file, mtime=0) as packed,  # neither name nor time: the same bytes each time
    ):
        packed.write(header.binaryblock + bytes(int(header["vox_offset"]) - len(header.binaryblock)))
        for stored in _stored(checked, shape, kind, axes):
            packed.write(stored.astype(kind.newbyteorder("<"), copy=False).tobytes(order="F"))


def _misfit(path: Path, kind: Any, shape: tuple[int, ...], expected: tuple[int, ...]) -> OutputError:
    return OutputError(f"a result is {kind} {shape}, the volume {expected} is expected", path=path)


def _header(series: CTSeries, axes: Axes, kind: np.dtype[Any], slope: float) -> Any:
    """Return the header: nibabel's object, which has few types."""
    library = nibabel_library()
    version = series.grid["version"] if isinstance(series, NiftiSeries) else 1
    header = (library.Nifti2Header if version == 2 else library.Nifti1Header)()
    header.set_data_shape([series.geometry.shape[axes.order.index(axis)] for axis in range(3)])
    header.set_data_dtype(kind.newbyteorder("<"))
    if isinstance(series, NiftiSeries):
        for name in GRID:
            header[name] = series.grid[name]
        header["pixdim"][4:] = 0
    else:
        affine = LPS @ series.geometry.affine[:, (2, 1, 0, 3)]
        header.set_zooms(np.linalg.norm(affine[:3, :3], axis=0))
        header.set_qform(affine, code="scanner", strip_shears=True)
        header.set_sform(affine, code="scanner")
        header.set_xyzt_units("mm")
    header["scl_slope"], header["scl_inter"] = slope, 0
    header["magic"] = header.single_magic
    header["vox_offset"] = header.single_vox_offset
    return header


def _stored(read: Slice, shape: tuple[int, int, int], kind: np.dtype[Any], axes: Axes) -> Iterator[NDArray[Any]]:
    """Yield the volume in the order of the file, one index of the third stored axis after the other."""
    third = axes.order.index(2)  # the canonical axis that the file's slices are counted along
    count, flipped = shape[third], axes.flips[third]
    if third == 0:
        for index in reversed(range(count)) if flipped else range(count):
            yield axes.to_stored(read(index)[np.newaxis])[:, :, 0]
        return
    step = max(1, SLAB * count // (int(np.prod(shape, dtype=np.int64)) * kind.itemsize))
    for first in range(0, count, step):
        chosen = slice(first, min(first + step, count))
        if flipped:
            chosen = slice(count - chosen.stop, count - chosen.start)
        thick = chosen.stop - chosen.start
        slab = np.empty((shape[0], thick, shape[2]) if third == 1 else (*shape[:2], thick), kind)
        for index in range(shape[0]):
            slab[index] = read(index)[chosen] if third == 1 else read(index)[:, chosen]
        yield from axes.to_stored(slab).transpose(2, 0, 1)
