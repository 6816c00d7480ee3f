"""Which slices did a network learn from? Kept of each: 8 bytes of the digest of its pixels, and 192 bits of its looks.

The bits are the signs of 192 sums of the fingerprint's numbers, each with a fixed plus or minus (`fingerprint`): the
share of bits that differ between two pictures is the angle between their fingerprints over 180°. A slice is *the same*
where the digest is known, and *similar* where at most `FARTHEST` bits differ from those of a known one; it is looked
for in all eight ways in which a picture can be turned and mirrored, as slices of volumes often are when they are
exported.

**20 of 192.** On 417 slices of real collections, each changed in six ways (half the size, 512 pixels wide, enlarged by
half and saved as JPEG of quality 50, JPEG of quality 60, brighter and dimmer by 15 with 15 % more and less contrast),
at most 20 bits differ from the original in 994 of 1,000 cases; the others are bright ones that were clipped. Of 5,182
slices none is so like one of another collection, upright or turned, but for one that is in two of them; 24 are like a
slice of another group of their own collection. Not found: pictures that are cropped or seen through quite another
window, and other slices of the same patient.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.types import SliceImage
from jcs_ct.datasets.fingerprint import LENGTH, digest, fingerprint, stack_prints, turned
from jcs_ct.datasets.inspection import inspect, inspect_all
from jcs_ct.datasets.samples import Sample
from jcs_ct.datasets.slices import pixels_of
from jcs_ct.io.files.opening import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.types import StageOneFeatures

Likeness = Literal["same", "similar"]

BITS = 192
FARTHEST = 20
"""Bits in which pictures of one slice may differ."""

MAX_BYTES = 256 * 2**20
_MAGIC = b"jcs-ct hashes 1 "
_DIGEST, _LOOKS = 8, BITS // 8
_HINT = "write it again with training_hashes, or delete it"


@dataclass(frozen=True)
class TrainingSlices:
    """Hashes of the slices that a network was trained on.

    `digests` are uint64, sorted, each once: the first bytes of `fingerprint.digest`; `looks` the signs, packed, in the
    same order: uint8, slices × 24.
    """

    digests: NDArray[np.uint64]
    looks: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.digests)

    def find(self, content: bytes, print_: NDArray[np.int8] | None) -> Likeness | None:
        """Return whether a slice is known by its digest, or else by its fingerprint; features have none."""
        head = np.frombuffer(content[:_DIGEST], dtype=">u8").astype(np.uint64)
        place = int(np.searchsorted(self.digests, head[0]))
        if place < len(self) and self.digests[place] == head[0]:
            return "same"
        if print_ is None or not print_.any() or not len(self):  # nothing is like a picture without structure
            return None
        agreeing = self._spread @ _plus_minus(coarse_hashes(turned(print_))).T
        return "similar" if (BITS - agreeing.max()) / 2 <= FARTHEST else None

    @cached_property
    def _spread(self) -> NDArray[np.float32]:
        """The looks as +1 and −1, 768 bytes a slice."""
        return _plus_minus(self.looks)

    def to_bytes(self) -> bytes:
        """Return the content of the file: a line, the digests, the looks; 32 bytes a slice."""
        return _MAGIC + f"{len(self)}\n".encode() + self.digests.astype(">u8").tobytes() + self.looks.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes, path: Path) -> TrainingSlices:
        """Read what `to_bytes` made. Raises InputError where it is something else."""
        line, _, rest = data.partition(b"\n")
        number = line.removeprefix(_MAGIC)
        if not line.startswith(_MAGIC) or not number.isdigit():
            raise InputError("holds no hashes of training slices", path=path, hint=_HINT)
        slices, size = int(number), _DIGEST + _LOOKS
        if len(rest) != slices * size:
            text = f"holds {len(rest):,} bytes of hashes; {slices:,} slices need {slices * size:,}"
            raise InputError(text, path=path, hint=_HINT)
        digests = np.frombuffer(rest[: slices * _DIGEST], dtype=">u8").astype(np.uint64)
        if (digests[1:] <= digests[:-1]).any():
            raise InputError("holds hashes out of order", path=path, hint=_HINT)
        return cls(digests, np.frombuffer(rest[slices * _DIGEST :], dtype=np.uint8).reshape(slices, _LOOKS))


def union_of(every: Sequence[TrainingSlices]) -> TrainingSlices:
    """Return the slices that at least one of several networks learned from."""
    digests, first = np.unique(np.concatenate([one.digests for one in every]), return_index=True)
    return TrainingSlices(digests, np.concatenate([one.looks for one in every])[first])


def training_hashes(samples: Iterable[Sample], workers: int = 1) -> TrainingSlices:
    """Return the hashes of the slices that a network is trained on, for the file beside its card.

    Slices of volumes are those with an `index`, seen through the lung window; `workers` processes read the others.
    Raises InputError where a slice cannot be read.
    """
    files: dict[Sample, None] = {}
    sliced: list[Sample] = []  # those of one volume follow each other
    for sample in samples:
        if sample.index is not None:
            sliced.append(sample)
        else:
            files[Sample(sample.image, features=None if sample.image else sample.features)] = None
    slices: list[tuple[bytes, NDArray[np.int8] | None]] = []
    for found in inspect_all(list(files), workers):
        if found.content is None:
            raise found.faults[0][1]
        slices.append((found.content, found.print))
    seen = map(pixels_of, sliced)  # as `diagnose` shows them to its networks
    slices += ((digest(pixels), fingerprint(pixels)) for pixels in seen)
    return hashes_of(slices)


def hashes_of(slices: Iterable[tuple[bytes, NDArray[np.int8] | None]]) -> TrainingSlices:
    """Return the hashes of slices, given as digest and fingerprint (None for features)."""
    known = {int.from_bytes(content[:_DIGEST], "big"): print_ for content, print_ in slices}
    order = sorted(known)
    looks = coarse_hashes(stack_prints(known[head] for head in order))
    return TrainingSlices(np.array(order, dtype=np.uint64), looks)


def seen_in_training(item: SliceImage | StageOneFeatures, sample: Sample, learned: TrainingSlices) -> Likeness | None:
    """Return whether the network that `learned` was trained on a slice; `sample` names the files of `item`."""
    if isinstance(item, SliceImage):
        return learned.find(digest(item.pixels), fingerprint(item.pixels))
    found = inspect(Sample(features=sample.features))  # all arrays of the file; the network may have read one of them
    return None if found.content is None else learned.find(found.content, None)


def read_training_slices(path: Path) -> TrainingSlices:
    """Read a file of hashes. Raises InputError where it cannot be read or holds something else."""
    return TrainingSlices.from_bytes(read_file(path, MAX_BYTES), path)


def coarse_hashes(prints: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return the looks of fingerprints: slices × `LENGTH` → slices × 24, packed bits."""
    return np.packbits(prints.astype(np.float32) @ _signs() > 0, axis=1)


def _plus_minus(looks: NDArray[np.uint8]) -> NDArray[np.float32]:
    return np.unpackbits(looks, axis=1).astype(np.float32) * 2 - 1


@lru_cache(maxsize=1)
def _signs() -> NDArray[np.float32]:
    """Return +1 and −1 from SHA-256, `LENGTH` × `BITS`: the same for ever, as no generator of NumPy promises to be."""
    blocks = (LENGTH * BITS + 255) // 256
    random = b"".join(hashlib.sha256(b"jcs-ct looks %d" % i).digest() for i in range(blocks))
    bits = np.unpackbits(np.frombuffer(random, dtype=np.uint8))[: LENGTH * BITS]
    return bits.reshape(LENGTH, BITS).astype(np.float32) * 2 - 1
