"""report.html: one file that shows a study, with everything in it and nothing fetched.

The page is a template, a style and a script beside this file. What comes from the study is escaped by Jinja2, or is
JSON that the script only ever sets as text. A Content-Security-Policy admits this one style and this one script by
their SHA-256 and pictures from within the file; the browser refuses everything else, the network included.
"""

from __future__ import annotations

import base64
import hashlib
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from importlib.resources import files
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import ShapeError
from jcs_ct.core.whole_files import whole_file
from jcs_ct.outputs.images import LESION, STRONGEST
from jcs_ct.outputs.report import contact, words
from jcs_ct.outputs.report.chart import make_chart
from jcs_ct.outputs.report.explained import card_entries, explained_notes
from jcs_ct.outputs.report.frames import HU_POINTS, LEVEL_POINTS, EncodedFrame
from jcs_ct.outputs.report.language import PROBES, Language, language_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from jinja2 import Template
    from markupsafe import Markup


def render(report: Mapping[str, Any], frames: Sequence[EncodedFrame], *, paper: bool = False) -> str:
    """Return the page; `write_html` writes it without ever holding it.

    Args:
        report: What `report.json` holds (`jcs_ct.outputs.report.schema`).
        frames: A packed slice for each record in `report["slices"]`; none for a page without pictures.
        paper: Laid out for paper: its pictures, without the viewer.

    Raises:
        ShapeError: There is another number of frames.
    """
    return "".join(_pieces(report, frames, paper=paper))


def write_html(
    path: Path, report: Mapping[str, Any], frames: Sequence[EncodedFrame], *, overwrite: bool = False
) -> None:
    """Write the page, piece by piece. Arguments and ShapeError as of `render`; OutputError as of `whole_file`."""
    with whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
        file.writelines(piece.encode(errors="replace") for piece in _pieces(report, frames))


def _pieces(report: Mapping[str, Any], frames: Sequence[EncodedFrame], *, paper: bool = False) -> Iterator[str]:
    """Return the page in pieces, none much larger than a packed slice. Raises as `render` does."""
    slices = report["slices"]
    if frames and len(frames) != len(slices):
        raise ShapeError(
            f"{len(frames)} packed slices were given for a report of {len(slices)}; expected is one each, or none"
        )
    language = language_of(report["settings"].get("language", "en"))
    style, script = _part("style.css") + (_part("paper.css") if paper else ""), _part("viewer.js")
    style += _on_each_sheet(language.text(report["disclaimer"]))
    spacing = report["input"]["spacing_mm"]
    aspect = spacing[1] / spacing[2] if spacing else 1.0
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    affected = words.affected(report)
    with ThreadPoolExecutor(2) as pool:
        pictures = [pool.submit(contact.contact_pictures, frames[r["index"] - 1], aspect) for r in affected if frames]
        shown = [(r, p.result() if p else None) for r, p in zip_longest(affected, pictures)]
    return _template().generate(
        report=report,
        words=words,
        language=language,
        _=language.say,
        count=language.count,
        markup=language.markup,
        keys=_keys,
        titles=words.titles(report, language),
        card=card_entries(report, language),
        explained_notes=explained_notes,
        chart=make_chart(report),
        affected=shown,
        policy=policy,
        style=style,
        script=script,
        windows=contact.WINDOWS,
        attention=contact.ATTENTION,
        viewer=_viewer(report, frames, aspect, language) if frames and not paper else None,
    )


def _on_each_sheet(text: str) -> str:
    """Return a rule of CSS that prints a text at the foot of each sheet of paper; browsers that cannot leave it out."""
    quoted = text.replace("\\", "\\\\").replace('"', '\\"').replace("<", "\\3c ")
    rule = f'@bottom-center {{ content: "{quoted}"; font: 6.5pt sans-serif; color: #444 }}'
    return f"@media print {{ @page {{ {rule} }} }}\n"


def _keys(*names: str) -> Markup:
    """Return names of keys as HTML."""
    from markupsafe import Markup

    return Markup(" ").join(Markup("<kbd>%s</kbd>") % name for name in names)


def _viewer(
    report: Mapping[str, Any], frames: Sequence[EncodedFrame], aspect: float, language: Language
) -> Iterator[str]:
    """Yield the JSON that the script needs: how to draw, what to say, and the packed slices; one slice at a time."""
    from jinja2.utils import htmlsafe_json_dumps  # what `tojson` does: no "<" or "&" is left

    data = {
        "aspect": aspect,
        "huPoints": HU_POINTS,
        "levelPoints": LEVEL_POINTS,
        "windows": {key: [centre, width] for key, (_, centre, width) in contact.WINDOWS.items()},
        "attention": contact.ATTENTION,
        "lesion": LESION,
        "strongest": STRONGEST,
        "fill": contact.FILL,
        "places": make_chart(report).places,
        "start": words.first_shown(report),
        "slices": [_said(one, report, language) for one in report["slices"]],
        "probe": PROBES.get(language.code, ""),
        "words": {
            "broken": language.say("This browser cannot show slice %(index)s.", index="{}"),
            "unwindowed": language.say("as it came"),
            "light": language.say("Light"),
            "dark": language.say("Dark"),
            "chart": language.say("Slice, on the chart of probability and lesions"),
        },
    }
    yield f'{htmlsafe_json_dumps(data)[:-1]}, "frames": ['
    for number, frame in enumerate(frames):
        packed = {
            "rows": frame.rows,
            "columns": frame.columns,
            "hounsfield": frame.hounsfield,
            "image": _text(frame.image),
            "mask": _text(frame.mask),
            "attention": _text(frame.attention),
        }
        yield f"{', ' if number else ''}{htmlsafe_json_dumps(packed)}"
    yield "]}"


def _said(one: Mapping[str, Any], report: Mapping[str, Any], language: Language) -> dict[str, Any]:
    """Return what the viewer says of a slice: numbers are written here, in one way for the whole page."""
    place = f"{one['index']} / {len(report['slices'])}"
    if one["z_mm"] is not None:
        place += f"\nz {language.amount(one['z_mm'], 'mm', digits=1)}"
    flags = "; ".join(words.flags(one, language))
    return {"index": one["index"], "words": words.describe(one, report, language), "place": place, "flags": flags}


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _digest(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


@lru_cache(maxsize=4)
def _part(name: str) -> str:
    # Browsers turn CRLF into LF before they hash; a checkout on Windows may hold CRLF.
    return files(__package__).joinpath(name).read_text(encoding="utf-8").replace("\r\n", "\n")


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_part("template.html.j2"))
