"""Verdicts of whole studies against what is known of the patients, with intervals over patients.

A verdict is read from the `report.json` that `jcs diagnose` wrote; nothing is computed again. Studies of which the
verdict is *not reliable* are scored with the others, and once more without them. An *indeterminate* verdict counts by
the side of the limit on which its score lies, so that no doubt improves a figure; scores of the decided ones stand
beside it.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.version import __version__
from jcs_ct.evaluate import tables
from jcs_ct.evaluate.classify import OF_VERDICTS, verdict_statistic
from jcs_ct.evaluate.record import LENGTH, ScoreRecord
from jcs_ct.evaluate.study_matching import match_results
from jcs_ct.io.files.walk import few
from jcs_ct.metrics import Scored, bootstrap, calibration_error, count
from jcs_ct.metrics.classification import BINS
from jcs_ct.outputs import plots

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from jcs_ct.evaluate.study_matching import Labelled


@dataclass(frozen=True)
class Study:
    """A study with its label and its verdict.

    Attributes:
        name: As the table of labels calls it.
        label: 1 = COVID-19, 0 = not.
        group: The patient; the study itself where patients are not named.
        score: What the rule compared, see `jcs_ct.study.rules.Verdict`.
        limit: What it had to reach.
        call: The verdict: positive, negative or indeterminate.
        reliable: Whether the report says that the verdict can be relied on.
        flags: Why not, a line each.
        rule: Name of the rule.
        probability: Whether the score is a probability.
        network: Name and digest of the weights that looked.
        digest: Of the bytes of its input; "" where the report does not say.
        trained_on: Whether the report says that the network was trained on slices of it.
    """

    name: str
    label: int
    group: str
    score: float
    limit: float
    call: str
    reliable: bool
    rule: str
    probability: bool
    network: tuple[str, str]
    digest: str = ""
    flags: tuple[str, ...] = ()
    trained_on: bool = False

    @property
    def positive(self) -> bool:
        """On which side of the limit the score lies, whether or not the rule is sure of it."""
        return self.score >= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "positive": self.positive}


def read_studies(
    results: Path, labels: Mapping[str, Labelled], *, strict: bool = False
) -> tuple[list[Study], list[InputError], list[str]]:
    """Return the studies that have both, what is wrong with others, and the results without a label.

    `results` is the OUT of `jcs diagnose`; how a study is found: `jcs_ct.evaluate.study_matching`. `strict`: a verdict
    that is not reliable is refused. Raises InputError where the folder holds no results at all.
    """
    reports, problems = _reports(results)
    pairs, unmatched = match_results(labels, reports, results)
    problems += unmatched
    studies: list[Study] = []
    for name, case in pairs.items():
        study = _study(name, labels[name], reports[case])
        if strict and not study.reliable:
            what = f"has a verdict that is not reliable: {'; '.join(study.flags) or 'no reason is given'}"
            problems.append(InputError(what, path=name, hint="leave --strict out to score it, too"))
        else:
            studies.append(study)
    return studies, problems, sorted(set(reports) - set(pairs.values()))


def _study(name: str, labelled: Labelled, content: dict[str, Any]) -> Study:
    verdict, model = content["verdict"], content["model"]
    return Study(
        name=name,
        label=labelled.label,
        group=labelled.group or name,
        score=float(verdict["score"]),
        limit=float(verdict["limit"]),
        call=str(verdict.get("call") or ("positive" if verdict["positive"] else "negative")),
        reliable=bool(verdict["reliable"]),
        rule=str(verdict["rule"]),
        probability=verdict["probability"] is not None,
        network=(model["name"], model["weights_sha256"]),
        digest=str(content.get("source", {}).get("digest", "")),
        flags=tuple(map(str, verdict.get("reasons", ()))),
        trained_on=any(caution.get("code") == "trained-on" for caution in content.get("cautions", [])),
    )


def _reports(results: Path) -> tuple[dict[str, dict[str, Any]], list[InputError]]:
    found: dict[str, dict[str, Any]] = {}
    problems: list[InputError] = []
    for path in sorted(results.glob("*/report.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            _ = content["verdict"]["score"], content["verdict"]["reliable"], content["model"]["weights_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(InputError(f"is not a report of `jcs diagnose`: {error}", path=path, hint="make it again"))
        else:
            found[path.parent.name] = content
    if not found and not problems:
        raise InputError("holds no results (no */report.json)", path=results, hint="give the OUT of `jcs diagnose`")
    return found, problems


def report(studies: Sequence[Study], results: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return everything that `scores.json` holds.

    Raises InputError where verdicts are of several rules or networks, and their scores cannot be ranked together.
    """
    ways = sorted({(s.rule, *s.network) for s in studies})
    if len(ways) > 1:
        told = ", ".join(f"{rule} by {name} {digest[:8]}" for rule, name, digest in ways[:3])
        raise InputError(f"holds verdicts of {len(ways)} kinds ({told}); scores of one are needed", path=results)
    reliable, decided = [s for s in studies if s.reliable], [s for s in studies if s.call != "indeterminate"]
    content: dict[str, Any] = {
        "task": "studies",
        "jcs_ct": __version__,
        "predictions": results,
        "rule": ways[0][0],
        "model": {"name": ways[0][1], "weights_sha256": ways[0][2]},
        "bootstrap": tables.bootstrap_facts(resamples, seed),
        "overall": scores(studies, resamples, seed),
        "reliable": scores(reliable, resamples, seed) if reliable else None,
        "decided": scores(decided, resamples, seed) if len(decided) < len(studies) and decided else None,
        "studies": [s.to_dict() for s in studies],
    }
    why = [tables.undefined_of_labels([s.label for s in studies], "studies", precision=False)]
    for name, part in (("reliable", reliable), ("decided", decided if len(decided) < len(studies) else [])):
        told = (
            tables.undefined_of_labels([s.label for s in part], f"{name} studies", precision=False)
            if not why[0]
            else ""
        )
        why.append(f"of the {name} ones: {told}" if told else "")
    if not reliable:
        why.append("scores of the reliable ones are not defined, because no verdict is called reliable")
    seen = [s.name for s in studies if s.trained_on]
    if seen:
        share = len(seen) / len(studies)
        text = (
            f"{len(seen)} of {len(studies)} studies ({100 * share:.0f} %: {few(seen)}) hold slices that "
            f"{ways[0][1]} was trained on: scores on them are too good; score studies of other patients"
        )
        content["training_data"] = {"known": True, "seen": len(seen), "share": share, "text": text}
    if any(why):
        content["undefined"] = "; ".join(line for line in why if line)
    return content


