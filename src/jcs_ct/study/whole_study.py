"""The patient rule `whole-study`: a logistic model of a few numbers of a whole volume, with what its fit is sure of.

Fitted on whole studies with known answers, of which there are few. So the features are few, each stands on one scale
(its mean and deviation over the studies of the fit), their weights have a normal prior of `PRIOR`, and the posterior is
taken to be normal (MacKay, "The evidence framework applied to classification networks", 1992). Where the interval of
the log-odds reaches across the limit, the verdict is *indeterminate*: another few studies could have turned it round.
No torch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.special import expit, logit, ndtri

from jcs_ct.core.errors import UsageError, WeightsError
from jcs_ct.study.rules import Term, TopK, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NAME = "whole-study"
PRIOR = 1.0  # standard deviation of a weight, in log-odds for each standard deviation of its feature
WIDE = 10.0  # of the intercept: it follows the studies
LEAST_SHARE = 1e-4  # of the lungs; less is no less


class Evidence(NamedTuple):
    """What is known of a study.

    Attributes:
        probabilities: Of the slices that were looked at, in [0, 1], at least one.
        positive: Whether each of them is, by the threshold of the network.
        affected: Share of the lungs that is lesion, in [0, 1].
    """

    probabilities: Sequence[float]
    positive: Sequence[bool]
    affected: float


class Feature(NamedTuple):
    """A number of a study.

    Attributes:
        words: What it is, for a reader; `{}` is its value.
        value: Its value, a share in [0, 1].
        scaled: What the model adds up.
    """

    words: str
    value: Callable[[Evidence], float]
    scaled: Callable[[float], float]


def _log_odds(p: float) -> float:
    return float(logit(min(max(p, 1e-6), 1 - 1e-6)))


FEATURES: dict[str, Feature] = {
    "affected": Feature(
        "{} of the lung volume is marked as lesion",
        lambda study: study.affected,
        lambda share: float(np.log10(max(share, LEAST_SHARE))),
    ),
    "highest": Feature(
        "the most suspicious tenth of the slices averages {}",
        lambda study: float(expit(TopK().evidence(study.probabilities))),
        _log_odds,
    ),
    "extent": Feature(
        "{} of the slices with lung are positive",
        lambda study: float(np.mean(study.positive)),
        lambda share: share,
    ),
}
"""Every feature that a rule may use; which ones it does is part of its fit."""


def values_of(study: Evidence, features: Sequence[str]) -> list[float]:
    """Return the values of features, keys of `FEATURES`."""
    return [FEATURES[name].value(study) for name in features]


@dataclass(frozen=True)
class WholeStudy:
    """The fitted rule.

    Attributes:
        features: Keys of `FEATURES`.
        mean, deviation: Of each scaled feature over the studies of the fit.
        weights: Log-odds: the intercept, then one for each feature.
        covariance: Of the weights, as many rows and columns.
        confidence: Of the interval, in (0, 1).
        limit: Positive where the probability reaches this.
        studies, positives: How many it was fitted on, and how many of them had the disease.
    """

    features: tuple[str, ...]
    mean: tuple[float, ...]
    deviation: tuple[float, ...]
    weights: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    confidence: float
    limit: float
    studies: int
    positives: int

    def __call__(self, study: Evidence) -> Verdict:
        """Judge one study."""
        return self.judge(values_of(study, self.features))

    def judge(self, values: Sequence[float]) -> Verdict:
        """Judge a study of which the values of the features are known."""
        row = np.array([1.0, *self._standard(values)])
        weights = np.array(self.weights)
        middle = float(row @ weights)
        reach = float(ndtri(0.5 + self.confidence / 2) * np.sqrt(row @ np.array(self.covariance) @ row))
        low, high = float(expit(middle - reach)), float(expit(middle + reach))
        terms = tuple(map(Term, self.features, values, (row * weights)[1:].tolist()))
        score = float(expit(middle))
        sure = (low, high), self.confidence, terms, self.studies
        verdict = Verdict(NAME, score, self.limit, low >= self.limit, *sure)
        assert verdict.positive == (verdict.call == "positive")  # noqa: S101  # one story
        return verdict

    def _standard(self, values: Sequence[float]) -> list[float]:
        scaled = [FEATURES[name].scaled(value) for name, value in zip(self.features, values, strict=True)]
        return [(v - m) / d for v, m, d in zip(scaled, self.mean, self.deviation, strict=True)]

    @classmethod
    def fit(
        cls,
        studies: Sequence[Sequence[float]],
        labels: Sequence[int],
        features: Sequence[str],
        *,
        confidence: float,
        limit: float = 0.5,
        prior: float = PRIOR,
    ) -> WholeStudy:
        """Return the rule of greatest posterior probability on studies with known answers.

        Both classes weigh the same, whatever their numbers: how common the disease is where the rule will be used is
        not known from the studies of a fit.

        Args:
            studies: The values of the features (see `values_of`) of each, at least two studies of each class.
            labels: 1 with the disease, 0 without, one each.
            features: Keys of `FEATURES`.
            confidence: Of the interval.
            limit: Of the probability.
            prior: Standard deviation of a weight.

        Raises:
            UsageError: Lengths differ, a class has fewer than two studies, or a feature is not known.
        """
        truth = np.asarray(labels, dtype=np.float64)
        if len(truth) != len(studies) or min(truth.sum(), (1 - truth).sum()) < 2:
            raise UsageError(
                f"{len(studies)} studies with {int(truth.sum())} of {len(truth)} labels positive were given; "
                "as many labels as studies, and two studies of each class, are expected"
            )
        if unknown := [name for name in features if name not in FEATURES]:
            raise UsageError(f"no feature is called {unknown[0]!r}", hint=f"known: {', '.join(FEATURES)}")
        scaled = np.array([[FEATURES[f].scaled(v) for f, v in zip(features, row, strict=True)] for row in studies])
        mean, deviation = scaled.mean(axis=0), np.maximum(scaled.std(axis=0), 1e-9)
        rows = np.column_stack([np.ones(len(scaled)), (scaled - mean) / deviation])
        share = np.where(truth == 1, 0.5 / truth.sum(), 0.5 / (1 - truth).sum()) * len(truth)
        precision = 1 / np.array([WIDE, *[prior] * len(features)]) ** 2
        weights, covariance = _posterior(rows, truth, share, precision)
        return cls(
            tuple(features),
            tuple(mean.tolist()),
            tuple(deviation.tolist()),
            tuple(weights.tolist()),
            tuple(tuple(line) for line in covariance.tolist()),
            confidence,
            limit,
            len(truth),
            int(truth.sum()),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the rule as JSON values, as the card of weights holds it."""
        values = asdict(self)
        return {k: [list(v) if isinstance(v, tuple) else v for v in value] if isinstance(value, tuple) else value
                for k, value in values.items()}  # fmt: skip

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> WholeStudy:
        """Return the rule that a card holds. Raises WeightsError where its parts do not fit together."""
        try:
            features = tuple(values["features"])
            number = len(features)
            mean, deviation, weights = (tuple(map(float, values[name])) for name in ("mean", "deviation", "weights"))
            covariance = np.asarray(values["covariance"], dtype=np.float64)
            confidence, limit = float(values["confidence"]), float(values["limit"])
            counts = int(values["studies"]), int(values["positives"])
        except (KeyError, TypeError, ValueError) as error:
            raise WeightsError(f"holds no whole-study rule: {error!r:.80}") from error
        sound = (
            set(features) <= FEATURES.keys()
            and len(mean) == len(deviation) == number
            and len(weights) == number + 1
            and covariance.shape == (number + 1, number + 1)
            and np.isfinite([*mean, *deviation, *weights, *covariance.ravel()]).all()
            and min(deviation, default=0.0) > 0
            and bool((np.linalg.eigvalsh(covariance) >= -1e-9).all())
            and 0 < confidence < 1
            and 0 < limit < 1
        )
        if not sound:
            raise WeightsError("holds a whole-study rule whose numbers do not fit together")
        lines = tuple(tuple(line) for line in covariance.tolist())
        return cls(features, mean, deviation, weights, lines, confidence, limit, *counts)


def _posterior(rows: Floats, truth: Floats, share: Floats, precision: Floats) -> tuple[Floats, Floats]:
    """Return the most probable weights of a logistic model with a normal prior, and their covariance there.

    Args:
        rows: studies × weights.
        truth: 0 or 1 each.
        share: How much each study weighs.
        precision: Of the prior, one over the variance of each weight.
    """
    from scipy.optimize import minimize

    def loss(weights: Floats) -> tuple[float, Floats]:
        z = rows @ weights
        value = float(np.sum(share * (np.logaddexp(0, z) - truth * z)) + 0.5 * np.sum(precision * weights**2))
        return value, rows.T @ (share * (expit(z) - truth)) + precision * weights

    found = minimize(loss, np.zeros(rows.shape[1]), jac=True, method="BFGS", options={"gtol": 1e-9})
    p = expit(rows @ found.x)
    curvature = (rows * (share * p * (1 - p))[:, None]).T @ rows + np.diag(precision)
    return found.x, np.linalg.inv(curvature)
