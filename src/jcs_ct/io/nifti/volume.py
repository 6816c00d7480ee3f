"""NIfTI volumes: a chest CT in; masks and maps go out on the very same grid (`jcs_ct.io.nifti.write`).

NIfTI-1 and -2, `.nii`, `.nii.gz`, and pairs of `.hdr` and `.img`, from files or members of archives; what a file is, is
told from its content. A header's free text (descrip, aux_file, db_name, intent_name, extensions) is never looked at or
copied: it may name a patient. NIfTI counts mm to the patient's right-to-left, back-to-front, feet-to-head ("RAS"); this
package to the left, back and head ("LPS").
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError, about, printable
from jcs_ct.core.geometry import CANONICAL, CTSeries, canonical_axes
from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.files.names import label as label_of
from jcs_ct.io.files.names import safe_name
from jcs_ct.io.nifti.values import HeldVoxels, Voxels, broken, opened
from jcs_ct.io.plausibility import extent_warnings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import Axes
    from jcs_ct.io.files.sources import Source

MAX_VOXELS = 2**29  # 2,048 slices of 512 × 512; 1 GiB as int16
MAX_OFFSET = 2**26  # bytes of header and extensions
OBLIQUE, TOO_OBLIQUE = 10.0, 30.0  # degrees from the patient's axes
SHEARED, TOO_SHEARED = 2.0, 25.0  # degrees from a right angle between two axes
APART_MM = 1.0  # between qform and sform
LEAST_MM, MOST_MM = 0.1, 20.0  # voxel sizes

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])  # RAS → LPS and back
GRID = ("pixdim", "dim_info", "xyzt_units", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d",
        "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z")  # fmt: skip
_COLOURS = (128, 2304)  # RGB, RGBA
_UNITS = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # code → mm


@dataclass(frozen=True)
class NiftiSeries(CTSeries):
    """A volume whose results are NIfTI files on its own stored grid.

    `grid` are the fields of a NIfTI header that say where voxels lie, its version, and the stored shape.
    """

    grid: dict[str, Any] = field(default_factory=dict, repr=False)


def case_name(source: Source) -> str:
    """Return the safe stem of a file: "scans/ct.nii.gz" is "ct"."""
    stem = (source.member or source.path.name).replace("\\", "/").rpartition("/")[2]
    for ending in (".gz", ".nii", ".hdr", ".mha", ".mhd", ".nrrd", ".nhdr"):
        stem = stem[: -len(ending)] if stem.lower().endswith(ending) and len(stem) > len(ending) else stem
    return safe_name(stem)


def read_nifti(source: Source) -> NiftiSeries:
    """Return the chest CT in a NIfTI file, or in one that is a member of an archive.

    Raises:
        InputError: It is damaged, truncated or too large; its orientation is unknown, contradictory or too oblique; it
            holds several volumes, colours, or values that are no Hounsfield units.
    """
    with about(source.label):
        header, version, pair = _header(source)
        shape = volume_shape([int(n) for n in header["dim"][1 : 1 + int(header["dim"][0])]])
        voxels = _voxels(beside(source, (".img", ".img.gz")) if pair else source, header, shape, pair=pair)
        return series_on(header, version, voxels, source)


def series_on(header: Any, version: int, voxels: Voxels | HeldVoxels, source: Source) -> NiftiSeries:
    """Return the volume that a header of nibabel's, of version 1 or 2, and voxels make, named after `source`.

    Raises InputError where its orientation is unknown, contradictory or too oblique, or it holds no Hounsfield units.
    """
    affine, warnings, facts = _affine(header, voxels.shape)
    facts["format"] = f"NIfTI-{version}, {header.get_data_dtype().name}"
    return _series(affine, voxels, facts, source, warnings, header, version)


def placed_series(
    affine: NDArray[np.float64],
    voxels: Voxels | HeldVoxels,
    facts: dict[str, str],
    source: Source,
    warnings: Sequence[str] = (),
) -> NiftiSeries:
    """Return a volume that came without a NIfTI header, named after `source`; results get one of its grid.

    `affine` is stored index → LPS mm; `facts` and `warnings` are those of `CTSeries`. Raises InputError where its
    orientation is impossible or too oblique, or it holds no Hounsfield units.
    """
    try:
        axes_of(affine)
    except ValueError as error:
        raise InputError(f"has an impossible orientation: {error}", hint="check it") from error
    header, ras = nibabel_library().Nifti1Header(), LPS @ affine
    header.set_data_shape(voxels.shape)
    header.set_qform(ras, code="scanner", strip_shears=True)
    header.set_sform(ras, code="scanner")
    header.set_xyzt_units("mm")
    facts["stored axes"] = "".join(nibabel_library().aff2axcodes(ras))
    return _series(affine, voxels, facts, source, warnings, header, 1)


def _series(
    affine: NDArray[np.float64],
    voxels: Voxels | HeldVoxels,
    facts: dict[str, str],
    source: Source,
    warnings: Sequence[str],
    header: Any,
    version: int,
) -> NiftiSeries:
    """Return a volume with canonical axes, after a look at all of its values. Arguments as in `placed_series`."""
    shape, axes = voxels.shape, canonical_axes(affine)
    geometry = axes.geometry(affine, shape)
    said = (*warnings, *_oblique(affine, axes), *extent_warnings(geometry))
    voxels.check()
    read = ReadSlice(voxels, axes)
    files = tuple(dict.fromkeys((source, voxels.source))) if isinstance(voxels, Voxels) else ()
    grid = {name: header[name].copy() for name in GRID} | {"version": version, "shape": shape}
    name = case_name(source)
    return NiftiSeries(name, source.label, "nifti", geometry, axes, read, files, facts, said, grid=grid)


@dataclass(frozen=True, eq=False)
class ReadSlice:
    """Reads canonical slices of stored voxels. A class, since a result that is pickled takes it along."""

    voxels: Voxels | HeldVoxels
    axes: Axes

    def __call__(self, index: int) -> NDArray[np.int16]:
        """Return canonical slice `index`."""
        order, flips = self.axes.order, self.axes.flips
        count = self.voxels.shape[order[0]]
        if not 0 <= index < count:
            raise IndexError(f"slice {index} of {count}")
        place: list[int | slice] = [slice(None)] * 3
        place[order[0]] = count - 1 - index if flips[0] else index
        picture = self.voxels.plane(tuple(place))
        picture = picture.T if order[1] > order[2] else picture
        return np.ascontiguousarray(picture[:: -1 if flips[1] else 1, :: -1 if flips[2] else 1])


def beside(source: Source, endings: Sequence[str]) -> Source:
    """Return the file of values that lies beside a header and is called like it, but for its extension.

    Raises InputError where there is none.
    """
    name = (source.member or source.path.name).replace("\\", "/").rpartition("/")[2]
    stem = (name[:-3] if name.lower().endswith(".gz") else name).rpartition(".")[0]
    for ending in endings:
        for candidate in dict.fromkeys((stem + ending, stem + ending.upper())):
            found = named_beside(source, candidate)
            if found is not None:
                return found
    missing = stem + endings[0]
    raise InputError(f"lacks its values: {missing} is not beside it", hint="copy both files, unchanged")


def named_beside(source: Source, name: str) -> Source | None:
    """Return the file of a relative name beside another, on disk or in the same archive; None where there is none."""
    if source.data is not None:
        return None
    if source.member is None:
        path = source.path.parent / name
        return replace(source, path=path, label=printable(str(path))) if path.is_file() else None
    folder = source.member.replace("\\", "/").rpartition("/")[0]
    member = f"{folder}/{name}" if folder else name
    found = replace(source, member=member, label=printable(label_of(source.path, member)))
    try:
        found.read(1)
    except InputError:
        return None
    return found


def read_labels(path: str | Path) -> NDArray[Any]:
    """Return the labels in a NIfTI file with canonical axes: slices × rows × columns, as they are stored.

    Raises InputError where it cannot be read, or does not hold one volume.
    """
    try:
        image: Any = nibabel_library().load(Path(path))
        stored = np.asanyarray(image.dataobj)
    except Exception as error:  # nibabel raises many kinds on hostile bytes
        raise InputError(
            f"cannot be read as NIfTI: {error}", path=path, hint="give a mask as .nii or .nii.gz"
        ) from error
    if stored.ndim != 3:
        raise InputError(f"has {stored.ndim} dimensions, 3 are expected", path=path, hint="save one volume")
    return canonical_axes(LPS @ image.affine).to_canonical(stored)


def nibabel_library() -> Any:
    """Return nibabel, which takes its time to load and has few types."""
    import nibabel

    return nibabel


def _header(source: Source) -> tuple[Any, int, bool]:
    """Return the header as nibabel's object, its version, and whether the values lie in another file."""
    with opened(source) as (file, _, _):
        raw = file.read(540)
    pair = raw[344:348] == b"ni1\0" or raw[4:8] == b"ni2\0"
    version = 2 if raw[4:8] in {b"n+2\0", b"ni2\0"} else 1
    kind = nibabel_library().Nifti2Header if version == 2 else nibabel_library().Nifti1Header
    size = kind.sizeof_hdr
    try:
        header = kind(raw[:size], check=False)
        if int(header["sizeof_hdr"]) != size or not 3 <= int(header["dim"][0]) <= 7 or header["dim"].min() < 0:
            raise ValueError(f"{int(header['dim'][0])} dimensions")
    except Exception as error:  # nibabel raises many kinds on hostile bytes
        raise broken(f"its header cannot be understood: {error}") from error
    return header, version, pair


