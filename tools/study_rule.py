"""Fit the patient rule `whole-study` on whole studies with known answers, and score it by leaving each of them out.

    python tools/study_rule.py table LABELS.csv OUT.csv RESULTS [RESULTS …]
    python tools/study_rule.py fit TABLE.csv CARD.json SCORES

LABELS has the columns study,label[,group] (as `jcs evaluate study` reads it), RESULTS is the OUT of `jcs diagnose`.
Of a study in several RESULTS the lesions of the last one count: that of a network which never saw the patient. `fit`
puts the rule into the card and writes SCORES/<study>/report.json with the verdict of the rule that was fitted without
the study's patient; `jcs evaluate study --labels LABELS.csv --results SCORES` scores them.
"""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jcs_ct
from jcs_ct.core.whole_files import write_whole
from jcs_ct.evaluate.study_matching import read_labels
from jcs_ct.study.settings import rule_for
from jcs_ct.study.whole_study import Evidence, WholeStudy, values_of
from jcs_ct.weights.card import WeightsCard

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.study.rules import Verdict

SHIPPED_CARD = Path(jcs_ct.__file__).parent / "assets/jcs-lite.json"
FEATURES = ("affected", "highest")
CONFIDENCE = 0.8  # of the interval: one fit in five may lie beyond it, one in ten on the wrong side
COLUMNS = (
    "study", "label", "group", "affected", "highest", "slices", "positive_slices", "lesion_ml", "outside_ml", "lung_ml",
    "spacing_mm", "reliable", "codes", "lesions_by", "top_k_probability", "probability", "low", "high", "verdict",
)  # fmt: skip


def table(labels: Path, results: Sequence[Path]) -> list[dict[str, Any]]:
    """Return a row for each study; its verdict is still to be found."""
    rows, by_slices = [], rule_for("top-k", WeightsCard.read(SHIPPED_CARD).patient)
    for study, told in read_labels(labels).items():
        label, group = told.label, told.group or study
        found = [
            (out, json.loads((out / study / "report.json").read_text(encoding="utf-8")))
            for out in results
            if (out / study / "report.json").exists()
        ]
        if not found:
            raise SystemExit(f"{study} has no result in {', '.join(map(str, results))}")
        report, (by, last) = found[0][1], found[-1]
        looked = [s for s in report["slices"] if s["probability"] is not None]
        burden = last["burden"]
        evidence = Evidence([s["probability"] for s in looked], [s["positive"] for s in looked], burden["share"])
        affected, highest = values_of(evidence, FEATURES)
        rows.append(
            {
                "study": study, "label": label, "group": group, "affected": f"{affected:.6f}",
                "highest": f"{highest:.6f}", "slices": len(looked), "positive_slices": sum(evidence.positive),
                "lesion_ml": f"{burden['lesion_ml']:.1f}", "outside_ml": f"{burden['outside_ml']:.1f}",
                "lung_ml": f"{burden['lung_ml']:.0f}",
                "spacing_mm": " ".join(f"{mm:.3g}" for mm in report["input"]["spacing_mm"]),
                "reliable": int(report["verdict"]["reliable"]),
                "codes": " ".join(sorted({one["code"] for one in report["cautions"]})), "lesions_by": by.name,
                "top_k_probability": f"{by_slices(evidence.probabilities).score:.3f}",
            }
        )  # fmt: skip
    return rows


def fitted(rows: Sequence[dict[str, Any]]) -> WholeStudy:
    """Return the rule of these studies."""
    values = [[float(row[name]) for name in FEATURES] for row in rows]
    return WholeStudy.fit(values, [int(row["label"]) for row in rows], FEATURES, confidence=CONFIDENCE)


def left_out(rows: Sequence[dict[str, Any]]) -> list[Verdict]:
    """Return the verdict on each study, by the rule of the studies of other patients."""
    return [
        fitted([other for other in rows if other["group"] != row["group"]]).judge([float(row[n]) for n in FEATURES])
        for row in rows
    ]


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def main(words: Sequence[str]) -> None:
    """Run one of the two steps."""
    if len(words) >= 4 and words[0] == "table":
        rows = table(Path(words[1]), [Path(word) for word in words[3:]])
        _write(Path(words[2]), rows)
        print(f"{words[2]}: {len(rows)} studies")
        return
    if len(words) != 4 or words[0] != "fit":
        raise SystemExit(__doc__)
    path, card_path, out = map(Path, words[1:])
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    rule, card = fitted(rows), WeightsCard.read(card_path)
    for row, verdict in zip(rows, left_out(rows), strict=True):
        low, high = verdict.interval or (verdict.score, verdict.score)
        row |= {"probability": f"{verdict.score:.3f}", "low": f"{low:.3f}", "high": f"{high:.3f}"}
        row["verdict"] = verdict.call
        (out / row["study"]).mkdir(parents=True, exist_ok=True)
        content = {
            "verdict": {
                "rule": verdict.rule, "score": verdict.score, "limit": verdict.limit, "positive": verdict.positive,
                "call": verdict.call, "probability": verdict.score, "reliable": row["reliable"] == "1",
            },
            "model": {"name": card.name, "weights_sha256": card.weights_sha256},
        }  # fmt: skip
        (out / row["study"] / "report.json").write_text(json.dumps(content), encoding="utf-8")
    _write(path, rows)
    card = replace(card, whole_study=rule.to_dict())
    write_whole(card_path, card.to_json().encode(), overwrite=True)
    for name, mean, deviation, weight in zip(FEATURES, rule.mean, rule.deviation, rule.weights[1:], strict=True):
        print(f"{name}: mean {mean:.3f}, deviation {deviation:.3f}, weight {weight:.3f}")
    print(f"intercept {rule.weights[0]:.3f}; {rule.studies} studies, {rule.positives} of them COVID-19: {card_path}")


if __name__ == "__main__":
    main(sys.argv[1:])
