"""report.pdf: the page of report.html on paper, for mail and archives. WeasyPrint lays it out; nothing is fetched."""

from __future__ import annotations

import base64
import logging
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.caches import cache_for_figures
from jcs_ct.core.errors import UsageError
from jcs_ct.core.installing import install_command
from jcs_ct.core.whole_files import whole_file
from jcs_ct.outputs.report.html import render_paper
from jcs_ct.outputs.report.words import call_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from jcs_ct.outputs.report.frames import EncodedFrame

LEVELS = {"positive": "#d9622b", "negative": "#17624e", "indeterminate": "#888"}
DRAWN = (  # WeasyPrint does not apply the page's style within a drawing
    'text {{ fill: #444; font: 11px "DejaVu Sans" }} .rail, .bar-blank {{ fill: #e8e8e8 }} .level {{ fill: {level} }} '
    ".limit, .reach {{ stroke: #000 }} .bar-positive {{ fill: #d9622b }} .bar-negative {{ fill: #a9b4bf }} "
    ".bar-lesion {{ fill: #2b83b8 }} .cursor {{ display: none }}"
)


def require_pdf() -> None:
    """Raise UsageError where WeasyPrint, or the libraries of the system that it needs, are missing."""
    if find_spec("weasyprint") is None:
        raise UsageError("--pdf needs WeasyPrint, which is not installed", hint=install_command("pdf"))
    try:
        _library()
    except OSError as error:
        raise UsageError(
            "--pdf needs Pango, a library of the system that WeasyPrint did not find",
            hint="apt-get install libpango-1.0-0 libpangoft2-1.0-0, or what weasyprint's own documentation names",
        ) from error


def write_pdf(
    path: Path, report: Mapping[str, Any], frames: Sequence[EncodedFrame], *, overwrite: bool = False
) -> None:
    """Write the report for paper: A4, the verdict and the most affected slice on the first page.

    Args:
        path: The file.
        report: As in `jcs_ct.outputs.report.html.render`.
        frames: As there; at most five are drawn.
        overwrite: Replace the file if it exists.

    Raises:
        UsageError: As `require_pdf`.
        ShapeError: As `jcs_ct.outputs.report.html.render`.
        OutputError: The file exists, or cannot be written.
    """
    require_pdf()
    weasyprint = _library()
    from weasyprint.text.fonts import FontConfiguration
    from weasyprint.urls import URLFetcher

    doubtful = not report["verdict"]["reliable"]
    level = LEVELS["indeterminate" if doubtful else call_of(report["verdict"])]
    drawn = DRAWN.format(level=level)
    page = re.sub(r"(<svg\b[^>]*>)", rf"\1<style>{drawn}</style>", render_paper(report, frames))
    fetcher, fonts = URLFetcher(allowed_protocols=["data"]), FontConfiguration()
    style = weasyprint.CSS(string=_fonts(), url_fetcher=fetcher, font_config=fonts)
    found = weasyprint.HTML(string=page, url_fetcher=fetcher).write_pdf(stylesheets=[style], font_config=fonts)
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(found)


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
    for name in ("weasyprint", "fontTools"):  # of style rules that are for browsers, and of glyphs left out
        logging.getLogger(name).setLevel(logging.ERROR)
    return weasyprint


@lru_cache(maxsize=1)
def _fonts() -> str:
    """Return a style with Matplotlib's own font, for machines that have none; for CJK the system's is needed."""
    cache_for_figures()
    import matplotlib as mpl

    folder, rules = Path(mpl.get_data_path()) / "fonts" / "ttf", ""
    for weight, name in (("normal", "DejaVuSans.ttf"), ("bold", "DejaVuSans-Bold.ttf")):
        data = base64.b64encode((folder / name).read_bytes()).decode()
        rules += (
            f'@font-face {{ font-family: "DejaVu Sans"; font-weight: {weight}; src: url(data:font/ttf;base64,{data}) }}'
        )
    return rules
