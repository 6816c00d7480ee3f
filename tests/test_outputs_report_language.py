"""The report in other languages: catalogues that are whole, places that fit, numbers as each language writes them."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from babel.messages.pofile import read_po

from jcs_ct.core.errors import UsageError
from jcs_ct.outputs.report import words
from jcs_ct.outputs.report.explained import NOTES, card_entries, explained_notes, meaning_of
from jcs_ct.outputs.report.html import render
from jcs_ct.outputs.report.language import ENGLISH, LANGUAGES, TRANSLATIONS, language_of
from jcs_ct.weights.card import WeightsCard
from report_help import sample_frames, sample_report

if TYPE_CHECKING:
    from babel.messages.catalog import Catalog

ROOT = Path(__file__).parent.parent
LOCALE = ROOT / "src" / "jcs_ct" / "outputs" / "report" / "locale"
PLACE = re.compile(r"%\(\w+\)s|%%|\{\}")


def forms(text: Any) -> list[str]:
    """Return singular and plurals of a message or of its translation; of most there is one."""
    return [text] if isinstance(text, str) else list(text or ())


def catalogue(code: str) -> Catalog:
    with (LOCALE / f"{code}.po").open("rb") as file:
        return read_po(file, locale=code, abort_invalid=True)


def test_every_language_has_a_catalogue_and_there_is_no_other() -> None:
    assert {path.stem for path in LOCALE.glob("*")} == set(TRANSLATIONS) == set(LANGUAGES) - {"en"}
    with pytest.raises(UsageError, match="no language 'it'"):
        language_of("it")


def test_the_catalogues_hold_every_sentence_of_the_page_and_no_other(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    assert import_module("catalogues").main(["--check"]) == 0, capsys.readouterr().out


@pytest.mark.parametrize("code", TRANSLATIONS)
def test_every_sentence_is_translated_and_keeps_its_places(code: str) -> None:
    found = [message for message in catalogue(code) if message.id]
    assert len(found) > 200
    for message in found:
        assert not message.fuzzy, message.id
        ids, texts = forms(message.id), forms(message.string)
        assert texts
        assert all(text.strip() for text in texts), f"{ids[0]!r} is not translated"
        places = {tuple(sorted(PLACE.findall(text))) for text in ids}
        for text in texts:
            here = tuple(sorted(PLACE.findall(text)))
            assert here in places or "%(n)s" in ids[-1], ids[0]
            assert not set('<>&"') & set(text), "markup comes from the template alone"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("en", "7.5 %|87 %|< 0.1 %|> 99 %|49.96 %|−4 630 ml|12.3 mm"),
        ("de", "7,5 %|87 %|< 0,1 %|> 99 %|49,96 %|−4.630 ml|12,3 mm"),
        ("fr", "7,5 %|87 %|< 0,1 %|> 99 %|49,96 %|−4 630 ml|12,3 mm"),
        ("es", "7,5 %|87 %|< 0,1 %|> 99 %|49,96 %|−4.630 ml|12,3 mm"),
        ("zh", "7.5%|87%|< 0.1%|> 99%|49.96%|−4,630 ml|12.3 mm"),
        ("ja", "7.5%|87%|< 0.1%|> 99%|49.96%|−4,630 ml|12.3 mm"),
    ],
)
def test_numbers_are_written_as_the_language_does(code: str, expected: str) -> None:
    say = language_of(code)
    shares = [say.percent(share) for share in (0.075, 0.87, 0.0004, 0.998)]
    written = [*shares, say.percent_beside(0.4996, 0.5), say.amount(-4630.2, "ml"), say.amount(12.34, "mm")]
    assert re.sub(r"[\u00a0\u202f]", " ", "|".join(written)) == expected  # which space it is may change with the CLDR
    assert say.percent(None) == say.amount(None) == "–"


@pytest.mark.parametrize("code", TRANSLATIONS)
def test_a_page_in_another_language_has_no_english_but_what_is_marked(code: str) -> None:
    language = language_of(code)
    report = sample_report()
    report["settings"]["language"] = code
    report["cautions"] = [{"code": "partial-chest", "text": "the chest is 20 mm long"}]
    report["verdict"] |= {"reliable": False, "reasons": ["the chest is 20 mm long"]}
    page = render(report, sample_frames())
    assert f'<html lang="{code}">' in page
    first = words.first_line(report, language)
    assert first in page
    assert first != words.first_line(report)
    assert language.text("less than a whole chest") in page
    assert '<span class="detail" lang="en">the chest is 20 mm long</span>' in page
    assert "Translation not reviewed by a native reader." in page
    body = re.sub(r'<(\w+)[^>]*lang="en"[^>]*>.*?</\1>|<style>.*?</style>|<script.*?</script>', "", page, flags=re.S)
    for message in catalogue(code):
        for text in forms(message.id):
            same = text in forms(message.string)
            if len(text) > 20 and "%" not in text and not same:
                assert text not in body, "stands in English"


def test_english_reports_say_nothing_of_translations() -> None:
    assert "native reader" not in render(sample_report(), [])
    assert language_of("en") is ENGLISH


def test_every_figure_of_the_shipped_card_is_explained() -> None:
    card = WeightsCard.from_json((ROOT / "src" / "jcs_ct" / "assets" / "jcs-lite.json").read_bytes())
    said = list(card.notes)
    notes = [note for note in said if re.search(r"\d\.\d", note)]
    assert len(notes) > 5
    assert [note for note in notes if not meaning_of(note)] == []
    assert all(any(part in note.lower() for note in said) for part in NOTES), "explains what no card says"
    assert meaning_of("made for a test") == ""
    explained = [meaning for _, meaning in explained_notes(said) if meaning]
    assert len(explained) == len(set(explained)) > 5, "each meaning stands once"


def test_the_card_explains_each_of_its_lines() -> None:
    report = sample_report()
    entries = {entry.term: entry for entry in card_entries(report)}
    assert all(entry.meaning.endswith(".") for entry in entries.values())
    assert entries["Slice threshold"].value == "50 %"
    assert "Trained on" not in entries
    report["model"]["trained_on"] = "12 slices"
    assert next(e for e in card_entries(report) if e.term == "Trained on").value == "12 slices"
    report["model"] |= {"temperature": None, "lesion_threshold": None, "covid_threshold": None}
    assert not {"Temperature", "Lesion threshold", "Slice threshold"} & {e.term for e in card_entries(report)}
    segmenter = {"name": "mine", "architecture": "jcs-single", "weights_sha256": "a" * 64}
    assert "mine (jcs-single)" in {e.value for e in card_entries(report | {"segmenter": segmenter})}
