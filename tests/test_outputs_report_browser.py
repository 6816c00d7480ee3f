"""The page in a real browser: does it show what it should, answer to every hand, and keep to itself?"""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from browser_help import Browser, require_browser
from jcs_ct.outputs.report.html import write_html
from jcs_ct.outputs.report.language import TRANSLATIONS, language_of
from report_help import HOSTILE, sample_frames, sample_report

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SIZE = 96  # pixels of a slice's side


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_browser()
    with Browser() as started:
        yield started


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Pages of the kinds that there are."""
    folder = tmp_path_factory.mktemp("pages")
    doubtful = sample_report()
    doubtful["verdict"] |= {"reliable": False, "reasons": ["partial chest"]}
    normal = sample_report() | {"most_affected": [], "warnings": []}
    normal["verdict"] |= {"positive": False, "score": 0.03, "probability": 0.03}
    empty = sample_report() | {"most_affected": [], "burden": None}
    empty["verdict"] |= {"positive": False, "reliable": False, "reasons": ["no lung"]}
    for row in empty["slices"]:
        row |= {"probability": None, "positive": False, "lesion_mm2": None, "lesion_share": None}
    hostile = sample_report(kind="pictures", case=HOSTILE) | {"warnings": [HOSTILE]}
    for row in hostile["slices"]:
        row |= {"name": HOSTILE, "flags": [HOSTILE]}
    reports = {
        "study": sample_report(),
        "doubtful": doubtful,
        "normal": normal,
        "empty": empty,
        "pictures": sample_report(kind="pictures"),
        "one": sample_report(1),
        "long": sample_report(300),
        "hostile": hostile,
    }
    for code in TRANSLATIONS:
        reports[code] = sample_report()
        reports[code]["settings"]["language"] = code
    for name, report in reports.items():
        slices = len(report["slices"])
        frames = sample_frames(min(slices, 12), report["input"]["kind"], SIZE) * max(1, slices // 12)
        write_html(folder / f"{name}.html", report, frames)
    return {name: folder / f"{name}.html" for name in reports}


def pixel(browser: Browser, row: int, column: int) -> list[int]:
    """Return red, green, blue of the drawn slice at a pixel of the slice as it came."""
    browser.slice()
    colour: list[int] = browser(
        "evaluate",
        code=f"""(() => {{
            const canvas = document.getElementById("canvas"), copy = new OffscreenCanvas(1, 1).getContext("2d");
            const x = ({column} + 0.5) * canvas.width / {SIZE}, y = ({row} + 0.5) * canvas.height / {SIZE};
            copy.drawImage(canvas, Math.floor(x), Math.floor(y), 1, 1, 0, 0, 1, 1);
            return [...copy.getImageData(0, 0, 1, 1).data.slice(0, 3)];
        }})()""",
    )
    return colour


def near(colour: list[int], level: float) -> bool:
    return all(abs(channel - level) <= 8 for channel in colour)


def text(browser: Browser, name: str) -> str:
    return str(browser("evaluate", code=f"document.getElementById('{name}').textContent"))


def shown(browser: Browser, selector: str) -> bool:
    return bool(browser("evaluate", code=f"document.querySelector('{selector}')?.checkVisibility() ?? false"))


def test_keys_wheel_buttons_slider_chart_and_drag_scroll(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["long"])
    assert browser.slice() == 6  # the most affected
    assert text(browser, "readout").startswith("Slice 6 of 300 · probability 70 %, positive · lesion 60.0\u00a0cm²")
    browser("focus", selector="#stage")
    for key, expected in [
        ("ArrowDown", 7), ("ArrowRight", 8), ("PageDown", 18), ("PageUp", 8), ("ArrowUp", 7), ("ArrowLeft", 6),
        ("End", 300), ("ArrowDown", 300), ("Home", 1), ("PageUp", 1),
    ]:  # fmt: skip
        browser("press", key=key)
        assert browser.slice() == expected, key
    browser("wheel", selector="#stage", down=120)
    browser("wait", code="document.getElementById('slice').value > 1")
    after = browser.slice()
    browser("wheel", selector="#stage", down=-60)
    browser("wait", code=f"document.getElementById('slice').value < {after}")
    browser("set", selector="#slice", value="150")
    assert browser.slice() == 150
    browser("click", selector="#next")
    browser("click", selector="#next")
    browser("click", selector="#previous")
    assert browser.slice() == 151
    width = browser("evaluate", code="document.querySelector('#chart .area').getBoundingClientRect().width")
    browser("click", selector="#chart .area", position={"x": width * 0.75, "y": 20})
    assert abs(browser.slice() - 226) <= 1
    browser("press", key="ArrowRight")  # the click gave the chart the focus
    browser("focus", selector="#chart")
    browser("press", key="Home")
    assert browser.slice() == 1
    assert browser("heard") == []


def test_keys_belong_to_the_page_until_the_viewer_has_the_focus(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"], viewport={"width": 1000, "height": 500})
    before = browser.slice()
    for key in ("ArrowDown", "PageDown", "m"):
        browser("press", key=key)
    browser("wait", code="window.scrollY > 0")
    assert browser.slice() == before
    assert browser("evaluate", code="document.getElementById('mask').checked")


def test_the_page_scrolls_on_where_the_slices_end(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"], viewport={"width": 1000, "height": 500})
    browser("focus", selector="#stage")
    browser("press", key="End")
    browser.slice()
    before = browser("evaluate", code="window.scrollY")
    browser("wheel", selector="#stage", down=300)
    browser("wait", code=f"window.scrollY > {before}")


def test_a_finger_swipes_sideways(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"], viewport={"width": 390, "height": 844}, hasTouch=True, isMobile=True)
    before = browser.slice()
    browser("swipe", selector="#stage", across=-80)
    assert browser.slice() > before
    browser("swipe", selector="#stage", across=160)
    assert browser.slice() < before
    assert browser("heard") == []


def test_windows_map_hounsfield_units(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"])
    browser("focus", selector="#stage")
    browser("press", key="Home")  # a slice without lesions: −600 HU on the left, 40 on the right
    assert near(pixel(browser, 48, 20), 127.5), "lung window, W 1500 L −600"
    assert near(pixel(browser, 48, 75), (40 + 1350) / 1500 * 255)
    assert "W 1500  L −600" in text(browser, "window-name")
    browser("press", key="2")
    assert near(pixel(browser, 48, 20), 0)
    assert near(pixel(browser, 48, 75), 127.5), "soft tissue, W 400 L 40"
    assert "W 400  L 40" in text(browser, "window-name")
    browser("press", key="1")
    assert near(pixel(browser, 48, 20), 127.5)


def test_pictures_are_shown_as_they_came(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["pictures"])
    browser("press", key="Tab")
    browser("focus", selector="#stage")
    for key in ("Home", "2"):
        browser("press", key=key)
    assert near(pixel(browser, 48, 20), 100)
    assert near(pixel(browser, 48, 75), 200)
    assert not shown(browser, "input[value=soft]")
    assert not shown(browser, ".side")
    assert text(browser, "window-name") == "as it came"
    assert "picture-1" in text(browser, "readout")


def test_lesions_and_attention_lie_where_they_are(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"])  # slice 6: lesions in rows 15–31, columns 10–31; attention in rows and columns 64–87
    inside, seen = (24, 20), (76, 76)
    red, _, blue = pixel(browser, *inside)
    assert blue - red > 15, "the lesion is tinted blue"
    left_edge = sum(blue - red for red, _, blue in (pixel(browser, 24, 9), pixel(browser, 24, 10)))
    assert left_edge > 30, "its contour runs between columns 9 and 10"
    assert near(pixel(browser, 10, 20), 127.5), "above it is nothing"
    assert near(pixel(browser, 24, 40), 127.5)
    plain = (40 + 1350) / 1500 * 255
    assert near(pixel(browser, *seen), plain), "attention is off at first"

    browser("focus", selector="#stage")
    browser("press", key="a")
    red, _, blue = pixel(browser, *seen)
    assert red - blue > 100, "the highest attention is yellow"
    assert near(pixel(browser, 50, 76), plain)
    browser("press", key="m")
    assert near(pixel(browser, *inside), 127.5)
    browser("press", key="A")
    assert near(pixel(browser, *seen), plain)
    for name in ("mask", "attention"):  # by hand as by key
        browser("evaluate", code=f"document.getElementById('{name}').click()")
    red, _, blue = pixel(browser, *inside)
    assert blue - red > 15
    browser("set", selector="#strength", value="0")
    assert near(pixel(browser, *inside), 127.5)
    assert near(pixel(browser, *seen), plain)
    assert browser("heard") == []


def test_it_can_be_made_larger(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"])
    wide = "document.getElementById('canvas').getBoundingClientRect().height"
    before = browser("evaluate", code=wide)
    browser("click", selector="#larger")
    browser("wait", code=f"{wide} > {1.5 * before}")
    assert near(pixel(browser, 90, 20), 127.5)
    browser("click", selector="#larger")
    browser("wait", code=f"{wide} === {before}")


def test_the_viewer_tells_what_it_shows(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"])
    browser("focus", selector="#stage")
    browser("press", key="Home")
    browser("press", key="ArrowDown")
    browser.slice()
    browser("wait", code="document.getElementById('live').textContent.startsWith('Slice 2 of 12')")
    for name in ("slice", "chart"):
        value = browser("evaluate", code=f"document.getElementById('{name}').getAttribute('aria-valuetext')")
        assert value.startswith("Slice 2 of 12")
    assert shown(browser, "#flags")
    assert text(browser, "flags") == "bright for a lung window"
    assert "z 95.0\u00a0mm" in text(browser, "place")
    browser("press", key="End")
    browser.slice()
    assert not shown(browser, "#flags")
    assert "not assessed" in text(browser, "readout")
    browser("click", selector="a[data-slice='8']")
    assert browser.slice() == 8


def test_nothing_is_fetched_and_the_policy_holds(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"])
    assert {url for url in browser("requests") if not url.startswith("data:")} == {pages["study"].as_uri()}
    attempt = """new Promise((resolve) => {
        const told = (event) => resolve(event.effectiveDirective);
        document.addEventListener("securitypolicyviolation", told, { once: true });
        const add = (name, textContent) =>
            document.body.append(Object.assign(document.createElement(name), { textContent }));
        %s
    })"""
    for code, directive in [
        ('new Image().src = "http://127.0.0.1:9/x.png";', "img-src"),
        ('fetch("http://127.0.0.1:9/x").catch(() => {});', "connect-src"),
        ('add("script", "1");', "script-src-elem"),
        ('add("style", "p {}");', "style-src-elem"),
    ]:
        assert browser("evaluate", code=attempt % code) == directive


def test_hostile_names_stay_words(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    assert browser("heard") == []
    assert browser("evaluate", code="document.querySelector('h1').textContent") == HOSTILE
    assert HOSTILE in text(browser, "readout")
    assert text(browser, "flags") == HOSTILE
    assert browser("evaluate", code="document.querySelectorAll('[onerror], [src=x]').length") == 0


LOOKS = [
    ("study", "light"), ("study", "dark"), ("doubtful", "light"), ("doubtful", "dark"), ("pictures", "light"),
    ("normal", "dark"), ("empty", "dark"), ("one", "light"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "scheme"), LOOKS)
def test_everyone_can_use_it(browser: Browser, pages: dict[str, Path], name: str, scheme: str) -> None:
    browser.open(pages[name], colorScheme=scheme)
    browser("evaluate", code="document.querySelector('details').open = true")
    assert browser("axe") == []
    assert browser("heard") == []


@pytest.mark.parametrize("name", ["study", "pictures", "hostile", "long"])
def test_a_phone_is_wide_enough(browser: Browser, pages: dict[str, Path], name: str) -> None:
    browser.open(pages[name], viewport={"width": 390, "height": 844}, hasTouch=True, isMobile=True, colorScheme="dark")
    assert browser("evaluate", code="document.documentElement.scrollWidth") <= 390
    assert name != "study" or browser("axe") == []
    width = browser("evaluate", code="document.getElementById('canvas').getBoundingClientRect().width")
    assert width > 330, "the picture takes the width of the screen"


@pytest.mark.parametrize("code", TRANSLATIONS)
def test_everyone_can_use_it_in_every_language(browser: Browser, pages: dict[str, Path], code: str) -> None:
    browser.open(pages[code], viewport={"width": 390, "height": 844}, isMobile=True, colorScheme="dark")
    assert browser("evaluate", code="document.documentElement.scrollWidth") <= 390
    browser.open(pages[code], viewport={"width": 1300, "height": 900}, colorScheme="light")
    browser("evaluate", code="document.querySelector('details').open = true")
    assert browser("axe") == []
    assert browser("heard") == []
    assert text(browser, "readout").startswith(language_of(code).say("Slice %(index)s of %(total)s", index=6, total=12))
    fonts = subprocess.run(["fc-list", f":lang={code}"], capture_output=True, text=True, check=False).stdout
    assert shown(browser, "#no-font") is (code in {"zh", "ja"} and not fonts), "boxes are not shown in silence"


def test_the_first_printed_sheet_shows_a_slice(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["doubtful"], viewport={"width": 695, "height": 1024})  # A4 within its margins
    assert not shown(browser, ".key-picture"), "on a screen the viewer shows it"
    browser("media", media={"media": "print"})
    assert shown(browser, ".key-picture img")
    bottom = "document.querySelector('.key-picture').getBoundingClientRect().bottom"
    assert browser("evaluate", code=bottom) < 1024


def test_light_and_dark(browser: Browser, pages: dict[str, Path]) -> None:
    def paper() -> Any:
        return browser("evaluate", code="getComputedStyle(document.body).backgroundColor")

    browser.open(pages["study"], colorScheme="light")
    light = paper()
    browser("media", media={"colorScheme": "dark"})
    dark = paper()
    assert dark != light
    browser("click", selector="#theme")
    assert paper() == light
    browser("click", selector="#theme")
    assert paper() == dark


def test_it_prints(browser: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    browser.open(pages["study"], colorScheme="dark")
    browser("media", media={"media": "print"})
    for selector, expected in [
        (".stage", False), ("#theme", False), ("#keys", False), (".all", False),
        ("#verdict-head", True), ("#chart", True), (".numbers", True), (".sheet img", True),
        ("footer .disclaimer", True),
    ]:  # fmt: skip
        assert shown(browser, selector) is expected, selector
    assert browser("evaluate", code="getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    browser("pdf", path=str(tmp_path / "report.pdf"))
    pdf = (tmp_path / "report.pdf").read_bytes()
    sheets = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", pdf)
    assert {(round(float(w)), round(float(h))) for w, h in sheets} == {(595, 842)}, "A4"
    assert 1 <= len(sheets) <= 3
    assert pdf.count(b"/Subtype /Image") >= 10, "five slices, each twice"


def test_without_scripts_everything_but_the_viewer_is_there(browser: Browser, pages: dict[str, Path]) -> None:
    browser.open(pages["study"], javaScriptEnabled=False)
    assert browser("heard") == []
    for selector, expected in [
        ("#verdict-head", True), (".warnings", True), ("#chart", True), (".sheet img", True), ("noscript", True),
        (".stage", False), ("#theme", False),
    ]:  # fmt: skip
        assert browser("visible", selector=selector) is expected, selector