def record(studies: Sequence[Study], results: str, settings: Mapping[str, Any]) -> ScoreRecord:
    """Return what scores of verdicts are of: the studies by the bytes of their input, with label and patient.

    Reports of earlier versions do not know the bytes; their studies go by their names. The verdicts themselves are
    what was scored, and so are told by scores and network together.
    """
    first, known, verdicts = studies[0], {}, []
    for s in studies:
        facts = [s.digest or s.name, s.label, "" if s.group == s.name else s.group]
        known[s.name] = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:LENGTH]
        verdicts.append(f"{known[s.name]} {s.score!r} {s.limit!r} {s.call} {s.reliable}")
    text = "\n".join([first.network[1], *sorted(verdicts)])
    made_by = hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
    return ScoreRecord("study", results, made_by, {"rule": first.rule, **settings}, known)


def scores(studies: Sequence[Study], resamples: int, seed: int) -> dict[str, Any]:
    """Return AUC, sensitivity, specificity, accuracy with intervals over groups; confusion; calibration."""
    labels, values = [s.label for s in studies], [s.score for s in studies]
    top = max(1.0, *values)  # counts of slices are ranked as shares of the highest one
    scored = Scored(labels, [value / top for value in values])
    truth, found = np.array(labels, bool), np.array([s.positive for s in studies])
    intervals = bootstrap(
        verdict_statistic(scored, truth, found), [s.group for s in studies], resamples=resamples, seed=seed
    )
    calibration = None
    if all(s.probability for s in studies):
        calibration = {
            "ece": calibration_error(labels, values, BINS),
            "bins": BINS,
            "brier": float(np.mean((np.array(values) - truth) ** 2)),
            "mean_probability": float(np.mean(values)),
            "prevalence": float(truth.mean()),
        }
    return {
        "studies": len(studies),
        "positives": sum(labels),
        "groups": len({s.group for s in studies}),
        **{name: vars(intervals[name]) for name in OF_VERDICTS},
        "confusion": vars(count(truth, found)),
        "calibration": calibration,
    }


def to_markdown(content: Mapping[str, Any]) -> bytes:
    """Return what `report` made as Markdown."""
    sets = {"all": content["overall"], "reliable ones": content["reliable"], "decided ones": content["decided"]}
    known = {name: found for name, found in sets.items() if found is not None}
    grey = sum(s["call"] == "indeterminate" for s in content["studies"])
    header = ["studies", "number", "COVID-19", *map(tables.title, OF_VERDICTS), "found", "missed", "false alarms"]
    rows = [
        [name, str(found["studies"]), str(found["positives"])]
        + [tables.interval(found[key], 3) for key in OF_VERDICTS]
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
        f"Rule `{content['rule']}`, network {content['model']['name']}. {tables.in_brackets(content, 'patients')}",
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
