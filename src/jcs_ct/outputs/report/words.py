"""Numbers of a report as a reader says them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN = "–"
MOST_DIGITS = 6


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


def headline(report: Mapping[str, Any]) -> str:
    """Return the verdict in a few words."""
    if all(s["probability"] is None for s in report["slices"]):
        return "No verdict: no slice could be looked at"
    return "Signs of COVID-19 found" if report["verdict"]["positive"] else "No signs of COVID-19 found"


def explanation(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict in sentences: score and limit of its rule, and what it does not say."""
    verdict = report["verdict"]
    looked = [s for s in report["slices"] if s["probability"] is not None]
    if not looked:
        return ["Nothing is said of this study."]
    score, limit, rule = verdict["score"], verdict["limit"], verdict["rule"]
    positive = sum(s["positive"] for s in looked)
    if verdict["probability"] is not None:
        first = (
            f"The probability of COVID-19 is {percent_beside(verdict['probability'], limit)}; "
            f"a study counts as positive from {percent(limit)}."
        )
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
    sentences = [first, second]
    if not verdict["positive"]:
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
