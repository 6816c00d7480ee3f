"""What cards of weights say of scores, in words for readers who trained none: for reports and `jcs models show`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LABELS = {
    r"held-out pointing:": "attention, pointing game on held-out slices:",
    r"held-out energy:": "attention, energy inside the lesions of held-out slices:",
    r"held-out auc ([^:]+):": r"AUC on held-out slices of \1:",
}
"""How a note begins, as training writes it → how it begins for a reader."""


def plain_notes(notes: Iterable[str]) -> list[str]:
    """Return the notes of a card, with labels that a reader knows in place of names of metrics.

    >>> plain_notes(["held-out auc mosmed: 0.8", "not for children"])
    ['AUC on held-out slices of mosmed: 0.8', 'not for children']
    """
    found = list(notes)
    for begins, label in LABELS.items():
        found = [re.sub(f"^{begins}", label, note) for note in found]
    return found
