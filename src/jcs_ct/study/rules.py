"""From the COVID-19 probabilities of a patient's slices to a verdict: named rules. No torch.

| rule | positive when | known faults |
| --- | --- | --- |
| `release-count` | more than 18 slices have p ≥ 0.5 | the release's; blind to how many slices there are |
| `fraction` | at least 10 % of the slices have p ≥ 0.5 | the limit is a choice, not a measurement |
| `top-k` | the aggregate of the 10 % highest slices reaches 0.5 | needs `TopK.fit` on patients to be calibrated |

A fourth, `whole-study`, sees more than probabilities: `jcs_ct.study.whole_study`.

The score of a rule is what its limit is compared with; patients can be ranked by it (ROC curve).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

import numpy as np
from scipy.special import expit, logit

from jcs_ct.core.errors import ShapeError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import ArrayLike, NDArray

_CLIP = 1e-6  # probabilities of 0 and 1 have no finite log-odds
LEAST_SLICES = 8  # of a patient on whom top-k is fitted for shipped weights


Call = Literal["positive", "negative", "indeterminate"]


class Term(NamedTuple):
    """One number that a verdict follows from.

    Attributes:
        feature: Its name, a key of `jcs_ct.study.whole_study.FEATURES`.
        value: What was measured, in the feature's own unit.
        effect: What it adds to the log-odds of COVID-19, against the mean of the studies that the rule was fitted on.
    """

    feature: str
    value: float
    effect: float


@dataclass(frozen=True)
class Verdict:
    """What a rule says about one patient.

    Attributes:
        rule: Its name.
        score: What was compared: a number of slices, a share, or a probability.
        limit: What the score had to reach.
        positive: Whether it did, and the rule is sure of it.
        interval: Of the score, as far as the fit of the rule is sure; None of rules that were not fitted with one.
        confidence: Of the interval, in (0, 1).
        terms: What the score follows from, where the rule was fitted on whole studies.
        studies: How many those were; None of other rules.
    """

    rule: str
    score: float
    limit: float
    positive: bool
    interval: tuple[float, float] | None = None
    confidence: float | None = None
    terms: tuple[Term, ...] = ()
    studies: int | None = None

    @property
    def call(self) -> Call:
        """The verdict in a word; "indeterminate" where the interval reaches across the limit."""
        if self.interval is not None and self.interval[0] < self.limit <= self.interval[1]:
            return "indeterminate"
        return "positive" if self.positive else "negative"


class Rule(Protocol):
    """A rule: called with the probabilities of one patient's slices (in [0, 1], at least one), gives the verdict."""

    @property
    def name(self) -> str:
        """What it is called in reports."""
        ...

    def __call__(self, probabilities: ArrayLike) -> Verdict:
        """Judge one patient. Raises ShapeError without slices, or for values outside of [0, 1]."""
        ...


def _checked(probabilities: ArrayLike) -> NDArray[np.float64]:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.ndim != 1 or not p.size:
        raise ShapeError(f"slice probabilities are {p.shape}; a list of at least one is expected")
    if not (p.min() >= 0 and p.max() <= 1):
        raise ShapeError(f"slice probabilities go from {p.min():g} to {p.max():g}; 0 to 1 without NaN is expected")
    return p


@dataclass(frozen=True)
class Count:
    """The release's rule: more than `more_than` positive slices, whatever the study's length.

    Attributes:
        more_than: Number of slices.
        threshold: A slice is positive where its probability reaches this.
    """

    more_than: int = 18
    threshold: float = 0.5
    name: str = "release-count"

    def __call__(self, probabilities: ArrayLike) -> Verdict:
        """Judge one patient, see `Rule`."""
        found = int(np.count_nonzero(_checked(probabilities) >= self.threshold))
        return Verdict(self.name, found, self.more_than + 1, found > self.more_than)