def volume_shape(sizes: Sequence[int]) -> tuple[int, int, int]:
    """Return the first three of the sizes of a volume.

    Raises InputError where it holds several volumes, none, or more voxels than are read.
    """
    if len(sizes) < 3:
        message = f"has {len(sizes)} dimensions; three are expected"
        raise InputError(message, hint="give the whole volume")
    volumes = int(np.prod(sizes[3:], dtype=object))
    if volumes != 1:
        raise InputError(f"holds {volumes} volumes, one is expected", hint="save the one to look at")
    if min(sizes) < 1 or int(np.prod(sizes, dtype=object)) > MAX_VOXELS:
        found = " × ".join(map(str, sizes[:3]))
        raise InputError(f"claims to hold {found} voxels, 1 to {MAX_VOXELS:,} are read", hint="crop it")
    return sizes[0], sizes[1], sizes[2]


def _affine(header: Any, shape: tuple[int, int, int]) -> tuple[NDArray[np.float64], list[str], dict[str, str]]:
    """Return stored index → LPS mm, warnings and facts."""
    warnings: list[str] = []
    facts: dict[str, str] = {}
    unit = int(header["xyzt_units"]) & 7
    if unit not in _UNITS:
        raise broken(f"its unit of length has the unknown code {unit}")
    if unit == 0:
        facts["units"] = "not stated, taken as mm"
    try:
        sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    except Exception as error:
        raise broken(f"its orientation cannot be understood: {error}") from error
    known = [affine for affine in (sform, qform) if affine is not None]
    if not known:
        raise InputError(
            "does not say how it lies in the patient (sform_code and qform_code are 0), so left and right, head and "
            "feet are unknown",
            hint="convert it again from DICOM, or set the codes",
        )
    scale = np.diag([_UNITS[unit]] * 3 + [1.0])
    known = [np.asarray(LPS @ scale @ affine, dtype=np.float64) for affine in known]
    try:
        turned = [axes_of(affine) for affine in known]
    except ValueError as error:
        raise broken(f"its orientation is impossible: {error}") from error
    if len(known) == 2:
        corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)]) * [*np.subtract(shape, 1), 1]
        apart = float(np.linalg.norm((known[0] - known[1]) @ corners.T, axis=0).max())
        if turned[0] != turned[1]:
            names = " and ".join("".join(nibabel_library().aff2axcodes(affine)) for affine in (sform, qform))
            raise InputError(
                f"contradicts itself: its sform and its qform say {names}, so left and right or head and feet are "
                "uncertain",
                hint="set the code of the wrong one to 0",
            )
        if apart > APART_MM:
            text = f"sform and qform differ by up to {apart:.1f} mm; the sform is used"
            warnings.append(CodedWarning("two-affines", text))
    facts["stored axes"] = "".join(nibabel_library().aff2axcodes(LPS @ known[0]))
    return known[0], warnings, facts


