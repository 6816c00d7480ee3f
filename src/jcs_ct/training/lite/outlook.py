"""What a run of `jcs-lite` can learn, and what its held-out fold can score: looked at before the first step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError, JcsError, UsageError
from jcs_ct.datasets.slices import read_sample
from jcs_ct.training.outlook import UNDEFINED, only_label, some_masks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Sample
    from jcs_ct.datasets.slices import Pixels
    from jcs_ct.training.fingerprint import Fingerprint
    from jcs_ct.training.lite.config import LiteConfig
    from jcs_ct.training.lite.corpus import Corpus

Key = tuple["Path", int | None]
NAMED = 10  # faults that a message names


@dataclass(frozen=True)
class LiteOutlook:
    """What can be said before a run starts.

    Attributes:
        lacking: What the network cannot learn from these slices, a line each.
        undefined: Score ("dice", "auc") → why it cannot be computed.
    """

    lacking: tuple[str, ...] = ()
    undefined: Mapping[str, str] = field(default_factory=dict)

    @property
    def warnings(self) -> list[str]:
        """What to say before the first step."""
        scores = [f"warning: the held-out {name} is {UNDEFINED} {why}" for name, why in self.undefined.items()]
        return [*(f"warning: {line}" for line in self.lacking), *scores]


def with_lesions(samples: Sequence[Sample], read: Callable[[int], Pixels] | None = None) -> set[Key]:
    """Read every slice, so that bad data ends a run at its start; return those whose mask holds a lesion.

    Slices of one volume are best next to each other. `read` reads one by its position (None: from its file). Raises
    InputError where some cannot be read, with the names of the first ten.
    """
    found: set[Key] = set()
    bad: list[str] = []
    for position, sample in enumerate(samples):
        try:
            mask = (read_sample(sample) if read is None else read(position)).mask
        except JcsError as error:
            bad.append(error.line())
            continue
        if mask is not None and mask.any():
            found.add((sample.path, sample.index))
    if bad:
        more = f"; and {len(bad) - NAMED} more" if len(bad) > NAMED else ""
        raise InputError(
            f"{len(bad)} slice{'s' * (len(bad) != 1)} cannot be trained on: {'; '.join(bad[:NAMED])}{more}",
            hint="repair them, or remove them from the data set",
        )
    return found


def outlook_of(config: LiteConfig, corpus: Corpus, lesions: set[Key]) -> LiteOutlook:
    """Return what can be learned and scored, where `lesions` are what `with_lesions` found among the slices.

    Raises UsageError where there is nothing to learn.
    """
    drawn = corpus.drawn(config)
    if not drawn:
        raise UsageError(
            "no step would draw a slice",
            path=config.data[0],
            hint="see --labelled, --lesions and --quiet-slices; `jcs data check` shows what the data set holds",
        )
    one = only_label(drawn)
    seen = any((s.path, s.index) in lesions for s in drawn)
    if one is not None and not seen:
        raise UsageError(
            f"has nothing to learn: all {len(drawn):,} slices to train on have {one}, and no lesion is in "
            f"{some_masks(drawn)} of them",
            path=config.data[0],
            hint="add slices of the other class, or slices with lesions",
        )
    lacking = []
    if one is not None:
        lacking.append(f"the probability learns nothing: all {len(drawn):,} slices to train on have {one}")
    if not seen:
        lacking.append(f"the lesion maps learn nothing: no lesion is in {some_masks(drawn)} of the slices to train on")
    return LiteOutlook(tuple(lacking), _undefined(corpus.held, lesions) if corpus.held else {})


def _undefined(held: Sequence[Sample], lesions: set[Key]) -> dict[str, str]:
    found = {}
    if not any((s.path, s.index) in lesions for s in held):
        found["dice"] = f"no lesion is in {some_masks(held)} of the slices that are held out"
    sources = {s.source for s in held if s.label is not None}
    if not any(only_label([s for s in held if s.source == source]) is None for source in sources):
        found["auc"] = "no source has labels of both classes among the slices that are held out"
    return found


def refuse_copies(config: LiteConfig, now: Fingerprint) -> None:
    """Refuse slices of which one copy is trained on and another held out. Raises InputError."""
    parts: dict[str, set[str]] = {}
    for entry in now.entries:
        parts.setdefault(entry.content, set()).add(entry.part)
    both = [e.name for e in now.entries if len(parts[e.content]) > 1]
    if both:
        raise InputError(
            f"{len(both)} slices are trained on and held out, some under several names: {', '.join(both[:NAMED])}",
            path=config.data[0],
            hint="keep all copies of a slice in one fold; `jcs data split --join-duplicates` does",
        )
