"""Where a slice comes in before a network is scored on it: read once, looked at, compared with the training data."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.app.each_slice import flags_of, read_input, read_picture
from jcs_ct.core.errors import InputError, NoLungsError
from jcs_ct.core.types import SliceImage, StageOneFeatures
from jcs_ct.core.warning import CodedWarning
from jcs_ct.datasets.masks import read_mask
from jcs_ct.datasets.slices import open_volume, pixels_of
from jcs_ct.datasets.training_slices import seen_in_training
from jcs_ct.imaging.recipes import resize_map
from jcs_ct.io.files.sources import find_sources
from jcs_ct.io.pictures import read_slice
from jcs_ct.study.flow import Clock
from jcs_ct.study.measures import measure_volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.datasets.training_slices import Likeness, TrainingSlices
    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.inference import Network
    from jcs_ct.io.files.sources import Source


class SliceReader:
    """Reads the slices of one run and remembers what spoke against them.

    Args:
        network: The network that is scored.
        learned: Which slices it was trained on; None where its weights do not say.
        strict: Whether a slice that the check flags is refused.
        note: Where to say what a user should know of a slice: its name, the reader's notes, the check's flags.
    """

    def __init__(
        self,
        network: Network,
        learned: TrainingSlices | None,
        *,
        strict: bool = False,
        note: Callable[[str, tuple[str, ...], tuple[str, ...]], None] = lambda *_: None,
    ) -> None:
        self.network, self.learned, self.strict, self._note = network, learned, strict, note
        self._flags: dict[str, tuple[str, ...]] = {}
        self._told: set[Path] = set()  # volumes of which it was said
        self._known: dict[str, Likeness | None] = {}

    def read(self, case: Case) -> SliceImage | StageOneFeatures:
        """Read a slice, as a picture or as stage-1 features.

        Raises InputError where it cannot be read, or it was flagged and the reader is strict.
        """
        if case.sample.index is None:
            item: SliceImage | StageOneFeatures = read_input(source_of(case), self.network)
        else:
            item = SliceImage(case.key, case.key, pixels_of(case.sample))  # of a volume, as networks see it
        flags = guard(case, item, strict=self.strict)
        self._flags[case.key] = flags
        if self.learned is not None:
            self._known[case.key] = seen_in_training(item, case.sample, self.learned)
        if case.sample.index is None:
            self._note(case.key, item.notes, flags)
        elif flags and case.sample.path not in self._told:
            self._told.add(case.sample.path)
            self._note(str(case.sample.path), (f"not reliable: {'; '.join(flags)}",), ())
        return item

    def read_picture(self, case: Case) -> SliceImage:
        """Read a slice that must be a picture. Raises InputError as `read`."""
        if case.sample.image is None:
            read_picture(source_of(case))  # says what it is instead
        item = self.read(case)
        assert isinstance(item, SliceImage)  # noqa: S101  # it is a picture
        return item

    def lesion_map(self, case: Case) -> NDArray[np.float64]:
        """Return the lesion map of a slice, in [0, 1], at the 256 levels that `jcs segment` stores: floor(255·p) / 255.

        So that scores of a model and of its stored maps are the same. Stage-1 features do not know the slice's grid
        (half-size ones are a quarter of it), so their map is brought to the grid of the mask. Raises as `read`.
        """
        from jcs_ct.inference import apply

        item = self.read(case)
        probability = apply.segment(item, self.network)
        if isinstance(item, StageOneFeatures) and case.sample.mask is not None:
            rows, columns = read_mask(case.sample.mask).shape
            probability = resize_map(probability, (rows, columns))
        return np.floor(255 * probability.astype(np.float64)) / 255

    def classify(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the network's probabilities for pixels uint8 N×H×W×3, for deletion and insertion."""
        from jcs_ct.inference import apply

        return np.array([apply.classify(SliceImage("", "", one), self.network) for one in pixels])

    def flags(self, case: Case) -> tuple[str, ...]:
        """Return what spoke against a slice that was read."""
        return self._flags.get(case.key, ())

    def report(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Return what `scores.json` says of the slices that were scored: "guard" and "training_data"."""
        scored = list(cases)
        flagged = {case.name: list(flags) for case in scored if (flags := self._flags.get(case.key))}
        return {
            "guard": {"flagged": len(flagged), "slices": flagged},
            "training_data": self._training_data(scored),
        }

    def _training_data(self, scored: list[Case]) -> dict[str, Any]:
        name = self.network.card.name
        if self.learned is None:
            text = f"{name} does not say which slices it was trained on: whether these were among them is not known"
            return {"known": False, "text": text}
        same, similar = ([c.name for c in scored if self._known.get(c.key) == kind] for kind in ("same", "similar"))
        seen, share = len(same) + len(similar), (len(same) + len(similar)) / max(1, len(scored))
        if seen:
            text = (
                f"{seen} of {len(scored)} slices ({100 * share:.0f} %) are among those that {name} was trained on "
                f"({len(same)} pixel for pixel, {len(similar)} nearly the same): scores on them are too good; "
                "score slices of other patients"
            )
        else:
            text = (
                f"none of the {len(scored)} slices was found among the {len(self.learned):,} that {name} was trained on"
            )
        return {
            "known": True,
            "trained_on": len(self.learned),
            "seen": seen,
            "share": share,
            "same": same,
            "similar": similar,
            "text": text,
        }


def with_flags(
    rows: Iterable[dict[str, Any]], cases: Sequence[Case], reader: SliceReader | None
) -> list[dict[str, Any]]:
    """Return a table of slices, a row a case, with a last column of their flags, "; " between them.

    `reader` is what read them; None where no network did.
    """
    found = (guard_of_file(case) if reader is None else reader.flags(case) for case in cases)
    return [{**row, "flags": "; ".join(flags)} for row, flags in zip(rows, found, strict=True)]


def guard(case: Case, item: SliceImage | StageOneFeatures, *, strict: bool) -> tuple[str, ...]:
    """Return what `diagnose` would say against a slice: of a picture itself, of a volume's slices all alike.

    Raises InputError where there is something, and `strict`.
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
        return flags_of(read_slice(source_of(case)))
    except InputError as problem:
        return (f"could not be read: {problem.message}",)


@lru_cache(maxsize=8)
def volume_flags(path: str) -> tuple[CodedWarning, ...]:
    """Return what makes a verdict on a volume unreliable, or has `diagnose` refuse it. It is read for that, once.

    Raises InputError where it cannot be read at all.
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
