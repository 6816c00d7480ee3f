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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError
from jcs_ct.core.version import __version__
from jcs_ct.datasets.manifest import LABELS, read_rows
from jcs_ct.evaluate.classify import verdict_statistic
from jcs_ct.evaluate.record import LENGTH, ScoreRecord
from jcs_ct.io.files.names import safe_name, split_extension
from jcs_ct.metrics import Scored, bootstrap, calibration_error, count
from jcs_ct.metrics.bootstrap import CONFIDENCE
from jcs_ct.metrics.classification import BINS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


NAMES = ("auc", "sensitivity", "specificity", "accuracy")


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
    flags: tuple[str, ...] = ()

    @property
    def positive(self) -> bool:
        """On which side of the limit the score lies, whether or not the rule is sure of it."""
        return self.score >= self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {**vars(self), "positive": self.positive}


def read_labels(path: Path) -> dict[str, tuple[int, str]]:
    """Return label and group of each study of a table `study,label[,group]`.

    Raises:
        InputError: It cannot be read, a label is none, or a study stands there twice.
    """
    found: dict[str, tuple[int, str]] = {}
    for place, row in read_rows(path, ("study", "label", "group")):
        name, label = row["study"], LABELS.get(row.get("label", "").casefold())
        if label is None:
            raise InputError(
                f"has the label {row.get('label', '')!r}; 1 (COVID-19) or 0 is expected",
                path=place,
                hint="mend the row",
            )
        if name in found:
            raise InputError(f"names the study {name!r} again", path=place, hint="keep one row")
        found[name] = label, row.get("group", "") or name
    return found


def read_studies(
    results: Path, labels: dict[str, tuple[int, str]], *, strict: bool = False
) -> tuple[list[Study], list[InputError], list[str]]:
    """Return the studies that have both, what is wrong with others, and the results without a label.

    A study is found by the name of its folder of results, or by the last part of the path that was given to
    `jcs diagnose`, with or without its extension.

    Args:
        results: The OUT of `jcs diagnose`.
        labels: Label and group by study.
        strict: Whether a verdict that is not reliable is refused.

    Raises:
        InputError: The folder holds no results at all.
    """
    reports, problems = _reports(results)
    by_name: dict[str, set[str]] = {}
    for case, content in reports.items():
        for name in _names(case, content):
            by_name.setdefault(name, set()).add(case)
    studies: list[Study] = []
    used: set[str] = set()
    for name, (label, group) in labels.items():
        cases = by_name.get(name) or by_name.get(safe_name(split_extension(Path(name).name)[0])) or set()
        if len(cases) != 1:
            what = f"has {len(cases)} results: {', '.join(sorted(cases)[:3])}" if cases else "has no result"
            problems.append(InputError(f"{what} in {results}", path=name, hint="use the name of its folder of results"))
            continue
        case = next(iter(cases))
        used.add(case)
        study = _study(name, label, group, reports[case])
        if strict and not study.reliable:
            what = f"has a verdict that is not reliable: {'; '.join(study.flags) or 'no reason is given'}"
            problems.append(InputError(what, path=name, hint="leave --strict out to score it, too"))
        else:
            studies.append(study)
    return studies, problems, sorted(set(reports) - used)


def _study(name: str, label: int, group: str, content: dict[str, Any]) -> Study:
    verdict, model = content["verdict"], content["model"]
    return Study(
        name=name,
        label=label,
        group=group,
        score=float(verdict["score"]),
        limit=float(verdict["limit"]),
        call=str(verdict.get("call") or ("positive" if verdict["positive"] else "negative")),
        reliable=bool(verdict["reliable"]),
        rule=str(verdict["rule"]),
        probability=verdict["probability"] is not None,
        network=(model["name"], model["weights_sha256"]),
        flags=tuple(map(str, verdict.get("reasons", ()))),
    )


def _reports(results: Path) -> tuple[dict[str, dict[str, Any]], list[InputError]]:
    found: dict[str, dict[str, Any]] = {}
    problems: list[InputError] = []
    for path in sorted(results.glob("*/report.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            _ = content["verdict"]["score"], content["verdict"]["reliable"], content["model"]["weights_sha256"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            problems.append(InputError(f"is no report of `jcs diagnose`: {error}", path=path, hint="make it again"))
        else:
            found[path.parent.name] = content
    if not found and not problems:
        raise InputError("holds no results (no */report.json)", path=results, hint="give the OUT of `jcs diagnose`")
    return found, problems


def _names(case: str, content: dict[str, Any]) -> set[str]:
    last = Path(str(content.get("source", {}).get("path", ""))).name
    return {case, last, split_extension(last)[0]} - {""}


def report(studies: Sequence[Study], results: str, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return everything that `scores.json` holds.

    Raises:
        InputError: The verdicts are of several rules or networks, and their scores cannot be ranked together.
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
        "bootstrap": {"resamples": resamples, "seed": seed, "confidence": CONFIDENCE, "unit": "group"},
        "overall": scores(studies, resamples, seed),
        "reliable": scores(reliable, resamples, seed) if reliable else None,
        "decided": scores(decided, resamples, seed) if len(decided) < len(studies) and decided else None,
        "studies": [s.to_dict() for s in studies],
    }
    one = {s.label for s in studies}
    if len(one) == 1:
        missing = "specificity" if 1 in one else "sensitivity"
        content["undefined"] = f"AUC and {missing} are not defined, because all studies have the label {one.pop()}"
    return content


def record(studies: Sequence[Study], results: str, settings: Mapping[str, Any]) -> ScoreRecord:
    """Return what scores of verdicts are of: the studies by name, with label and patient."""
    first = studies[0]
    known = {s.name: hashlib.sha256(json.dumps([s.name, s.label, s.group]).encode()).hexdigest() for s in studies}
    return ScoreRecord("study", results, first.network[1][:LENGTH], {"rule": first.rule, **settings}, known)


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
        **{name: vars(intervals[name]) for name in NAMES},
        "confusion": vars(count(truth, found)),
        "calibration": calibration,
    }
