"""Probabilities against labels: per slice and per patient, overall and per source, with intervals over groups."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.version import __version__
from jcs_ct.evaluate.undefined import of_labels
from jcs_ct.metrics import Scored, bootstrap, calibration_error, compare, count
from jcs_ct.metrics.bootstrap import CONFIDENCE, RESAMPLES
from jcs_ct.metrics.classification import BINS
from jcs_ct.study.rules import RULES, TopK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.metrics.bootstrap import Statistic
    from jcs_ct.study.rules import Verdict

NAMES = ("auc", "average_precision", "sensitivity", "specificity", "accuracy", "ece")
FOLDS = 5
FEWEST = 10  # patients of each class, below which a fit of two numbers is not worth the name

_CALIBRATED = f"slope and intercept fitted on the other patients ({FOLDS} folds), so no patient judges itself"
_UNCALIBRATED = f"not calibrated: fewer than {FEWEST} patients of one class"


@dataclass(frozen=True)
class Slices:
    """Slices with their labels and one model's probabilities; the columns are parallel and of one length.

    Attributes:
        names: What they are called.
        labels: 1 = COVID-19, 0 = not.
        probabilities: In [0, 1].
        groups: The patient of each, or the slice's own name where patients are not known.
        sources: The hospital or collection of each, "" where it is not known.
    """

    names: tuple[str, ...]
    labels: tuple[int, ...]
    probabilities: tuple[float, ...]
    groups: tuple[str, ...]
    sources: tuple[str, ...]

    @classmethod
    def of_cases(cls, cases: Sequence[Case], probabilities: Mapping[str, float]) -> Slices:
        """Return the slices of a data set with the probabilities of their keys."""
        samples = [case.sample for case in cases]
        return cls(
            tuple(case.name for case in cases),
            tuple(int(sample.label or 0) for sample in samples),
            tuple(probabilities[case.key] for case in cases),
            tuple(case.group for case in cases),
            tuple(sample.source or "" for sample in samples),
        )

    def __len__(self) -> int:
        return len(self.names)

    def of(self, source: str) -> Slices:
        """Return the slices of one source."""
        return self._some([i for i, name in enumerate(self.sources) if name == source])

    def by_group(self) -> dict[str, Slices]:
        """Return the slices of each patient."""
        members: defaultdict[str, list[int]] = defaultdict(list)
        for i, group in enumerate(self.groups):
            members[group].append(i)
        return {group: self._some(indices) for group, indices in members.items()}

    def _some(self, indices: Sequence[int]) -> Slices:
        columns = (self.names, self.labels, self.probabilities, self.groups, self.sources)
        names, labels, probabilities, groups, sources = (tuple(column[i] for i in indices) for column in columns)
        return Slices(names, labels, probabilities, groups, sources)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Options:
    """How to score.

    Attributes:
        threshold: A slice is positive where its probability reaches this.
        resamples: Of the bootstrap; 0 for no intervals.
        seed: Of the bootstrap, and of the folds that the patient rule is calibrated on.
    """

    threshold: float = 0.5
    resamples: int = RESAMPLES
    seed: int = 0


def statistic(labels: Sequence[int], probabilities: Sequence[float], threshold: float) -> Statistic:
    """Return the scores of `NAMES` as a function of the slices' weights, for the bootstrap."""
    scored = Scored(labels, probabilities)

    def scores(weights: NDArray[np.float64] | None) -> dict[str, float]:
        ranking, counts = scored.rank(weights), scored.counts(threshold, weights)
        return {
            "auc": ranking.auc(),
            "average_precision": ranking.average_precision(),
            "sensitivity": counts.sensitivity(),
            "specificity": counts.specificity(),
            "accuracy": counts.accuracy(),
            "ece": calibration_error(labels, probabilities, BINS, weights),
        }

    return scores


def report(
    slices: Slices, options: Options, predictions: str, against: tuple[str, Slices] | None = None
) -> dict[str, Any]:
    """Return everything that `scores.json` holds.

    Args:
        slices: With the probabilities of the model.
        options: How to score.
        predictions: What the model is called.
        against: The name of another model, and the same slices with its probabilities; differences are first minus
            second.

    Raises:
        ShapeError: Nothing came, or a label or probability is out of range.
        UsageError: A number in `options` is out of range.
    """
    o = options
    sources = sorted(set(slices.sources) - {""})
    content: dict[str, Any] = {
        "task": "classification",
        "jcs_ct": __version__,
        "predictions": predictions,
        "threshold": o.threshold,
        "ece": {"bins": BINS, "definition": "bins of equal width over the probability of COVID-19"},
        "bootstrap": {"resamples": o.resamples, "seed": o.seed, "confidence": CONFIDENCE, "unit": "group"},
        "overall": _scores(slices, o),
        "per_source": {source: _scores(slices.of(source), o) for source in sources},
        "patients": patients(slices, o),
    }
    if why := undefined(slices):
        content["undefined"] = why
    if against is not None:
        name, other = against
        found = compare(
            statistic(slices.labels, slices.probabilities, o.threshold),
            statistic(other.labels, other.probabilities, o.threshold),
            slices.groups,
            resamples=o.resamples,
            seed=o.seed,
        )
        content["against"] = {"predictions": name, "overall": _scores(other, o)}
        content["difference"] = {
            "definition": "first minus second on the same resamples; above: share of resamples above 0",
            **{key: vars(value) for key, value in found.items()},
        }
    return content


