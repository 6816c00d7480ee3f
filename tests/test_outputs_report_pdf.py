"""report.pdf, read by another library: what stands on its pages, and what is drawn."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from jcs_ct.cli import main
from jcs_ct.core.errors import ShapeError, UsageError
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.outputs.report import pdf
from jcs_ct.outputs.report.language import PROBES
from report_help import HOSTILE, sample_frames, sample_report
from study_help import small_phantom, write_lite

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pdfium = pytest.importorskip("pypdfium2")
try:
    pdf.require_pdf()
except UsageError as missing:
    pytest.skip(str(missing), allow_module_level=True)

A4 = (595.3, 841.9)  # points


@pytest.fixture
def pages(tmp_path: Path) -> Iterator[Any]:
    """Return a function that lays a report out and gives its pages."""
    opened = []

    def made(report: dict[str, Any], kind: str = "dicom") -> Any:
        pdf.write_pdf(tmp_path / "report.pdf", report, sample_frames(len(report["slices"]), kind), overwrite=True)
        opened.append(pdfium.PdfDocument(tmp_path / "report.pdf"))
        return opened[-1]

    yield made
    for document in opened:
        document.close()


def text_of(page: Any) -> str:
    return " ".join(page.get_textpage().get_text_range().split())


def test_the_first_page_has_the_verdict_its_picture_and_the_disclaimer(pages: Any) -> None:
    report = sample_report(12)
    document = pages(report)
    assert 2 <= len(document) <= 6
    for page in document:
        assert page.get_size() == pytest.approx(A4, abs=1)
        foot = page.get_textpage().get_text_bounded(top=36)  # points from the lower edge
        assert report["disclaimer"] in " ".join(foot.split())
    first = text_of(document[0])
    assert report["disclaimer"] in first
    assert report["case"] in first
    assert "probability" in first
    assert " R Slice" in first  # the patient's right, at the edge of the picture
    assert f"1 / {len(document)}" in first
    pictures = [one for one in document[0].get_objects() if one.type == pdfium.raw.FPDF_PAGEOBJ_IMAGE]
    assert len(pictures) == 2  # the most affected slice: lesions, attention
    everything = " ".join(map(text_of, document))
    for words in ("Most affected slices", "Model card", report["model"]["weights_sha256"][:20]):
        assert words in everything
    assert "JavaScript" not in everything


def test_drawings_have_their_colours(pages: Any) -> None:
    report = sample_report(12)
    drawn = [np.asarray(page.render(scale=1).to_pil().convert("RGB")).reshape(-1, 3) for page in pages(report)]
    for colour in ((217, 98, 43), (43, 131, 184)):  # bars of positive slices, of lesions
        assert sum(int((np.abs(page - np.array(colour)).max(axis=1) < 4).sum()) for page in drawn) > 200, colour
    assert max(int((page.max(axis=1) < 8).sum()) / len(page) for page in drawn) < 0.2  # none drawn in black


def test_the_line_of_the_slice_threshold_is_dashed_as_its_legend_says(pages: Any) -> None:
    """Black pixels of the longest line across the chart, in runs: a solid one would be one run."""
    pixels = [np.asarray(page.render(scale=2).to_pil().convert("L")) for page in pages(sample_report(12))]
    (x0, x1), dark = (140, 900), [page[:, 140:900] < 110 for page in pixels]
    line = max((row for page in dark for row in page if np.diff(row.astype(int)).clip(0).sum() > 30), key=np.sum)
    runs = np.diff(np.concatenate([[0], line.astype(int), [0]]))
    lengths = np.flatnonzero(runs == -1) - np.flatnonzero(runs == 1)
    assert len(lengths) > 30
    assert lengths.max() < (x1 - x0) / 30


def test_hostile_words_stay_words_and_nothing_is_fetched(pages: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    def refused(*_: object, **__: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refused)
    report = sample_report(12)
    report["warnings"] = [
        *report["warnings"],
        HOSTILE,
        "<img src='http://127.0.0.1:9/a.png'>",
        "<style>*{display:none}</style>",
    ]
    everything = " ".join(text_of(page) for page in pages(report))
    assert "http://127.0.0.1:9/a.png" in everything
    assert "Model card" in everything


@pytest.mark.parametrize("language", ["de", "fr", "es"])
def test_other_languages(pages: Any, language: str) -> None:
    from jcs_ct.outputs.report.language import language_of

    report = sample_report(12)
    report["settings"] = report["settings"] | {"language": language}
    everything = " ".join(text_of(page) for page in pages(report))
    assert language_of(language).say("Model card") in everything


NO_FONT = "\U000f1234"  # private use: no font has it


def test_letters_without_a_font_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = sample_report(2)
    assert pdf.write_pdf(tmp_path / "a.pdf", report, sample_frames(2)) == ""
    assert pdf.write_pdf(tmp_path / "b.pdf", report | {"case": f"a{NO_FONT}b"}, sample_frames(2)) == NO_FONT
    report["settings"] = report["settings"] | {"language": "zh"}
    monkeypatch.setitem(PROBES, "zh", NO_FONT)
    with pytest.raises(UsageError, match=r"the language zh needs a font .*fonts-noto-cjk"):
        pdf.write_pdf(tmp_path / "c.pdf", report, sample_frames(2))
    assert not (tmp_path / "c.pdf").exists()
    monkeypatch.setitem(PROBES, "zh", "ab")
    pdf.require_pdf("zh")


def test_pictures_and_a_wrong_number_of_them(pages: Any, tmp_path: Path) -> None:
    document = pages(sample_report(3, "pictures"), "pictures")
    assert "Pictures have no scale" in " ".join(map(text_of, document))
    with pytest.raises(ShapeError):
        pdf.write_pdf(tmp_path / "other.pdf", sample_report(3), sample_frames(2))
    assert not (tmp_path / "other.pdf").exists()


def test_pictures_that_are_cut_short_are_still_refused() -> None:
    """In a process of its own: importing WeasyPrint switches Pillow to take what is there of a broken file."""
    code = (
        "from PIL import ImageFile; from jcs_ct.outputs.report.pdf import require_pdf; require_pdf(); "
        "import sys; assert 'weasyprint.images' in sys.modules; print(ImageFile.LOAD_TRUNCATED_IMAGES)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "False"


def run(words: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0)


def test_the_command_writes_it_and_resume_adds_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = small_phantom()
    write_ct_series(tmp_path / "ct", study.hu, study.spacing, study.origin)
    words = ["diagnose", str(tmp_path / "ct"), "-o", str(tmp_path / "out"), "-m", str(write_lite(tmp_path))]
    assert run([*words, "--pdf", "--no-html"]) == 2
    assert "leave out --no-html" in capsys.readouterr().err
    assert run(words) == 0
    (report,) = tmp_path.glob("out/*/report.json")
    assert capsys.readouterr().err.endswith(f"jcs: 1 study done\nOpen {report.with_name('report.html')}\n")
    assert "pdf" not in json.loads(report.read_text())["files"]
    assert run([*words, "--pdf", "--resume"]) == 0
    assert "made with another choice of files" in capsys.readouterr().err
    assert json.loads(report.read_text())["files"]["pdf"] == "report.pdf"
    assert report.with_name("report.pdf").read_bytes().startswith(b"%PDF")
    for more in ([], ["--pdf"]):  # without being asked for it stays
        assert run([*words, "--resume", *more]) == 0
        assert "(finished before)" in capsys.readouterr().err


def test_what_is_missing_is_said_before_any_work(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(pdf, "find_spec", lambda name: None if name == "weasyprint" else found(name))
    assert run(["diagnose", str(tmp_path), "-o", str(tmp_path / "out"), "--pdf"]) == 2
    assert "pip install" in capsys.readouterr().err

    def without_pango() -> None:
        raise OSError("cannot load library 'libpango-1.0-0'")

    monkeypatch.setattr(pdf, "find_spec", found)
    monkeypatch.setattr(pdf, "_library", without_pango)
    assert run(["diagnose", str(tmp_path), "-o", str(tmp_path / "out"), "--pdf"]) == 2
    assert "libpango" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
