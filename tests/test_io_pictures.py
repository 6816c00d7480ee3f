"""Pictures into slices, checked against tifffile, scikit-image and hand-made files; and everything that is refused."""

from __future__ import annotations

import ctypes
import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile
from skimage.io import imread

from jcs_ct.core.errors import InputError
from jcs_ct.io import pictures as raster
from jcs_ct.io.files.sources import find_sources
from jcs_ct.io.pictures import decode_slice, read_slice

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.types import SliceImage

RNG = np.random.default_rng(0)
ROWS, COLUMNS = np.mgrid[0:40, 0:60]
GREY = (2 * ROWS + 2 * COLUMNS + RNG.integers(0, 20, (40, 60))).astype(np.uint8)
GREY16 = RNG.integers(0, 65536, (40, 60), dtype=np.uint16)
FLOAT = RNG.random((40, 60), dtype=np.float32)
RGB = RNG.integers(0, 256, (40, 60, 3), dtype=np.uint8)
NOTE_16 = "16-bit grey, taken as lung-windowed 0–65535 and rounded to 8 bits"


def three(grey: NDArray[Any]) -> NDArray[np.uint8]:
    return np.stack([grey] * 3, axis=-1).astype(np.uint8)


def eight(values: NDArray[Any]) -> NDArray[np.uint8]:
    """16 bits to 8, by another way than the module's: floating point."""
    return three(np.floor(values.astype(np.float64) / 257 + 0.5))


