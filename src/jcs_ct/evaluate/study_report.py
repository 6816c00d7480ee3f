"""The report of verdicts: Markdown, a table of the studies, and one figure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.evaluate import tables
from jcs_ct.evaluate.study import NAMES
from jcs_ct.metrics import Scored
from jcs_ct.outputs import plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jcs_ct.evaluate.study import Study

_TITLES = {"auc": "AUC", "sensitivity": "sensitivity", "specificity": "specificity", "accuracy": "accuracy"}


def to_markdown(content: Mapping[str, Any]) -> bytes:
    """Return the report that `jcs_ct.evaluate.study.report` made."""
    b, sets = content["bootstrap"], {"all": content["overall"], "reliable ones": content["reliable"]}
    sets["decided ones"] = content["decided"]
    known = {name: found for name, found in sets.items() if found is not None}
    grey = sum(s["call"] == "indeterminate" for s in content["studies"])
    header = ["studies", "number", "COVID-19", *(_TITLES[name] for name in NAMES), "found", "missed", "false alarms"]
    rows = [
        [name, str(found["studies"]), str(found["positives"])]
        + [tables.interval(found[key], 3) for key in NAMES]
        + [str(found["confusion"][key]) for key in ("tp", "fn", "fp")]
        for name, found in known.items()
    ]
    calibration = content["overall"]["calibration"]
    stated = (
        f"Stated probability {calibration['mean_probability']:.3f} on average, {calibration['prevalence']:.3f} of the "
        f"studies are COVID-19; calibration error {calibration['ece']:.3f}, Brier score {calibration['brier']:.3f}."
        if calibration
        else "The score of this rule is not a probability, so calibration is not defined."
    )
    return tables.document(
        f"Verdicts in {content['predictions']}",
        f"Rule `{content['rule']}`, network {content['model']['name']}. In brackets: {b['confidence']:.0%} intervals "
        f"from {b['resamples']} resamples of patients (seed {b['seed']}).",
        f"**{text[0].upper()}{text[1:]}.**" if (text := tables.reservation(content)) else "",
        f"{content['undefined']}." if "undefined" in content else "",
        tables.markdown(header, rows),
        f"{grey} of {len(content['studies'])} verdicts are indeterminate; all others are decided. In the rows *all* "
        "and *reliable ones* an indeterminate verdict counts by the side of the limit on which its score lies."
        if grey
        else "",
        stated,
        "## Wrong verdicts",
        _wrong(content["studies"]),
    )


def _wrong(studies: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [
            s["name"],
            "COVID-19" if s["label"] else "no COVID-19",
            s["call"],
            f"{s['score']:.3f}",
            "yes" if s["reliable"] else "no",
        ]
        for s in studies
        if bool(s["label"]) != s["positive"]
    ]
    return tables.markdown(["study", "is", "verdict", "score", "called reliable"], rows) if rows else "None."


def to_csv(studies: Sequence[Study]) -> bytes:
    """Return the studies as a table."""
    columns = ("name", "label", "group", "score", "call", "positive", "reliable")
    rows = ({name: getattr(s, name) for name in columns} for s in studies)
    return tables.to_csv([{**row, "flags": "; ".join(s.flags)} for row, s in zip(rows, studies, strict=True)])


def figure(studies: Sequence[Study], limit: float | None) -> bytes:
    """Return the scores of all studies by label, beside the ROC curve, as PNG."""
    top = max(1.0, *(s.score for s in studies))
    ranking = Scored([s.label for s in studies], [s.score / top for s in studies]).rank()
    return plots.verdict_plot(
        [(s.name, s.label, s.score, s.reliable) for s in studies], limit, ranking.roc(), ranking.auc()
    )
