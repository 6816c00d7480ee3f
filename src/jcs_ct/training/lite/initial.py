"""The weights that a run of `jcs-lite` starts from, which must not know what it holds out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.training.fingerprint import FILE, TRAINING, VALIDATION, read_fingerprint
from jcs_ct.training.start import BEST

if TYPE_CHECKING:
    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.lite.config import LiteConfig


def initial_weights(config: LiteConfig, now: Fingerprint) -> str | Path:
    """Return the name or file of `config.init`; in a folder of all folds, the network of the same fold.

    `now` is what the run is on.

    Raises:
        InputError: The folder has no such network, or none that is known to have learned from other slices than those
            that this run holds out.
    """
    given = Path(config.init)
    if not given.is_dir():
        return config.init
    folder = given / ("all" if config.fold is None else f"fold_{config.fold}")
    if not (folder / BEST).is_file() or not (folder / FILE).is_file():
        raise InputError(
            f"has no {folder.name}/{BEST} with its {FILE}",
            path=given,
            hint="--init takes a name, a file, or the folder of a finished --build on the same folds",
        )
    learned = {e.content for e in read_fingerprint(folder).entries if e.part == TRAINING}
    known = [e.name for e in now.entries if e.part == VALIDATION and e.content in learned]
    if known:
        raise InputError(
            f"was trained on {len(known):,} slices that this run holds out, such as {known[0]}",
            path=folder,
            hint="start from networks of the same folds",
        )
    return folder / BEST
