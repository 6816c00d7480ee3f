"""What MetaImage and NRRD have in common: a header of text, and values behind it or in a file beside it."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.io.nifti.values import Packing, Voxels, opened
from jcs_ct.io.nifti.volume import named_beside, placed_series

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from jcs_ct.io.files.sources import Source
    from jcs_ct.io.nifti.volume import NiftiSeries

MAX_HEADER = 2**20  # bytes
_OTHERWISE = "or convert it to NIfTI"


class Place(NamedTuple):
    """Where the values are.

    Attributes:
        name: Of the file beside the header; None where they follow it.
        skip: Bytes of the file before them (before what is packed); -1: they end the file.
        packing: How they are packed.
    """

    name: str | None
    skip: int
    packing: Packing


@contextmanager
def named(form: str, source: Source) -> Iterator[None]:
    """Have every problem say what the file was read as, and what else to do: other programs read some variants."""
    try:
        yield
    except InputError as problem:
        message = f"read as {form}, it {problem.message}"
        hint = f"{problem.hint}; {_OTHERWISE}" if problem.hint else _OTHERWISE.removeprefix("or ")
        raise InputError(message, path=problem.path or source.label, hint=hint) from problem.__cause__


def start_of(source: Source) -> bytes:
    """Return the first bytes of a file, among which its header ends."""
    with opened(source, "none") as (file, _, _):
        return file.read(MAX_HEADER)


def read_stored(
    source: Source,
    form: str,
    affine: NDArray[np.float64],
    shape: tuple[int, int, int],
    dtype: np.dtype[Any],
    place: Place,
    warnings: Sequence[str] = (),
) -> NiftiSeries:
    """Return the volume of a header that lies in `source`.

    `affine` is stored index → LPS mm; the first axis of the stored `shape` runs fastest. Raises InputError where there
    are no such values at `place`, or they are no Hounsfield units, or the orientation is impossible.
    """
    held = source if place.name is None else _beside(source, place.name)
    start = place.skip
    if start < 0:
        with opened(held, "none") as (_, size, _):
            start = size - int(np.prod(shape)) * dtype.itemsize
        if start < 0:
            message = f"has {size:,} bytes of {size - start:,}"
            raise InputError(message, path=held.label, hint="copy it again")
    voxels = Voxels(held, dtype, shape, 0, 1.0, 0.0, place.packing, start, form)
    return placed_series(affine, voxels, {"format": f"{form}, {dtype.newbyteorder('=').name}"}, source, warnings)


def _beside(source: Source, name: str) -> Source:
    pure = PurePosixPath(name.replace("\\", "/"))
    if pure.is_absolute() or ".." in pure.parts or ":" in name or not pure.parts:
        message = "names a file of values that does not lie beside it or below"
        raise InputError(message, hint="put both into one folder, and correct the header")
    found = named_beside(source, pure.as_posix())
    if found is None:
        raise InputError(f"lacks its values: {pure.name} is not beside it", hint="copy both files, unchanged")
    return found
