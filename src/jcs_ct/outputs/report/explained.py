"""The model card of the page: each figure with a sentence on what it means, for readers who train no networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from jcs_ct.outputs.report.language import ENGLISH, Language, mark

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class Entry(NamedTuple):
    """A line of the card.

    Attributes:
        term: What it is called.
        value: Its value.
        meaning: What it means, in a sentence; "" where the value says it.
        english: Whether the value is a text of the weights, which no catalogue has.
    """

    term: str
    value: str
    meaning: str
    english: bool = False


NOTES = {
    "dice": mark("Dice is the overlap with the outlines of readers: 1 is the same outline, 0 no overlap."),
    "slices without lesion": mark("How often healthy slices were marked by mistake: the lower, the better."),
    "pointing": mark("How often the hottest point of the attention lay inside a lesion: 1 is always."),
    "energy": mark("How much of the attention lay inside lesions: 1 is all of it."),
    "whole studies": mark(
        "How often a study with COVID-19 gets a higher probability than one without, and how many of each kind were "
        "called right. Indeterminate ones count by the side of the threshold that they lie on."
    ),
    "auc": mark("How often a slice with COVID-19 gets a higher probability than one without: 0.5 is chance, 1 always."),
    "balanced accuracy": mark("How well the hospital can be guessed from the picture: above chance is a warning."),
    "calibration error": mark(
        "Sensitivity: share of the slices with COVID-19 that were found. Specificity: share of the others that were "
        "correctly called negative. Calibration error: how far probabilities were from what came true."
    ),
    "scores are of": mark(
        "The figures were measured on slices that the measured network had not seen. In some of the public sets the "
        "same patient may be on both sides."
    ),
}
"""Part of a note on a card, in lower case → what its figure means."""


def meaning_of(note: str, language: Language = ENGLISH) -> str:
    """Return what the figure of a note means, or "" for a note without a known figure."""
    found = next((text for part, text in NOTES.items() if part in note.lower()), "")
    return language.say(found) if found else ""


def explained_notes(notes: Sequence[str], language: Language = ENGLISH) -> list[tuple[str, str]]:
    """Return each note with what its figure means; a meaning stands once, with the first note that it belongs to."""
    found: list[tuple[str, str]] = []
    for note in notes:
        meaning = meaning_of(note, language)
        found.append((note, "" if any(meaning == known for _, known in found) else meaning))
    return found


def card_entries(report: Mapping[str, Any], language: Language = ENGLISH) -> list[Entry]:
    """Return the lines of the model card, without its notes."""
    say, model, segmenter = language.say, report["model"], report.get("segmenter")
    entries = [Entry(say("Weights"), model["name"], say("The trained model that gave the probabilities."))]
    if segmenter is not None:
        name = f"{segmenter['name']} ({segmenter['architecture']})"
        entries.append(Entry(say("Weights for lesions"), name, say("The trained model that outlined the lesions.")))
    entries += [
        Entry(say("Network"), model["architecture"], say("The kind of network that the weights belong to.")),
        Entry(say("Preparation"), model["recipe"], say("How slices are cut and scaled before the network sees them.")),
    ]
    if model["covid_threshold"] is not None:
        limit = language.percent(model["covid_threshold"])
        entries.append(Entry(say("Slice threshold"), limit, say("From this probability a slice counts as positive.")))
    if model["lesion_threshold"] is not None:
        limit = language.percent(model["lesion_threshold"])
        entries.append(Entry(say("Lesion threshold"), limit, say("From this probability a pixel counts as lesion.")))
    if model["temperature"] is not None:
        text = say("Corrects over-confident probabilities: raw scores are divided by it, 1 changes nothing.")
        entries.append(Entry(say("Temperature"), language.amount(model["temperature"]), text))
    if model.get("trained_on"):
        text = say("What the network learned from. A score on these slices says nothing about new patients.")
        entries.append(Entry(say("Trained on"), model["trained_on"], text, english=True))
    licence, stated = say("What the weights may be used for."), bool(model["licence"])
    return [*entries, Entry(say("Licence"), model["licence"] or say("not known"), licence, english=stated)]