def undefined(slices: Slices) -> str:
    """Return which scores cannot be computed and why, where all slices are of one class; else ""."""
    return of_labels(slices.labels, "slices")


def _scores(slices: Slices, o: Options) -> dict[str, Any]:
    found = bootstrap(
        statistic(slices.labels, slices.probabilities, o.threshold), slices.groups, resamples=o.resamples, seed=o.seed
    )
    counts = Scored(slices.labels, slices.probabilities).counts(o.threshold)
    return {
        "slices": len(slices),
        "positives": sum(slices.labels),
        "groups": len(set(slices.groups)),
        **{name: vars(found[name]) for name in NAMES},
        "confusion": vars(counts),
        **({"undefined": why} if (why := undefined(slices)) else {}),
    }


def patients(slices: Slices, options: Options) -> dict[str, Any]:
    """Return the scores of every patient rule, over all patients and per source.

    A patient counts as COVID-19 where at least one of its slices is labelled so.
    """
    cases = slices.by_group()
    labels = [max(case.labels) for case in cases.values()]
    probabilities = [case.probabilities for case in cases.values()]
    origins = [case.sources[0] for case in cases.values()]
    rules: dict[str, Any] = {}
    for name, rule in RULES.items():
        how = ""
        if isinstance(rule, TopK):
            verdicts, fitted = cross_fitted(rule, probabilities, labels, options.seed)
            how = _CALIBRATED if fitted else _UNCALIBRATED
        else:
            verdicts = [rule(p) for p in probabilities]
        chosen = {source: [i for i, o in enumerate(origins) if o == source] for source in sorted(set(origins) - {""})}
        rules[name] = {
            "rule": {key: value for key, value in vars(rule).items() if key != "name"},
            **({"calibration": how} if how else {}),
            **_judged(labels, verdicts, options),
            "per_source": {
                s: _judged([labels[i] for i in k], [verdicts[i] for i in k], options) for s, k in chosen.items()
            },
        }
    why = {"": of_labels(labels, "groups", precision=False)}
    for source in sorted(set(origins) - {""}):
        own = [label for label, origin in zip(labels, origins, strict=True) if origin == source]
        why[source] = of_labels(own, "groups", precision=False)
    return {
        "patients": len(labels),
        **({"undefined": told} if (told := {source: text for source, text in why.items() if text}) else {}),
        "positives": sum(labels),
        "mixed_labels": sum(len(set(case.labels)) > 1 for case in cases.values()),
        "rules": rules,
    }


def cross_fitted(
    rule: TopK, patients: Sequence[Sequence[float]], labels: Sequence[int], seed: int
) -> tuple[list[Verdict], bool]:
    """Judge every patient by the rule as fitted on the patients of the other folds.

    Args:
        rule: To be fitted.
        patients: The slice probabilities of each.
        labels: 0 or 1 each.
        seed: Of the folds, in which both classes are spread evenly.

    Returns:
        The verdicts, and whether the rule was fitted: with fewer than `FEWEST` patients of a class it is used as it is.
    """
    truth = np.asarray(labels, dtype=bool)
    if min(truth.sum(), (~truth).sum()) < FEWEST:
        return [rule(p) for p in patients], False
    random = np.random.default_rng(seed)
    fold = np.empty(len(truth), dtype=np.intp)
    for side in (truth, ~truth):
        fold[side] = random.permutation(np.arange(side.sum()) % FOLDS)
    verdicts: dict[int, Verdict] = {}
    for number in range(FOLDS):
        others = np.flatnonzero(fold != number).tolist()
        fitted = rule.fit([patients[i] for i in others], [labels[i] for i in others])
        verdicts |= {i: fitted(patients[i]) for i in np.flatnonzero(fold == number).tolist()}
    return [verdicts[i] for i in range(len(truth))], True


def verdict_statistic(scored: Scored, truth: NDArray[np.bool_], found: NDArray[np.bool_]) -> Statistic:
    """Return AUC, sensitivity, specificity and accuracy of verdicts as a function of the patients' weights."""

    def scores(weights: NDArray[np.float64] | None) -> dict[str, float]:
        counts = count(truth, found, weights)
        return {
            "auc": scored.rank(weights).auc(),
            "sensitivity": counts.sensitivity(),
            "specificity": counts.specificity(),
            "accuracy": counts.accuracy(),
        }

    return scores


def _judged(labels: Sequence[int], verdicts: Sequence[Verdict], o: Options) -> dict[str, Any]:
    """Return the scores of verdicts, each patient being a group of its own."""
    truth, found = np.asarray(labels, dtype=bool), np.array([verdict.positive for verdict in verdicts])
    scores = verdict_statistic(Scored(labels, [verdict.score for verdict in verdicts]), truth, found)
    intervals = bootstrap(scores, range(len(labels)), resamples=o.resamples, seed=o.seed)
    return {**{key: vars(value) for key, value in intervals.items()}, "confusion": vars(count(truth, found))}
