"""The report of a classification: Markdown and plots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.evaluate import tables
from jcs_ct.evaluate.classify import NAMES
from jcs_ct.metrics import Scored, reliability
from jcs_ct.outputs import plots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jcs_ct.evaluate.classify import Slices

_TITLES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "accuracy": "accuracy",
    "ece": "ECE",
}


def to_markdown(content: Mapping[str, Any]) -> bytes:
    """Return the report that `jcs_ct.evaluate.classify.report` made."""
    overall, b, cases = content["overall"], content["bootstrap"], content["patients"]
    return tables.document(
        f"Classification scores of {content['predictions']}",
        f"{overall['slices']} slices in {overall['groups']} groups, COVID-19 where p ≥ {content['threshold']:g}. In "
        f"brackets: {b['confidence']:.0%} intervals from {b['resamples']} resamples of groups (seed {b['seed']}).",
        tables.slices_seen(content),
        "## Slices",
        _slices(content),
        f"{content['undefined']}." if "undefined" in content else "",
        *(
            f"{source}: {found['undefined']}."
            for source, found in content["per_source"].items()
            if "undefined" in found
        ),
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
    return tables.markdown(["source", "slices", "COVID-19", "groups", *(_TITLES[key] for key in NAMES)], rows)


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
            _TITLES[key],
            tables.interval(content["overall"][key]),
            tables.interval(other["overall"][key]),
            tables.interval(difference[key]),
            tables.number(difference[key]["above"], 3),
        ]
        for key in NAMES
    ]
    return "### Comparison on the same slices\n\n" + tables.markdown(header, rows)


def _patients(cases: Mapping[str, Any]) -> str:
    scores = ("auc", "sensitivity", "specificity", "accuracy")
    rows = []
    for name, rule in cases["rules"].items():
        sets = {"overall": rule, **rule["per_source"]}
        rows += [
            [f"{name}, {where}", *(tables.interval(found[key], 3) for key in scores)] for where, found in sets.items()
        ]
    return tables.markdown(["rule, source", *(_TITLES[key] for key in scores)], rows)


def figures(sets: Mapping[str, Slices], threshold: float) -> dict[str, bytes]:
    """Return the plots by file name: ROC, precision and recall, and the calibration of the first model.

    Args:
        sets: One or two models → the slices with its probabilities. Of a single one, up to five sources with slices of
            both classes are drawn beside it.
        threshold: What a slice's probability has to reach.
    """
    first = next(iter(sets.values()))
    if len(sets) == 1:
        of_source = {source: first.of(source) for source in sorted(set(first.sources) - {""})}
        both = {source: slices for source, slices in of_source.items() if len(set(slices.labels)) > 1}
        sets = {**sets, **dict(list(both.items())[:5])}
    ranked = {name: Scored(slices.labels, slices.probabilities).rank() for name, slices in sets.items()}
    counts = Scored(first.labels, first.probabilities).counts(threshold)
    bins = reliability(first.labels, first.probabilities)
    return {
        "roc.png": plots.roc_plot(
            {name: (ranking.roc(), ranking.auc()) for name, ranking in ranked.items()},
            (1 - counts.specificity(), counts.sensitivity()),
            threshold,
        ),
        "precision_recall.png": plots.precision_recall_plot(
            {name: (ranking.precision_recall(), ranking.average_precision()) for name, ranking in ranked.items()},
            sum(first.labels) / len(first),
        ),
        "calibration.png": plots.calibration_plot(bins.edges, bins.stated, bins.observed, bins.weight, bins.error()),
    }
