"""The faults that `tools/faults.py` makes: (kind, what, format, study on disk), some of every kind at every place."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pydicom
from PIL import Image

from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import lung_window, make_phantom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Volume = NDArray[np.int16]
    Edit = Callable[[pydicom.FileDataset, int], None]

SLICES, SIZE, MM = 28, 200, (8.0, 1.45, 1.45)
PLACES = {"upper": 8, "middle": 13, "lower": 18}


@dataclass(frozen=True)
class Fault:
    """One damaged study.

    Attributes:
        kind, what: In words, for the table.
        form: "DICOM", "NIfTI" or "pictures".
        path: Of the study.
        lost: Whether something is missing for good, so that being near the clean numbers by luck does not count.
    """

    kind: str
    what: str
    form: str
    path: Path
    lost: bool = False


def phantom(seed: int) -> Volume:
    """Return a chest of 224 mm in 28 slices."""
    return make_phantom(slices=SLICES, size=SIZE, seed=seed, lesions=8, spacing=MM).hu


def another() -> Volume:
    """Return the chest of another person, who is a tenth smaller."""
    smaller, border = 9 * SIZE // 10, SIZE // 20  # a phantom fills its picture
    hu = make_phantom(slices=SLICES, size=smaller, seed=7, lesions=8, spacing=MM).hu
    return np.pad(hu, ((0, 0), (border, border), (border, border)), constant_values=-1000)


def write_nifti(path: Path, hu: NDArray[Any], mm: tuple[float, float, float] = MM) -> Path:
    """Write a volume as NIfTI."""
    nifti: Any = nibabel
    nifti.save(nifti.Nifti1Image(hu.transpose(2, 1, 0), np.diag([-mm[2], -mm[1], -mm[0], 1.0])), path)
    return path


def write_dicom(folder: Path, hu: Volume, mm: tuple[float, float, float] = MM, edit: Edit | None = None) -> Path:
    """Write a volume as a DICOM series, and change each header."""
    for i, path in enumerate(write_ct_series(folder, hu, mm, (-150.0, -150.0, 200.0), key=folder.name)):
        if edit is not None:
            dataset = pydicom.dcmread(path)
            edit(dataset, i)
            dataset.save_as(path)
    return folder


def write_pictures(folder: Path, pictures: list[NDArray[Any]]) -> Path:
    """Write pictures as 001.png and so on."""
    folder.mkdir(parents=True)
    for i, picture in enumerate(pictures, 1):
        Image.fromarray(np.ascontiguousarray(picture)).save(folder / f"{i:03d}.png")
    return folder


def pictures_of(hu: Volume) -> list[NDArray[np.uint8]]:
    """Return the slices of a volume that show lungs, windowed."""
    return [lung_window(hu[i]) for i in range(6, 22)]


def clipped(values: NDArray[Any]) -> Volume:
    """Return values as a scanner stores them."""
    found: Volume = np.rint(values).clip(-1024, 3071).astype(np.int16)
    return found


def wrapped(hu: Volume, part: slice) -> Volume:
    """Return a volume with bone as hard as real bone, whose values above 1,023 HU became −1,024 HU and more."""
    hard = np.where(hu > 200, 200 + (hu.astype(np.int32) - 200) * 3, hu)
    hard[part] = np.where(hard[part] > 1023, hard[part] - 2048, hard[part])
    return clipped(hard)


def faults(hu: Volume, other: Volume, top: Path) -> Iterator[Fault]:
    """Yield the damaged studies, each written when it is asked for."""
    for number, (kind, what, volume, lost) in enumerate(_of_values(hu, other)):
        yield Fault(kind, what, "NIfTI", write_nifti(top / f"v{number}.nii", volume), lost)
        yield Fault(kind, what, "DICOM", write_dicom(top / f"v{number}", volume), lost)
    yield from _of_nifti(hu, top)
    yield from _of_headers(hu, top)
    for number, (kind, what, pictures, lost) in enumerate(_of_pictures(hu, other)):
        yield Fault(kind, what, "pictures", write_pictures(top / f"p{number}", pictures), lost)


def _of_values(hu: Volume, other: Volume) -> Iterator[tuple[str, str, Volume, bool]]:
    """Yield faults that any volume can have."""
    for offset in (-400, -200, -120, -80, 80, 120, 200, 400):
        yield "shifted values", f"{offset:+d} HU", clipped(hu.astype(np.int32) + offset), False
    for factor in (0.5, 0.8, 1.25, 2.0):
        yield "scaled values", f"HU + 1024 times {factor:g}", clipped((hu.astype(float) + 1024) * factor - 1024), False
    for first, last in ((-30, 30), (30, -30), (0, 60), (60, 0)):
        ramp = np.linspace(first, last, SLICES)[:, None, None]
        yield "drift of the values", f"{first:+d} to {last:+d} HU", clipped(hu + ramp), False
    for name, part in (("all slices", slice(None)), ("lower half", slice(SLICES // 2, None))):
        yield "values wrapped round", f"above 1,023 HU, {name}", wrapped(hu, part), False
    yield "head and feet exchanged", "order of the slices", hu[::-1], False
    for name, part in (("first", slice(3)), ("last", slice(SLICES - 3, None))):
        ended = hu.copy()
        ended[part] = -1024
        yield "blank slices", f"3 at the {name} end", ended, True
    for name, turned in (
        ("front to back", hu[:, ::-1]),
        ("turned by 90°", hu.transpose(0, 2, 1)),
        ("half a turn", hu[:, ::-1, ::-1]),
    ):
        yield "whole volume lies wrong", name, np.ascontiguousarray(turned), False
    for name, half in (("upper half", hu[:14]), ("lower half", hu[14:]), ("middle third", hu[9:19])):
        yield "part of a chest", name, half, True
    for place, at in PLACES.items():
        for count in (1, 3, 6):
            blank = hu.copy()
            blank[at : at + count] = -1024
            yield "blank slices", f"{count} {place}", blank, True
        yield "missing slices", f"5 {place}", np.delete(hu, range(at, at + 5), axis=0), True
        for count in (2, 5):
            part = slice(at, at + count)
            for name, values in (
                ("another patient's", other[part]),
                ("mirrored front to back", hu[part, ::-1]),
                ("turned by 90°", hu[part].transpose(0, 2, 1)),
                ("from elsewhere", np.roll(hu, 11, axis=0)[part]),
                ("with the sign changed", clipped(-hu[part].astype(np.int32))),
                ("moved by 30 mm", np.roll(hu[part], 21, axis=2)),
            ):
                foreign = hu.copy()
                foreign[part] = values
                yield f"slices {name}", f"{count} {place}", foreign, False
        for shift in (-70, 70):
            moved = hu.copy()
            moved[at : at + 4] = clipped(moved[at : at + 4].astype(np.int32) + shift)
            yield "step in the values", f"{shift:+d} HU, {place}", moved, False
        repeated = hu.copy()
        repeated[at : at + 5] = repeated[at]
        yield "one slice repeated", f"5 times, {place}", repeated, True
        swapped = hu.copy()
        swapped[[at, at + 6]] = swapped[[at + 6, at]]
        yield "disorder", f"two slices exchanged, {place}", swapped, False
    yield "disorder", "halves exchanged", np.concatenate([hu[14:], hu[:14]]), False


def _of_nifti(hu: Volume, top: Path) -> Iterator[Fault]:
    """Yield faults of files that say little of themselves."""
    for name, values in (
        ("0 to 1", ((hu + 1024.0) / 4095).astype(np.float32)),
        ("0 to 255, windowed", lung_window(hu).astype(np.uint8)),
        ("stored values, not HU", (hu.astype(np.int32) + 1024).astype(np.int16)),
    ):
        yield Fault("no Hounsfield units", name, "NIfTI", write_nifti(top / f"unit-{name[0]}{len(name)}.nii", values))
    for place, at in PLACES.items():
        holes = hu.astype(np.float32)
        holes[at : at + 3, 60:140, 60:140] = np.nan
        yield Fault("no numbers", f"NaN, {place}", "NIfTI", write_nifti(top / f"nan-{place}.nii", holes), lost=True)
    for factor in (0.1, 0.5, 2.0, 10.0):
        mm = (MM[0] * factor, MM[1] * factor, MM[2] * factor)
        yield Fault("wrong spacing", f"times {factor:g}", "NIfTI", write_nifti(top / f"mm-{factor:g}.nii", hu, mm))


def _of_headers(hu: Volume, top: Path) -> Iterator[Fault]:
    """Yield faults that only DICOM can have."""

    def fault(kind: str, what: str, edit: Edit, *, lost: bool = False) -> Fault:
        name = "".join(c if c.isalnum() else "-" for c in f"h-{kind}-{what}")
        return Fault(kind, what, "DICOM", write_dicom(top / name, hu, edit=edit), lost)

    for age in ("003D", "011M", "009Y", "016Y"):
        yield fault("a child", f"age {age}", lambda d, _i, age=age: setattr(d, "PatientAge", age))  # type: ignore[misc]
    half = write_dicom(top / "half", hu, (MM[0] / 2, MM[1] / 2, MM[2] / 2))
    yield Fault("a child", "half the size", "DICOM", half)
    for first in (5, 14, 23):
        yield fault(
            "two patients", f"from slice {first}",
            lambda d, i, first=first: setattr(d, "PatientID", "P2" if i >= first else "P1"),  # type: ignore[misc]
        )  # fmt: skip
        yield fault(
            "another scale in some images", f"intercept 100 lower from slice {first}",
            lambda d, i, first=first: setattr(d, "RescaleIntercept", -1124 if i >= first else -1024),  # type: ignore[misc]
        )  # fmt: skip
    for low, high in ((-750, -300), (-200, 200), (-900, -600), (-100, 3000)):
        yield fault("padding over tissue", f"{low} to {high} HU", lambda d, _i, a=low, b=high: _pad(d, a, b))  # type: ignore[misc]
    yield fault("high bit", "values four bits higher", lambda d, _i: _high_bit(d))
    for degrees in (3, 8, 15):
        yield fault("tilted gantry", f"{degrees}°", lambda d, i, a=degrees: _tilt(d, i, a))  # type: ignore[misc]
    for place, at in PLACES.items():
        for count in (1, 3):
            study = write_dicom(top / f"gap{at}-{count}", hu)
            for i in range(at, at + count):
                (study / f"ct_{i:03d}.dcm").unlink()
            yield Fault("missing files", f"{count} {place}", "DICOM", study, lost=True)
        yield fault("another size", f"slice {at + 1}", lambda d, i, at=at: _smaller(d) if i == at else None)  # type: ignore[misc]
        yield fault("taken position", f"slice {at + 1}", lambda d, i, at=at: _at_neighbour(d) if i == at else None)  # type: ignore[misc]
    yield fault("head and feet exchanged", "positions", lambda d, _i: _negated(d))
    for name, values in (("localizer", ["ORIGINAL", "PRIMARY", "LOCALIZER"]), ("MIP", ["DERIVED", "SECONDARY", "MIP"])):
        yield fault("no slices", name, lambda d, _i, v=values: setattr(d, "ImageType", v))  # type: ignore[misc]


def _pad(dataset: pydicom.FileDataset, low: int, high: int) -> None:
    dataset.add_new("PixelPaddingValue", "US", low + 1024)
    dataset.add_new("PixelPaddingRangeLimit", "US", high + 1024)


def _high_bit(dataset: pydicom.FileDataset) -> None:
    values = np.frombuffer(dataset.PixelData, np.uint16) << 4
    dataset.PixelData, dataset.BitsStored, dataset.HighBit = values.tobytes(), 12, 15


def _tilt(dataset: pydicom.FileDataset, i: int, degrees: float) -> None:
    x, y, z = (float(v) for v in dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, round(y + i * MM[0] * float(np.tan(np.radians(degrees))), 4), z]


def _smaller(dataset: pydicom.FileDataset) -> None:
    values = np.frombuffer(dataset.PixelData, np.uint16).reshape(SIZE, SIZE)[::2, ::2]
    dataset.Rows = dataset.Columns = SIZE // 2
    dataset.PixelData = np.ascontiguousarray(values).tobytes()


def _at_neighbour(dataset: pydicom.FileDataset) -> None:
    x, y, z = (float(v) for v in dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, y, z + MM[0]]


def _negated(dataset: pydicom.FileDataset) -> None:
    x, y, z = (float(v) for v in dataset.ImagePositionPatient)
    dataset.ImagePositionPatient = [x, y, -z]


def _of_pictures(hu: Volume, other: Volume) -> Iterator[tuple[str, str, list[NDArray[Any]], bool]]:
    """Yield faults of windowed pictures."""
    pictures = pictures_of(hu)
    turns: dict[str, Callable[[NDArray[np.uint8]], NDArray[np.uint8]]] = {
        "to the left": np.rot90, "to the right": lambda p: np.rot90(p, 3), "half a turn": lambda p: np.rot90(p, 2),
        "upside down": np.flipud, "inverted": lambda p: 255 - p,
    }  # fmt: skip
    for name, change in turns.items():
        yield "pictures lie wrong", f"all, {name}", [change(p) for p in pictures], False
        mixed = [change(p) if i % 2 else p for i, p in enumerate(pictures)]
        yield "pictures lie wrong", f"every second, {name}", mixed, False
    for width in (10, 40, 150):
        for value in (0, 128, 255):
            framed = [np.pad(p, width, constant_values=value) for p in pictures]
            yield "framed pictures", f"{width} px of {value}", framed, False
    yield "other depth", "16 bits", [p.astype(np.uint16) * 257 for p in pictures], False
    yield (
        "other depth",
        "12 bits as they are",
        [(hu[i].astype(np.int32) + 1024).astype(np.uint16) for i in range(6, 22)],
        False,
    )
    alpha = [np.dstack([p, p, p, np.where(p > 0, 255, 254).astype(np.uint8)]) for p in pictures]
    yield "transparency", "of single pixels", alpha, False
    for count in (1, 4, 8):
        blank = [np.zeros_like(p) if 5 <= i < 5 + count else p for i, p in enumerate(pictures)]
        yield "blank pictures", f"{count} in the middle", blank, True
    for count in (4, 8):
        both = pictures[:-count] + [p[::2, ::2] for p in pictures_of(other)[-count:]]
        yield "two people in a folder", f"{count} pictures of half the size", both, False
    yield (
        "another window",
        "soft tissue",
        [clipped((hu[i] + 160) / 400 * 255).clip(0, 255).astype(np.uint8) for i in range(6, 22)],
        False,
    )
    yield (
        "no chest slices",
        "noise",
        [np.random.default_rng(i).integers(0, 255, p.shape, np.uint8) for i, p in enumerate(pictures)],
        False,
    )
    yield "few pictures", "three", pictures[6:9], True
