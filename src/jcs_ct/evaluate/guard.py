"""What `diagnose` would say against the slices that are scored: of pictures each, of volumes all slices alike."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from jcs_ct.app.each_slice import flags_of
from jcs_ct.core.errors import InputError, NoLungsError
from jcs_ct.core.warning import CodedWarning
from jcs_ct.datasets.slices import open_volume
from jcs_ct.io.files.sources import find_sources
from jcs_ct.io.pictures import read_slice
from jcs_ct.study.flow import Clock
from jcs_ct.study.measures import measure_volume

if TYPE_CHECKING:
    from jcs_ct.core.types import SliceImage, StageOneFeatures
    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.io.files.sources import Source


def guard(case: Case, item: SliceImage | StageOneFeatures, *, strict: bool = False) -> tuple[str, ...]:
    """Return what speaks against a slice, a line each.

    Args:
        case: The slice.
        item: What was read of it.
        strict: Whether a slice with a flag is refused.

    Raises:
        InputError: It has a flag, and `strict`.
    """
    if case.sample.index is None:
        return flags_of(item, strict=strict)
    flags = volume_flags(str(case.sample.path))
    if flags and strict:
        hint = "mend the volume, or leave --strict out"
        raise InputError(f"is not reliable: {'; '.join(flags)}", path=case.sample.path, hint=hint)
    return flags


def guard_of_file(case: Case) -> tuple[str, ...]:
    """Return what speaks against a slice that no network reads; nothing where the data set has only its mask."""
    if case.sample.image is None:
        return ()
    if case.sample.index is not None:
        return volume_flags(str(case.sample.path))
    try:
        source = source_of(case)
        return flags_of(read_slice(source))
    except InputError as problem:
        return (f"could not be read: {problem.message}",)


@lru_cache(maxsize=8)
def volume_flags(path: str) -> tuple[CodedWarning, ...]:
    """Return what makes a verdict on a volume unreliable, or has `diagnose` refuse it. It is read for that, once.

    Raises:
        InputError: It cannot be read at all.
    """
    series = open_volume(path)
    found = list(series.warnings)
    try:
        found += measure_volume(series, Clock()).warnings
    except NoLungsError as problem:
        found.append(CodedWarning("no-lung", problem.message))
    except InputError as problem:
        found.append(CodedWarning("offset", problem.message))
    unreliable = (one for one in found if isinstance(one, CodedWarning) and one.unreliable)
    return tuple(dict.fromkeys(unreliable))


def source_of(case: Case) -> Source:
    """Return the slice as a source. Raises InputError if it is no slice."""
    found = find_sources([case.sample.path])
    if found.problems:
        raise found.problems[0]
    return found.sources[0]
