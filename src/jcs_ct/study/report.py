"""The numbers of a study as `report.json` holds them (schema: `jcs_ct.outputs.report`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct import __version__
from jcs_ct.core.warning import UNRELIABLE, code_of
from jcs_ct.imaging.slice_check import LIES
from jcs_ct.imaging.window import LUNG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.anatomy.burden import Burden
    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.study.examine import Examination
    from jcs_ct.study.result import SliceResult
    from jcs_ct.study.rules import Verdict
    from jcs_ct.study.settings import Networks

SCHEMA = "jcs-ct/report/1"
DISCLAIMER = "Research tool, no medical device. Not for diagnosis, triage or treatment of patients."
FEW_SLICES = 10  # looked at; a verdict on fewer says little about a patient
MANY_FLAGGED = 0.5  # share of slices
MANY_LYING = 0.25  # share of slices that lie wrong in the same way; upright slices of unknown scanners reach 0.07


def build_report(
    study: Examination, verdict: Verdict, burden: Burden | None, slices: Sequence[SliceResult], seconds: float
) -> dict[str, Any]:
    """Return the report without the names of other files."""
    case, card = study.case, study.networks.screen.card
    series = case.series
    reasons = doubts(study, slices)
    notes = list(card.notes)
    segment, segmenter = study.networks.segment, segmenter_of(study.networks)
    if segmenter is not None:
        notes.append(f"lesions by {segmenter['name']} ({segmenter['architecture']})")
    shapes = {(rows, columns) for rows, columns in study.shapes}
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
            "covid_threshold": study.networks.screen.covid_threshold,
            "lesion_threshold": segment.threshold if segment else None,
            "temperature": card.temperature,
            "licence": card.licence,
            "notes": notes,
        },
        "segmenter": segmenter,
        "settings": {
            "rule": study.settings.rule,
            "segment": study.settings.segment,
            "window_hu": list(LUNG) if series else None,
            "runtime": study.networks.screen.runtime,
        },
        "verdict": {
            "rule": verdict.rule,
            "score": round(verdict.score, 6),
            "limit": verdict.limit,
            "positive": verdict.positive,
            "probability": round(verdict.score, 6) if verdict.rule == "top-k" else None,
            "text": words(verdict, slices),
            "reliable": not reasons,
            "reasons": reasons,
        },
        "burden": None if burden is None else burden.to_dict(),
        "slices": [s.to_dict() for s in slices],
        "most_affected": most_affected(slices),
        "cautions": [{"code": code_of(w), "text": str(w)} for w in study.warnings],
        "warnings": list(study.warnings) + list(burden.warnings() if burden is not None else ()),
        "files": {},
        "seconds": round(seconds, 2),
    }


def series_of_study(series: CTSeries) -> list[dict[str, Any]] | None:
    """Return which series of the study was read, and why not the others; None where there is only one."""
    if not series.others and not series.passed:
        return None
    chosen = {"number": series.number, "slices": len(series), "read": True, "reason": ""}
    rest = [{"number": o.number, "slices": o.slices, "read": False, "reason": o.reason} for o in series.others]
    return [chosen, *rest]


def segmenter_of(networks: Networks) -> dict[str, str] | None:
    """Return the `segmenter` object of the report: what finds lesions, where that is not what `model` describes."""
    if networks.segment is None or networks.segment is networks.screen:
        return None
    card = networks.segment.card
    return {"name": card.name, "architecture": card.architecture, "weights_sha256": card.weights_sha256}


def most_affected(slices: Sequence[SliceResult], most: int = 5) -> list[int]:
    """Return the slices with the most lesion, the most first, no two of them neighbours (5 % of the study apart)."""
    apart = max(1, round(0.05 * len(slices)))
    chosen: list[int] = []
    for s in sorted((s for s in slices if s.lesion_share), key=lambda s: -(s.lesion_mm2 or s.lesion_share or 0.0)):
        if len(chosen) < most and all(abs(s.index - index) >= apart for index in chosen):
            chosen.append(s.index)
    return chosen


def words(verdict: Verdict, slices: Sequence[SliceResult]) -> str:
    """Return the verdict as a sentence."""
    looked = [s for s in slices if s.probability is not None]
    positive = sum(s.positive for s in looked)
    what = {
        "top-k": f"probability {told(verdict.score, verdict.limit)} from the highest slices, limit {verdict.limit:.2f}",
        "fraction": f"{100 * verdict.score:.0f} % of the slices are positive, limit {100 * verdict.limit:.0f} %",
        "release-count": f"{verdict.score:.0f} slices are positive, limit {verdict.limit:.0f}",
    }.get(verdict.rule, f"score {verdict.score:.3g}, limit {verdict.limit:.3g}")
    found = "Signs of COVID-19 found" if verdict.positive else "No signs of COVID-19 found"
    return f"{found}: {what}; {positive} of {len(looked)} slices positive."


def told(score: float, limit: float) -> str:
    """Return a score with two digits, or with as many as tell it from the limit."""
    digits = 2
    while digits < 6 and f"{score:.{digits}f}" == f"{limit:.{digits}f}" and score != limit:
        digits += 1
    return f"{score:.{digits}f}"


def doubts(study: Examination, slices: Sequence[SliceResult]) -> list[str]:
    """Return why the verdict should not be relied on, a line each."""
    reasons = []
    looked = [s for s in slices if s.probability is not None]
    if len(looked) < FEW_SLICES:
        count = "one slice was" if len(looked) == 1 else f"{len(looked)} slices were"
        reasons.append(f"only {count} looked at; a patient's verdict needs the whole chest")
    flagged = [s for s in looked if s.flags]
    if looked and len(flagged) >= MANY_FLAGGED * len(looked):
        reasons.append(
            f"{len(flagged)} of {len(looked)} slices may be no lung-windowed axial chest slices: {flagged[0].flags[0]}"
        )
    for how in LIES.values():
        lying = sum(how in s.flags for s in looked)
        if lying >= max(2, MANY_LYING * len(looked)) and len(flagged) < MANY_FLAGGED * len(looked):
            reasons.append(f"of {len(looked)} slices {lying} look wrong: {how}")
    reasons += [str(w) for w in study.warnings if code_of(w) in UNRELIABLE and str(w) not in reasons]
    return reasons
