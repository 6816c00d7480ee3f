"""A chest CT made on the spot: no patient, no licence, the same for the same seed on every machine.

It serves `jcs demo` and the tests. It looks like a chest and has lungs, vessels and opacities in the right
places with the right Hounsfield units; it is no model of the disease and must not be used to judge a network.
Every slice says PHANTOM in its upper left corner, in the Hounsfield units themselves, so that no picture made
from it can be taken for a patient's.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.core.errors import UsageError
from jcs_ct.core.geometry import CANONICAL, HIGHEST, LOWEST
from jcs_ct.core.whole_files import write_whole
from jcs_ct.io.pictures import encode_png
from jcs_ct.phantom import lungs as lung_contents
from jcs_ct.phantom.anatomy import FIELD_OF_VIEW, LEFT, LENGTH, RIGHT, outlines, tissue
from jcs_ct.phantom.shapes import SmoothNoise, cover, scanner_noise

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

__all__ = ["PhantomStudy", "lung_window", "make_phantom", "true_spacing", "write_dicom", "write_pngs"]

Vector = tuple[float, float, float]

NOTE = "PHANTOM: a computed image of no patient, made by jcs-ct for demonstration and tests"
"""What the metadata of every file written from a phantom says."""

_LETTERS = {  # 5 × 7 pixels, a row per number, the leftmost pixel in the highest bit
    "P": (30, 17, 17, 30, 16, 16, 16), "H": (17, 17, 17, 31, 17, 17, 17), "A": (14, 17, 17, 31, 17, 17, 17),
    "N": (17, 25, 21, 21, 19, 17, 17), "T": (31, 4, 4, 4, 4, 4, 4), "O": (14, 17, 17, 17, 17, 17, 14),
    "M": (17, 27, 21, 21, 17, 17, 17),
}  # fmt: skip
_TEXT_HU = 300


@dataclass(frozen=True)
class PhantomStudy:
    """A computed chest CT with its truth; arrays are (slice, row, column), slices from head to feet.

    Attributes:
        hu: int16 Hounsfield units in [−1024, 3071].
        lungs: uint8: 1 right lung, 2 left lung, by the patient's side. The patient's right is at the image's left.
        lesions: bool: opacities, always inside a lung.
        spacing: mm between slices, rows, columns.
        origin: Where the centre of voxel (0, 0, 0) lies, as (x, y, z) mm to the patient's left, back and head.
        direction: The unit vectors, each as (x, y, z), along which slices, rows and columns count up.
        seed: What it was made from.
    """

    hu: NDArray[np.int16]
    lungs: NDArray[np.uint8]
    lesions: NDArray[np.bool_]
    spacing: Vector
    origin: Vector
    direction: tuple[Vector, Vector, Vector]
    seed: int


def make_phantom(
    slices: int = 24, size: int = 512, seed: int = 0, lesions: int = 8, spacing: Vector = (5.0, 0.7, 0.7)
) -> PhantomStudy:
    """Compute a chest from above the apices of the lungs to below their bases.

    The chest fills the picture and the stack whatever their size: `spacing` only says how large it is taken to
    be, it does not change the picture.

    Args:
        slices: Number of slices, 1–999.
        size: Rows and columns, 64–2048.
        seed: 0 or more. The same arguments give the same arrays, to the last bit.
        lesions: Number of opacities, 0 (healthy) to 100; neighbours may flow together.
        spacing: mm between slices, rows, columns.

    Raises:
        UsageError: An argument is out of its range.
    """
    for name, value, low, high in (
        ("slices", slices, 1, 999), ("size", size, 64, 2048), ("seed", seed, 0, 2**63), ("lesions", lesions, 0, 100)
    ):  # fmt: skip
        if not low <= value <= high:
            raise UsageError(f"phantom: {name} is {value}, expected {low} to {high}")
    if len(spacing) != 3 or not all(0 < mm < 1000 for mm in spacing):
        raise UsageError(f"phantom: spacing is {spacing}, expected three lengths in mm (slice, row, column)")

    # A stream for each part, so that the healthy phantom has the vessels and the noise of the ill one.
    streams = [np.random.Generator(np.random.PCG64(key)) for key in np.random.SeedSequence(seed).spawn(4)]
    tubes = lung_contents.grow_vessels(streams[0])
    levels = [(index + 0.5) / slices for index in range(slices)]
    opacities = lung_contents.place_opacities(streams[1], lesions, levels)
    extent = (FIELD_OF_VIEW, LENGTH)
    grain = SmoothNoise(streams[2], 9.0, extent)
    rough = (SmoothNoise(streams[2], 13.0, extent), SmoothNoise(streams[2], 4.5, extent))

    pixel = FIELD_OF_VIEW / size
    places = ((np.arange(size) - (size - 1) / 2) * pixel).astype(np.float32)
    x, y = places[None, :], places[:, None]
    body_noise = 14 + 16 * np.clip(1 - (x * x + y * y) / 26000, 0.0, 1.0)  # the middle gets the fewest photons
    text = _burnt_text(size)
    hu = np.empty((slices, size, size), np.int16)
    sides = np.zeros(hu.shape, np.uint8)
    truth = np.zeros(hu.shape, bool)
    for index, t in enumerate(levels):
        chest = outlines(x, y, t)
        level = tissue(x, y, t, chest, grain)
        lung = cover(np.minimum(chest.lungs[RIGHT], chest.lungs[LEFT]), pixel)
        opaque = lung_contents.draw_opacities(level, x, y, t * LENGTH, lung, opacities, rough)
        lung_contents.draw_vessels(level, x, y, t * LENGTH, lung, tubes)
        level += body_noise * scanner_noise(streams[3], (size, size))
        sides[index][chest.lungs[RIGHT] <= 0] = 1
        sides[index][chest.lungs[LEFT] <= 0] = 2
        truth[index] = opaque & (sides[index] > 0)
        level[: text.shape[0], : text.shape[1]][text] = _TEXT_HU
        hu[index] = np.clip(np.rint(level), LOWEST, HIGHEST)
    half = (size - 1) / 2
    origin = (-half * spacing[2], -half * spacing[1], (slices - 1) * spacing[0])
    return PhantomStudy(hu, sides, truth, spacing, origin, CANONICAL, seed)


def true_spacing(slices: int, size: int = 512) -> Vector:
    """Return the mm between slices, rows and columns at which the phantom is as large as an adult's chest: 270 mm high.

    >>> true_spacing(54)
    (5.0, 0.7, 0.7)
    """
    return LENGTH / slices, FIELD_OF_VIEW / size, FIELD_OF_VIEW / size


def lung_window(hu: NDArray[np.int16], center: float = -600, width: float = 1500) -> NDArray[np.uint8]:
    """Return Hounsfield units as 8-bit grey: center − width/2 and below is 0, center + width/2 and above is 255.

    Of any shape. Raises UsageError where `width` is not positive.
    """
    if not width > 0:
        raise UsageError(f"window width is {width}, expected more than 0 Hounsfield units")
    scaled = (hu.astype(np.float32) - (center - width / 2)) * (255 / width)
    grey: NDArray[np.uint8] = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    return grey


def write_pngs(study: PhantomStudy, folder: str | PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write lung-windowed slices, head to feet, and their lesion masks; return the paths of the slices.

    Args:
        study: The phantom.
        folder: Gets `phantom_000.png` … (8-bit grey) and `masks/phantom_000.png` … (0 or 255).
        overwrite: Replace files that exist.

    Raises:
        OutputError: A file exists and `overwrite` is false, or the folder cannot be written.
    """
    paths = []
    for index, (hu, mask) in enumerate(zip(study.hu, study.lesions, strict=True)):
        path = Path(folder) / f"phantom_{index:03d}.png"
        truth = np.where(mask, np.uint8(255), np.uint8(0))
        write_whole(path, encode_png(lung_window(hu), NOTE), overwrite=overwrite)
        write_whole(path.parent / "masks" / path.name, encode_png(truth, f"{NOTE}; lesion mask"), overwrite=overwrite)
        paths.append(path)
    return paths


def write_dicom(study: PhantomStudy, folder: str | PathLike[str], *, overwrite: bool = False) -> list[Path]:
    """Write a CT series, `phantom_000.dcm` … from head to feet, and return its paths: the same study, the same bytes.

    Raises:
        OutputError: A file exists and `overwrite` is false, or the folder cannot be written.
    """
    from jcs_ct.io.dicom.write import write_ct_series  # pydicom takes its time to load

    return write_ct_series(
        folder, study.hu, study.spacing, study.origin, direction=study.direction, key=f"phantom {study.seed}",
        stem="phantom", comment=NOTE, overwrite=overwrite,
    )  # fmt: skip


def _burnt_text(size: int) -> NDArray[np.bool_]:
    """Return the corner of a slice with PHANTOM set in it, as a mask to lay on the slice's first pixels."""
    rows = [[bool(_LETTERS[c][row] >> bit & 1) for c in "PHANTOM" for bit in (4, 3, 2, 1, 0)] for row in range(7)]
    spaced = np.insert(np.array(rows), range(5, 35, 5), False, axis=1)
    scale = max(1, size // 256)
    return np.pad(np.kron(spaced, np.ones((scale, scale), bool)), ((3 * scale, 0), (3 * scale, 0)))