def pil(picture: Image.Image | NDArray[Any], fmt: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(file, fmt, **options)
    return file.getvalue()


def tiff(pixels: NDArray[Any], *, orientation: int | None = None, **options: Any) -> bytes:
    file = io.BytesIO()
    if orientation is not None:
        options["extratags"] = [(274, 3, 1, orientation, True)]
    tifffile.imwrite(file, pixels, **{"photometric": "minisblack", **options})
    return file.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    pixels: NDArray[Any], bits: int, colour: int, extra: bytes = b"", shown: tuple[int, int] | None = None
) -> bytes:
    """Write a PNG by hand: `pixels` holds rows of samples; colour 0 is grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    rows, columns = shown or pixels.shape[:2]
    raw = b"".join(b"\0" + row.astype(">u2" if bits == 16 else "u1").tobytes() for row in pixels)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + extra + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def with_alpha(pixels: NDArray[Any], alpha: NDArray[Any] | int) -> NDArray[Any]:
    shape = pixels.shape[:2]
    channels = pixels if pixels.ndim == 3 else pixels[..., None]
    return np.concatenate([channels, np.broadcast_to(alpha, shape)[..., None].astype(pixels.dtype)], axis=-1)


def decode(data: bytes) -> SliceImage:
    result = decode_slice(data, "p/name", "zip!label")
    assert (result.name, result.source) == ("p/name", "zip!label")
    assert result.pixels.dtype == np.uint8
    assert result.pixels.ndim == 3
    assert result.pixels.shape[2] == 3
    assert result.pixels.flags.c_contiguous
    assert result.pixels.flags.writeable
    return result


def grey_palette(pixels: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(255 - pixels).convert("P")
    picture.putpalette([255 - i for i in range(256) for _ in range(3)])
    return picture


# --- what is read ----------------------------------------------------------------------------------------------------

EXACT: dict[str, tuple[bytes, NDArray[np.uint8]]] = {
    "png L": (pil(GREY, "PNG"), three(GREY)),
    "png L interlaced-free, by hand": (png(GREY, 8, 0), three(GREY)),
    "png RGB": (pil(three(GREY), "PNG"), three(GREY)),
    "png P": (pil(grey_palette(GREY), "PNG"), three(GREY)),
    "png LA, opaque": (png(with_alpha(GREY, 255), 8, 4), three(GREY)),
    "png RGBA, opaque": (png(with_alpha(three(GREY), 255), 8, 6), three(GREY)),
    "png with garbage behind": (pil(GREY, "PNG") + b"garbage" * 9, three(GREY)),
    "bmp L": (pil(GREY, "BMP"), three(GREY)),
    "bmp RGB": (pil(three(GREY), "BMP"), three(GREY)),
    "tiff": (tiff(GREY), three(GREY)),
    "tiff >": (tiff(GREY, byteorder=">"), three(GREY)),
    "tiff big": (tiff(GREY, bigtiff=True), three(GREY)),
    "tiff white is zero": (tiff(GREY, photometric="miniswhite"), three(255 - GREY)),
    "tiff deflate": (tiff(GREY, compression="zlib"), three(GREY)),
    "tiff lzw": (pil(GREY, "TIFF", compression="tiff_lzw"), three(GREY)),
    "tiff packbits": (pil(GREY, "TIFF", compression="packbits"), three(GREY)),
    "tiff strips": (tiff(GREY, rowsperstrip=7), three(GREY)),
    "tiff tiles": (tiff(np.tile(GREY, (3, 3)), tile=(32, 48)), three(np.tile(GREY, (3, 3)))),
    "tiff RGB": (tiff(three(GREY), photometric="rgb"), three(GREY)),
    "tiff RGB, planes": (
        tiff(np.ascontiguousarray(np.moveaxis(three(GREY), -1, 0)), photometric="rgb", planarconfig="separate"),
        three(GREY),
    ),
    "tiff P": (pil(grey_palette(GREY), "TIFF"), three(GREY)),
    "tiff LA, opaque": (pil(Image.fromarray(with_alpha(GREY, 255)), "TIFF"), three(GREY)),
    "tiff PA, opaque": (pil(grey_palette(GREY).convert("PA"), "TIFF"), three(GREY)),
}


@pytest.mark.parametrize("case", EXACT)
def test_8_bit_pictures_are_taken_as_they_are(case: str) -> None:
    data, wanted = EXACT[case]
    result = decode(data)
    np.testing.assert_array_equal(result.pixels, wanted)
    assert result.notes == ()


# tifffile needs another package for some compressions; scikit-image leaves alpha in and white zero.
COMPARABLE = [
    case for case in EXACT if not {"P", "lzw", "packbits", "white", "LA,", "RGBA,", "PA,"} & set(case.split())
]


@pytest.mark.parametrize("case", COMPARABLE)
def test_scikit_image_reads_the_same(case: str, tmp_path: Path) -> None:
    data, _ = EXACT[case]
    path = tmp_path / f"a.{case.split()[0]}"
    path.write_bytes(data)
    other = imread(path)
    other = np.moveaxis(other, 0, -1) if other.shape[0] == 3 else other
    np.testing.assert_array_equal(decode(data).pixels, other if other.ndim == 3 else three(other))


def test_jpeg_differs_by_rounding_only() -> None:
    smooth = (2 * ROWS + 2 * COLUMNS).astype(np.uint8)
    for picture in (smooth, three(smooth)):
        result = decode(pil(picture, "JPEG", quality=95))
        assert np.abs(result.pixels.astype(int) - three(smooth)).max() <= 4
        assert result.notes == ()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_16_bit_tiff_is_rounded(order: str, compression: str | None) -> None:
    result = decode(tiff(GREY16, byteorder=order, compression=compression))
    np.testing.assert_array_equal(result.pixels, eight(GREY16))
    assert result.notes == (NOTE_16,)


def test_all_16_bit_values_are_rounded_to_nearest() -> None:
    ramp = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    np.testing.assert_array_equal(decode(tiff(ramp)).pixels, eight(ramp))
    np.testing.assert_array_equal(decode(png(ramp, 16, 0)).pixels, eight(ramp))
    np.testing.assert_array_equal(decode(tiff(ramp, photometric="miniswhite")).pixels, eight(65535 - ramp))


@pytest.mark.parametrize("order", ["<", ">"])
def test_floats_from_0_to_1_are_read(order: str) -> None:
    wanted = three(np.floor(FLOAT.astype(np.float64) * 255 + 0.5))
    assert np.abs(decode(tiff(FLOAT, byteorder=order)).pixels.astype(int) - wanted).max() == 0
    inverted = decode(tiff(1 - FLOAT, photometric="miniswhite", byteorder=order)).pixels
    assert np.abs(inverted.astype(int) - wanted).max() <= 1


@pytest.mark.parametrize(("bits", "factor"), [(2, 85), (4, 17)])
def test_few_bits_are_spread_over_8(bits: int, factor: int) -> None:
    values = RNG.integers(0, 2**bits, (40, 64), dtype=np.uint8)
    per_byte = 8 // bits
    packed = sum(values[:, i::per_byte].astype(int) << (8 - bits * (i + 1)) for i in range(per_byte))
    data = png(np.asarray(packed, np.uint8), bits, 0, shown=(40, 64))
    np.testing.assert_array_equal(decode(data).pixels, three(values * factor))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"tile": (16, 16)}], ids=repr)
def test_tiff_stays_on_its_stored_grid(orientation: int, options: dict[str, Any]) -> None:
    result = decode(tiff(GREY, orientation=orientation, **options))
    np.testing.assert_array_equal(result.pixels, three(GREY))
    assert len(result.notes) == (orientation > 1)
    np.testing.assert_array_equal(decode(tiff(GREY16, orientation=orientation, **options)).pixels, eight(GREY16))


@pytest.mark.parametrize("fmt", ["PNG", "JPEG"])
def test_exif_orientation_is_ignored_and_noted(fmt: str) -> None:
    exif = Image.Exif()
    exif[274] = 6
    result = decode(pil(GREY, fmt, exif=exif))
    assert result.pixels.shape == (40, 60, 3)
    assert result.notes == ("EXIF orientation 6 is ignored; maps are on the stored grid",)
    exif[274] = 99
    assert decode(pil(GREY, fmt, exif=exif)).notes == ()


def test_transparency_is_laid_over_black() -> None:
    alpha = RNG.integers(0, 256, (40, 60), dtype=np.uint8)
    wanted = three(np.floor(GREY.astype(np.float64) * alpha / 255 + 0.5))
    for data in (png(with_alpha(GREY, alpha), 8, 4), png(with_alpha(three(GREY), alpha), 8, 6)):
        result = decode(data)
        np.testing.assert_array_equal(result.pixels, wanted)
        assert result.notes == ("partly transparent; laid over black",)


@pytest.mark.parametrize("bits", [8, 16])
def test_a_transparent_grey_is_laid_over_black(bits: int) -> None:
    grey = GREY if bits == 8 else GREY16
    key = int(grey[7, 9])
    result = decode(png(grey, bits, 0, chunk(b"tRNS", struct.pack(">H", key))))
    wanted = np.where(grey == key, 0, grey)
    np.testing.assert_array_equal(result.pixels, three(wanted) if bits == 8 else eight(wanted))
    assert "partly transparent; laid over black" in result.notes


def test_a_transparent_colour_in_use_nowhere_is_no_matter() -> None:
    unused = next(v for v in range(65536) if not np.isin(v, GREY16))
    assert decode(png(GREY16, 16, 0, chunk(b"tRNS", struct.pack(">H", unused)))).notes == (NOTE_16,)


def test_16_bit_channels_lose_their_lower_8_bits_and_say_so() -> None:
    deep = three(GREY).astype(np.uint16) * 257
    note = "16 bits a channel; only the upper 8 are used"
    cases = [png(deep, 16, 2), png(with_alpha(deep[..., 0], 65535), 16, 4), tiff(deep, photometric="rgb")]
    for data in cases:
        result = decode(data)
        np.testing.assert_array_equal(result.pixels, three(GREY))
        assert result.notes == (note,)
    keyed = decode(png(deep, 16, 2, chunk(b"tRNS", struct.pack(">HHH", *deep[0, 0]))))
    np.testing.assert_array_equal(keyed.pixels, three(GREY))
    assert keyed.notes == ("its transparent colour is ignored", note)


def test_colour_is_noted() -> None:
    assert decode(pil(RGB, "PNG")).notes[0].startswith("coloured (9")
    stamped = three(GREY)
    stamped[0, 0] = (255, 0, 0)  # one pixel of 2400 is no colour picture
    assert decode(pil(stamped, "PNG")).notes == ()


def test_two_grey_levels_are_noted() -> None:
    assert decode(pil(np.where(GREY > 90, 255, 0).astype(np.uint8), "PNG")).notes == (
        "only two grey levels, as a mask has",
    )


def test_what_pillow_warns_of_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pil(GREY, "PNG")
    twice = chunk(b"acTL", struct.pack(">II", 0, 0))
    result = decode(data[:33] + twice + data[33:])
    assert result.notes == ("Pillow: Invalid APNG, will use default PNG image if possible",)
    load = ImageFile.ImageFile.load

    def deprecated(self: ImageFile.ImageFile) -> Any:
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", deprecated)
    assert decode(pil(GREY, "BMP")).notes == ()


def test_threads_leave_the_warning_filters_alone() -> None:
    data, before = pil(GREY, "PNG"), list(warnings.filters)
    with ThreadPoolExecutor(4) as pool:
        assert len(list(pool.map(decode, [data] * 100))) == 100
    assert list(warnings.filters) == before


def test_sources_are_read_whatever_their_extension(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(pil(GREY, "PNG"))
    (source,) = find_sources([tmp_path]).sources
    result = read_slice(source)
    assert (result.name, result.source) == ("a", str(tmp_path / "a.jpg"))
    np.testing.assert_array_equal(result.pixels, three(GREY))


# --- what is refused -------------------------------------------------------------------------------------------------


def jpeg_cmyk() -> bytes:
    return pil(Image.fromarray(RGB).convert("CMYK"), "JPEG")


def tagged(data: bytes, tag: int, value: int) -> bytes:
    """Set the value of one LONG or SHORT tag of a little-endian TIFF."""
    start = struct.unpack_from("<I", data, 4)[0]
    out = bytearray(data)
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            struct.pack_into("<HHII", out, at, tag, 4, 1, value)
    return bytes(out)


HU = (GREY16 // 16).astype(np.int16) - 1024
BIG_PNG = png(GREY, 8, 0, shown=(60_000, 60_000))
REFUSED: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "is an empty file"),
    "text": (b"no picture", "is a text file; slices as PNG, JPEG, TIFF or BMP are expected by this command"),
    "gif": (pil(GREY, "GIF"), "is a GIF picture"),
    "mat": (b"x".ljust(124) + b"\x00\x01IM", "is a MATLAB v5 file"),
    "12-bit": (tiff(GREY16 // 16), "no value above 4095, as unwindowed 12-bit CT numbers are"),
    "12-bit png": (png(GREY16 // 20, 16, 0), "as unwindowed 12-bit CT numbers"),
    "12-bit grey and alpha": (png(with_alpha(GREY16 // 16, 65535), 16, 4), "no value above 4095"),
    "signed 16": (tiff(HU), f"whole numbers from {HU.min()} to {HU.max()}, as CT numbers (HU) are"),
    "signed 16 >": (tiff(HU, byteorder=">"), "as CT numbers (HU) are"),
    "signed 32": (tiff(HU.astype(np.int32)), "as CT numbers (HU) are"),
    "unsigned 32": (tiff(GREY16.astype(np.uint32)), "as CT numbers (HU) are"),
    "signed 8": (tiff(GREY.view(np.int8)), "signed 8-bit"),
    "float HU": (tiff(FLOAT * 2000 - 1000), "floating-point values from -999."),
    "float 0–255": (tiff(FLOAT * 200), "divide it by 255"),
    "float64": (tiff(FLOAT.astype(np.float64)), "its header is damaged, or of a variant that is not read"),
    "nan": (tiff(np.where(FLOAT > 0.999, np.nan, np.where(FLOAT < 0.001, -np.inf, FLOAT))), "NaN and"),
    "1-bit": (pil(Image.fromarray(GREY > 99), "PNG"), "1-bit picture (mode 1), as masks are"),
    "1-bit tiff": (pil(Image.fromarray(GREY > 99), "TIFF"), "1-bit"),
    "1-bit bmp": (pil(Image.fromarray(GREY > 99), "BMP"), "1-bit"),
    "cmyk": (jpeg_cmyk(), "colour mode CMYK; grey or RGB is expected"),
    "cmyk tiff": (pil(Image.fromarray(RGB).convert("CMYK"), "TIFF"), "colour mode CMYK"),
    "lab": (pil(Image.fromarray(RGB).convert("LAB"), "TIFF"), "colour mode LAB"),
    "blank": (pil(np.full((40, 40), 127, np.uint8), "PNG"), "is blank: every pixel is 127"),
    "blank RGB": (pil(np.full((40, 40, 3), 9, np.uint8), "BMP"), "every pixel is 9"),
    "blank colour": (pil(np.full((40, 40, 3), (9, 8, 7), np.uint8), "BMP"), "every pixel is (9, 8, 7)"),
    "blank 16": (tiff(np.zeros((40, 40), np.uint16)), "every pixel is 0"),
    "blank 16 RGB": (png(np.zeros((40, 120), np.uint16), 16, 2, shown=(40, 40)), "every pixel is 0"),
    "blank float": (tiff(np.ones((40, 40), np.float32)), "every pixel is 255"),
    "transparent": (png(with_alpha(GREY, 0), 8, 4), "every pixel is 0"),
    "small": (pil(GREY[:31], "PNG"), "is 31 rows × 60 columns; 32 to 8192 a side"),
    "narrow": (pil(np.tile(GREY[:32], (1, 3)), "PNG"), "one at most 4 times the other"),
    "one pixel": (pil(GREY[:1, :1], "BMP"), "is 1 rows × 1 columns"),
    "large": (png(GREY, 8, 0, shown=(8193, 8192)), "is 8193 rows × 8192 columns"),
    "bomb, warned of": (png(GREY, 8, 0, shown=(10_000, 10_000)), "is 10000 rows × 10000 columns"),
    "bomb": (BIG_PNG, "has far too many pixels"),
    "bomb tiff": (tagged(tagged(tiff(GREY), 256, 60_000), 257, 60_000), "has far too many pixels"),
    "pages": (tiff(np.stack([GREY] * 3)), "holds 3 pictures; one slice a file is expected"),
    "many pages": (tiff(np.stack([GREY[:32, :32]] * 1005)), "holds more than 1000 pictures"),
    "apng": (
        pil(Image.fromarray(GREY), "PNG", save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        "holds 2 pictures",
    ),
    "two photographs": (
        pil(Image.fromarray(RGB), "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)]),
        "holds 2 pictures",
    ),
    "huge tiles": (tagged(tiff(np.tile(GREY, (2, 2)), tile=(32, 32)), 323, 8193), "has tiles larger than any slice"),
    "truncated strip": (tagged(tiff(GREY, compression="zlib"), 279, 100), "cannot be decoded as a TIFF picture"),
    "truncated png": (pil(GREY, "PNG")[:-300], "cannot be decoded as a PNG picture"),
    "png without its end": (pil(GREY, "PNG")[:-12], "cannot be decoded as a PNG picture"),
    "truncated jpeg": (pil(RGB, "JPEG")[:-300], "cannot be decoded as a JPEG picture"),
    "truncated bmp": (pil(GREY, "BMP")[:-300], "cannot be decoded as a BMP picture"),
    "truncated tiff": (tiff(GREY)[:-300], "cannot be decoded as a TIFF picture"),
    "head only": (pil(GREY, "PNG")[:8], "cannot be decoded as a PNG picture"),
    "bad checksum": (pil(GREY, "PNG").replace(b"IDAT", b"IDAT", 1)[:-13] + b"\0" + pil(GREY, "PNG")[-12:], "cannot be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_slice_is_refused_with_its_reason(case: str) -> None:
    data, text = REFUSED[case]
    with pytest.raises(InputError) as caught:
        decode_slice(data, "name", "zip!label")
    line = caught.value.line()
    assert text in line
    assert line.startswith("zip!label: ")
    assert line.endswith(")")  # with a hint
    assert "object at 0x" not in line


def test_counts_of_odd_floats_are_named() -> None:
    odd = FLOAT.copy()
    odd[0, :3], odd[1, :2] = np.nan, (np.inf, -np.inf)
    with pytest.raises(InputError, match="holds 3 NaN and 2 infinite values"):
        decode(tiff(odd))


def test_nothing_is_decoded_before_the_size_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(InputError, match="8193 rows"):
        decode(REFUSED["large"][0])


@pytest.mark.parametrize(
    "error",
    [MemoryError(), ZeroDivisionError("zero"), struct.error("unpack"), SyntaxError("x"), RecursionError("deep")],
)
def test_whatever_a_decoder_raises_is_an_input_error(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(self: ImageFile.ImageFile) -> None:
        raise error

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(InputError, match=str(error) or type(error).__name__) as caught:
        decode(pil(GREY, "BMP"))
    assert caught.value.__cause__ is error


# --- hostile bytes ---------------------------------------------------------------------------------------------------

SEEDS = {
    **{case: EXACT[case][0] for case in EXACT},
    "jpeg": pil(RGB, "JPEG"),
    "jpeg progressive": pil(GREY, "JPEG", progressive=True),
    "tiff jpeg": pil(RGB, "TIFF", compression="jpeg"),
    "tiff 16": tiff(GREY16, orientation=6),
    "tiff float": tiff(FLOAT, compression="zlib"),
    "png 16": png(GREY16, 16, 0),
    "apng": REFUSED["apng"][0],
}


def survives(data: bytes) -> bool:
    try:
        decode(data)
    except InputError:
        return False
    return True


@pytest.mark.parametrize("case", SEEDS)
def test_damaged_files_are_slices_or_problems(case: str, capfd: pytest.CaptureFixture[str]) -> None:
    data, rng = SEEDS[case], np.random.default_rng(len(case))
    for length in rng.integers(0, len(data), 25):
        survives(data[:length])
    for trial in range(75):
        damaged = bytearray(data)
        # Headers are where the harm is; the rest is pixels.
        span = min(len(data), 200) if trial % 3 else len(data)
        begin = len(data) - span if case.startswith("tiff") and trial % 3 == 2 else 0
        for at in begin + rng.integers(0, span, rng.integers(1, 4)):
            damaged[at] = rng.choice([0, 1, 127, 128, 255, damaged[at] ^ (1 << rng.integers(8))])
        survives(bytes(damaged))
    assert capfd.readouterr() == ("", "")


def test_errors_of_libtiff_are_heard_again_afterwards(capfd: pytest.CaptureFixture[str]) -> None:
    broken = REFUSED["truncated strip"][0]
    assert not survives(broken)
    with pytest.raises(OSError, match="-2"), Image.open(io.BytesIO(broken)) as picture:
        picture.load()
    loud = capfd.readouterr().err
    setter = raster._find_libtiff_setter()
    handler = setter(None)
    assert bool(loud) == bool(handler)
    setter(handler)


def test_without_access_to_libtiff_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes, "CDLL", lambda path: object())
    assert raster._find_libtiff_setter()(None) is None


def test_no_damaged_bit_of_a_png_goes_unnoticed() -> None:
    data = png(GREY[:, :40], 8, 0)
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        try:
            np.testing.assert_array_equal(decode(bytes(damaged)).pixels, three(GREY[:, :40]))
        except InputError:
            continue


@pytest.mark.parametrize(("tag", "value"), [(322, 2**31), (323, 2**31), (278, 2**31), (277, 60_000), (279, 2**32 - 1)])
def test_huge_tiff_tags_cost_nothing(tag: int, value: int, capfd: pytest.CaptureFixture[str]) -> None:
    for data in (tiff(np.tile(GREY, (2, 2)), tile=(32, 32)), tiff(GREY), tiff(GREY, compression="zlib")):
        survives(tagged(data, tag, value))
    assert capfd.readouterr() == ("", "")


def test_limits_are_as_documented() -> None:
    assert (raster.MIN_SIDE, raster.MAX_SIDE, raster.MAX_ASPECT) == (32, 8192, 4)
    assert decode(pil(np.tile(GREY[:32, :32], (4, 1)), "PNG")).pixels.shape == (128, 32, 3)


@pytest.mark.parametrize(
    ("factor", "offset", "text"),
    [
        (1, 32768, "is a 16-bit picture with values from 31768 to 33268, as shifted CT numbers are"),
        (1, 10000, "is a 16-bit picture with values from 9000 to 10500, as shifted CT numbers are"),
        (4, 4096, "is a 16-bit picture with values from 96 to 6096, as shifted CT numbers are"),
        (1, 0, "is a 16-bit picture with values from -1000 to 500, as signed CT numbers are"),
    ],
)
def test_ct_numbers_of_16_bits_are_told_by_their_range(factor: int, offset: int, text: str) -> None:
    hu = np.linspace(-1000, 500, 64 * 64).round().reshape(64, 64)
    file = io.BytesIO()
    Image.fromarray((hu * factor + offset).astype(np.int32).astype(np.uint16)).save(file, "PNG")
    with pytest.raises(InputError, match=text):
        decode_slice(file.getvalue(), "a", "a.png")
