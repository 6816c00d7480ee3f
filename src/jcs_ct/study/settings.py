"""What runs on a study, and how it is looked at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from jcs_ct.core.errors import UsageError
from jcs_ct.study.rules import Rule, TopK, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.inference import Network


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

    @classmethod
    def of(cls, networks: Sequence[Network]) -> Networks:
        """Return the roles of networks; several of one architecture are an ensemble.

        Raises:
            UsageError: They do not make a pipeline.
        """
        from jcs_ct.inference.ensemble import joined

        by_task: dict[str, Network] = {}
        for network in joined(networks):
            if network.spec.task in by_task:
                raise UsageError(
                    f"two models do {network.spec.task}", hint="give one that screens and one that segments"
                )
            by_task[network.spec.task] = network
        if set(by_task) == {"lite"}:
            return cls(by_task["lite"], by_task["lite"])
        screens = [by_task.pop(task) for task in ("classification", "lite") if task in by_task]
        if len(screens) == 1 and set(by_task) <= {"segmentation"}:
            return cls(screens[0], by_task.get("segmentation"))
        raise UsageError(
            f"{' and '.join(n.card.name for n in networks)} cannot diagnose: a probability is needed",
            hint="give jcs-lite, a classifier, or one of them and a segmenter (--model twice)",
        )


@dataclass(frozen=True)
class Settings:
    """How a study is looked at.

    Attributes:
        rule: Name of the patient rule, see `jcs_ct.study.rules`.
        segment: Lesions of every study, of those with a positive verdict, or of none.
        frames: Whether pictures for the report are made.
    """

    rule: str = "top-k"
    segment: Literal["always", "positive", "never"] = "always"
    frames: bool = True


def rule_for(name: str, patient: tuple[float, float] | None) -> Rule:
    """Return the patient rule of a name, top-k as it was fitted. Raises UsageError for an unknown name."""
    chosen = rule(name)
    if isinstance(chosen, TopK) and patient is not None:
        return replace(chosen, slope=patient[0], intercept=patient[1])
    return chosen
