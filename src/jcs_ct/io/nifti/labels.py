"""Masks and label maps in NIfTI files, with the axes that every volume has here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.geometry import canonical_axes
from jcs_ct.io.nifti.volume import LPS, nibabel_library

if TYPE_CHECKING:
    from numpy.typing import NDArray


def read_labels(path: str | Path) -> NDArray[Any]:
    """Return the labels in a NIfTI file with canonical axes: slices × rows × columns, as they are stored.

    Raises:
        InputError: It cannot be read, or does not hold one volume.
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
