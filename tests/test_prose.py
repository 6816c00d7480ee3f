"""Plain English everywhere: a linter and the project's own rules read pages, help, messages and the report's sentences.

`VOCABULARY` says which advice of proselint does not hold here. `RULES` are words that were found here and read like a
translation, each with what to write instead; `docs/words.md` shows the worst before and after.
"""

from __future__ import annotations

import os
import re
from bisect import bisect
from importlib.util import find_spec
from itertools import accumulate
from typing import TYPE_CHECKING

import pytest

from prose_help import Text, helps, messages, pages, sentences_of_the_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

VOCABULARY = {
    "typography.symbols.curly_quotes": "straight quotes are what a terminal shows",
    "typography.symbols.multiplication": "ids of data such as 128x128 are quoted as they are",
    "typography.diacritical_marks": "to resume a run is no résumé",
    "dates_times.dates": "numbers here are seldom years",
    "misc.phrasal_adjectives.ly": "a multiply-add is a noun",
}
"""Check of proselint that does not hold here → why."""

RULES = {
    r"no medical device": "not a medical device",
    r"\b(?<!there )(is|are) no (JSON|CSV|DICOM|NIfTI|folder|file|list|number|report|table|title|token|manifest)\b":
        "is not a …",
    r"\bcame[,;] (?!back)": "was given; … is expected",
    r"\bunforeseen\b": "unexpected",
    r"\boutside of (the|it|a|what)\b": "outside",
    r"\binside of\b": "inside",
    r"\b[Mm]end(ed|s)? (it|them|the row|std)": "correct, repair or fix",
    r"\bfor want of\b": "because … ran out",
    r"\b(lies?|lay|stands?) beside\b": "is next to",
    r"\bof everything random\b": "seed of the random numbers",
    r"\bto have been had\b|\b(can|could|cannot) be had\b": "is available",
    r"\binformations\b|\bsoftwares\b|\bdatas\b|\btrainings\b": "no plural",
    r"\b(allow|enable|permit)s? to\b": "lets you …",
    r"\bin the same time\b": "at the same time",
    r"\blook whether\b": "check whether",
    r"\bcontradict one another\b": "contradict each other",
    r"\bfrom where on\b": "from which",
    r"\bas well as also\b|\balso too\b": "once is enough",
    r"\bresp\.": "respectively, or two sentences",
    r"\b(the|a) before (said|named)\b": "this",
    r"\b(colour|color) pictures are meant\b": "say what is expected",
}  # fmt: skip
"""What must not be written, as a regular expression → what to write instead."""

FRAGMENT = re.compile(r"(Of|As|For|Its|May|Between|A study may|From|In place|Not|0:)\b")
"""How the help of an option must not begin: what the option is must stand in it, also without its name."""

ALL: dict[str, Callable[[], Iterator[Text]]] = {
    "pages": pages, "report": sentences_of_the_report, "help": helps, "messages": messages,
}  # fmt: skip


@pytest.fixture(scope="module", params=ALL)
def texts(request: pytest.FixtureRequest) -> list[Text]:
    return list(ALL[request.param]())


def line_of(text: Text, position: int) -> str:
    start, end = text.words.rfind("\n", 0, position) + 1, text.words.find("\n", position)
    return f"{text.where}: {text.words[start : end if end >= 0 else None].strip()[:160]}"


def test_there_is_something_to_read(texts: list[Text]) -> None:
    assert sum(len(text.words) for text in texts) > 5000
    assert all("jcs diagnose -o" not in text.words for text in texts), "code is not prose"


def test_the_words_of_the_project(texts: list[Text]) -> None:
    found = [
        f"{line_of(text, hit.start())} – {hit.group()!r}; write: {instead}"
        for text in texts
        for rule, instead in RULES.items()
        for hit in re.finditer(rule, text.words)
    ]
    assert found == []


def test_the_rules_find_what_they_are_for() -> None:
    bad = (
        "This is no medical device. It is no JSON. 3 came, 1 is needed. It lies outside of the lungs, for want of one."
    )
    assert len([rule for rule in RULES if re.search(rule, bad)]) == 5
    good = "This is not a medical device. It is not JSON. It is no longer there. It came back."
    assert [rule for rule in RULES if re.search(rule, good)] == []


def test_the_help_of_an_option_says_what_it_is() -> None:
    options = [text for text in helps() if "--help" not in text.where]
    assert len(options) > 100
    assert [f"{text.where}: {text.words}" for text in options if FRAGMENT.match(text.words)] == []
    assert [f"{text.where}: {text.words}" for text in options if not text.words.rstrip().endswith((".", ")"))] == []


def test_the_linter_agrees(texts: list[Text]) -> None:
    if find_spec("proselint") is None:
        if os.environ.get("CI"):
            pytest.fail("proselint is missing, which the extra dev installs")
        pytest.skip("needs proselint: python tools/setup.py --dev")
    from proselint.checks import __register__
    from proselint.config import DEFAULT
    from proselint.registry import CheckRegistry
    from proselint.tools import LintFile

    CheckRegistry().register_many(__register__)
    whole = Text("", "\n\n".join(text.words for text in texts))  # one pass: each costs a tenth of a second
    starts = list(accumulate((len(text.words) + 2 for text in texts), initial=0))
    found = []
    for one in LintFile("prose", whole.words).lint(DEFAULT):
        check, (start, end) = one.check_result.check_path, one.check_result.span
        words = whole.words[max(0, start - 1) : end]
        repeated = check == "lexical_illusions" and (
            "CODE" in words or "\n\n" in words or not re.search("[A-Za-z]", words)
        )
        if not repeated and not any(check.startswith(known) for known in VOCABULARY):
            where = texts[bisect(starts, max(0, start - 1)) - 1].where
            found.append(f"{where}{line_of(whole, start)} – {check}: {one.check_result.message}")
    assert found == []
