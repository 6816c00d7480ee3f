"""Numbers of a report as a reader says them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

UNKNOWN = "–"


def percent(share: float | None) -> str:
    """Return a share in [0, 1] in percent, with a digit behind the point below 10 %, and never rounded to 0 or 100."""
    if share is None:
        return UNKNOWN
    value = 100 * share
    if 0 < value < 0.1:  # noqa: PLR2004
        return "< 0.1 %"
    if 99.5 <= value < 100:  # noqa: PLR2004
        return "> 99 %"
    return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"  # noqa: PLR2004


def amount(value: float | None, unit: str = "") -> str:
    """Return a number with three digits that count, large ones with a thin space between thousands."""
    if value is None:
        return UNKNOWN
    size = abs(value)
    digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2  # noqa: PLR2004
    text = f"{value:,.{digits}f}".replace(",", "\u202f").replace("-", "\u2212")
    return f"{text}\u00a0{unit}" if unit else text


def count(number: int, what: str) -> str:
    """Return "1 slice", "2 slices"."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def headline(report: Mapping[str, Any]) -> str:
    """Return the verdict in a few words."""
    return "Signs of COVID-19 found" if report["verdict"]["positive"] else "No signs of COVID-19 found"


def explanation(report: Mapping[str, Any]) -> list[str]:
    """Return the verdict in sentences: score and limit of its rule, and what it does not say."""
    verdict = report["verdict"]
    score, limit, rule = verdict["score"], verdict["limit"], verdict["rule"]
    looked = [s for s in report["slices"] if s["probability"] is not None]
    positive = sum(s["positive"] for s in looked)
    if verdict["probability"] is not None:
        first = (
            f"The probability of COVID-19 is {percent(verdict['probability'])}; "
            f"a study counts as positive from {percent(limit)}."
        )
    elif rule == "fraction":
        first = f"{percent(score)} of the slices are positive; a study counts as positive from {percent(limit)}."
    elif rule == "release-count":
        first = f"{count(round(score), 'slice')} positive; a study counts as positive from {count(round(limit), 'slice')}."
    else:
        first = f"The score is {score:.3g}; a study counts as positive from {limit:.3g}."
    second = f"{positive} of {count(len(looked), 'slice')} that were looked at positive, each from "
    second += f"{percent(report['model']['covid_threshold'])}." if report["model"]["covid_threshold"] else "its limit."
    sentences = [first, second if looked else "No slice was looked at."]
    if not verdict["positive"]:
        sentences.append("This does not rule out the disease.")
    return sentences


def affected(report: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the records of the most affected slices, the most affected first."""
    by_index = {s["index"]: s for s in report["slices"]}
    return [by_index[i] for i in report["most_affected"] if i in by_index]


def extent(report: Mapping[str, Any]) -> str:
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
