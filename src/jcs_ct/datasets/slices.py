"""The pixels of a sample and its mask: a picture as grey values, a slice of a volume as Hounsfield units.

Volumes go through the readers that `jcs diagnose` uses, so that slices, rows and columns count the same way there and
here. The volume used last is kept open: samples of one volume are best read one after the other.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jcs_ct.core.digests import digest_of
from jcs_ct.core.errors import InputError
from jcs_ct.datasets.masks import read_mask
from jcs_ct.imaging.recipes import luminance
from jcs_ct.imaging.window import to_grey
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.nifti.volume import read_labels
from jcs_ct.io.pictures import decode_slice

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.datasets.samples import Sample


_PAIRS = {".hdr": ".img", ".img": ".hdr"}  # of one mask: its header and its values


class Pixels(NamedTuple):
    """What is read of a sample.

    Attributes:
        image: int16 Hounsfield units of a volume's slice, or uint8 grey values of a picture; rows × columns.
        mask: bool, the same shape; all false where the sample is known to be empty; None where nothing is known.
        spacing: mm between rows and between columns; None for a picture.
    """

    image: NDArray[Any]
    mask: NDArray[np.bool_] | None
    spacing: tuple[float, float] | None

    @property
    def grey(self) -> NDArray[np.uint8]:
        """The slice as networks see it: a picture's grey values, or a volume's slice through the lung window."""
        return to_grey(self.image) if self.image.dtype == np.int16 else self.image


def read_sample(sample: Sample) -> Pixels:
    """Read a sample. Raises InputError where it or its mask cannot be read, or they differ in size."""
    spacing: tuple[float, float] | None = None
    if sample.index is None:
        image: NDArray[Any] = luminance(pixels_of(sample))
    else:
        series = open_volume(str(sample.path))
        if sample.index >= len(series):
            raise InputError(f"has {len(series)} slices, slice {sample.index} was asked for", path=sample.path)
        image = series.read(sample.index)
        spacing = series.geometry.spacing[1], series.geometry.spacing[2]
    mask = np.zeros(image.shape, bool) if sample.empty else None
    if sample.mask is not None:
        mask = mask_of(sample)
        if mask.shape != image.shape:
            raise InputError(
                f"is {'×'.join(map(str, mask.shape))}, its slice {'×'.join(map(str, image.shape))}",
                path=sample.mask,
                hint="a mask has the size of its slice",
            )
    return Pixels(image, mask, spacing)


def pixels_of(sample: Sample) -> NDArray[np.uint8]:
    """Return a slice as networks see it: uint8, rows × columns × 3. Raises InputError where it cannot be read."""
    if sample.index is None:
        return decode_slice(read_file(sample.path), sample.path.stem, str(sample.path)).pixels
    grey = read_sample(replace(sample, mask=None)).grey
    return np.repeat(grey[:, :, None], 3, axis=2)


def mask_of(sample: Sample) -> NDArray[np.bool_]:
    """Return the mask of a sample that has one: bool, rows × columns. Raises InputError where it cannot be read."""
    assert sample.mask is not None  # noqa: S101  # whoever asks knows that there is one
    if sample.index is None:
        return read_mask(sample.mask)
    labels = open_labels(str(sample.mask))
    if sample.index >= len(labels):
        raise InputError(f"has {len(labels)} slices, slice {sample.index} was asked for", path=sample.mask)
    return wanted_labels(labels[sample.index], sample.lesions)


def size_text(shape: Sequence[int]) -> str:
    """Return sizes for a message: "512 × 512"."""
    return " × ".join(map(str, shape))


def wanted_labels(labels: NDArray[Any], lesions: tuple[int, ...]) -> NDArray[np.bool_]:
    """Return where labels are lesion: one of `lesions`, or, without any, above 0."""
    found: NDArray[np.bool_] = np.isin(labels, lesions) if lesions else labels > 0
    return found


@lru_cache(maxsize=1)
def open_volume(path: str) -> CTSeries:
    """Return the volume in a NIfTI file or in the folder of a DICOM series. Raises InputError where there is none."""
    from jcs_ct.io.studies import find_series

    found = find_series([path], allow_gaps=True)
    if len(found.series) != 1:
        raise found.problems[0] if found.problems else InputError("holds no single CT volume", path=path)
    return found.series[0]


@lru_cache(maxsize=2)
def open_labels(path: str) -> NDArray[Any]:
    """Return the labels in a NIfTI file: slices × rows × columns, see `read_labels`.

    Raises InputError as there, and where values are no whole numbers, as of probabilities or of a resized mask.
    """
    labels = read_labels(path)
    if (between := between_whole_numbers(labels)) is not None:
        raise InputError(
            f"holds values such as {between:.3g}; labels, which are whole numbers, are expected",
            path=path,
            hint="write 0 for no lesion and 1 for lesion",
        )
    return labels


def between_whole_numbers(values: NDArray[Any]) -> float | None:
    """Return a value that is no whole number; None where all are."""
    if values.dtype.kind != "f":
        return None
    odd = values != np.rint(values)  # also NaN
    return float(values[odd][0]) if odd.any() else None


def content_digest(sample: Sample, path: Path | None = None) -> str:
    """Return the SHA-256 of what a sample is read from: its file (or `path`), or all files of its volume.

    Of a volume that is more than the file that names it: the images of a DICOM series in folders below, the values
    beside `.mhd`, `.nhdr` and `.hdr`. Their order and their names do not count.

    Raises InputError where one cannot be read.
    """
    if sample.index is None:
        return digest_of(path or sample.path)
    sources = open_volume(str(sample.path)).sources
    if len(sources) == 1 and sources[0].path == sample.path and sources[0].member is None:
        return digest_of(sample.path)
    inner = sorted(
        digest_of(source.path) if source.plain else hashlib.sha256(source.read()).hexdigest() for source in sources
    )
    return hashlib.sha256("".join(inner).encode()).hexdigest()


def mask_digest(path: Path) -> str:
    """Return the SHA-256 of a mask, with the values beside its header where these are two files.

    Raises InputError where it cannot be read.
    """
    files = {path, path.with_suffix(_PAIRS.get(path.suffix.lower(), path.suffix))}
    found = sorted(digest_of(file) for file in files if file == path or file.is_file())
    return found[0] if len(found) == 1 else hashlib.sha256("".join(found).encode()).hexdigest()