def axes_of(affine: NDArray[np.float64]) -> Axes:
    """Return how a volume is turned. Raises ValueError where its voxels have no possible size, or no volume."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not (np.isfinite(affine).all() and sizes.min() >= LEAST_MM and sizes.max() <= MOST_MM):
        raise ValueError(f"voxels of {sizes[0]:.4g} × {sizes[1]:.4g} × {sizes[2]:.4g} mm")
    return canonical_axes(affine)


def _oblique(affine: NDArray[np.float64], axes: Axes) -> list[CodedWarning]:
    """Return warnings for axes that are not the patient's, and for axes that are not at right angles."""
    directions = (affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0))[:, axes.order]
    angle = float(np.degrees(np.arccos(np.abs((np.array(CANONICAL) * directions.T).sum(axis=1)).min().clip(0, 1))))
    between = np.abs(directions.T @ directions)[(0, 0, 1), (1, 2, 2)].max()
    shear = float(np.degrees(np.arcsin(between.clip(0, 1))))
    if angle > TOO_OBLIQUE or shear > TOO_SHEARED:
        found = f"{angle:.0f}° oblique" if angle > TOO_OBLIQUE else f"sheared by {shear:.0f}°"
        raise InputError(f"is {found}; axial slices are expected", hint="resample it to axial slices")
    warnings: list[CodedWarning] = []
    if angle > OBLIQUE:
        text = f"oblique: the axes lie {angle:.0f}° off the patient's; the nearest ones are taken"
        warnings.append(CodedWarning("oblique", text))
    if shear > SHEARED:
        text = f"tilt: the axes of the volume are {shear:.0f}° off a right angle (a tilted gantry)"
        warnings.append(CodedWarning("tilt", text))
    return warnings


