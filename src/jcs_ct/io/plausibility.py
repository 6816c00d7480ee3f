"""A look at a volume before it is accepted: its extent, and whether some slices are Hounsfield units and show lung."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from jcs_ct.anatomy.plausibility import WHOLE_CHEST_MM, enclosed
from jcs_ct.core.warning import CodedWarning

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import Geometry

FEW = 10  # slices, below which a study is flagged whatever its extent
THICK_MM, TOO_THICK_MM = 5.0, 8.0  # between slices: said; not reliable
COARSE_MM = 1.5  # pixels
LEAST_LUNG = 0.1
"""Share of the body in a slice, below which what is enclosed and as thin as lung is no lung. Five real chests reach 0.2
to 0.5 in one of the three slices; a head reaches 0.08 (sinuses, foam), an abdomen 0.06 (bowel)."""
NO_LUNG = CodedWarning("no-lung-seen", "no lung in the slices looked at: is it a chest?")


def extent_warnings(geometry: Geometry) -> list[CodedWarning]:
    """Return what the extent and the voxels of a volume say against a whole chest in fine slices."""
    down, rows, columns = geometry.spacing
    count, extent = geometry.shape[0], down * geometry.shape[0]
    warnings = []
    if count < FEW:
        warnings.append(CodedWarning("few-slices", f"few slices: {count}"))
    if extent < WHOLE_CHEST_MM:
        text = f"partial chest: {math.floor(extent)} mm along the body, a whole one has at least {WHOLE_CHEST_MM:.0f}"
        warnings.append(CodedWarning("partial-chest", text))
    if down > THICK_MM + 0.01:
        text = f"thick slices: {down:.3g} mm; small lesions are lost between them"
        warnings.append(CodedWarning("thick-slices" if down > TOO_THICK_MM + 0.01 else "slice-distance", text))
    if max(rows, columns) > COARSE_MM + 0.01:
        text = f"coarse pixels: {rows:.3g} × {columns:.3g} mm; small lesions are not seen"
        warnings.append(CodedWarning("coarse-pixels", text))
    return warnings


def sample_of(total: int) -> list[int]:
    """Return the slices that are looked at: at a quarter, the middle and three quarters."""
    return sorted({total // 4, total // 2, min(total - 1, 3 * total // 4)})


def implausible(samples: Sequence[NDArray[np.int16]]) -> list[str]:
    """Return why the values cannot be Hounsfield units (air −1000, water 0)."""
    values = np.concatenate([hu.ravel()[:: max(1, hu.size // 40_000)] for hu in samples])
    low, high = int(values.min()), int(values.max())
    edges = np.concatenate([np.concatenate([hu[0], hu[-1], hu[:, 0], hu[:, -1]]) for hu in samples])
    if float(np.median(edges)) > 200:
        return ["holds inverted values or none of CT: it is bright around the body"]
    if float((values < -500).mean()) < 0.005:
        return [f"holds no Hounsfield units: values from {low} to {high}, and no air (−1000) in them"]
    if float(((values > -250) & (values < 400)).mean()) < 0.01:
        return [f"holds no Hounsfield units: values from {low} to {high}, and no soft tissue (0) in them"]
    return []


def shows_lung(samples: Sequence[NDArray[np.int16]]) -> bool:
    """Return whether one of the slices shows lung."""
    return any(lung_share(hu) >= LEAST_LUNG for hu in samples)


def lung_share(hu: NDArray[np.int16]) -> float:
    """Return how much of the body in a slice is as thin as lung and enclosed by body on all four sides, in [0, 1]."""
    step = max(1, min(hu.shape) // 128)
    small = hu[::step, ::step]
    solid = small > -300
    inside = enclosed(solid)
    body = solid | inside
    lung = inside & (small > -970) & (small < -500)
    return float(lung.sum() / max(1, int(body.sum())))
