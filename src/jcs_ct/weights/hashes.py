"""Where the hashes of the slices lie that weights were trained on: `NAME.hashes` beside `NAME.safetensors`.

The card does not name them, so that they can be added to weights that are there; what the file holds is a matter of
`jcs_ct.datasets.training_slices`. Weights are known by the checksum on their card, so that a copy under another name,
or an exported network, finds the hashes of its original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.errors import WeightsError
from jcs_ct.weights.store import list_stored, locate

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.weights.card import WeightsCard

SUFFIX = ".hashes"


def hashes_path(weights: Path) -> Path:
    """Return where the hashes of the training slices of a weights file lie. The file need not exist."""
    return weights.with_suffix(SUFFIX)


def find_hashes(model: str | Path, card: WeightsCard) -> Path | None:
    """Return the file of hashes that belongs to weights, or None.

    Args:
        model: The name or the file they were opened by.
        card: Their card.
    """
    try:
        beside = [hashes_path(locate(model))]
    except WeightsError:  # an exported network, a folder
        beside = []
    same = [
        hashes_path(stored.path)
        for stored in list_stored()
        if stored.card is not None and stored.card.weights_sha256 == card.weights_sha256
    ]
    return next((path for path in (*beside, *same) if path.is_file()), None)
