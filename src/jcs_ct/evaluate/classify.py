"""Probabilities against labels: per slice and per patient, overall and per source, with intervals; and their report."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from jcs_ct.core.version import __version__
from jcs_ct.evaluate import tables
from jcs_ct.metrics import Scored, bootstrap, calibration_error, compare, count, reliability
from jcs_ct.metrics.bootstrap import RESAMPLES
from jcs_ct.metrics.classification import BINS
from jcs_ct.outputs import plots
from jcs_ct.study.rules import RULES, TopK

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    from jcs_ct.evaluate.inputs import Case
    from jcs_ct.metrics.bootstrap import Statistic
    from jcs_ct.study.rules import Verdict

NAMES = ("auc", "average_precision", "sensitivity", "specificity", "accuracy", "ece")
OF_VERDICTS = ("auc", "sensitivity", "specificity", "accuracy")
FOLDS = 5
FEWEST = 10  # patients of each class, below which a fit of two numbers is not worth the name

_CALIBRATED = f"slope and intercept fitted on the other patients ({FOLDS} folds), so no patient judges itself"
_UNCALIBRATED = f"not calibrated: fewer than {FEWEST} patients of one class"


class Slice(NamedTuple):
    """A slice with its label and one model's probability.

    Attributes:
        label: 1 = COVID-19, 0 = not.
        probability: In [0, 1].
        group: The patient, or the slice itself where patients are not known.
        source: The hospital or collection, "" where it is not known.
    """

    label: int
    probability: float
    group: str
    source: str


def slices_of(cases: Iterable[Case], probabilities: Mapping[str, float]) -> list[Slice]:
    """Return the slices of a data set with the probabilities of their keys."""
    samples = ((case, case.sample) for case in cases)
    return [Slice(int(s.label or 0), probabilities[case.key], case.group, s.source or "") for case, s in samples]


def columns(slices: Sequence[Slice]) -> tuple[list[int], list[float]]:
    """Return the labels and the probabilities of slices."""
    return [s.label for s in slices], [s.probability for s in slices]


def by_source(slices: Iterable[Slice]) -> dict[str, list[Slice]]:
    """Return the slices of each source that is known, by name."""
    found: defaultdict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        found[one.source].append(one)
    return {source: found[source] for source in sorted(found.keys() - {""})}


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


def statistic(slices: Sequence[Slice], threshold: float) -> Statistic:
    """Return the scores of `NAMES` as a function of the slices' weights, for the bootstrap."""
    labels, probabilities = columns(slices)
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
    slices: Sequence[Slice], options: Options, predictions: str, against: tuple[str, Sequence[Slice]] | None = None
) -> dict[str, Any]:
    """Return everything that `scores.json` holds.

    `predictions` is what the model is called; `against` the name of another one, and the same slices with its
    probabilities: differences are first minus second.

    Raises:
        ShapeError: Nothing came, or a label or probability is out of range.
        UsageError: A number in `options` is out of range.
    """
    o = options
    content: dict[str, Any] = {
        "task": "classification",
        "jcs_ct": __version__,
        "predictions": predictions,
        "threshold": o.threshold,
        "ece": {"bins": BINS, "definition": "bins of equal width over the probability of COVID-19"},
        "bootstrap": tables.bootstrap_facts(o.resamples, o.seed),
        "overall": _scores(slices, o),
        "per_source": {source: _scores(part, o) for source, part in by_source(slices).items()},
        "patients": patients(slices, o),
    }
    if why := content["overall"].get("undefined"):
        content["undefined"] = why
    if against is not None:
        name, other = against
        groups = [s.group for s in slices]
        both = statistic(slices, o.threshold), statistic(other, o.threshold)
        found = compare(*both, groups, resamples=o.resamples, seed=o.seed)
        content["against"] = {"predictions": name, "overall": _scores(other, o)}
        content["difference"] = {
            "definition": tables.DIFFERENCE,
            **{key: vars(value) for key, value in found.items()},
        }
    return content


def _scores(slices: Sequence[Slice], o: Options) -> dict[str, Any]:
    groups = [s.group for s in slices]
    found = bootstrap(statistic(slices, o.threshold), groups, resamples=o.resamples, seed=o.seed)
    labels, probabilities = columns(slices)
    why = tables.undefined_of_labels(labels, "slices")
    return {
        "slices": len(slices),
        "positives": sum(labels),
        "groups": len(set(groups)),
        **{name: vars(found[name]) for name in NAMES},
        "confusion": vars(Scored(labels, probabilities).counts(o.threshold)),
        **({"undefined": why} if why else {}),
    }


def patients(slices: Sequence[Slice], options: Options) -> dict[str, Any]:
    """Return the scores of every patient rule, over all patients and per source.

    A patient counts as COVID-19 where at least one of its slices is labelled so.
    """
    cases: defaultdict[str, list[Slice]] = defaultdict(list)
    for one in slices:
        cases[one.group].append(one)
    labels = [max(s.label for s in case) for case in cases.values()]
    probabilities = [[s.probability for s in case] for case in cases.values()]
    origins = [case[0].source for case in cases.values()]
    chosen = {source: [i for i, o in enumerate(origins) if o == source] for source in sorted(set(origins) - {""})}
    rules: dict[str, Any] = {}
    for name, rule in RULES.items():
        how = ""
        if isinstance(rule, TopK):
            verdicts, fitted = cross_fitted(rule, probabilities, labels, options.seed)
            how = _CALIBRATED if fitted else _UNCALIBRATED
        else:
            verdicts = [rule(p) for p in probabilities]
        rules[name] = {
            "rule": {key: value for key, value in vars(rule).items() if key != "name"},
            **({"calibration": how} if how else {}),
            **_judged(labels, verdicts, options),
            "per_source": {
                s: _judged([labels[i] for i in k], [verdicts[i] for i in k], options) for s, k in chosen.items()
            },
        }
    parts = {"": labels} | {source: [labels[i] for i in indices] for source, indices in chosen.items()}
    why = {source: tables.undefined_of_labels(part, "groups", precision=False) for source, part in parts.items()}
    return {
        "patients": len(labels),
        **({"undefined": told} if (told := {source: text for source, text in why.items() if text}) else {}),
        "positives": sum(labels),
        "mixed_labels": sum(len({s.label for s in case}) > 1 for case in cases.values()),
        "rules": rules,
    }


