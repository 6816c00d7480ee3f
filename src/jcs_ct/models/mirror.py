"""A slice and its mirror image in one pass of `jcs-lite`, as a batch of two: what both agree on is more often right.

Lungs have no preferred side, and the network was trained on both. Where a card says `mirror`, logits, evidence and
lesion logits are means of the two, each turned back (Krizhevsky et al., NeurIPS 2012, average over reflections alike).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Arrays = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]


def with_mirrors(batch: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return N slices (1×H×W) followed by their mirror images: 2N×1×H×W."""
    slices = np.stack(batch)
    return np.concatenate([slices, slices[..., ::-1]])


def merged(logits: NDArray[np.float32], evidence: NDArray[np.float32], maps: NDArray[np.float32]) -> Arrays:
    """Return what the network gives for 2N slices (2N, 2N×h×w, 2N×M×H×W) as the means of slices and mirror images."""
    n, half = len(logits) // 2, np.float32(0.5)
    return (
        (logits[:n] + logits[n:]) * half,
        (evidence[:n] + evidence[n:, :, ::-1]) * half,
        (maps[:n] + maps[n:, ..., ::-1]) * half,
    )
