"""Several networks of one task as one: the mean of their probabilities.

Members look at the same image, each with its own temperature; probabilities of lesion and of COVID-19 are averaged
(not logits: a member that is sure should not silence the others), evidence of attention likewise.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit, logit

from jcs_ct.core.errors import UsageError
from jcs_ct.inference.network import Network, OnePass

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from torch import nn

    from jcs_ct.inference.choice import Choice
    from jcs_ct.weights import WeightsCard

EDGE = 1e-7  # probabilities of 0 and 1 have no finite logit


class Ensemble(Network):
    """Networks of one architecture and one recipe that answer together.

    Args:
        members: At least two.

    Raises:
        UsageError: They differ in architecture, recipe, mirror image or classes, or one is given twice.
    """

    def __init__(self, members: Sequence[Network]) -> None:
        first = members[0]
        for other in members[1:]:
            for what in ("architecture", "recipe", "mirror", "classes"):
                one, two = getattr(first.card, what), getattr(other.card, what)
                if one != two:
                    raise UsageError(
                        f"{first.card.name} and {other.card.name} differ in {what} ({one}, {two})",
                        hint="an ensemble is of networks that were trained the same way",
                    )
        digests = [member.card.weights_sha256 for member in members]
        if len(set(digests)) < len(digests):
            raise UsageError(f"{first.card.name} is given twice", hint="an ensemble is of different weights")
        super().__init__(None, _card_of([member.card for member in members]), first.device)
        self.members = tuple(members)

    def module(self, inputs: str = "image") -> nn.Module:  # noqa: ARG002  # as of one network
        """Raise UsageError: there is no single network whose gradients explain the mean."""
        raise UsageError(
            f"{self.card.name} is an ensemble, which has no layers of its own", hint="explain its members one by one"
        )

    def expect(self, slices: int) -> None:
        """See `Network.expect`."""
        self.slices = slices
        for member in self.members:
            member.expect(slices)

    def start(self, inputs: str = "image") -> Choice:
        """Start every member, and return how the first one runs. Raises as `Network.start`."""
        for member in self.members:
            member.expect(self.slices)
        choices = [member.start(inputs) for member in self.members]
        return choices[0]

    @property
    def cards(self) -> tuple[WeightsCard, ...]:
        """The cards of the members, each with a temperature of its own."""
        return tuple(card for member in self.members for card in member.cards)

    @property
    def runtime(self) -> str:
        """The runtimes of the members, each once."""
        return "+".join(dict.fromkeys(member.runtime for member in self.members))

    def logits(self, arrays: Sequence[NDArray[np.float32]], inputs: str = "image") -> NDArray[np.float32]:
        """Return the finest map 1×H×W of a segmenter, or the 2 logits of a classifier, see `Network.logits`."""
        every = [member.logits(arrays, inputs) for member in self.members]
        if self.spec.classifies_only:
            return _class_logits(every)
        return _of_mean([maps[:1] for maps in every])

    def class_pass(self, values: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """Return logits and evidence of a classifier, see `Network.class_pass`; None where a member has no evidence."""
        found = [member.class_pass(values) for member in self.members]
        known = [pair for pair in found if pair is not None]
        if len(known) < len(found):
            return None
        evidence: NDArray[np.float32] = np.mean([pair[1] for pair in known], axis=0, dtype=np.float32)
        return _class_logits([pair[0] for pair in known]), evidence

    def passes(self, batch: Sequence[NDArray[np.float32]]) -> list[OnePass]:
        """Run slices through every member, see `Network.passes`."""
        every = [member.passes(batch) for member in self.members]
        return [
            OnePass(
                float(_of_mean([np.float32(one.logit) for one in ones])),
                np.mean([one.evidence for one in ones], axis=0, dtype=np.float32),
                _of_mean([one.lesion for one in ones]),
            )
            for ones in zip(*every, strict=True)
        ]

    @contextmanager
    def concurrent_calls(self, slices: int) -> Iterator[int]:  # noqa: ARG002  # one caller whatever comes
        """Yield 1: members take turns, and each has all processors."""
        yield 1


def _of_mean(logits: Sequence[NDArray[np.float32] | np.float32]) -> NDArray[np.float32]:
    """Return the logit of the mean probability."""
    p = np.mean([expit(np.asarray(values, np.float64)) for values in logits], axis=0)
    found: NDArray[np.float32] = np.asarray(logit(p.clip(EDGE, 1 - EDGE)), np.float32)
    return found


def _class_logits(logits: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return two logits with the mean probability of COVID-19, the last class."""
    between = _of_mean([np.float32(pair[1] - pair[0]) for pair in logits])
    return np.array([0.0, float(between)], np.float32)


def _card_of(cards: Sequence[WeightsCard]) -> WeightsCard:
    first, names = cards[0], [card.name for card in cards]
    digest = hashlib.sha256("".join(sorted(card.weights_sha256 for card in cards)).encode()).hexdigest()
    return replace(
        first,
        name="+".join(names),
        source_file=", ".join(card.source_file for card in cards),
        source_kind="ensemble",
        source_sha256=digest,
        weights_sha256=digest,
        threshold=_mean([card.threshold for card in cards]),
        covid_threshold=_mean([card.covid_threshold for card in cards]),
        threshold_from=f"mean of the thresholds of {', '.join(names)}",
        temperature=1.0,
        patient=_patient([card.patient for card in cards]),
        whole_study=None,  # fitted on what one network marks
        trained_on="; ".join(dict.fromkeys(card.trained_on for card in cards if card.trained_on)),
        notes=(f"mean of the probabilities of {len(cards)} networks: {', '.join(names)}", *first.notes[-1:]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if len(known) == len(values) else None


def _patient(rules: Sequence[tuple[float, float] | None]) -> tuple[float, float] | None:
    """Return the mean of the fitted patient rules: fitted to members, it is an approximation for their mean."""
    slope, intercept = _mean([r and r[0] for r in rules]), _mean([r and r[1] for r in rules])
    return None if slope is None or intercept is None else (slope, intercept)


def grouped_by_architecture(networks: Sequence[Network]) -> list[Network]:
    """Return the networks, those of one architecture made one ensemble, in the order they first came."""
    if len(networks) < 2:
        return list(networks)
    by_architecture: dict[str, list[Network]] = {}
    for network in networks:
        by_architecture.setdefault(network.spec.name, []).append(network)
    return [members[0] if len(members) == 1 else Ensemble(members) for members in by_architecture.values()]
