"""Maps of whole volumes: masks, labels or probabilities; what cannot be told apart is refused."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.datasets.slices import between_whole_numbers, wanted_labels
from jcs_ct.evaluate.maps import LARGEST_LABEL, Values
from jcs_ct.io.nifti.volume import read_labels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray


@lru_cache(maxsize=2)  # the slices of a volume ask for the same one; a comparison has two
def open_map(path: Path, values: Values, lesions: tuple[int, ...]) -> NDArray[Any]:
    """Return a map: slices × rows × columns; bool of a mask, or real numbers in [0, 1].

    Args:
        path: A NIfTI file.
        values: What its levels stand for; "auto": whole numbers are labels, others probabilities.
        lesions: Labels that are lesion; empty: all above 0.

    Raises:
        InputError: It cannot be read, or holds what can be neither labels nor probabilities.
    """
    stored = read_labels(path)
    low, high = float(stored.min()), float(stored.max())  # NaN anywhere makes both NaN
    expected = "labels, or probabilities from 0 to 1, are expected"
    if not low >= 0:
        raise InputError(f"holds values from {low:g} to {high:g}; {expected}", path=path, hint="see --map-values")
    if between_whole_numbers(stored) is not None or values == "probabilities":
        shares = stored / 255 if values == "probabilities" and stored.dtype.kind in "iu" and high > 1 else stored
        if values == "masks":
            return np.asarray(stored > 0)
        if shares.max() > 1:
            message = f"holds values from {low:g} to {high:g}, some no whole numbers; {expected}"
            raise InputError(message, path=path, hint="write probabilities from 0 to 1")
        return np.asarray(shares, dtype=np.float64)
    if high > LARGEST_LABEL and values == "auto" and not lesions and len(levels := np.unique(stored)) > 2:
        raise InputError(
            f"holds {len(levels)} whole numbers up to {high:g}: labels, or probabilities as floor(255·p)",
            path=path,
            hint="say --map-values masks or probabilities; or --labels",
        )
    return wanted_labels(stored, lesions)


def refuse_other_labels(files: Sequence[Path], folder: Path, lesions: tuple[int, ...]) -> None:
    """Refuse maps of which none holds one of the labels that are lesion, though they hold others.

    Args:
        files: All of them.
        folder: What the message calls them.
        lesions: The labels; empty: any is right.

    Raises:
        InputError: They hold others only: a Dice of 0 would say nothing of them.
    """
    if not lesions:
        return
    found: set[int] = set()
    for path in dict.fromkeys(files):
        try:
            stored = read_labels(path)
        except InputError:
            continue  # named when it is to be scored
        if between_whole_numbers(stored) is not None:
            return  # probabilities have no labels
        found |= {int(level) for level in np.unique(stored)} - {0}
        if found & set(lesions):
            return
    if found:
        shown, wanted = (", ".join(map(str, sorted(labels)[:5])) for labels in (found, lesions))
        raise InputError(
            f"its maps hold the labels {shown}, and --labels {wanted} says that others are lesion",
            path=folder,
            hint="maps and masks need the same labels; write the lesions of both with one",
        )
