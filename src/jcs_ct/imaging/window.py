"""From Hounsfield units to the 8-bit slices that the networks were trained on: one recipe for DICOM and NIfTI.

The window belongs to the weights. `LUNG` is the one that the public 8-bit COVID-19 slices were made with, as far as
it can be measured: aerated lung and soft tissue have the same grey there as in HU volumes seen through it
(docs/methods.md, `tests/test_imaging_window.py`). Nothing is stretched here; `jcs-lite` crops to the
lung field and stretches afterwards.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jcs_ct.core.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Window(NamedTuple):
    """A range of Hounsfield units that is spread over the grey values 0 to 255."""

    low: float
    high: float


LUNG = Window(-1350.0, 150.0)
"""Level −600, width 1500: the lung window of most scanners and of the 8-bit sets."""


def to_grey(hu: NDArray[np.int16], window: tuple[float, float] = LUNG) -> NDArray[np.uint8]:
    """Return Hounsfield units as 8-bit grey: round(255 · (hu − low) / (high − low)), clipped to 0…255.

    From int16 of any shape to uint8 of the same. Raises ShapeError for another type, and for an empty window.
    """
    if hu.dtype != np.int16:
        raise ShapeError(f"Hounsfield units are {hu.dtype}, int16 is expected")
    low, high = window
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise ShapeError(f"the window is {low:g} to {high:g} HU; two numbers are expected, the lower one first")
    # A table of all 65,536 values is quicker than arithmetic on the pixels, and exact.
    return _table(float(low), float(high))[hu.view(np.uint16)]


@lru_cache(maxsize=8)
def _table(low: float, high: float) -> NDArray[np.uint8]:
    hu = np.arange(2**16, dtype=np.uint16).view(np.int16).astype(np.float64)
    grey: NDArray[np.uint8] = np.rint((hu - low) * (255 / (high - low))).clip(0, 255).astype(np.uint8)
    grey.flags.writeable = False
    return grey
