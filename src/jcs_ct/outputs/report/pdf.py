"""report.pdf: the page of report.html on paper, for mail and archives. WeasyPrint lays it out; nothing is fetched."""

from __future__ import annotations

import base64
import logging
import re
import threading
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import UsageError
from jcs_ct.core.installing import install_command
from jcs_ct.core.whole_files import whole_file
from jcs_ct.outputs.report.html import render
from jcs_ct.outputs.report.language import PROBES
from jcs_ct.outputs.report.words import call_of
from jcs_ct.outputs.sheet import font_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jcs_ct.outputs.report.frames import EncodedFrame

LEVELS = {"positive": "#d9622b", "negative": "#17624e", "indeterminate": "#888"}
DRAWN = (  # WeasyPrint does not apply the page's style within a drawing
    'text {{ fill: #444; font: 11px "DejaVu Sans" }} .rail, .bar-blank {{ fill: #e8e8e8 }} .level {{ fill: {level} }} '
    ".limit, .reach {{ stroke: #000 }} .bar-positive {{ fill: #d9622b }} .bar-negative {{ fill: #a9b4bf }} "
    ".bar-lesion {{ fill: #2b83b8 }} .cursor {{ display: none }}"
)


def require_pdf(language: str = "en") -> None:
    """Raise UsageError where WeasyPrint, libraries of the system or a font for the language (its code) are missing."""
    if find_spec("weasyprint") is None:
        raise UsageError("--pdf needs WeasyPrint, which is not installed", hint=install_command("pdf"))
    try:
        _library()
    except OSError as error:
        raise UsageError(
            "--pdf needs Pango, a library of the system that WeasyPrint did not find",
            hint="apt-get install libpango-1.0-0 libpangoft2-1.0-0, or what weasyprint's own documentation names",
        ) from error
    if language in PROBES and _laid_out(f"<p>{PROBES[language]}</p>")[1]:
        raise UsageError(
            f"--pdf in the language {language} needs a font with its letters, and this machine has none",
            hint="install one (apt-get install fonts-noto-cjk), or leave out --pdf or --language",
        )


def write_pdf(path: Path, report: Mapping[str, Any], frames: Sequence[EncodedFrame], *, overwrite: bool = False) -> str:
    """Write the report for paper: A4, the verdict and the most affected slice on the first page.

    Arguments as of `jcs_ct.outputs.report.html.write_html`; at most five frames are drawn. Returns the letters for
    which this machine has no font, in order; boxes stand for them. Usually "".

    Raises:
        UsageError: As `require_pdf`, for the report's language.
        ShapeError, OutputError: As `write_html`.
    """
    require_pdf(report["settings"].get("language", "en"))
    doubtful = not report["verdict"]["reliable"]
    level = LEVELS["indeterminate" if doubtful else call_of(report["verdict"])]
    drawn = DRAWN.format(level=level)
    page = re.sub(r"(<svg\b[^>]*>)", rf"\1<style>{drawn}</style>", render(report, frames, paper=True))
    found, letters = _laid_out(page)
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(found)
    return letters


def _laid_out(page: str) -> tuple[bytes, str]:
    """Return a page as PDF, and the letters that no font has."""
    weasyprint = _library()
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    fetcher, fonts = URLFetcher(allowed_protocols=["data"]), FontConfiguration()
    style = weasyprint.CSS(string=_fonts(), url_fetcher=fetcher, font_config=fonts)
    _boxes.letters = set()
    found = weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf(stylesheets=[style], font_config=fonts)
    return found, "".join(sorted(_boxes.letters))


class _Boxes(logging.Filter, threading.local):
    """Keeps the letters that WeasyPrint draws as boxes in this thread, and drops its advice for writers of pages."""

    letters: set[str]

    def filter(self, record: logging.LogRecord) -> bool:
        if ".notdef" in str(record.msg) and record.args:
            self.letters.add(str(record.args[0]))  # type: ignore[index]
        return record.levelno >= logging.ERROR


_boxes = _Boxes()


@lru_cache(maxsize=1)
def _library() -> Any:
    """Import WeasyPrint, and keep Pillow strict: the import makes it accept truncated pictures everywhere."""
    from PIL import ImageFile

    lenient = ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        import weasyprint
        import weasyprint.images
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = lenient
    logging.getLogger("fontTools").setLevel(logging.ERROR)  # it tells of glyphs that it leaves out
    logging.getLogger("weasyprint").setLevel(logging.WARNING)
    logging.getLogger("weasyprint").addFilter(_boxes)
    return weasyprint


@lru_cache(maxsize=1)
def _fonts() -> str:
    """Return a style with Matplotlib's own font, for machines that have none; for CJK the system's is needed."""
    rules = ""
    for weight in ("normal", "bold"):
        data = base64.b64encode(Path(font_file(weight == "bold")).read_bytes()).decode()
        rules += (
            f'@font-face {{ font-family: "DejaVu Sans"; font-weight: {weight}; src: url(data:font/ttf;base64,{data}) }}'
        )
    return rules
