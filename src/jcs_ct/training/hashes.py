"""The hashes of a run's slices beside its weights, so that `evaluate` knows them again whoever has the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.training_slices import read_training_slices, training_hashes, union_of
from jcs_ct.weights.store import hashes_path

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from jcs_ct.datasets.samples import Sample


def keep_hashes(weights: Path, samples: Iterable[Sample]) -> None:
    """Write the hashes of training slices beside weights, to those that are there: a run may go on with other data.

    Args:
        weights: The file, there already or not yet.
        samples: What the run trains on.

    Raises:
        InputError: A slice cannot be read, or the file that is there holds something else.
        OutputError: It cannot be written.
    """
    path = hashes_path(weights)
    learned = training_hashes(samples)
    if path.exists():
        learned = union_of([read_training_slices(path), learned])
    write_whole(path, learned.to_bytes(), overwrite=True)
