"""Bring the catalogues of the report's languages up to date with its sentences: `python tools/catalogues.py [--check]`.

Sentences are found in the template and in the modules of `outputs` (`say`, `count`, `markup`, `mark`, `_`); texts of
other modules that the page shows are listed here. New sentences get an empty translation, which a test then asks for;
sentences that are gone are removed. With `--check` nothing is written; the exit status is 1 where something would
change.
"""

from __future__ import annotations

import io
import sys
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po, write_po

from jcs_ct.core.warning import UNRELIABLE
from jcs_ct.imaging.slice_check import FLAG_TEXTS, MISORIENTED
from jcs_ct.io.dicom.header import FACTS
from jcs_ct.outputs.report.language import TRANSLATIONS
from jcs_ct.study.whole_study import FEATURES

FOLDER = Path(__file__).parent.parent / "src" / "jcs_ct" / "outputs" / "report"
KEYWORDS = {"say": None, "markup": None, "mark": None, "_": None, "count": (1, 2)}
METHODS = [("**.py", "python"), ("**.j2", "jinja2.ext:babel_extract")]


def elsewhere() -> list[str]:
    """Return the texts that the page shows and that stand in other modules: kinds of warnings, remarks, facts."""
    facts = [name for keyword, name in FACTS.items() if keyword != "KVP"]
    features = [feature.words for feature in FEATURES.values()]
    flags = [text for text in FLAG_TEXTS.values() if "{" not in text]
    return [*UNRELIABLE.values(), *flags, *MISORIENTED.values(), *facts, "contrast", "study year", *features]


def sentences() -> Catalog:
    """Return every sentence of the page, without translations."""
    catalogue = Catalog(project="jcs-ct", fuzzy=False)
    found = extract_from_dir(FOLDER.parent, METHODS, keywords=KEYWORDS, comment_tags=())
    for _, _, message, _, _ in sorted(found, key=lambda one: (one[0], one[1])):
        catalogue.add(message)
    for text in elsewhere():
        catalogue.add(text)
    return catalogue


def read(code: str) -> Catalog:
    """Return the catalogue of a language as it is stored; an empty one where there is none yet."""
    path = FOLDER / "locale" / f"{code}.po"
    if not path.exists():
        return Catalog(locale=code, fuzzy=False)
    with path.open("rb") as file:
        return read_po(file, locale=code)


def updated(code: str) -> bytes:
    """Return a language's catalogue with all sentences and no others, as its file holds it."""
    old = read(code)
    new = Catalog(
        locale=code,
        fuzzy=False,
        header_comment=f"# The report of jcs-ct in the language {code}: not reviewed by a native reader.",
    )
    for message in sentences():
        if message.id:
            known = old.get(message.id[0] if isinstance(message.id, tuple) else message.id)
            new.add(message.id, known.string if known is not None else None)
    text = io.BytesIO()
    write_po(text, new, width=120, omit_header=True, sort_output=True)
    head = f'# The report in the language "{code}". Not reviewed by a native reader.\nmsgid ""\nmsgstr ""\n'
    head += f'"Content-Type: text/plain; charset=utf-8\\n"\n"Plural-Forms: {new.plural_forms}\\n"\n\n'
    return head.encode() + text.getvalue()


def main(arguments: list[str]) -> int:
    """Write or check the catalogues."""
    (FOLDER / "locale").mkdir(exist_ok=True)
    changed = 0
    for code in TRANSLATIONS:
        path, text = FOLDER / "locale" / f"{code}.po", updated(code)
        if not path.exists() or path.read_bytes() != text:
            changed = 1
            if "--check" in arguments:
                print(f"{path}: is not up to date; run python tools/catalogues.py, then translate")
            else:
                path.write_bytes(text)
    return changed if "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
