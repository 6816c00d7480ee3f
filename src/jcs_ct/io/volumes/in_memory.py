"""Volumes that a program holds in memory: NumPy arrays, and images of nibabel and SimpleITK.

Values and geometry are taken when the object is handed over; it may change afterwards. No library is loaded that the
program has not loaded, and nothing of what is refused is repeated: a value may name a patient.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError, UsageError, about
from jcs_ct.core.geometry import Axes, CTSeries, Geometry
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source
from jcs_ct.io.nifti.values import HeldVoxels
from jcs_ct.io.nifti.volume import (
    LPS,
    ReadSlice,
    axes_of,
    placed_series,
    scaling,
    series_on,
    volume_shape,
)
from jcs_ct.io.plausibility import extent_warnings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray


_ITK_NUMBER = re.compile(r"(8|16|32|64)-bit (signed integer|unsigned integer|float)")


@about("the array")
def series_of_array(
    values: NDArray[Any], spacing: Sequence[float] | None, affine: NDArray[np.float64] | None
) -> CTSeries:
    """Return the volume in an array of Hounsfield units.

    Args:
        values: Whole or real numbers of three axes.
        spacing: mm between slices, rows, columns: the axes are (slice, row, column), from head to feet, front to back,
            and the patient's right to the left.
        affine: 4×4, in its place: index → mm to the right, front and head ("RAS+", as nibabel has it).

    Raises:
        UsageError: Both or neither of spacing and affine are given, or they are not of such a form.
        InputError: The array is not of such a form, or its values are no Hounsfield units.
    """
    what = _named("array")
    if isinstance(values, np.ma.MaskedArray):
        raise InputError("is masked", hint="fill what is masked with -1024 (air)")
    if values.dtype.kind not in "iuf" or values.dtype.itemsize > 8:
        message = "holds values of another type; whole or real numbers (HU) are expected"
        raise InputError(message, hint="give Hounsfield units")
    if (spacing is None) == (affine is None):
        found = "neither" if spacing is None else "both"
        raise UsageError(
            f"an array says nothing of its voxels: spacing or affine is expected, {found} was given",
            hint="spacing=(slice, row, column) in mm for head to feet, front to back, right to left; else affine=, as "
            "nibabel has it",
        )
    if values.ndim != 3:
        message = f"has {values.ndim} axes; three are expected (slice, row, column)"
        hint = "pictures are given as PIL images" if values.ndim in {2, 4} else "give the whole volume"
        raise InputError(message, hint=hint)
    volume_shape(values.shape)
    facts = {"format": f"array, {values.dtype.newbyteorder('=').name}"}
    if affine is not None:
        return placed_series(LPS @ _matrix(affine), HeldVoxels.of(values), facts, what)
    assert spacing is not None  # noqa: S101  # one of them is
    slices, rows, columns = _three(spacing)
    placed = np.diag([0.0, 0.0, 0.0, 1.0])
    placed[2, 0], placed[1, 1], placed[0, 2] = -slices, rows, columns
    try:
        axes_of(placed)
    except ValueError as error:
        raise UsageError(f"spacing is impossible: {error}", hint="give mm between slices, rows, columns") from None
    geometry = Geometry((values.shape[0], values.shape[1], values.shape[2]), placed)
    voxels = HeldVoxels.of(values)
    voxels.check()
    read = ReadSlice(voxels, Axes())
    warnings = tuple(extent_warnings(geometry))
    return CTSeries(what.name, what.label, "nifti", geometry, Axes(), read, (), facts, warnings)


@about("the nibabel image")
def series_of_nibabel(image: Any) -> CTSeries:
    """Return the volume in an image of nibabel.

    Raises InputError as `jcs_ct.io.nifti.volume.read_nifti`, and where its format does not say how it lies.
    """
    what = _named("nibabel image")
    header, data, affine = image.header, image.dataobj, image.affine
    proxy = hasattr(data, "get_unscaled")
    nifti = all(hasattr(header, name) for name in ("get_sform", "get_qform"))
    if affine is None or not (nifti or hasattr(header, "get_vox2ras")):  # Analyze has a made-up one
        message = "does not say how it lies in the patient, so left and right, head and feet are unknown"
        raise InputError(message, hint="give a NIfTI image with an affine")
    shape = volume_shape([int(size) for size in image.shape])
    try:
        stored = np.asarray(data.get_unscaled() if proxy else data).reshape(shape)
    except Exception:  # noqa: BLE001  # nibabel raises many kinds; what they say may quote a path with a name in it
        message = "is damaged: its values cannot be read"
        raise InputError(message, hint="load it again") from None
    if stored.dtype.kind not in "iuf" or stored.dtype.itemsize > 8:
        raise InputError("holds values of another type; whole or real numbers (HU) are expected")
    slope, inter = (float(data.slope), float(data.inter)) if proxy else (1.0, 0.0)
    voxels = HeldVoxels.of(stored, slope, inter)
    if not nifti:
        facts = {"format": f"{type(image).__name__}, {stored.dtype.name}"}
        return placed_series(LPS @ _matrix(affine), voxels, facts, what)
    header = header.copy()
    if not np.allclose(affine, header.get_best_affine()):  # as nibabel does when it saves the image
        header.set_sform(affine, code="aligned")
        header.set_qform(affine, code="unknown")
    if proxy:
        scaling(header)
    version = 2 if int(header["sizeof_hdr"]) == 540 else 1
    return series_on(header, version, voxels, what)


@about("the SimpleITK image")
def series_of_simpleitk(image: Any, values_of: Callable[[Any], NDArray[Any]]) -> CTSeries:
    """Return the volume in an image of SimpleITK; `values_of` is its `GetArrayViewFromImage`.

    Raises:
        InputError: It is not a volume with one value for each voxel; its orientation is impossible or
            too oblique; or its values are no Hounsfield units.
    """
    what = _named("SimpleITK image")
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        raise InputError("is not a volume with one value for each voxel", hint="give the whole CT volume")
    if _ITK_NUMBER.fullmatch(image.GetPixelIDTypeAsString()) is None:  # a view of labels would end the process
        raise InputError("holds values of another type; whole or real numbers (HU) are expected")
    volume_shape(image.GetSize())
    values = values_of(image)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    facts = {"format": f"SimpleITK image, {values.dtype.name}"}
    return placed_series(affine, HeldVoxels.of(values.T), facts, what)


def _named(what: str) -> Source:
    name = what.replace(" ", "-")
    return Source(name, f"the {what}", Path(name), name, Kind.NIFTI, data=b"")


def _three(spacing: Any) -> tuple[float, float, float]:
    """Return three sizes in the order that they were given in, which text and sets do not have."""
    hint = "give mm between slices, rows and columns"
    try:
        if isinstance(spacing, (str, bytes, set, frozenset)):
            raise TypeError
        slices, rows, columns = map(float, spacing)
    except (TypeError, ValueError):
        raise UsageError("spacing is not three numbers", hint=hint) from None
    if min(slices, rows, columns) < 0:
        message = f"spacing is impossible: voxels of {slices:.4g} × {rows:.4g} × {columns:.4g} mm"
        raise UsageError(message, hint=f"{hint}; affine= says how the axes run")
    return slices, rows, columns


def _matrix(affine: Any) -> NDArray[np.float64]:
    try:
        given = np.asarray(affine)
        matrix = np.zeros(0) if given.dtype.kind == "c" else given.astype(np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or (matrix[3] != (0, 0, 0, 1)).any():
        raise UsageError("affine is not a 4×4 matrix from indices to mm", hint="its last row is 0, 0, 0, 1")
    return matrix
