"""What people look at: maps as pictures, overlays that leave the slice alone, text that always fits."""

from __future__ import annotations

import io
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.measure import block_reduce

from jcs_ct.core.errors import JcsError, OutputError, UsageError
from jcs_ct.io.pictures import encode_png
from jcs_ct.outputs import figures, images, sheet
from jcs_ct.outputs.figures import (
    attention_overlay,
    compare_attention,
    diagnosed_slice,
    lesion_overlay,
    truth_overlay,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

SIDE = 512  # the size that is neither enlarged nor reduced


@pytest.fixture(scope="module")
def ct() -> NDArray[np.uint8]:
    """A picture of 512² without two equal columns, so that it can be found in a sheet."""
    grey = np.random.default_rng(3).integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that the sheets of this test write."""
    written: list[str] = []
    original = sheet._drawn

    def drawn(line: str, *arguments: Any) -> Any:
        written.append(line)
        return original(line, *arguments)

    monkeypatch.setattr(sheet, "_drawn", drawn)
    return written


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> NDArray[np.bool_]:
    rows, columns = np.indices(shape)
    return np.asarray((rows - centre[0] * shape[0]) ** 2 + (columns - centre[1] * shape[1]) ** 2 < radius**2)


def hill(shape: tuple[int, int]) -> NDArray[np.float32]:
    """A smooth map from 0 to 1."""
    smooth = ndimage.gaussian_filter(disc(shape, (0.5, 0.5), min(shape) / 5).astype(np.float32), min(shape) / 20)
    return np.asarray((smooth - smooth.min()) / np.ptp(smooth), np.float32)


def decoded(png: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(png)) as image:
        assert image.format == "PNG"
        assert image.mode == "RGB"
        assert image.info == {"Software": "jcs-ct"}
        return np.asarray(image)


def shown(png: bytes, box: tuple[int, int, int, int] = (0, 0, SIDE, SIDE)) -> NDArray[np.uint8]:
    """Return the slice's part of a sheet of one 512² picture; the margins are 18 pixels wide."""
    pixels = decoded(png)
    row = find_top(pixels)
    return pixels[row + box[0] : row + box[2], 18 + box[1] : 18 + box[3]]


def find_top(pixels: NDArray[np.uint8]) -> int:
    """Return the first row on which something else than paper touches the picture's first and last column."""
    paper = np.array(sheet.PAPER)
    return int(np.flatnonzero((pixels[:, 18] != paper).any(1) & (pixels[:, 18 + SIDE - 1] != paper).any(1))[0])


# Maps to files


def test_map_is_floored(tmp_path: Path) -> None:
    levels = np.arange(256) / 255
    below = np.nextafter(levels[1:].astype(np.float32), np.float32(0))
    values = np.concatenate([levels.astype(np.float32), below, [0.0, 1.0, 0.5]]).astype(np.float32)[None]
    images.save_map(tmp_path / "p.png", values)
    with Image.open(tmp_path / "p.png") as image:
        assert image.mode == "L"
        assert np.asarray(image).tolist() == [[*range(256), *range(255), 0, 255, 127]]
        assert image.info == {"Software": "jcs-ct"}


def test_array_keeps_its_values(tmp_path: Path) -> None:
    values = hill((24, 40))
    images.save_array(tmp_path / "a.npy", values.T)
    loaded = np.load(tmp_path / "a.npy")
    assert loaded.dtype == np.float32
    assert np.array_equal(loaded, values.T)
    with pytest.raises(OutputError, match="exists already"):
        images.save_array(tmp_path / "a.npy", values)
    images.save_array(tmp_path / "a.npy", values.astype(np.float64), overwrite=True)
    assert np.array_equal(np.load(tmp_path / "a.npy"), values)


@pytest.mark.parametrize(
    ("values", "words_of_error"),
    [
        (np.full((4, 4), np.nan, np.float32), "no NaN"),
        (np.array([[0.5, np.nan]]), "no NaN"),
        (np.array([[0.5, np.inf]]), "0.5 to inf"),
        (np.array([[0.5, 1.001]]), "expected 0 to 1"),
        (np.array([[-0.001, 1.0]]), "expected 0 to 1"),
        (np.zeros((1, 4, 4), np.float32), "rows × columns"),
        (np.zeros((4, 4), np.uint8), "expected a float map"),
        (np.zeros((0, 4), np.float32), "expected a float map"),
    ],
)
def test_maps_that_are_none(values: Any, words_of_error: str, tmp_path: Path) -> None:
    for save, name in ((images.save_map, "x.png"), (images.save_array, "x.npy")):
        with pytest.raises(OutputError, match=words_of_error) as caught:
            save(tmp_path / name, values)
        assert caught.value.path == str(tmp_path / name)
    assert not list(tmp_path.iterdir())


# Pixels


def test_grey_stays_and_colour_becomes_luminance() -> None:
    every = np.repeat(np.arange(256, dtype=np.uint8)[None, :, None], 3, axis=2)
    assert np.array_equal(images.grey_levels(every), every)
    colours = np.random.default_rng(0).integers(0, 256, (9, 9, 3)).astype(np.uint8)
    expected = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    assert np.abs(images.grey_levels(colours)[..., 0] - expected).max() <= 1
    for wrong in (
        every[..., 0],
        every.astype(np.float32),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ):
        with pytest.raises(UsageError, match="expected uint8"):
            images.grey_levels(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("width", [1, 3])
def test_border_lies_within_the_mask(width: int) -> None:
    mask = disc((60, 50), (0.4, 0.5), 17)
    mask[:, :4] = True  # at the edge of the slice too
    depth = ndimage.distance_transform_cdt(np.pad(mask, 1), "taxicab")[1:-1, 1:-1]  # steps to the outside
    assert np.array_equal(images.border(mask, width), mask & (depth <= width))


def test_resizing_by_whole_numbers(ct: NDArray[np.uint8]) -> None:
    assert np.array_equal(images.resized(ct[:5, :7], 3), np.kron(ct[:5, :7], np.ones((3, 3, 1), np.uint8)))
    part = ct[:9, :10, 0]
    reduce: Any = block_reduce
    mean = reduce(part[:8, :8].astype(float), (4, 4), np.mean)
    assert np.array_equal(images.resized(part, -4), np.rint(mean))
    values = part.astype(np.float32) / 255
    assert images.resized(values, -4).dtype == np.float32
    assert np.allclose(images.resized(values, -4), mean / 255)
    assert np.array_equal(images.resized(part > 250, -2), reduce((part > 250)[:8], (2, 2), np.max))


# Lesions


def test_lesion_overlay_touches_the_lesion_only(ct: NDArray[np.uint8], words: list[str]) -> None:
    mask = disc((SIDE, SIDE), (0.4, 0.3), 40)
    probability = np.where(mask, 0.5, np.nextafter(np.float32(0.5), np.float32(0))).astype(np.float32)
    png = lesion_overlay(ct, probability, 0.5, title="case/slice_7", caption=("jcs-joint", "official recipe"))
    pixels = shown(png)
    assert np.array_equal(pixels[~mask], ct[~mask])
    assert (pixels[images.border(mask, 1)] == images.LESION).all()
    inside = ndimage.binary_erosion(mask, iterations=2)
    share = np.polyfit(ct[inside][:, 0], pixels[inside][:, 0].astype(float), 1)[0]
    assert 0.6 < share < 0.9  # the slice shows through
    assert words[0] == "case/slice_7"
    assert f"lesion, p ≥ 0.50: {100 * mask.mean():.1f} % of the slice" in words
    assert words[-3:] == ["jcs-joint", "official recipe", "jcs-ct · research tool, not a medical device"]
    assert lesion_overlay(ct, probability, 0.5, title="case/slice_7", caption=("jcs-joint", "official recipe")) == png


def test_lesion_overlay_in_words(ct: NDArray[np.uint8], words: list[str]) -> None:
    one = np.zeros((SIDE, SIDE), np.float32)
    png = lesion_overlay(ct, one, title="a", caption="b")
    assert np.array_equal(shown(png), ct)
    assert words[:3] == ["a", "no lesion at p ≥ 0.50", "b"]
    one[3, 4] = 1
    lesion_overlay(ct, one, 0.125, title="a")
    assert "lesion, p ≥ 0.125: less than 0.1 % of the slice" in words


def test_truth_overlay(ct: NDArray[np.uint8], words: list[str]) -> None:
    mask = disc((SIDE, SIDE), (0.4, 0.3), 40)
    pixels = shown(truth_overlay(ct, mask.astype(np.uint8) * 255, title="a", caption="b"))
    assert np.array_equal(pixels[~mask], ct[~mask])
    assert (pixels[images.border(mask, 1)] == images.LESION).all()
    assert words == ["a", "lesion, as annotated: 1.9 % of the slice", "b", figures.FOOTER]
    truth_overlay(ct, mask & False, title="a")
    assert words[-2] == "no lesion annotated"
    with pytest.raises(UsageError, match="truth mask"):
        truth_overlay(ct, mask[:-1], title="a")


def test_lesion_overlay_refuses(ct: NDArray[np.uint8]) -> None:
    flat = np.zeros((SIDE, SIDE), np.float32)
    for threshold in (0.0, 1.1, float("nan")):
        with pytest.raises(UsageError, match="threshold"):
            lesion_overlay(ct, flat, threshold, title="a")
    with pytest.raises(OutputError, match="one grid"):
        lesion_overlay(ct, flat[:-1], title="a")
    with pytest.raises(JcsError, match="NaN"):
        lesion_overlay(ct, flat * np.nan, title="a")


def test_colour_means_overlay() -> None:
    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 200
    pixels = decoded(lesion_overlay(red, np.zeros((64, 64), np.float32), title="a"))
    assert np.ptp(pixels[60:500, 30:500].astype(int), axis=2).max() == 0


# Attention


def test_attention_fades_in(ct: NDArray[np.uint8], words: list[str]) -> None:
    attention = hill((SIDE, SIDE))
    pixels = shown(attention_overlay(ct, attention, title="a", caption="grad-cam"))
    assert np.array_equal(pixels[attention == 0], ct[attention == 0])
    change = np.abs(pixels.astype(int) - ct).max(axis=2)
    assert change[attention > 0.9].mean() > 3 * change[(attention > 0.05) & (attention < 0.15)].mean()
    hot = attention > 0.99
    assert np.corrcoef(pixels[hot][:, 0], ct[hot][:, 0])[0, 1] > 0.95  # the anatomy is still there
    assert words == ["a", "0", "0.5", "1", "attention, min–max scaled, 0–1", "grad-cam", figures.FOOTER]


def test_colour_bar_rises_from_grey_to_the_strongest_colour(ct: NDArray[np.uint8]) -> None:
    pixels = decoded(attention_overlay(ct, hill((SIDE, SIDE)), title="a")).astype(int)
    bar = pixels[find_top(pixels.astype(np.uint8)) + SIDE + 8 + 6, 18 : 18 + 300]
    assert bar[0].tolist() == [64, 64, 64]
    assert np.ptp(bar[-1]) > 100
    luminance = bar @ [0.299, 0.587, 0.114]
    assert luminance[-1] > luminance[150] > luminance[60]
    assert (pixels[find_top(pixels.astype(np.uint8)) + SIDE + 8 + 6, 18 + 300] == sheet.PAPER).all()


def test_colour_map_of_the_release(ct: NDArray[np.uint8]) -> None:
    attention = hill((SIDE, SIDE))
    peak = np.unravel_index(attention.argmax(), attention.shape)
    red, _, blue = shown(attention_overlay(ct, attention, title="a", colormap="jet"))[peak].tolist()
    assert red > blue
    with pytest.raises(UsageError, match="'rainbow_road' is not known"):
        attention_overlay(ct, attention, title="a", colormap="rainbow_road")


def test_what_the_network_did_not_see(ct: NDArray[np.uint8], words: list[str]) -> None:
    attention = np.maximum(hill((SIDE, SIDE)), 0.2).astype(np.float32)
    box = (100, 60, 412, 400)
    pixels = shown(attention_overlay(ct, attention, title="a", seen=box))
    outside = np.ones((SIDE, SIDE), bool)
    outside[box[0] : box[2], box[1] : box[3]] = False
    assert np.array_equal(pixels[outside], np.rint(ct[outside] * 0.5))  # dimmed, and no colour
    assert (np.ptp(pixels[~outside].astype(int), axis=1) > 0).mean() > 0.9
    edge = images.border(~outside, 1)
    assert 0.4 < (pixels[edge] == sheet.INK).all(1).mean() < 0.6  # dashed
    assert "outside the dashed line: not seen by the network" in words

    del words[:]
    full = attention_overlay(ct, attention, title="a", seen=(0, 0, SIDE, SIDE))
    assert full == attention_overlay(ct, attention, title="a")
    assert not any("seen" in line for line in words)
    for wrong in ((0, 0, SIDE + 1, SIDE), (5, 0, 5, 9), (-1, 0, 5, 9)):
        with pytest.raises(UsageError, match="the part seen"):
            attention_overlay(ct, attention, title="a", seen=wrong)


def test_degenerate_attention(ct: NDArray[np.uint8], words: list[str]) -> None:
    nothing = np.zeros((SIDE, SIDE), np.float32)
    assert np.array_equal(shown(attention_overlay(ct, nothing, title="a")), ct)
    assert words == ["a", "attention map is zero everywhere", figures.FOOTER]
    del words[:]
    reason = "the gradients vanish: the class is certain"
    assert np.array_equal(shown(attention_overlay(ct, nothing + 1, title="a", degenerate=reason)), ct)
    assert words == ["a", reason, figures.FOOTER]


# Side by side


def test_a_diagnosed_slice_names_its_sides_and_the_share_of_the_report(words: list[str]) -> None:
    """R and L on each of the three panels, near the edges and nowhere else; none on a picture, which has no sides."""
    grey = np.full((384, 384, 3), 90, np.uint8)
    lesion = np.zeros((384, 384), bool)
    lesion[180:200, 180:200] = True
    given: Any = {"lesion": lesion, "attention": lesion.astype(np.float32), "share": 0.28, "title": "slice 1 of 1"}
    with_them, without = (
        np.asarray(Image.open(io.BytesIO(diagnosed_slice(grey, anatomy=known, **given)))) for known in (True, False)
    )
    assert words.count("lesion: 28 % of the lung") == words.count("lesion: 28 % of the picture") == 1
    with_them, without = with_them[60:420], without[60:420]  # the panels, without title and legend
    changed = np.flatnonzero((with_them != without).any(axis=(0, 2)))
    panels = [changed[(changed >= left) & (changed < left + 384)] - left for left in (18, 18 + 394, 18 + 788)]
    assert sum(map(len, panels)) == len(changed)
    for columns in panels:
        right_side, left_side = columns[columns < 192], columns[columns >= 192]
        assert 4 < right_side.min() <= right_side.max() < 30
        assert 384 - 30 < left_side.min() <= left_side.max() < 384 - 4
    assert (with_them == 255).all(axis=2).sum() > 100 > (without == 255).all(axis=2).sum()


def test_comparison(ct: NDArray[np.uint8], words: list[str]) -> None:
    attention, truth = hill((SIDE, SIDE)), disc((SIDE, SIDE), (0.3, 0.3), 50)
    maps = [("image labels", attention, 0.613), ("joint", attention * 0, None)]
    png = compare_attention(ct, maps, truth.astype(np.uint8), title="case", caption="x")
    pixels = decoded(png)
    assert words[:6] == [
        "case",
        "CT slice",
        "image labels",
        "p(COVID-19) = 0.61",
        "joint",
        "attention map is zero everywhere",
    ]
    assert words[6:] == ["0", "0.5", "1", "attention, min–max scaled, 0–1", "lesion, as annotated", "x", figures.FOOTER]
    # Find the three panels by the slice's last row, where no map and no mask reaches.
    row = next(r for r in range(len(pixels)) if np.array_equal(pixels[r, 21 : 21 + SIDE], ct[-1]))
    starts = [c for c in range(pixels.shape[1] - SIDE) if np.array_equal(pixels[row, c : c + SIDE], ct[-1])]
    assert len(starts) == 3
    assert pixels.shape[1] - (starts[2] + SIDE) == starts[0]  # equal margins
    panels = [pixels[row - SIDE + 1 : row + 1, c : c + SIDE] for c in starts]
    for panel in panels:
        assert (panel[images.border(truth, 1)] == images.LESION).all()
    rest = ~truth & (attention == 0)
    assert np.array_equal(panels[1][rest], ct[rest])
    assert np.array_equal(panels[0], panels[2])
    assert not np.array_equal(panels[0], panels[1])
    assert compare_attention(ct, maps, truth, title="case", caption="x") == png


def test_comparison_without_lesion_or_title(slice_pixels: NDArray[np.uint8], words: list[str]) -> None:
    attention = hill((96, 80))
    compare_attention(slice_pixels, [("a", attention, None)] * 4, np.zeros((96, 80), bool))
    assert words[:5] == ["CT slice", "a", "a", "a", "a"]
    assert "no lesion annotated" in words
    for count in (1, 5):
        with pytest.raises(UsageError, match="expected 2 to 4"):
            compare_attention(slice_pixels, [("a", attention, None)] * count)
    with pytest.raises(UsageError, match="truth mask"):
        compare_attention(slice_pixels, [("a", attention, None)] * 2, np.zeros((80, 96), bool))
    with pytest.raises(OutputError, match="attention map of b is"):
        compare_attention(slice_pixels, [("a", attention, None), ("b", attention.T, None)])


# Text and sizes


def all_figures(shape: tuple[int, int], text: str) -> list[bytes]:
    pixels = np.full((*shape, 3), 90, np.uint8)
    attention = hill(shape)
    box = (shape[0] // 8, 0, shape[0], shape[1])
    return [
        lesion_overlay(pixels, attention, title=text, caption=text),
        attention_overlay(pixels, attention, title=text, caption=[text, text], seen=box),
        compare_attention(pixels, [(text, attention, 0.5), (text, attention * 0, None)], title=text, caption=text),
    ]


@pytest.mark.parametrize("shape", [(32, 32), (32, 128), (128, 32), (300, 400), (1060, 420)])
def test_every_size_has_its_margins(shape: tuple[int, int]) -> None:
    for png in all_figures(shape, "a_name_that_is_far_too_long/" * 30):
        pixels = decoded(png)
        width = round(18 * max(1, (np.prod(shape) ** 0.5) / 640) * 0.9)
        frame = np.ones(pixels.shape[:2], bool)
        frame[8:-8, min(width, 14) : -min(width, 14)] = False
        assert (pixels[frame] == sheet.PAPER).all()  # nothing runs over the edge
        assert 0.1 < pixels.shape[0] / pixels.shape[1] < 6
        assert pixels.shape[1] >= 460


@pytest.mark.parametrize(
    "text",
    [
        "病例_一 плохой",
        "$x$ $\\frac{1}{0}$ a_b^c",
        "tab\tnew\nline\x1b[31m \u202egnp",
        "\udce9.png \U0001f600",
        "{}%s\\",
        "",
    ],
)
def test_any_name_is_drawable(text: str, words: list[str]) -> None:
    for png in all_figures((32, 32), text):
        decoded(png)  # pytest turns a warning about a missing glyph into an error
    assert all(line.isprintable() for line in words)


def test_text_is_shortened_in_the_middle() -> None:
    name = "study_0001/series_lung_kernel_thin_slices/slice_0042"
    room = 200.0
    short = sheet.shortened(name, room, 13)
    head, tail = short.split("…")
    assert name.startswith(head)
    assert name.endswith(tail)
    assert abs(len(head) - len(tail)) <= 1
    assert room * 0.85 < sheet._text_width(short, 13, bold=False) <= room
    assert sheet.shortened("short", room, 13) == "short"
    assert sheet.shortened("much", 1, 13) == "…"
    assert sheet.drawable("é ß\u00a0Ж 中") == "é ß Ж ?"


@pytest.mark.parametrize("shape", [(1, 2, 3), (33, 1, 3), (120, 77, 3)])
def test_sheets_are_pictures_without_loss(shape: tuple[int, int, int]) -> None:
    cv2 = pytest.importorskip("cv2")  # another decoder
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    data = encode_png(pixels, compress_level=1)
    assert data == encode_png(pixels, compress_level=1)
    with Image.open(io.BytesIO(data)) as picture:
        picture.verify()
    with Image.open(io.BytesIO(data)) as picture:
        assert (picture.mode, picture.info) == ("RGB", {"Software": "jcs-ct"})
        assert np.array_equal(np.asarray(picture), pixels)
    assert np.array_equal(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1], pixels)


@pytest.mark.parametrize(("size", "bold"), [(11, False), (13, True), (31.5, False)])
def test_no_letter_is_cut(size: float, bold: bool) -> None:
    """Every letter of a line, the tallest and the deepest too, lies inside of its picture."""
    for line in ("ÅÉ|jgy,_Q§(}", "x", "–", "W" * 40, "fjord ŷ"):
        drawn, above = sheet._drawn(line, size, bold, sheet.INK)
        ink = (drawn != sheet.PAPER).any(axis=2)
        assert ink.any()
        assert not ink[[0, -1]].any(), line
        assert not ink[:, [0, -1]].any(), line
        assert 0 < above < drawn.shape[0]


def test_long_captions_are_wrapped_then_shortened(words: list[str]) -> None:
    page = sheet.Sheet(300, 1.0)
    page.paragraph("some words that need two lines of this page, or three")
    assert " ".join(words) == ""
    page.png()
    assert len(words) == 2
    assert " ".join(words) == "some words that need two lines of this page, or three"
    del words[:]
    page = sheet.Sheet(300, 1.0)
    page.paragraph("a long story " * 40 + "with an end")
    page.png()
    assert len(words) == 3
    assert "…" in words[2]
    assert words[2].endswith("with an end")


def test_the_modules_are_light_and_leave_no_state() -> None:
    code = (
        "import sys, numpy as np\nfrom jcs_ct.outputs import figures, images\n"
        "assert not {'matplotlib', 'PIL', 'torch', 'pydicom'} & set(sys.modules)\n"
        "figures.lesion_overlay(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.float32), title='a')\n"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_figure_is_quick(ct: NDArray[np.uint8]) -> None:
    attention = hill((SIDE, SIDE))
    attention_overlay(ct, attention, title="a")
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        attention_overlay(ct, attention, title="a", seen=(50, 50, 450, 450), caption="b")
        taken.append(time.perf_counter() - start)
    assert min(taken) < 0.6  # 0.15 s on a quiet machine