def cross_fitted(
    rule: TopK, patients: Sequence[Sequence[float]], labels: Sequence[int], seed: int
) -> tuple[list[Verdict], bool]:
    """Judge every patient (the probabilities of its slices) by the rule as fitted on the patients of the other folds.

    Both classes are spread evenly over the folds. Returns the verdicts, and whether the rule was fitted: with fewer
    than `FEWEST` patients of a class it is used as it is.
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


def to_markdown(content: Mapping[str, Any]) -> bytes:
    """Return what `report` made as Markdown."""
    overall, cases = content["overall"], content["patients"]
    return tables.document(
        f"Classification scores of {content['predictions']}",
        f"{overall['slices']} slices in {overall['groups']} groups, COVID-19 where p ≥ {content['threshold']:g}. "
        f"{tables.in_brackets(content)}",
        tables.slices_seen(content),
        "## Slices",
        _slices(content),
        f"{content['undefined']}." if "undefined" in content else "",
        *(f"{name}: {found['undefined']}." for name, found in content["per_source"].items() if "undefined" in found),
        "A network can recognise the hospital instead of the disease: a source with slices of one class only cannot "
        "tell the two apart.",
        "### Confusion at the threshold",
        _confusion({"overall": overall, **content["per_source"]}),
        _difference(content),
        "## Patients",
        f"{cases['patients']} groups, {cases['positives']} with COVID-19. A group is positive where one of its slices "
        f"is; {cases['mixed_labels']} have slices of both labels.",
        _patients(cases),
        *(f"{source or 'overall'}: {why}." for source, why in cases.get("undefined", {}).items()),
        *(f"`{name}`: {rule['calibration']}." for name, rule in cases["rules"].items() if "calibration" in rule),
    )


def _slices(content: Mapping[str, Any]) -> str:
    rows = [
        [name, str(found["slices"]), str(found["positives"]), str(found["groups"])]
        + [tables.interval(found[key], 3) for key in NAMES]
        for name, found in {"overall": content["overall"], **content["per_source"]}.items()
    ]
    return tables.markdown(["source", "slices", "COVID-19", "groups", *map(tables.title, NAMES)], rows)


def _confusion(sets: Mapping[str, Any]) -> str:
    keys = ("tp", "fn", "fp", "tn")
    header = ["source", "COVID-19 found", "COVID-19 missed", "false alarms", "rightly negative"]
    return tables.markdown(
        header, [[name, *(str(found["confusion"][k]) for k in keys)] for name, found in sets.items()]
    )


def _difference(content: Mapping[str, Any]) -> str:
    if "against" not in content:
        return ""
    other, difference = content["against"], content["difference"]
    header = ["score", content["predictions"], other["predictions"], "difference", "above 0"]
    rows = [
        [
            tables.title(key),
            tables.interval(content["overall"][key]),
            tables.interval(other["overall"][key]),
            tables.interval(difference[key]),
            tables.number(difference[key]["above"], 3),
        ]
        for key in NAMES
    ]
    return "### Comparison on the same slices\n\n" + tables.markdown(header, rows)


def _patients(cases: Mapping[str, Any]) -> str:
    rows = [
        [f"{name}, {where}", *(tables.interval(found[key], 3) for key in OF_VERDICTS)]
        for name, rule in cases["rules"].items()
        for where, found in {"overall": rule, **rule["per_source"]}.items()
    ]
    return tables.markdown(["rule, source", *map(tables.title, OF_VERDICTS)], rows)


def figures(sets: Mapping[str, Sequence[Slice]], threshold: float) -> dict[str, bytes]:
    """Return the plots by file name: ROC, precision and recall, and the calibration of the first model.

    One or two models come with their slices. Of a single one, up to five sources with slices of both classes are drawn
    beside it. `threshold` is what a slice's probability has to reach.
    """
    first = next(iter(sets.values()))
    if len(sets) == 1:
        both = [(source, part) for source, part in by_source(first).items() if len({s.label for s in part}) > 1]
        sets = {**sets, **dict(both[:5])}
    ranked = {name: Scored(*columns(slices)).rank() for name, slices in sets.items()}
    counts = Scored(*columns(first)).counts(threshold)
    bins = reliability(*columns(first))
    return {
        "roc.png": plots.roc_plot(
            {name: (ranking.roc(), ranking.auc()) for name, ranking in ranked.items()},
            (1 - counts.specificity(), counts.sensitivity()),
            threshold,
        ),
        "precision_recall.png": plots.precision_recall_plot(
            {name: (ranking.precision_recall(), ranking.average_precision()) for name, ranking in ranked.items()},
            sum(s.label for s in first) / len(first),
        ),
        "calibration.png": plots.calibration_plot(bins.edges, bins.stated, bins.observed, bins.weight, bins.error()),
    }