@dataclass(frozen=True)
class Fraction:
    """At least the share `at_least` of the slices is positive.

    Attributes:
        at_least: In (0, 1].
        threshold: A slice is positive where its probability reaches this.
    """

    at_least: float = 0.1
    threshold: float = 0.5
    name: str = "fraction"

    def __call__(self, probabilities: ArrayLike) -> Verdict:
        """Judge one patient, see `Rule`."""
        share = float(np.mean(_checked(probabilities) >= self.threshold))
        return Verdict(self.name, share, self.at_least, share >= self.at_least)


@dataclass(frozen=True)
class TopK:
    """A patient's probability: σ(slope · x + intercept), x the mean log-odds of the highest slices.

    The lesions of a patient fill some slices only, and how many slices there are depends on the scanner: a fixed share
    of the highest ones depends on neither. Slope and intercept (Platt scaling) are fitted on patients.

    Attributes:
        share: Of the slices that count, in (0, 1]; at least one slice does.
        slope: Below 1 where neighbouring slices agree in being over-confident.
        intercept: Makes up for the bias of taking the highest.
        limit: Positive where the probability reaches this.
        fitted_from: Fewest slices for which slope and intercept hold in full. There is nothing to choose the highest
            from in one slice, whose own probability stands; between them both count by log n / log `fitted_from`, as
            the highest of n grows.
    """

    share: float = 0.1
    slope: float = 1.0
    intercept: float = 0.0
    limit: float = 0.5
    name: str = "top-k"
    fitted_from: int = 1

    def evidence(self, probabilities: ArrayLike) -> float:
        """Return x: the mean log-odds of the highest slices, each clipped to ±13.8 (p = 10⁻⁶ …)."""
        p = np.sort(_checked(probabilities).clip(_CLIP, 1 - _CLIP))[::-1]
        return float(logit(p[: max(1, round(self.share * p.size))]).mean())

    def __call__(self, probabilities: ArrayLike) -> Verdict:
        """Judge one patient, see `Rule`."""
        evidence, n = self.evidence(probabilities), np.size(probabilities)
        part = 1.0 if n >= self.fitted_from else float(np.log(n) / np.log(self.fitted_from))
        score = float(expit((1 + part * (self.slope - 1)) * evidence + part * self.intercept))
        return Verdict(self.name, score, self.limit, score >= self.limit)

    def fit(self, patients: Sequence[ArrayLike], labels: Sequence[int]) -> TopK:
        """Return the rule with slope and intercept of greatest likelihood on these patients.

        Platt, "Probabilistic outputs for support vector machines", 1999: the targets are (n₊ + 1) / (n₊ + 2) and
        1 / (n₋ + 2) instead of 1 and 0, so that patients who can be separated give a finite slope. A negative slope,
        which would turn the network's answer round, becomes 0.

        Args:
            patients: The slice probabilities of each patient.
            labels: 0 or 1 each, both at least once.

        Raises:
            ShapeError: See `Rule`.
            UsageError: Lengths differ, or a class is missing.
        """
        from scipy.optimize import minimize

        truth = np.asarray(labels, dtype=bool)
        if len(truth) != len(patients) or truth.all() or not truth.any():
            raise UsageError(
                f"{len(patients)} patients with {int(truth.sum())} of {len(truth)} labels positive were given; "
                "as many labels as patients, of both classes, are expected"
            )
        x = np.array([self.evidence(p) for p in patients])
        positives, negatives = int(truth.sum()), int((~truth).sum())
        target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))

        def loss(parameters: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            z = parameters[0] * x + parameters[1]
            gap = expit(z) - target
            return float(np.sum(np.logaddexp(0, z) - target * z)), np.array([np.sum(gap * x), np.sum(gap)])

        found = minimize(loss, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[(0, None), (None, None)])
        return replace(self, slope=float(found.x[0]), intercept=float(found.x[1]))


RULES: dict[str, Rule] = {rule.name: rule for rule in (Count(), Fraction(), TopK())}


def rule(name: str) -> Rule:
    """Return a rule by name. Raises UsageError with the known names for an unknown one."""
    if name not in RULES:
        raise UsageError(f"no patient rule is called {name!r}", hint=f"known: {', '.join(RULES)}")
    return RULES[name]
