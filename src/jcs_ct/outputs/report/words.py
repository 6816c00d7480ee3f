"""The sentences of a report, in the language of its reader. SR and report.json take the English ones.

The first sentence says what a radiologist would say first: the verdict with its number and its threshold, then where
the lesions lie. Each sentence is translated whole; none is put together from words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.core.warning import UNRELIABLE
from jcs_ct.outputs.report.language import ENGLISH, UNKNOWN, Language, mark
from jcs_ct.study.whole_study import FEATURES

if TYPE_CHECKING:
    from collections.abc import Mapping

MANY_POSITIVE = 0.1  # of the slices: beside so many that are positive nobody says "no signs"
ONE_SIDED = 0.05  # of the lesions; where the other lung holds less, they "lie in one lung"


def call_of(verdict: Mapping[str, Any]) -> str:
    """Return positive, negative or indeterminate; reports of before 2026-11-29 have no word for it."""
    return str(verdict.get("call") or ("positive" if verdict["positive"] else "negative"))


def score_text(score: float, limit: float) -> str:
    """Return a score with two digits, or with as many as tell it from the limit."""
    digits = 2
    while digits < 6 and f"{score:.{digits}f}" == f"{limit:.{digits}f}" and score != limit:
        digits += 1
    return f"{score:.{digits}f}"


def finding(call: str, *, opacities: bool, positive: float) -> str:
    """Return a verdict as an English clause that agrees with what else was found.

    Args:
        call: positive, negative or indeterminate.
        opacities: Whether lesions were found in the lungs, of a grade above CT-0.
        positive: Share of the slices that are positive, in [0, 1].
    """
    if call == "positive":
        return mark("This study shows signs of COVID-19")
    if call == "indeterminate":
        if opacities:
            return mark("This study shows opacities, but the model cannot tell whether they are COVID-19")
        return mark("The model cannot tell whether this study shows COVID-19")
    if opacities:
        return mark("This study shows opacities, but COVID-19 is unlikely")
    if positive >= MANY_POSITIVE:
        return mark("COVID-19 is unlikely in this study")
    return mark("This study shows no signs of COVID-19")


def has_opacities(report: Mapping[str, Any]) -> bool:
    """Tell whether lesions of a grade above CT-0 were found; of pictures it is not known."""
    severity = (report["burden"] or {}).get("severity")
    return severity is not None and severity["score"] > 0


def first_line(report: Mapping[str, Any], language: Language = ENGLISH) -> str:
    """Return the verdict with its number and its threshold, as a sentence."""
    looked = [s for s in report["slices"] if s["probability"] is not None]
    if not looked:
        return language.say("No verdict: none of the slices could be assessed.")
    verdict = report["verdict"]
    score, limit = verdict["score"], verdict["limit"]
    share = sum(s["positive"] for s in looked) / len(looked)
    clause = language.say(finding(call_of(verdict), opacities=has_opacities(report), positive=share))
    if verdict["probability"] is not None:
        number = {"score": language.percent_beside(score, limit), "limit": language.percent(limit)}
        return language.say("%(finding)s: study probability %(score)s (threshold %(limit)s).", finding=clause, **number)
    if verdict["rule"] == "fraction":
        number = {"score": language.percent_beside(score, limit), "limit": language.percent(limit)}
        text = mark("%(finding)s: %(score)s of the slices are positive (threshold %(limit)s).")
        return language.say(text, finding=clause, **number)
    if verdict["rule"] == "release-count":
        number = {"score": language.amount(score, digits=0), "limit": language.amount(limit, digits=0)}
        text = mark("%(finding)s: %(score)s positive slices (threshold %(limit)s).")
        return language.say(text, finding=clause, **number)
    number = {"score": language.amount(score), "limit": language.amount(limit)}
    return language.say("%(finding)s: score %(score)s (threshold %(limit)s).", finding=clause, **number)


def explanation(report: Mapping[str, Any], language: Language = ENGLISH) -> list[str]:
    """Return the first line, then what it rests on, what was found in the lungs, and what it does not say."""
    looked = [s for s in report["slices"] if s["probability"] is not None]
    first = first_line(report, language)
    if not looked:
        return [first]
    sentences = [first, *_lesions(report, language), *_interval(report["verdict"], language)]
    sentences += [*_terms(report["verdict"], language), _positive_slices(report, language)]
    return sentences + _what_it_does_not_say(report, language)


def _lesions(report: Mapping[str, Any], language: Language) -> list[str]:
    """Return how much of which lung is affected, and by what."""
    burden = report["burden"]
    if burden is None or report["settings"]["segment"] == "never":
        return []
    if not burden["lesion_ml"]:
        return [language.say("No lesions were found in the lungs.")]
    volume = language.amount(burden["lesion_ml"], "ml")
    if burden["share"] is None:
        return [language.say("Lesions of %(volume)s were found, but not the lungs around them.", volume=volume)]
    right, left = burden["right"]["lesion_ml"], burden["left"]["lesion_ml"]
    where = mark("Lesions occupy %(share)s of the lungs (%(volume)s), on both sides.")
    if left < ONE_SIDED * burden["lesion_ml"]:
        where = mark("Lesions occupy %(share)s of the lungs (%(volume)s), in the right lung.")
    elif right < ONE_SIDED * burden["lesion_ml"]:
        where = mark("Lesions occupy %(share)s of the lungs (%(volume)s), in the left lung.")
    sentences = [language.say(where, share=language.percent(burden["share"]), volume=volume)]
    if (burden["ground_glass_share"] or 0) > 0.5:
        sentences.append(language.say("Most of it is ground glass."))
    elif (burden["consolidation_share"] or 0) > 0.5:
        sentences.append(language.say("Most of it is consolidation."))
    return sentences


def _interval(verdict: Mapping[str, Any], language: Language) -> list[str]:
    """Return how far the probability may be off."""
    interval = verdict.get("interval")
    if interval is None:
        return []
    low, high = (language.percent_beside(end, verdict["limit"]) for end in interval)
    text = mark(
        "The probability is uncertain because its formula was fitted to only %(n)s studies: it may lie between %(low)s "
        "and %(high)s (%(level)s %% interval)."
    )
    studies, level = (language.amount(n, digits=0) for n in (verdict["studies"], 100 * verdict["confidence"]))
    return [language.say(text, low=low, high=high, n=studies, level=level)]


def _terms(verdict: Mapping[str, Any], language: Language) -> list[str]:
    """Return what the probability follows from, in a sentence."""
    if verdict["rule"] == "top-k":
        text = mark(
            "The probability comes from the most suspicious tenth of the slices alone; lesions do not count in it."
        )
        return [language.say(text)]
    terms = [
        language.say(FEATURES[t["feature"]].words).format(language.percent(t["value"]))
        for t in verdict.get("terms") or ()
    ]
    if len(terms) == 2:
        return [language.say("Two findings lead to this: %(one)s, and %(other)s.", one=terms[0], other=terms[1])]
    return [language.say("It follows from: %(terms)s.", terms="; ".join(terms))] if terms else []


def _positive_slices(report: Mapping[str, Any], language: Language) -> str:
    slices = report["slices"]
    looked = [s for s in slices if s["probability"] is not None]
    positive = language.amount(sum(s["positive"] for s in looked), digits=0)
    threshold = report["model"]["covid_threshold"]
    values = {"positive": positive, "limit": language.percent(threshold)}
    text = mark("Positive slices (slice threshold %(limit)s): %(positive)s of %(n)s.")
    if len(looked) < len(slices):
        text = mark("Positive slices (slice threshold %(limit)s): %(positive)s of the %(n)s that were assessed.")
    return language.say(text, n=language.amount(len(looked), digits=0), **values)


def _what_it_does_not_say(report: Mapping[str, Any], language: Language) -> list[str]:
    call, opacities = call_of(report["verdict"]), has_opacities(report)
    sentences = []
    if call == "indeterminate":
        sentences.append(language.say("The result is too close to the threshold to call."))
    if opacities:
        sentences.append(
            language.say("Opacities alone cannot distinguish COVID-19 from another pneumonia or from a tumour.")
        )
    if call != "positive":
        sentences.append(language.say("This result does not rule out COVID-19."))
    return sentences


def describe(slice_: Mapping[str, Any], report: Mapping[str, Any], language: Language = ENGLISH) -> str:
    """Return what the viewer says of a slice, in a line."""
    total = len(report["slices"])
    parts = [language.say("Slice %(index)s of %(total)s", index=slice_["index"], total=total)]
    if slice_["name"]:
        parts.append(slice_["name"])
    probability, share = slice_["probability"], slice_["lesion_share"]
    if probability is None:
        parts.append(language.say("not assessed"))
    else:
        text = (
            mark("probability %(p)s, positive")
            if slice_["positive"]
            else mark("probability %(p)s, below the threshold")
        )
        parts.append(language.say(text, p=language.percent(probability)))
    if slice_["lesion_mm2"]:
        parts.append(language.say("lesion %(area)s", area=language.amount(slice_["lesion_mm2"] / 100, "cm²")))
    if share == 0:
        parts.append(language.say("no lesion"))
    elif share:
        of = (
            mark("%(share)s of the picture") if report["input"]["kind"] == "pictures" else mark("%(share)s of the lung")
        )
        parts.append(language.say(of, share=language.percent(share)))
    return " · ".join(parts)


def flags(slice_: Mapping[str, Any], language: Language = ENGLISH) -> list[str]:
    """Return what speaks against a slice; a remark that the language does not have stays English."""
    return [language.text(flag) for flag in slice_["flags"]]


def titles(report: Mapping[str, Any], language: Language) -> dict[str, str]:
    """Return a title in the reader's language for each warning whose kind is known; its details are English."""
    cautions = report.get("cautions", ())
    return {c["text"]: language.text(UNRELIABLE[c["code"]]) for c in cautions if c["code"] in UNRELIABLE}


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


def lesion_extent(report: Mapping[str, Any], language: Language = ENGLISH) -> str:
    """Return from which to which slice there are lesions, and how many mm that is."""
    burden = report["burden"]
    first, last = burden["first_slice"], burden["last_slice"]
    if first is None or last is None:
        return UNKNOWN
    if first == last:
        return language.say("slice %(first)s", first=first)
    text = language.say("slices %(first)s–%(last)s", first=first, last=last)
    z = {s["index"]: s["z_mm"] for s in report["slices"]}
    if z.get(first) is not None and z.get(last) is not None:
        text += f" ({language.amount(abs(z[first] - z[last]), 'mm')})"
    return text
