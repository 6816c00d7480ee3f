"""Read everything a sample names, once, and keep what the checks need: problems, sizes, hashes; never the pixels."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Literal

from jcs_ct.core.errors import InputError, JcsError, UsageError
from jcs_ct.datasets.fingerprint import digest, fingerprint
from jcs_ct.datasets.masks import decode_mask
from jcs_ct.datasets.slices import mask_of, pixels_of, size_text
from jcs_ct.io.features import read_features
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.pictures import decode_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.core.types import StageOneFeatures
    from jcs_ct.datasets.samples import Sample

    Watch = Callable[[Iterable["Inspected"], int], Iterable["Inspected"]]

ALONE = "--workers 1 reads in the process itself"

Fault = Literal["missing", "unreadable", "size-mismatch", "mask-values"]


@dataclass
class Inspected:
    """What was found in the files of a sample.

    Attributes:
        content: SHA-256 of what the slice decodes to; None where it cannot be read.
        print: Its fingerprint; None for features, and where it cannot be read.
        faults: (kind, problem).
        notes: What the readers noticed.
        lesion: Pixels of lesion in the mask; None without a mask that can be read.
        features: Shapes of the stage-1 features, (VGG's, Res2Net's); None without a file of them that can be read.
    """

    content: bytes | None = None
    print: NDArray[np.int8] | None = None
    faults: list[tuple[Fault, InputError]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    lesion: int | None = None
    features: tuple[tuple[int, ...] | None, tuple[int, ...] | None] | None = None


def inspect(sample: Sample) -> Inspected:
    """Read the files of a sample. Their problems are returned, not raised."""
    if sample.index is not None:
        return _of_volume(sample)
    found, image, features, mask = Inspected(), sample.image, sample.features, sample.mask
    grid: tuple[int, ...] | None = None
    if image is not None:
        with _fault_of(image, found):
            picture = decode_slice(read_file(image), image.stem, str(image))
            found.content, found.print = digest(picture.pixels), fingerprint(picture.pixels)
            found.notes += picture.notes
            grid = picture.pixels.shape[:2]
    if features is not None:
        with _fault_of(features, found):
            held = _read_features(features)
            found.features = tuple(None if a is None else a.shape for a in (held.vgg, held.res2net))  # type: ignore[assignment]
            if image is None:
                found.content = digest(held.vgg, held.res2net)
    if mask is not None:
        with _fault_of(mask, found):
            decoded = decode_mask(read_file(mask), str(mask))
            found.lesion = int(decoded.lesion.sum())
            if decoded.fault:
                problem = InputError(decoded.fault, path=mask, hint="save masks as PNG with the values 0 and 255")
                found.faults.append(("mask-values", problem))
            else:
                _refuse_full(decoded.lesion, mask, found)
            if image is not None and grid is not None and decoded.lesion.shape != grid:
                message = f"has {size_text(decoded.lesion.shape)} pixels, its slice {image.name} has {size_text(grid)}"
                hint = "write the mask on the grid of the slice"
                found.faults.append(("size-mismatch", InputError(message, path=mask, hint=hint)))
    return found


def _of_volume(sample: Sample) -> Inspected:
    """Look at a slice of a volume, through the lung window as networks see it."""
    found = Inspected()
    if sample.image is not None:
        with _fault_of(sample.image, found):
            pixels = pixels_of(sample)
            found.content, found.print = digest(pixels), fingerprint(pixels)
    if sample.mask is not None:
        with _fault_of(sample.mask, found):
            lesion = mask_of(sample)
            found.lesion = int(lesion.sum())
            _refuse_full(lesion, sample.mask, found)
    return found


def _refuse_full(lesion: NDArray[np.bool_], mask: Path, found: Inspected) -> None:
    """Note a mask that marks all of its slice: nobody's lesion does."""
    if lesion.size and lesion.all():
        problem = InputError("marks every pixel as lesion", path=mask, hint="give the mask of this slice")
        found.faults.append(("mask-values", problem))


def inspect_all(samples: Sequence[Sample], workers: int = 1, watch: Watch | None = None) -> Iterable[Inspected]:
    """Inspect many samples, in order, in as many processes as `workers`; `watch` passes on what is found."""
    found = _inspect_all(samples, workers)
    return found if watch is None else watch(found, len(samples))


def _inspect_all(samples: Sequence[Sample], workers: int) -> Iterator[Inspected]:
    if workers <= 1:
        yield from map(inspect, samples)
        return
    with _pool(workers) as pool:
        results = pool.map(inspect, samples, chunksize=16)
        while True:
            try:
                yield next(results)
            except StopIteration:
                return
            except BrokenProcessPool as error:
                raise JcsError("a process that reads was killed, perhaps because memory ran out", hint=ALONE) from error


def _pool(workers: int) -> ProcessPoolExecutor:
    """Return processes that read. Raises UsageError where the system has no semaphores for them to share."""
    try:
        # Spawned, since a forked process may inherit locks that some thread holds.
        return ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    except (OSError, ImportError, NotImplementedError) as error:
        # They lie in /dev/shm, which containers have small, or not at all.
        why = getattr(error, "strerror", None) or "it is not there"
        text = f"{workers} processes cannot read side by side, for shared memory (/dev/shm) cannot be used: {why}"
        raise UsageError(text, hint=f"{ALONE}; in a container, --shm-size 64m makes room") from error


@contextmanager
def _fault_of(path: Path, found: Inspected) -> Iterator[None]:
    try:
        yield
    except InputError as problem:
        # Without the frames that it came through, which would keep the pixels in memory.
        alone = InputError(problem.message, path=problem.path, hint=problem.hint)
        found.faults.append(("unreadable" if path.exists() else "missing", alone))


def _read_features(path: Path) -> StageOneFeatures:
    """Read all the arrays that a feature file holds: both networks', or one's."""
    data = read_file(path)
    try:
        return read_features(data, path.stem, str(path), ("vgg", "res2net"))
    except InputError as problem:
        if "but no stage-1 features of" not in problem.message:
            raise
        alone = "vgg" if "features of res2net" in problem.message else "res2net"
        return read_features(data, path.stem, str(path), (alone,))
