"""What runs on a study, and how it is looked at."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

from jcs_ct.core.errors import UsageError
from jcs_ct.study.rules import LEAST_SLICES, RULES, Rule, TopK, rule
from jcs_ct.study.whole_study import NAME, WholeStudy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.inference import Network
    from jcs_ct.weights import WeightsCard


RULE_NAMES = (NAME, *RULES)
"""Every patient rule; the first is the usual one."""


class UsedNetwork(NamedTuple):
    """A network that has run, as results name it.

    Attributes:
        card: Of its weights.
        covid_threshold: The probability from which a slice counts as COVID-19; None where it gives none.
        lesion_threshold: The probability from which a pixel counts as lesion; None where it gives none.
        runtime: What executed it.
        fits: Digests of what its numbers depend on (`WeightsCard.fit`), one for each of an ensemble's members.
    """

    card: WeightsCard
    covid_threshold: float | None
    lesion_threshold: float | None
    runtime: str
    fits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Networks:
    """What runs on a study.

    Attributes:
        screen: Gives each slice its probability: `jcs-lite` or a classifier.
        segment: Gives lesions: a segmenter, `jcs-lite` itself (the same object) where it is alone, or None.
    """

    screen: Network
    segment: Network | None

    @property
    def one_pass(self) -> bool:
        """Whether one pass gives everything."""
        return self.screen is self.segment

    @property
    def usual_segment(self) -> Literal["always", "positive"]:
        """Which studies have their lesions sought unless told: with one pass they cost nothing."""
        return "always" if self.one_pass else "positive"

    @property
    def all(self) -> list[Network]:
        """Each of them once."""
        return [self.screen] if self.one_pass or self.segment is None else [self.screen, self.segment]

    def expect(self, slices: int) -> None:
        """Have all of them take the runtime that pays for so many slices (`jcs_ct.inference.Network.expect`)."""
        for network in self.all:
            network.expect(max(1, slices))

    @property
    def separate_segmenter(self) -> Network | None:
        """What finds lesions, where that is not what screens."""
        return None if self.one_pass else self.segment

    def used(self) -> tuple[UsedNetwork, UsedNetwork | None]:
        """Return what `screen` and `segment` are, after they have run."""
        screen = _used(self.screen)
        return screen, screen if self.one_pass else None if self.segment is None else _used(self.segment)

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Networks:
        """Return the roles of networks; several of one architecture are an ensemble.

        Raises:
            UsageError: They do not make a pipeline.
        """
        from jcs_ct.inference.ensemble import grouped_by_architecture

        networks = grouped_by_architecture(networks)
        screens = [n for n in networks if n.spec.gives_probability]
        segmenters = [n for n in networks if n.spec.gives_lesions and not n.spec.gives_probability]
        if len(screens) == 1 and len(segmenters) <= 1 and len(networks) == 1 + len(segmenters):
            screen = screens[0]
            return cls(screen, segmenters[0] if segmenters else screen if screen.spec.one_pass else None)
        if len(screens) > 1 or len(segmenters) > 1:
            raise UsageError("both models do the same", hint="give one that classifies and one that segments")
        raise UsageError(
            f"{' and '.join(n.card.name for n in networks)} cannot diagnose: a probability is needed",
            hint="give jcs-lite, a classifier, or one of them and a segmenter (--model twice)",
        )


@dataclass(frozen=True)
class Settings:
    """How a study is looked at.

    Attributes:
        rule: Name of the patient rule, see `jcs_ct.study.rules`; `whole-study` means top-k where weights have no rule
            of that name, or a case does not show what it looks at.
        segment: Lesions of every study, of those with a positive verdict, or of none.
        frames: Whether pictures for the report are made.
        language: Of report.html, see `jcs_ct.outputs.report.language`.
        pdf: Whether the report is also laid out for paper; it needs `frames`.
    """

    rule: str = NAME
    segment: Literal["always", "positive", "never"] = "always"
    frames: bool = True
    language: str = "en"
    pdf: bool = False


def _used(network: Network) -> UsedNetwork:
    spec = network.spec
    return UsedNetwork(
        network.card,
        network.covid_threshold if spec.gives_probability else None,
        network.threshold if spec.gives_lesions else None,
        network.runtime,
        fits_of(network),
    )


def rule_for(name: str, patient: tuple[float, float] | None) -> Rule:
    """Return the patient rule of a name that probabilities are enough for, top-k as it was fitted.

    Raises UsageError for an unknown name.
    """
    if name not in RULE_NAMES:
        raise UsageError(f"no patient rule is called {name!r}", hint=f"known: {', '.join(RULE_NAMES)}")
    chosen = rule(TopK().name if name == NAME else name)
    if isinstance(chosen, TopK) and patient is not None:
        return replace(chosen, slope=patient[0], intercept=patient[1], fitted_from=LEAST_SLICES)
    return chosen


def whole_study_rule(name: str, card: WeightsCard) -> WholeStudy | None:
    """Return the rule of weights that was fitted on whole studies, where it was asked for and they have one.

    Raises WeightsError where what the card holds is no such rule.
    """
    return WholeStudy.from_dict(card.whole_study) if name == NAME and card.whole_study is not None else None


def fits_of(network: Network) -> tuple[str, ...]:
    """Return the digests of what the numbers of a network depend on, see `UsedNetwork`."""
    return tuple(card.fit() for card in network.cards)


def cards_fit(*fits: tuple[str, ...]) -> str:
    """Return one digest of those of all networks that ran, in the order of their roles."""
    return hashlib.sha256(json.dumps(fits).encode()).hexdigest()[:16]


def rule_fit(card: WeightsCard) -> str:
    """Return a digest of the fitted patient rules of weights: another fit of the same weights gives other verdicts."""
    return hashlib.sha256(json.dumps([card.patient, card.whole_study], sort_keys=True).encode()).hexdigest()[:16]
