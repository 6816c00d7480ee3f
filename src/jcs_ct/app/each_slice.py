"""What the commands on slices share: how an input is read, and checked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.core.types import SliceImage, StageOneFeatures
from jcs_ct.imaging.slice_check import check_slice
from jcs_ct.io.features import read_features
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.pictures import read_slice

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.inference import Network
    from jcs_ct.io.files.sources import Source


def read_input(source: Source, network: Network | None = None) -> SliceImage | StageOneFeatures:
    """Read a source as a picture, or a feature file as stage-1 features if `network` takes them. Raises InputError."""
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

    Raises InputError where there is something and `strict` is true.
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
