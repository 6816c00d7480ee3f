"""Was a network trained on the study that it is asked about? Then its answer is memory, and says too little.

Every slice is looked up among the hashes beside the weights (`jcs_ct.datasets.training_slices`) while its pixels are
at hand: exactly; and some of them, spread over the study, by their looks, turned and mirrored too, which takes longer.
A few slices that only look alike are chance.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.core.warning import CodedWarning
from jcs_ct.datasets.fingerprint import digest, fingerprint
from jcs_ct.datasets.training_slices import TrainingSlices, read_training_slices
from jcs_ct.inference.ensemble import Ensemble
from jcs_ct.weights.store import find_hashes

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.study.settings import Networks

CODE = "trained-on"
CHANCE = 0.02  # share of the slices that may look like one that was trained on
COMPARED = 64  # slices of a study that are compared by their looks


class TrainingWatch:
    """Looks up the slices of one study, which has so many."""

    def __init__(self, networks: Networks, slices: int) -> None:
        self._known: list[tuple[str, TrainingSlices]] = []
        for network in networks.all:
            for member in network.members if isinstance(network, Ensemble) else (network,):
                opened = getattr(member, "opened", "")  # one that a program made was opened by no name
                path = find_hashes(opened, member.card) if opened else None
                if path is not None and (learned := _hashes(path, path.stat().st_mtime_ns)) is not None:
                    self._known.append((member.card.name, learned))
        self._step = -(-slices // COMPARED)
        self._looked = self._compared = 0
        self._found = {name: {"same": 0, "similar": 0} for name, _ in self._known}

    def look(self, pixels: NDArray[np.uint8]) -> None:
        """Look up a slice as the networks see it: uint8, rows × columns × 3."""
        if not self._known:
            return
        content, looks = digest(pixels), fingerprint(pixels) if self._looked % self._step == 0 else None
        self._looked += 1
        self._compared += looks is not None
        for name, learned in self._known:
            likeness = learned.find(content, looks)
            if likeness is not None:
                self._found[name][likeness] += 1

    def warnings(self) -> list[CodedWarning]:
        """Return a warning for each network that was trained on slices of the study."""
        found = []
        for name, counts in self._found.items():
            if counts["same"] or counts["similar"] > CHANCE * self._compared:
                text = (
                    f"this study is part of the training data of {name}, so the result does not show how well it works "
                    f"on new patients ({_counted(counts, self._looked, self._compared)})"
                )
                found.append(CodedWarning(CODE, text))
        return found


def _counted(counts: dict[str, int], looked: int, compared: int) -> str:
    """Return how many slices were found again, in words."""

    def of(found: int, all_of_them: int, what: str, how: str) -> str:
        if found == all_of_them > 1:
            return f"all {found} {what} are {how}"
        return f"{found} of {all_of_them} {what} {'is' if found == 1 else 'are'} {how}"

    same = of(counts["same"], looked, "slices", "identical") if counts["same"] else "no slice is identical"
    near = of(counts["similar"], compared, "compared slices", "nearly identical") if counts["similar"] else ""
    return "; ".join(part for part in (same, near) if part)


@lru_cache(maxsize=4)
def _hashes(path: Path, _changed: int) -> TrainingSlices | None:
    """Return the hashes in a file; None for one that cannot be read, which is no reason to give no diagnosis."""
    try:
        return read_training_slices(path)
    except InputError:
        return None
