"""The slices of volumes, unpacked once: a training run draws them in any order, a volume is packed as a whole.

To draw one slice out of a compressed volume, all of it is read. A run that draws slices at random would read a volume
for every slice of every step. Here each volume is read once, and its slices and masks go into one file without
compression, of which the system keeps in memory what fits. Processes that read ahead share it.
"""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.datasets.slices import mask_of, pixels_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.datasets.samples import Sample

Place = tuple[int, tuple[int, int]]
"""Where an array of bytes begins in the file, and its rows and columns."""


class UnpackedSlices:
    """Pixels and masks of samples: those of volumes out of one file, pictures as they lie on disk.

    It can be pickled: processes open the file anew.

    Args:
        samples: All that will be asked for; those of volumes are read now.
        path: The file; one that is there is replaced. It takes a byte a pixel, twice where there is a mask.

    Raises:
        InputError: A volume or its mask cannot be read.
        OutputError: The file cannot be written.
    """

    def __init__(self, samples: Iterable[Sample], path: Path) -> None:
        self.path = path
        self._places: dict[tuple[Path, int | None], Place] = {}
        self._masks: dict[tuple[Path, int | None], Place] = {}
        self._file: mmap.mmap | None = None
        volumes = {sample.key: sample for sample in samples if sample.index is not None}
        if not volumes:
            return
        try:
            with path.open("wb") as file:
                for key in sorted(volumes, key=lambda key: (str(key[0]), key[1])):  # volume by volume
                    sample = volumes[key]
                    grey = pixels_of(sample)[:, :, 0]
                    self._places[key] = file.tell(), (grey.shape[0], grey.shape[1])
                    file.write(np.ascontiguousarray(grey).data)
                    if sample.mask is not None:
                        mask = mask_of(sample)
                        self._masks[key] = file.tell(), (mask.shape[0], mask.shape[1])
                        file.write(np.ascontiguousarray(mask).view(np.uint8).data)
        except InputError:
            path.unlink()
            raise
        except OSError as error:
            path.unlink(missing_ok=True)
            raise OutputError(
                f"the slices of volumes cannot be unpacked: {error.strerror}",
                path=path,
                hint="they take a byte a pixel, and another for its mask: make room, or choose another folder",
            ) from error

    def pixels(self, sample: Sample) -> NDArray[np.uint8]:
        """Return what `pixels_of` does: uint8, rows × columns × 3."""
        place = self._places.get(sample.key)
        return pixels_of(sample) if place is None else np.repeat(self._at(place)[:, :, None], 3, axis=2)

    def mask(self, sample: Sample) -> NDArray[np.bool_]:
        """Return what `mask_of` does: bool, rows × columns."""
        place = self._masks.get(sample.key)
        return mask_of(sample) if place is None else self._at(place).view(bool)

    def close(self) -> None:
        """Delete the file."""
        self._file = None
        self.path.unlink(missing_ok=True)

    def _at(self, place: Place) -> NDArray[np.uint8]:
        if self._file is None:
            with self.path.open("rb") as file:
                self._file = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        start, shape = place
        return np.frombuffer(self._file, np.uint8, shape[0] * shape[1], start).reshape(shape)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None}
