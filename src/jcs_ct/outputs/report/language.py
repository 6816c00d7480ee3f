"""The languages of report.html: its sentences from gettext catalogues, its numbers as each language writes them.

English is in the source, and its numbers follow the SI (a space before %, thin spaces between thousands). The other
languages come from `locale/CODE.po` beside this file; Babel reads them and formats numbers with the CLDR's rules.
`python tools/catalogues.py` brings the catalogues up to date after a sentence was changed.
"""

from __future__ import annotations

import gettext
import io
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING

from jcs_ct.core.errors import UsageError

if TYPE_CHECKING:
    from markupsafe import Markup

UNKNOWN = "–"

LANGUAGES = {
    "en": "English",
    "de": "Deutsch",
    "fr": "Français",
    "es": "Español",
    "zh": "中文",
    "ja": "日本語",
}
"""Code of each language (ISO 639-1) → its own name. Chinese is simplified."""

PROBES = {"zh": "\u80f8\u80ba", "ja": "\u80f8\u80ba"}
"""Language whose script many computers have no font for → two letters that look alike only where it is missing."""

TRANSLATIONS = tuple(code for code in LANGUAGES if code != "en")


def mark(message: str) -> str:
    """Return the message as it is; marks a sentence that is translated elsewhere, for the extraction of catalogues."""
    return message


@dataclass(frozen=True)
class Language:
    """One language: its code, as in `LANGUAGES`, and its sentences."""

    code: str
    catalogue: gettext.NullTranslations = field(repr=False)

    def say(self, message: str, /, **values: object) -> str:
        """Return a sentence with its values; `message` is the English one, with places such as %(share)s."""
        return self.catalogue.gettext(message) % values

    def text(self, message: str) -> str:
        """Return a text that comes from elsewhere in the program, translated if it is known; it has no places."""
        return self.catalogue.gettext(message) if message else ""

    def count(self, one: str, many: str, number: int, /, **values: object) -> str:
        """Return a sentence about a number of things; its place is %(n)s."""
        return self.catalogue.ngettext(one, many, number) % {"n": self.amount(number, digits=0), **values}

    def markup(self, message: str, /, **values: Markup) -> Markup:
        """Return a sentence whose values are HTML, such as keys; the sentence itself is escaped."""
        from markupsafe import escape

        return escape(self.catalogue.gettext(message)) % values

    def knows(self, message: str) -> bool:
        """Tell whether the language has this sentence."""
        return self.code == "en" or self.catalogue.gettext(message) != message

    def amount(self, value: float | None, unit: str = "", *, digits: int | None = None) -> str:
        """Return a number with three digits that count, or with so many behind the point."""
        if value is None:
            return UNKNOWN
        size = abs(value)
        if digits is None:
            digits = 0 if size >= 100 or value == 0 else 1 if size >= 10 else 2
        text = self._decimal(value, digits).replace("-", "\u2212")
        return f"{text}\u00a0{unit}" if unit else text

    def percent(self, share: float | None, *, digits: int | None = None) -> str:
        """Return a share in [0, 1] in percent, with a digit behind the point below 10 %, never rounded to 0 or 100.

        With `digits`, it has so many behind the point and is rounded like any number.
        """
        if share is None:
            return UNKNOWN
        if digits is not None:
            return self._percent(100 * share, digits)
        before, value, digits = _rounded(share)
        return before + self._percent(value, digits)

    def percent_beside(self, share: float, limit: float) -> str:
        """Return a share in percent with as many digits as tell it from a limit: never "50 %" beside "from 50 %".

        `share` is in [0, 1], as is the limit, which `percent` shows.
        """
        (before, value, digits), (limit_before, shown, _) = _rounded(share), _rounded(limit)
        more = 1
        while share != limit and more <= _MOST_DIGITS and before == limit_before == "" and value == shown:
            value, digits = round(100 * share, more), more
            more += 1
        return before + self._percent(value, digits)

    def _decimal(self, value: float, digits: int) -> str:
        if self.code == "en":
            return f"{value:,.{digits}f}".replace(",", "\u202f")
        from babel.numbers import format_decimal

        return format_decimal(round(value, digits), format=_pattern("#,##0", digits), locale=self.code)

    def _percent(self, value: float, digits: int) -> str:
        if self.code == "en":
            return f"{value:.{digits}f} %"
        from babel import Locale
        from babel.numbers import format_percent

        pattern = _pattern(str(Locale(self.code).percent_formats[None].pattern), digits)
        return format_percent(value / 100, format=pattern, locale=self.code)


_MOST_DIGITS = 5


def _rounded(share: float) -> tuple[str, float, int]:
    """Return what stands before a share, the number in percent as it is shown, and its digits behind the point."""
    value = 100 * share
    if 0 < value < 0.1:
        return "< ", 0.1, 1
    if 99.5 <= value < 100:
        return "> ", 99.0, 0
    digits = 0 if value >= 10 or value == 0 else 1
    return "", round(value, digits), digits


def _pattern(whole: str, digits: int) -> str:
    """Return a pattern of the CLDR for numbers with so many digits behind the point."""
    return whole.replace("0", "0." + "0" * digits, 1) if digits else whole


ENGLISH = Language("en", gettext.NullTranslations())


@lru_cache(maxsize=len(LANGUAGES))
def language_of(code: str) -> Language:
    """Return a language. Raises UsageError for a code that is not in `LANGUAGES`."""
    if code == "en":
        return ENGLISH
    if code not in LANGUAGES:
        raise UsageError(f"the report has no language {code!r}", hint=f"known: {', '.join(LANGUAGES)}")
    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    text = files(__package__).joinpath("locale", f"{code}.po").read_bytes()
    compiled = io.BytesIO()
    write_mo(compiled, read_po(io.BytesIO(text), locale=code))
    compiled.seek(0)
    return Language(code, gettext.GNUTranslations(compiled))


def drawn_language(code: str) -> Language:
    """Return the language of words within pictures: English where their font has not the letters of the language."""
    return ENGLISH if code in PROBES else language_of(code)
