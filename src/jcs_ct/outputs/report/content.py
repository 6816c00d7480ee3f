"""The numbers of a study as `report.json` holds them (schema: `jcs_ct.outputs.report.schema`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.core.version import __version__
from jcs_ct.core.warning import code_of
from jcs_ct.imaging.window import LUNG
from jcs_ct.outputs.report import words
from jcs_ct.outputs.report.language import mark
from jcs_ct.study.settings import UsedNetwork, cards_fit, rule_fit

if TYPE_CHECKING:
    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.study.result import StudyResult

SCHEMA = "jcs-ct/report/1"
CALIBRATED = {"whole-study", "top-k"}  # rules whose score is a probability
DISCLAIMER = mark(
    "This is a research tool, not a medical device. Do not use it for the diagnosis, triage or treatment of patients."
)


def build_report(study: StudyResult) -> dict[str, Any]:
    """Return the report without the names of other files."""
    case, card, verdict, burden = study.case, study.screen.card, study.verdict, study.burden
    series, segmenter = case.series, segmenter_of(study)
    reasons = study.doubts()
    notes = list(card.notes)
    if segmenter is not None:
        notes.append(f"lesions by {segmenter['name']} ({segmenter['architecture']})")
    shapes = {one.lesions.shape for one in study.slices}
    return {
        "schema": SCHEMA,
        "jcs_ct_version": __version__,
        "disclaimer": DISCLAIMER,
        "case": case.name,
        "input": {
            "kind": case.kind,
            "slices": len(case),
            "shape": list(next(iter(shapes))) if len(shapes) == 1 else None,
            "spacing_mm": [round(mm, 6) for mm in series.geometry.spacing] if series else None,
            "facts": dict(series.facts) if series else {},
            "series": series_of_study(series) if series else None,
        },
        "model": {
            "name": card.name,
            "architecture": card.architecture,
            "weights_sha256": card.weights_sha256,
            "recipe": card.recipe,
            "covid_threshold": study.screen.covid_threshold,
            "lesion_threshold": study.segmenter.lesion_threshold if study.segmenter else None,
            "temperature": card.temperature,
            "trained_on": card.trained_on,
            "licence": card.licence,
            "notes": notes,
        },
        "segmenter": segmenter,
        "settings": {
            "rule": study.settings.rule,
            "rule_fit": rule_fit(card),
            "cards_fit": cards_fit(*(used.fits for used in (study.screen, separate_segmenter(study)) if used)),
            "segment": study.settings.segment,
            "window_hu": list(LUNG) if series else None,
            "runtime": study.screen.runtime,
            "language": study.settings.language,
        },
        "verdict": {
            "rule": verdict.rule,
            "score": round(verdict.score, 6),
            "limit": verdict.limit,
            "positive": verdict.positive,
            "call": verdict.call,
            "probability": round(verdict.score, 6) if verdict.rule in CALIBRATED else None,
            "interval": None if verdict.interval is None else [round(end, 6) for end in verdict.interval],
            "confidence": verdict.confidence,
            "studies": verdict.studies,
            "terms": [
                {"feature": t.feature, "value": round(t.value, 6), "effect": round(t.effect, 4)} for t in verdict.terms
            ],
            "text": verdict_text(study),
            "reliable": not reasons,
            "reasons": [str(reason) for reason in reasons],
        },
        "burden": None if burden is None else burden.to_dict(),
        "slices": [one.to_dict() for one in study.slices],
        "most_affected": study.most_affected(),
        "cautions": [{"code": code_of(w), "text": str(w)} for w in dict.fromkeys((*study.warnings, *reasons))],
        "warnings": list(study.warnings) + list(burden.warnings() if burden is not None else ()),
        "files": {},
        "seconds": round(study.seconds, 2),
    }


def series_of_study(series: CTSeries) -> list[dict[str, Any]] | None:
    """Return which series of the study was read, and why not the others; None where there is only one."""
    if not series.others and not series.passed:
        return None
    chosen = {"number": series.number, "slices": len(series), "read": True, "reason": ""}
    rest = [{"number": o.number, "slices": o.slices, "read": False, "reason": o.reason} for o in series.others]
    return [chosen, *rest]


def separate_segmenter(study: StudyResult) -> UsedNetwork | None:
    """Return what finds lesions, where that is not what screens."""
    return None if study.segmenter is study.screen else study.segmenter


def segmenter_of(study: StudyResult) -> dict[str, str] | None:
    """Return the `segmenter` object of the report: what finds lesions, where that is not what `model` describes."""
    used = separate_segmenter(study)
    if used is None:
        return None
    card = used.card
    return {"name": card.name, "architecture": card.architecture, "weights_sha256": card.weights_sha256}


def verdict_text(study: StudyResult) -> str:
    """Return the verdict as a sentence."""
    verdict, looked = study.verdict, study.scored
    positive, score, limit = sum(one.positive for one in looked), verdict.score, verdict.limit
    sure = "" if verdict.interval is None else " ({:.2f} to {:.2f})".format(*verdict.interval)
    what = {
        "whole-study": f"probability {words.score_text(score, limit)}{sure} of the whole study, threshold {limit:.2f}",
        "top-k": f"probability {words.score_text(score, limit)} from the most suspicious tenth of the slices, "
        f"threshold {limit:.2f}",
        "fraction": f"{100 * score:.0f} % of the slices are positive, threshold {100 * limit:.0f} %",
        "release-count": f"{score:.0f} slices are positive, threshold {limit:.0f}",
    }.get(verdict.rule, f"score {score:.3g}, threshold {limit:.3g}")
    opacities = study.burden is not None and bool(study.burden.severity)
    found = words.finding(verdict.call, opacities=opacities, positive=positive / max(1, len(looked)))
    return f"{found}: {what}; {positive} of {len(looked)} slices positive."