def scaling(header: Any) -> tuple[np.dtype[Any], float, float]:
    """Return the type of the stored values, and what turns them into HU: slope and intercept.

    Raises InputError where they are colours, or no numbers, or the scaling is none.
    """
    code = int(header["datatype"])
    if code in _COLOURS:
        raise InputError("holds colours (RGB), Hounsfield units are expected", hint="give the CT itself")
    try:
        dtype = header.get_data_dtype()
        slope, inter = float(header["scl_slope"]), float(header["scl_inter"])
    except Exception as error:
        raise broken(f"its type of values has the unknown code {code}") from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"holds values of type {dtype.name}, whole or real numbers are expected")
    if not np.isfinite(slope) or slope == 0:  # both mean "not scaled"
        slope, inter = 1.0, 0.0
    if not np.isfinite(inter):
        raise broken(f"its values are scaled by {slope:g} and shifted by {inter:g}")
    return dtype, slope, inter


def _voxels(source: Source, header: Any, shape: tuple[int, int, int], *, pair: bool) -> Voxels:
    """Return how the values are stored in a file."""
    dtype, slope, inter = scaling(header)
    offset = float(header["vox_offset"])
    if not 0 <= offset <= MAX_OFFSET:
        raise broken(f"its voxels are said to begin at byte {offset:g}")
    first = int(offset) if pair else max(int(offset), int(header.single_vox_offset))
    return Voxels(source, dtype, shape, first, slope, inter)
