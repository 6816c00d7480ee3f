"""What the commands on slices share: each input is read, checked and worked on; one that fails stops no other."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from jcs_ct.core.errors import InputError, JcsError, unforeseen
from jcs_ct.core.types import SliceImage, StageOneFeatures
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.io.features import read_features
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.pictures import read_slice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from jcs_ct.inference import Network
    from jcs_ct.io.files.sources import Source

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What became of one source: a value, or the error that stopped it.

    Attributes:
        source: The input.
        value: What `work` returned, or None.
        error: The problem, or None.
        details: The traceback of a problem that was not foreseen, else "".
    """

    source: Source
    value: T | None
    error: JcsError | None
    details: str = ""


def for_each(sources: Iterable[Source], work: Callable[[Source], T]) -> Iterator[Outcome[T]]:
    """Do `work` for every source, one after the other; yield an outcome each, errors included."""
    for source in sources:
        try:
            yield Outcome(source, work(source), None)
        except JcsError as error:
            yield Outcome(source, None, error)
        except Exception as error:  # noqa: BLE001  # whatever one case meets, the others must still finish
            yield Outcome(source, None, unforeseen(error, source.label), traceback.format_exc())


def read_input(source: Source, network: Network | None = None) -> SliceImage | StageOneFeatures:
    """Read a source as a picture, or as stage-1 features if it is a feature file and `network` can take them.

    Raises:
        InputError: See `read_slice` and `read_features`.
    """
    if source.kind is not Kind.MAT:
        return read_slice(source)
    if network is None or not network.spec.outputs:
        raise InputError("holds stage-1 features, but this command needs a picture of a slice", path=source.label)
    return read_features(source.read(), source.name, source.label, network.spec.feature_arrays)


def read_picture(source: Source) -> SliceImage:
    """Read a source that must be a picture. Raises InputError."""
    item = read_input(source)
    assert isinstance(item, SliceImage)  # noqa: S101  # without a network nothing else comes
    return item


def flags_of(item: SliceImage | StageOneFeatures, *, strict: bool = False) -> tuple[str, ...]:
    """Return what speaks against a lung-windowed axial chest slice, as `diagnose` says it; nothing of features.

    Args:
        item: What is about to go through a network.
        strict: Whether a slice with a flag is refused.

    Raises:
        InputError: It has a flag, and `strict`.
    """
    flags = check_slice(item.pixels) if isinstance(item, SliceImage) else ()
    if flags and strict:
        raise InputError(
            flags_text(flags), path=item.source, hint="give lung-windowed axial slices, or leave --strict out"
        )
    return flags


def flags_text(flags: Sequence[str]) -> str:
    """Return the flags of a slice as one line."""
    return f"does not look like an axial chest slice in a lung window: {'; '.join(flags)}"
