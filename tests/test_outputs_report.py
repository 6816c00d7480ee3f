"""report.json against its schema, slices.csv, the packed slices, and the page as text. In a browser: see
test_outputs_report_browser.py."""

from __future__ import annotations

import base64
import copy
import csv
import hashlib
import io
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import numpy as np
import pytest
from PIL import Image

from jcs_ct.core.errors import OutputError, ShapeError
from jcs_ct.outputs.report import words
from jcs_ct.outputs.report.chart import make_chart
from jcs_ct.outputs.report.contact import contact_pictures
from jcs_ct.outputs.report.frames import BUDGET, encode_frame, frame_budget, hu_to_levels, levels_to_hu
from jcs_ct.outputs.report.html import render, write_html
from jcs_ct.outputs.report.language import ENGLISH
from jcs_ct.outputs.report.schema import report_schema
from jcs_ct.outputs.spreadsheet import COLUMNS, slices_csv, write_slices
from jcs_ct.phantom import make_phantom
from report_help import HOSTILE, check, sample_frames, sample_report

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

FREE = {"facts", "files"}  # objects whose names are data


def objects(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of every object in a report (of lists: the first item)."""
    if isinstance(value, dict):
        yield path
        for name, inner in value.items():
            yield from objects(inner, (*path, name))
    elif isinstance(value, list) and value:
        yield from objects(value[0], (*path, 0))


def at(report: Any, path: tuple[Any, ...]) -> Any:
    for step in path:
        report = report[step]
    return report


# --- the schema ------------------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(report_schema())
    assert report_schema()["$id"] == sample_report()["schema"]


@pytest.mark.parametrize("kind", ["dicom", "nifti", "pictures"])
@pytest.mark.parametrize("slices", [1, 12])
def test_reports_are_valid(kind: str, slices: int) -> None:
    check(sample_report(slices, kind))


@pytest.mark.parametrize("path", list(objects(sample_report())), ids=lambda p: "/".join(map(str, p)) or "report")
def test_a_missing_or_additional_field_is_a_breach(path: tuple[Any, ...]) -> None:
    if path and path[-1] in FREE:
        return
    for name in at(sample_report(), path):
        broken = copy.deepcopy(sample_report())
        del at(broken, path)[name]
        with pytest.raises(AssertionError, match=f"'{name}' is a required property|not valid under any"):
            check(broken)
    broken = sample_report()
    at(broken, path)["surplus"] = 1
    with pytest.raises(AssertionError, match="breaches of the schema"):
        check(broken)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "jcs-ct/report/2"),
        (("slices",), []),
        (("slices", 0, "index"), 0),
        (("slices", 0, "probability"), 1.2),
        (("slices", 0, "positive"), "yes"),
        (("verdict", "probability"), "0.87"),
        (("verdict", "reliable"), False),  # without a reason
        (("verdict", "reasons"), ["a reason"]),  # though reliable
        (("burden", "lesion_ml"), -1),
        (("burden", "severity", "score"), 1.5),
        (("input", "kind"), "mat"),
        (("input", "spacing_mm"), [1.0, 1.0]),
        (("input", "facts"), {"kVp": 120}),
        (("model", "weights_sha256"), "abc"),
        (("most_affected",), [1, 2, 3, 4, 5, 6]),
        (("settings", "segment"), "sometimes"),
    ],
)
def test_wrong_values_are_breaches(path: tuple[Any, ...], value: Any) -> None:
    broken = sample_report()
    at(broken, path[:-1])[path[-1]] = value
    with pytest.raises(AssertionError, match="breaches of the schema"):
        check(broken)


def test_older_reports_name_no_segmenter() -> None:
    segmenter = {"name": "jcs-single", "architecture": "jcs-single", "weights_sha256": "a" * 64}
    check(sample_report() | {"segmenter": None})
    check(sample_report() | {"segmenter": segmenter})
    assert "segmenter" not in sample_report()
    wrongs: list[Any] = ["jcs-single", segmenter | {"weights_sha256": "abc"}, segmenter | {"surplus": 1}]
    wrongs += [{name: segmenter[name] for name in segmenter if name != left_out} for left_out in segmenter]
    for wrong in wrongs:
        with pytest.raises(AssertionError, match="segmenter"):
            check(sample_report() | {"segmenter": wrong})


def test_the_documents_name_every_field() -> None:
    text = (Path(__file__).parent.parent / "docs" / "report.md").read_text(encoding="utf-8")
    paths = [path for path in objects(sample_report()) if not path or path[-1] not in FREE]
    names = {name for path in paths for name in at(sample_report(), path)} | set(report_schema()["properties"])
    assert not {name for name in names if f"`{name}`" not in text}
    assert not {name for name in COLUMNS if f"`{name}`" not in text}


# --- the table -------------------------------------------------------------------------------------------------------


def test_the_table_holds_the_slices(tmp_path: Path) -> None:
    report = sample_report(kind="pictures")
    report["slices"][0]["name"] = "=cmd|' /C calc'!A0"
    report["slices"][1]["name"] = 'a "quoted", name'
    write_slices(tmp_path / "slices.csv", report)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "slices.csv").read_text(encoding="utf-8"))))
    assert list(rows[0]) == list(COLUMNS) == list(report["slices"][0])
    assert [int(r["index"]) for r in rows] == list(range(1, 13))
    assert rows[0]["name"].startswith("'=")  # no spreadsheet runs it
    assert rows[1]["name"] == 'a "quoted", name'
    assert rows[0]["z_mm"] == rows[-1]["probability"] == ""
    assert [r["positive"] for r in rows] == [str(int(s["positive"])) for s in report["slices"]]
    assert [float(r["lesion_share"]) for r in rows] == [s["lesion_share"] for s in report["slices"]]
    with pytest.raises(OutputError, match="exists already"):
        write_slices(tmp_path / "slices.csv", report)


def test_the_table_is_plain_text() -> None:
    assert "\r" not in slices_csv(sample_report())
    assert slices_csv(sample_report()).startswith("index,z_mm,name,probability,")


# --- packed slices ---------------------------------------------------------------------------------------------------


def opened(data: bytes | None) -> NDArray[Any]:
    assert data is not None
    return np.asarray(Image.open(io.BytesIO(data)))


def test_levels_keep_hounsfield_units_to_half_a_step() -> None:
    hu = np.arange(-1024, 3072).astype(np.int16)
    error = np.abs(levels_to_hu(hu_to_levels(hu)) - hu)
    assert (np.diff(hu_to_levels(hu).astype(int)) >= 0).all()
    assert error[hu <= -160].max() <= 4.5
    assert error[(hu >= -160) & (hu <= 240)].max() <= 1.6 + 1e-4
    assert error[(hu >= 240) & (hu <= 1260)].max() <= 15
    assert hu_to_levels(np.array([[-3024, 9000]], np.int16)).tolist() == [[0, 255]]


def test_a_packed_slice_is_faithful() -> None:
    study = make_phantom(slices=9, size=256, lesions=12)
    hu, lesion = study.hu[5], study.lesions[5]
    assert lesion.any()
    rows, columns = np.mgrid[0:256, 0:256]
    attention = np.exp(-((rows - 90) ** 2 + (columns - 60) ** 2) / 1500).astype(np.float32)
    frame = encode_frame(hu=hu, grey=None, lesion=lesion, attention=attention)
    assert (frame.rows, frame.columns, frame.hounsfield) == (256, 256, True)
    np.testing.assert_array_equal(opened(frame.mask), lesion)
    error = np.abs(levels_to_hu(opened(frame.image)) - hu)
    assert error[study.lungs[5] > 0].mean() < 25  # of a window 1500 wide; the phantom's noise is 20
    assert error[(hu > -100) & (hu < 150)].mean() < 12
    seen = opened(frame.attention)
    assert seen.shape == (128, 128)
    halves = attention.reshape(128, 2, 128, 2).mean(axis=(1, 3))
    assert np.abs(seen / 255 - halves).max() < 0.5 / 63 + 0.01


def test_a_picture_stays_as_it_came() -> None:
    grey = np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[:, None], 100, axis=1)
    frame = encode_frame(
        hu=None, grey=grey, lesion=np.zeros(grey.shape, bool), attention=np.zeros(grey.shape, np.float32)
    )
    assert frame.mask is None
    assert frame.attention is None
    assert not frame.hounsfield
    assert np.abs(opened(frame.image).astype(int) - grey).max() <= 4


@pytest.mark.parametrize("shape", [(1, 1), (3, 700), (64, 64), (1200, 900)])
def test_any_size_is_packed(shape: tuple[int, int]) -> None:
    hu = np.full(shape, -700, np.int16)
    frame = encode_frame(hu=hu, grey=None, lesion=hu < 0, attention=np.ones(shape, np.float32))
    assert opened(frame.mask).all()
    assert (opened(frame.attention) == 255).all()
    assert np.abs(levels_to_hu(opened(frame.image)) + 700).max() <= 9


@pytest.mark.parametrize("budget", [BUDGET, 6000])
def test_noise_meets_the_budget(budget: int) -> None:
    rng = np.random.default_rng(3)
    frame = encode_frame(
        hu=rng.integers(-1024, 1500, (512, 512)).astype(np.int16),
        grey=None,
        lesion=rng.random((512, 512)) < 0.5,
        attention=rng.random((512, 512)).astype(np.float32),
        budget_bytes=budget,
    )
    assert frame.size <= budget


def test_budgets_of_long_studies() -> None:
    assert 1000 * frame_budget(1000) <= 300 * BUDGET == 300 * frame_budget(300)
    assert frame_budget(1) == 2 * BUDGET


def test_what_cannot_be_packed_is_refused() -> None:
    grey, no, zero = np.zeros((4, 4), np.uint8), np.zeros((4, 4), bool), np.zeros((4, 4), np.float32)
    with pytest.raises(ShapeError, match="neither"):
        encode_frame(hu=None, grey=None, lesion=no, attention=zero)
    with pytest.raises(ShapeError, match="one H×W"):
        encode_frame(hu=None, grey=grey, lesion=no[:3], attention=zero)
    for value in (1.5, -0.1, np.nan):
        with pytest.raises(ShapeError, match="0 to 1"):
            encode_frame(hu=None, grey=grey, lesion=no, attention=np.full((4, 4), value, np.float32))


def test_contact_pictures_show_the_window_the_lesion_and_the_attention() -> None:
    drawn = contact_pictures(sample_frames()[5], aspect=2.0)
    assert (drawn.width, drawn.height) == (384, 768)
    lesions, attention = (
        np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1])))).astype(int)
        for url in (drawn.lesions, drawn.attention)
    )
    assert np.abs(lesions[700, 30] - 127.5).max() < 6  # −600 HU is the middle of the lung window
    assert lesions[180, 80, 2] - lesions[180, 80, 0] > 15  # blue inside of the lesion
    assert np.abs(attention[180, 80] - 127.5).max() < 6
    assert attention[600, 300, 0] - attention[600, 300, 2] > 100  # yellow where the attention is 1
    assert np.ptp(lesions[600, 300]) < 8


# --- the page --------------------------------------------------------------------------------------------------------


class Page(HTMLParser):
    """Elements of a page with their attributes, and the text of those that hold only text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = tag

    def handle_data(self, data: str) -> None:
        if self._open in {"script", "style"}:
            self.inside.append((self._open, data))
            self._open = ""
        else:
            self.words.append(data)

    def every(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_a_page_of_300_noisy_slices_can_be_mailed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    few = [
        encode_frame(
            hu=rng.normal(-600, 250, (512, 512)).astype(np.int16),
            grey=None,
            lesion=rng.random((512, 512)) < 0.5,
            attention=rng.random((512, 512)).astype(np.float32),
            budget_bytes=frame_budget(300),
        )
        for _ in range(2)
    ]
    assert min(frame.size for frame in few) > 0.6 * frame_budget(300)  # the budget is used
    write_html(tmp_path / "report.html", sample_report(300), few * 150)
    assert (tmp_path / "report.html").stat().st_size <= 15_000_000


def test_nothing_of_the_data_is_markup() -> None:
    report = sample_report(kind="pictures", case=HOSTILE)
    report["input"]["facts"] = {HOSTILE: HOSTILE}
    report["verdict"] |= {
        "reliable": False,
        "reasons": [HOSTILE],
        "text": HOSTILE,
        "rule": HOSTILE,
        "probability": None,
    }
    report["warnings"] = report["model"]["notes"] = [HOSTILE]
    report["model"] |= {"name": HOSTILE, "licence": HOSTILE}
    report["files"] = {HOSTILE: HOSTILE}
    for row in report["slices"]:
        row |= {"name": HOSTILE, "flags": [HOSTILE]}
    check(report)
    hostile = Page(render(report, sample_frames(kind="pictures")))
    plain = Page(render(sample_report(kind="pictures"), sample_frames(kind="pictures")))
    assert len(hostile.every("script")) == len(plain.every("script")) == 2
    assert len(hostile.every("img")) == len(plain.every("img"))
    assert not [name for _, attributes in hostile.elements for name in attributes if name.startswith("on")]
    assert "".join(hostile.words).count(HOSTILE) > 20


def test_the_page_holds_everything_and_admits_nothing_else() -> None:
    text = render(sample_report(), sample_frames())
    page = Page(text)
    policy = next(m["content"] for m in page.every("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    for tag, inside in page.inside:
        if tag == "style" or not inside.startswith("{"):
            digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
            assert f"{tag}-src 'sha256-{digest}'" in policy
            assert "innerHTML" not in inside
    assert {tag for tag, _ in page.inside} == {"script", "style"}
    assert not re.findall(r"https?://|//[a-z]+\.|@import|url\((?!#)", text)
    for tag, attributes in page.elements:
        assert "style" not in attributes, tag  # the policy would drop it
        for name in ("src", "href"):
            assert str(attributes.get(name, "#")).startswith(("data:image/", "#")), (tag, attributes)
    assert [w for w in page.words if "not a medical device" in w][1:], "at the top and at the bottom"


def test_frames_must_match_the_slices() -> None:
    with pytest.raises(ShapeError, match="11 packed slices"):
        render(sample_report(), sample_frames()[:11])
    page = Page(render(sample_report(), []))
    assert not page.every("script")
    assert not page.every("canvas")
    assert "without pictures" in " ".join(page.words)


def test_a_page_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    write_html(path, sample_report(), [])
    before = path.read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_html(path, sample_report(case="other"), [])
    assert path.read_bytes() == before
    write_html(path, sample_report(case="other"), [], overwrite=True)
    assert b"other" in path.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def spoken(report: dict[str, Any]) -> str:
    check(report)
    return re.sub(r"\s+", " ", " ".join(Page(render(report, [])).words))


def test_the_verdict_is_told_in_words() -> None:
    text = spoken(sample_report())
    assert "This study shows signs of COVID-19: study probability 87 % (threshold 50 %)." in text
    assert "Lesions occupy 7.5 % of the lungs (300 ml), on both sides. Most of it is ground glass." in text
    assert "Positive slices (slice threshold 50 %): 3 of the 11 that were assessed." in text
    assert "Do not rely" not in text
    sound = "No check rules this result out"
    assert f"{sound}; read the note below." in text
    assert "1 note" in text
    assert f"{sound}. " in spoken(sample_report() | {"warnings": []})
    assert f"{sound}; read the 3 notes below." in spoken(sample_report() | {"warnings": ["one", "two", "three"]})

    doubtful = sample_report()
    doubtful["verdict"] |= {
        "positive": False,
        "reliable": False,
        "reasons": ["partial chest"],
        "probability": 0.123,
        "score": 0.123,
    }
    text = spoken(doubtful)
    assert sound not in text
    assert text.index("Do not rely on this result. One thing speaks against it:") < text.index("partial chest")
    assert text.index("partial chest") < text.index("COVID-19 is unlikely")
    assert "No signs" not in text, "300 ml of lesion stand beside it"
    assert "This study shows opacities, but COVID-19 is unlikely: study probability 12 %" in text
    assert "Lesions occupy 7.5 % of the lungs (300 ml)" in text
    assert "study probability 12 % (threshold 50 %)" in text
    assert "This result does not rule out COVID-19." in text
    assert text.count("partial chest") == 1, "said once, where it matters most"


def test_a_verdict_between_says_what_was_found() -> None:
    report = sample_report()
    report["verdict"] |= {
        "rule": "whole-study",
        "positive": False,
        "call": "indeterminate",
        "probability": 0.4996,
        "score": 0.4996,
        "interval": [0.2, 0.8],
        "confidence": 0.8,
        "studies": 16,
        "terms": [
            {"feature": "affected", "value": 0.075, "effect": 0.6},
            {"feature": "highest", "value": 0.63, "effect": -0.4},
        ],
    }
    text = spoken(report)
    assert (
        "This study shows opacities, but the model cannot tell whether they are COVID-19: study probability 49.96 %"
        in text
    )
    assert (
        "The probability is uncertain because its formula was fitted to only 16 studies: it may lie between 20 % and "
        "80 % (80 % interval)." in text
    )
    assert (
        "Two findings lead to this: 7.5 % of the lung volume is marked as lesion, and the most suspicious tenth of the "
        "slices averages 63 %." in text
    )
    assert "The result is too close to the threshold to call." in text
    assert "Opacities alone cannot distinguish COVID-19 from another pneumonia" in text
    report["verdict"]["terms"].pop()
    assert "It follows from: 7.5 % of the lung volume is marked as lesion." in spoken(report)
    assert not [wrong for wrong in ("No signs", "Signs of", "unlikely") if wrong in text]
    page = render(report, [])
    assert 'class="verdict indeterminate' in page
    assert 'class="reach"' in page


@pytest.mark.parametrize(
    ("call", "opacities", "positive", "expected"),
    [
        ("positive", True, 0.9, "This study shows signs of COVID-19"),
        ("negative", False, 0.05, "This study shows no signs of COVID-19"),
        ("negative", False, 0.6, "COVID-19 is unlikely in this study"),
        ("negative", True, 0.0, "This study shows opacities, but COVID-19 is unlikely"),
        ("indeterminate", False, 0.6, "The model cannot tell whether this study shows COVID-19"),
    ],
)
def test_the_headline_agrees_with_what_else_was_found(
    call: str, opacities: bool, positive: float, expected: str
) -> None:
    assert words.finding(call, opacities=opacities, positive=positive) == expected


@pytest.mark.parametrize(
    ("rule", "score", "limit", "words_"),
    [
        ("release-count", 23, 19, "COVID-19: 23 positive slices (threshold 19)."),
        ("fraction", 0.314, 0.1, "COVID-19: 31 % of the slices are positive (threshold 10 %)."),
        ("another", 2.5, 1.25, "COVID-19: score 2.50 (threshold 1.25)."),
    ],
)
def test_rules_without_a_probability(rule: str, score: float, limit: float, words_: str) -> None:
    report = sample_report()
    report["verdict"] |= {"rule": rule, "score": score, "limit": limit, "probability": None}
    assert words_ in spoken(report)


def test_a_study_that_was_not_looked_at_gets_no_verdict() -> None:
    report = sample_report()
    report["verdict"] |= {
        "positive": False,
        "reliable": False,
        "reasons": ["no lung"],
        "probability": 0.0,
        "score": 0.0,
    }
    report |= {"burden": None, "most_affected": []}
    for row in report["slices"]:
        row |= {"probability": None, "positive": False, "lesion_mm2": None, "lesion_share": None}
    text = spoken(report)
    assert "No verdict" in text
    assert "study probability" not in text


def test_why_nothing_was_measured_is_said() -> None:
    assert "Pictures have no scale" in spoken(sample_report(kind="pictures"))
    never = sample_report()
    never["settings"]["segment"] = "never"  # whatever was counted: lesions that nobody looked for are not "0 %"
    assert "the run was told not to" in spoken(never)
    assert "of the lungs affected" not in spoken(never)
    for segment, positive, expected in [
        ("positive", False, "this one is not positive"),
        ("always", True, "Nothing was measured"),
    ]:
        report = sample_report()
        report["settings"]["segment"] = segment
        report["verdict"]["positive"] = positive
        report |= {"burden": None, "most_affected": []}
        assert expected in spoken(report)


def test_numbers_are_never_rounded_to_certainty() -> None:
    assert [ENGLISH.percent(p) for p in (0, 0.0004, 0.0512, 0.0999, 0.5, 0.9949, 0.9951, 1, None)] == [
        "0 %", "< 0.1 %", "5.1 %", "10.0 %", "50 %", "99 %", "> 99 %", "100 %", "–",
    ]  # fmt: skip
    assert ENGLISH.amount(-512.34, "HU") == "−512\u00a0HU"
    assert ENGLISH.amount(4630.2, "ml") == "4\u202f630\u00a0ml"
    assert ENGLISH.amount(0.0123) == "0.01"


def test_files_are_named_once() -> None:
    report = sample_report()
    report["files"] = {"a": "seg.dcm", "html": "report.html", "o_1": "overlays/1.png", "o_2": "overlays/2.png"}
    assert words.other_files(report) == ["seg.dcm", "overlays/"]


def test_the_chart_draws_what_the_slices_hold() -> None:
    report = sample_report()
    chart = make_chart(report)
    bars = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) 100V([\d.]+)h", chart.positive + chart.negative)]
    drawn = {int(x) + 1: (100 - y) / 100 for x, y in bars}
    assert drawn == pytest.approx(
        {s["index"]: s["probability"] for s in report["slices"] if s["probability"]}, abs=0.0006
    )
    assert re.findall(r"M([\d.]+) ", chart.blank) == ["11.00"], "the last slice was not looked at"
    assert chart.positive.count("M") == sum(s["positive"] for s in report["slices"])
    assert (chart.threshold, chart.unit, chart.top) == (50.0, "cm²", 100.0)
    assert [index for _, index in chart.ticks] == [1, 2, 4, 6, 8, 10, 12]
    assert make_chart(sample_report(kind="pictures")).unit == "%"
    for row in report["slices"]:
        row |= {"lesion_mm2": None, "lesion_share": None}
    assert make_chart(report).lesions is None


@pytest.mark.parametrize(
    ("share", "limit", "expected"),
    [
        (0.4996, 0.5, "49.96 %"),
        (0.5, 0.5, "50 %"),
        (0.503, 0.5, "50.3 %"),
        (0.41, 0.5, "41 %"),
        (0.0999, 0.1, "9.99 %"),
    ],
)
def test_a_share_just_below_the_limit_does_not_read_like_it(share: float, limit: float, expected: str) -> None:
    assert ENGLISH.percent_beside(share, limit) == expected
