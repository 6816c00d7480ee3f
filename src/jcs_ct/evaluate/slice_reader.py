"""Where a slice comes in before a network is scored on it: read once, looked at, compared with the training data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.app.each_slice import read_input, read_picture
from jcs_ct.core.types import SliceImage
from jcs_ct.datasets.slices import pixels_of
from jcs_ct.datasets.training_slices import seen_in_training
from jcs_ct.evaluate.guard import guard, guard_of_file, source_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from jcs_ct.core.types import StageOneFeatures
    from jcs_ct.datasets.training_slices import Likeness, TrainingSlices
    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.inference import Network


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

        Raises:
            InputError: It cannot be read, or it was flagged and the reader is strict.
        """
        item = read_input(source_of(case), self.network) if case.sample.index is None else _of_volume(case)
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
    """Return a table of slices with a last column of their flags, "; " between them.

    Args:
        rows: One a case.
        cases: The slices, in the same order.
        reader: What read them; None where no network did.
    """
    found = (guard_of_file(case) if reader is None else reader.flags(case) for case in cases)
    return [{**row, "flags": "; ".join(flags)} for row, flags in zip(rows, found, strict=True)]


def _of_volume(case: Case) -> SliceImage:
    """Return a slice of a volume as networks see it."""
    return SliceImage(case.key, case.key, pixels_of(case.sample))
