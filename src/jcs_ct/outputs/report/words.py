"""Numbers of a report as a reader says them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.study.whole_study import FEATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN = "–"
MOST_DIGITS = 6
MANY_POSITIVE = 0.1  # of the slices: beside so many that are positive nobody says "no signs"


def percent(share: float | None) -> str:
    """Return a share in [0, 1] in percent, with a digit behind the point below 10 %, and never rounded to 0 or 100."""
    if share is None:
        return UNKNOWN
    value = 100 * share
    if 0 < value < 0.1:
        return "< 0.1 %"
    if 99.5 <= value < 100:
        return "> 99 %"
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"


def percent_beside(share: float, limit: float) -> str:
    """Return a share in percent with as many digits as tell it from a limit: never "50 %" beside "from 50 %" and below.

    Args:
        share: In [0, 1].
        limit: What it is compared with, shown by `percent`.
    """
    text = percent(share)
    digits = 1
    while share != limit and digits < MOST_DIGITS and _number(text) == _number(percent(limit)):
        text = f"{100 * share:.{digits}f} %"
        digits += 1
    return text


def _number(text: str) -> float | None:
    number = text.removesuffix(" %")
    return float(number) if number.replace(".", "", 1).isdigit() else None


def amount(value: float | None, unit: str = "") -> str:
    """Return a number with three digits that count, large ones with a thin space between thousands."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2
    text = f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", "\u2212")
    return f"{text}\u00a0{unit}" if unit else text


def count(number: int, what: str) -> str:
    """Return "1 slice", "2 slices"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def call_of(verdict: Mapping[str, Any]) -> str:
    """Return positive, negative or indeterminate; reports of before 2026-11-29 have no word for it."""
    return str(verdict.get("call") or ("positive" if verdict["positive"] else "negative"))


def finding(call: str, *, opacities: bool, positive: float) -> str:
    """Return a verdict in a few words that agree with what else was found.

    Args:
        call: positive, negative or indeterminate.
        opacities: Whether lesions were found in the lungs, of a grade above CT-0.
        positive: Share of the slices that are positive, in [0, 1].
    """
    if call == "positive":
        return "Signs of COVID-19 found"
    if call == "indeterminate":
        return f"Indeterminate: {'opacities found, ' if opacities else ''}COVID-19 can neither be said nor ruled out"
    if opacities:
        return "Opacities found, COVID-19 unlikely"
    return "COVID-19 unlikely" if positive >= MANY_POSITIVE else "No signs of COVID-19 found"


def has_opacities(report: Mapping[str, Any]) -> bool:
    """Tell whether lesions of a grade above CT-0 were found; of pictures it is not known."""
    severity = (report["burden"] or {}).get("severity")
    return severity is not None and severity["score"] > 0


def headline(report: Mapping[str, Any]) -> str:
    """Return the verdict in a few words."""
    looked = [s for s in report["slices"] if s["probability"] is not None]
    if not looked:
        return "No verdict: no slice could be looked at"
    share = sum(s["positive"] for s in looked) / len(looked)
    return finding(call_of(report["verdict"]), opacities=has_opacities(report), positive=share)


def explanation(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict in sentences: score and limit of its rule, and what it does not say."""
    verdict = report["verdict"]
    looked = [s for s in report["slices"] if s["probability"] is not None]
    if not looked:
        return ["Nothing is said of this study."]
    score, limit, rule = verdict["score"], verdict["limit"], verdict["rule"]
    positive = sum(s["positive"] for s in looked)
    if verdict["probability"] is not None:
        first = f"The probability of COVID-19 is {percent_beside(verdict['probability'], limit)}{_interval(verdict)}; "
        first += f"a study counts as positive from {percent(limit)}."
    elif rule == "fraction":
        share = percent_beside(score, limit)
        first = f"{share} of the slices are positive; a study counts as positive from {percent(limit)}."
    elif rule == "release-count":
        are = "is" if round(score) == 1 else "are"
        first = f"{count(round(score), 'slice')} {are} positive; "
        first += f"a study counts as positive from {count(round(limit), 'slice')}."
    else:
        first = f"The score is {score:.3g}; a study counts as positive from {limit:.3g}."
    whole = len(looked) == len(report["slices"])
    second = f"{positive} of {'the ' if not whole else ''}{count(len(looked), 'slice')}"
    second += f"{'' if whole else ' that were looked at'} {'is' if positive == 1 else 'are'} positive"
    threshold = report["model"]["covid_threshold"]
    second += "." if threshold is None else f" ({percent(threshold)} or more)."
    return [first, *_terms(verdict), second, *_what_it_does_not_say(report)]


def _interval(verdict: Mapping[str, Any]) -> str:
    """Return what the fit of the rule is sure of, in brackets."""
    interval = verdict.get("interval")
    if interval is None:
        return ""
    low, high = (percent_beside(end, verdict["limit"]).removesuffix(" %") for end in interval)
    return f" (as far as the fit is sure: {low} to {high} %)"


def _terms(verdict: Mapping[str, Any]) -> list[str]:
    """Return what the probability follows from, in a sentence."""
    terms = [FEATURES[t["feature"]].words.format(percent(t["value"])) for t in verdict.get("terms") or ()]
    if not terms:
        return []
    listed = terms[0] if len(terms) == 1 else f"{', '.join(terms[:-1])}, and {terms[-1]}"
    return [f"It follows from this: {listed}."]


def _what_it_does_not_say(report: Mapping[str, Any]) -> list[str]:
    call, opacities = call_of(report["verdict"]), has_opacities(report)
    sentences = []
    if call == "indeterminate":
        sentences.append("The fit is not sure on which side of the threshold this study lies.")
    if call != "positive" and opacities:
        found = f"{amount(report['burden']['lesion_ml'], 'ml')} of opacities, {percent(report['burden']['share'])} of"
        sentences.append(f"Found: {found} the lungs. COVID-19 is not told from other pneumonias or tumours by them.")
    if call != "positive":
        sentences.append("This does not rule out the disease.")
    return sentences


def affected(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the records to show: of the most affected slices, else of the three with the highest probability."""
    by_index = {s["index"]: s for s in report["slices"]}
    if report["most_affected"]:
        return [by_index[i] for i in report["most_affected"]]
    return [s for s in _by_probability(report) if s["probability"] is not None][:3]


def first_shown(report: Mapping[str, Any]) -> int:
    """Return the index of the slice to open at."""
    return int((affected(report) or _by_probability(report))[0]["index"])


def _by_probability(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the records, the highest probability first; of equal ones (in percent) the one nearest the middle."""
    middle = (len(report["slices"]) + 1) / 2
    return sorted(report["slices"], key=lambda s: (-round(s["probability"] or 0, 2), abs(s["index"] - middle)))


def other_files(report: Mapping[str, Any]) -> list[str]:
    """Return the other files beside the page; of a folder only its name."""
    names = [name.partition("/")[0] + "/" * ("/" in name) for name in report["files"].values()]
    return [name for name in dict.fromkeys(names) if name != "report.html"]


def lesion_extent(report: Mapping[str, Any]) -> str:
    """Return from which to which slice there are lesions, and how many mm that is."""
    burden = report["burden"]
    first, last = burden["first_slice"], burden["last_slice"]
    if first is None or last is None:
        return UNKNOWN
    text = f"slice {first}" if first == last else f"slices {first}–{last}"
    z = {s["index"]: s["z_mm"] for s in report["slices"]}
    if first != last and z.get(first) is not None and z.get(last) is not None:
        text += f", {amount(abs(z[first] - z[last]), 'mm')}"
    return text
