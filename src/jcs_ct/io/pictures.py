"""One CT slice from a picture: PNG, JPEG, TIFF or BMP, already lung-windowed, as 8-bit RGB on its stored grid.

Nothing is guessed: what cannot be a windowed slice (CT numbers, masks, several pages, other colour spaces) is refused
with the reason, and what is read with a loss or a doubt says so in the notes.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import warnings
from contextlib import contextmanager
from io import BytesIO
from typing import TYPE_CHECKING, cast

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError, _imaging
from PIL.PngImagePlugin import PngInfo

from jcs_ct.core.errors import InputError, about
from jcs_ct.core.types import SliceImage
from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.files.kinds import EXPECTED, HEAD, RASTERS, Kind, sniff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from jcs_ct.io.files.sources import Source

MIN_SIDE = 32
MAX_SIDE = 8192
MAX_ASPECT = 4
MAX_PAGES = 1000  # counting stops there
COLOUR_SPREAD, COLOUR_SHARE = 16, 0.001
"""A picture counts as coloured where more than this share of its pixels has channels further apart than this."""

_GREY16 = frozenset({"I;16", "I;16L", "I;16B", "I;16N"})
_EIGHT = frozenset({"L", "LA", "P", "PA", "RGB", "RGBA"})
_12_BIT = 4096
_NARROW = 8192  # of 65536: through a lung window air and body lie further apart, CT numbers never
_WINDOW = "apply a lung window, such as level -600 and width 1500 HU, and save as 8-bit PNG"
_ORIENTATION, _BITS, _PHOTOMETRIC, _SAMPLE_FORMAT = 274, 258, 262, 339  # tags of TIFF and EXIF
_TILE_SIDES = (322, 323)

# The filters of `warnings` belong to the process: changed by two threads at once, they would stay changed.
_process_lock = threading.Lock()


def read_slice(source: Source) -> SliceImage:
    """Read one slice: of a source only `name` and `label` are used, never the extension.

    Raises InputError as `Source.read` and `decode_slice`.
    """
    return decode_slice(source.read(), source.name, source.label)


def decode_slice(data: bytes, name: str, label: str) -> SliceImage:
    """Decode a picture of one slice, whose file is `data`.

    8-bit grey, palette and RGB are taken as they are; transparency is laid over black. 16-bit grey is taken as windowed
    0–65535, floating point as windowed 0–1. The pixels are uint8, rows × columns × 3, C-contiguous and writable,
    `MIN_SIDE` to `MAX_SIDE` a side, not all the same.

    Raises:
        InputError: No picture of these formats; damaged; a size, mode or range of values that a slice does not have;
            several pages; or one single colour.
    """
    notes: list[str] = []
    with about(label):
        kind = sniff(data[:HEAD])
        if kind not in RASTERS:
            raise InputError(f"is {kind.value}; {EXPECTED}", hint="convert it to PNG")
        with pillow_kept_quiet(notes):
            stored = _decode(data, kind, notes)
        _refuse_constant(stored)
    _remark(stored, notes)
    rgb = stored if stored.ndim == 3 else np.repeat(stored[..., None], 3, axis=2)
    pixels = np.require(rgb, requirements=["C", "W"])  # what Pillow hands out is read-only, which PyTorch warns of
    return SliceImage(name, label, pixels, tuple(dict.fromkeys(notes)))


def encode_picture(picture: Image.Image, label: str) -> tuple[bytes, Kind]:
    """Return a picture that a program holds as a file that `decode_slice` reads with the same pixels, and its kind.

    Raises InputError where it holds several pictures, is closed, or cannot be written without a loss.
    """
    try:
        pages = int(getattr(picture, "n_frames", 1))
    except Exception:  # noqa: BLE001  # of a file that is closed
        pages = 1
    if pages > 1:
        raise InputError(
            f"holds {pages} pictures, one is expected", path=label, hint="give each as an image of its own"
        )
    try:
        inverted = _tiff_tag(picture, _PHOTOMETRIC, 1) == 0
        plain = picture.copy()  # loaded, of no file any more
        if inverted and plain.mode in _GREY16:  # as it would be read from its file
            plain = Image.fromarray((65535 - np.asarray(plain).astype(np.int64)).astype(np.uint16))
        elif inverted and plain.mode == "F":
            plain = Image.fromarray(1 - np.asarray(plain))
        kind = Kind.PNG if plain.mode in _EIGHT - {"PA"} | _GREY16 else Kind.TIFF
        file = BytesIO()
        plain.save(file, kind.name, **({"compress_level": 1} if kind is Kind.PNG else {}))
    except Exception as error:
        message = "cannot be taken: it is closed, damaged, or of a kind that Pillow does not save"
        raise InputError(message, path=label, hint="load it, and convert it to mode L") from error
    return file.getvalue(), kind


def encode_png(pixels: NDArray[np.uint8], description: str = "", compress_level: int = 6) -> bytes:
    """Return a grey (H×W) or RGB (H×W×3) picture as a PNG; the same pixels give the same bytes, without a date."""
    metadata = PngInfo()
    metadata.add_text("Software", "jcs-ct")
    if description:
        metadata.add_text("Description", description)
    data = BytesIO()
    Image.fromarray(pixels).save(data, "PNG", pnginfo=metadata, compress_level=compress_level)
    return data.getvalue()


def _decode(data: bytes, kind: Kind, notes: list[str]) -> NDArray[np.uint8]:
    """Return the stored pixels as uint8: rows × columns where they are grey, rows × columns × 3 otherwise."""
    try:
        with Image.open(BytesIO(data), formats=[kind.name]) as picture:
            _refuse_header(picture)
            if kind is Kind.PNG:
                # Decoding alone does not look at the checksums of the pixel data.
                with Image.open(BytesIO(data), formats=["PNG"]) as copy:
                    copy.verify()
            bits = data[24] if kind is Kind.PNG else _tiff_tag(picture, _BITS, 8)
            orientation = picture.getexif().get(_ORIENTATION, 1)
            inverted = _tiff_tag(picture, _PHOTOMETRIC, 0) == 0 and kind is Kind.TIFF
            picture.load()
            if picture.mode == "F":
                pixels = _from_float(picture, inverted)
            elif picture.mode in _EIGHT:
                pixels = _from_8_bits(picture, bits, notes)
            elif picture.mode in _GREY16:
                pixels = _from_grey16(picture, inverted, notes)
            else:
                values = np.asarray(picture)
                message = f"holds whole numbers from {values.min()} to {values.max()}, as CT numbers (HU) are"
                raise InputError(message + "; a windowed slice is expected", hint=_WINDOW)
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError("has far too many pixels", hint=f"at most {MAX_SIDE} a side are read") from error
    except Exception as error:
        # Pillow's decoders raise whatever damaged bytes lead them to: OSError, SyntaxError, ValueError, struct.error …
        reason = str(error) or type(error).__name__
        if isinstance(error, UnidentifiedImageError):
            reason = "its header is damaged, or of a variant that is not read (64-bit numbers …)"
        raise InputError(f"cannot be decoded as {kind.value}: {reason}", hint="export it again as 8-bit PNG") from error
    if orientation in range(2, 9):
        text = f"EXIF orientation {orientation} is ignored; maps are on the stored grid"
        notes.append(CodedWarning("exif-orientation", text))
        if kind is Kind.TIFF:
            pixels = _undo_orientation(pixels, orientation)
    return pixels


def _refuse_header(picture: Image.Image) -> None:
    """Refuse what the header alone tells to be no slice, before anything is decoded."""
    columns, rows = picture.size
    short, long = sorted((rows, columns))
    if short < MIN_SIDE or long > MAX_SIDE or long > MAX_ASPECT * short:
        expected = f"{MIN_SIDE} to {MAX_SIDE} a side, one at most {MAX_ASPECT} times the other"
        raise InputError(f"is {rows} rows × {columns} columns; {expected}, are expected", hint="give a whole slice")
    if picture.mode == "1":
        raise InputError("is a 1-bit picture (mode 1), as masks are", hint="give the CT slice itself")
    if picture.mode not in _EIGHT | _GREY16 | {"I", "F"}:
        raise InputError(f"is in colour mode {picture.mode}; grey or RGB is expected", hint="save it as 8-bit grey PNG")
    if picture.mode == "L" and _tiff_tag(picture, _SAMPLE_FORMAT, 1) == 2:
        raise InputError("holds signed 8-bit numbers; a windowed slice is unsigned", hint=_WINDOW)
    if max(_tiff_tag(picture, tag, 0) for tag in _TILE_SIDES) > MAX_SIDE:
        raise InputError("has tiles larger than any slice", hint="export it again as 8-bit PNG")  # costing memory
    pages = _pages(picture)
    if pages > 1:
        number = f"more than {MAX_PAGES}" if pages > MAX_PAGES else str(pages)
        raise InputError(f"holds {number} pictures; one slice a file is expected", hint="save each slice by itself")


def _pages(picture: Image.Image) -> int:
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return int(getattr(picture, "n_frames", 1))
    # `n_frames` would walk through as many directories as a hostile file can hold.
    pages = 1
    try:
        while pages <= MAX_PAGES:
            picture.seek(pages)
            pages += 1
    except EOFError:
        picture.seek(0)
    return pages


def _tiff_tag(picture: Image.Image, tag: int, default: int) -> int:
    """Return the (largest) value of a TIFF tag, or `default` where there is none."""
    if not isinstance(picture, TiffImagePlugin.TiffImageFile):
        return default
    value = picture.tag_v2.get(tag, default)
    return int(max(value)) if isinstance(value, tuple) else int(value)


def _from_8_bits(picture: Image.Image, bits: int, notes: list[str]) -> NDArray[np.uint8]:
    """Return the grey or RGB pixels of a picture that Pillow holds in 8 bits a channel."""
    if bits == 16 and picture.info.pop("transparency", None) is not None:
        notes.append(CodedWarning("alpha", "its transparent colour is ignored"))  # of 16 bits, while pixels have 8
    if "transparency" in picture.info or picture.mode in {"LA", "PA", "RGBA"}:
        rgba = np.asarray(picture.convert("RGBA"))
        pixels, alpha = rgba[..., :3], rgba[..., 3:]
        if alpha.min() < 255:
            pixels = ((pixels.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)
            notes.append(CodedWarning("alpha", "partly transparent; laid over black"))
    else:
        pixels = np.asarray(picture if picture.mode == "L" else picture.convert("RGB"))
    if bits == 16:
        _refuse_constant(pixels)
        if pixels.max() < _12_BIT >> 8:
            raise _looks_like_12_bits((int(pixels.max()) << 8) + 255)
        notes.append(CodedWarning("16-bit", "16 bits a channel; only the upper 8 are used"))
    return pixels


def _from_grey16(picture: Image.Image, inverted: bool, notes: list[str]) -> NDArray[np.uint8]:
    """Return windowed 16-bit grey as 8 bits, rounded to nearest (65535 / 255 = 257)."""
    values = np.asarray(picture).astype(np.uint32)
    key = picture.info.get("transparency")
    if isinstance(key, int) and (values == key).any():
        values[values == key] = 0
        notes.append(CodedWarning("alpha", "partly transparent; laid over black"))
    _refuse_constant(values)
    if values.max() < _12_BIT:
        raise _looks_like_12_bits(int(values.max()))
    for offset, what in ((0, "shifted"), (32768, "signed")):  # those below 0 wrap to the other end
        turned = (values + offset) % 65536
        low, high = int(turned.min()) - offset, int(turned.max()) - offset
        if high - low < _NARROW and (offset == 0 or low < -500):  # white and black alone are no air
            message = f"is a 16-bit picture with values from {low} to {high}, as {what} CT numbers are"
            raise InputError(message + "; windowed 0 to 65535 is expected", hint=_WINDOW)
    if inverted:
        values = 65535 - values
    notes.append(CodedWarning("16-bit", "16-bit grey, taken as lung-windowed 0–65535 and rounded to 8 bits"))
    return ((values + 128) // 257).astype(np.uint8)


def _from_float(picture: Image.Image, inverted: bool) -> NDArray[np.uint8]:
    """Return windowed floating-point grey, 0–1, as 8 bits."""
    values: NDArray[np.float32] = np.asarray(picture)
    nan, infinite = int(np.isnan(values).sum()), int(np.isinf(values).sum())
    if nan or infinite:
        raise InputError(f"holds {nan} NaN and {infinite} infinite values", hint="replace them; " + _WINDOW)
    low, high = float(values.min()), float(values.max())
    if low < 0 or high > 1:
        hint = "divide it by 255, or save it as 8-bit PNG" if low >= 0 and high <= 255 else _WINDOW
        raise InputError(f"holds floating-point values from {low:g} to {high:g}; 0 to 1 is expected", hint=hint)
    return np.rint((1 - values if inverted else values) * 255).astype(np.uint8)


def _undo_orientation(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """Return to the stored grid a TIFF picture, which Pillow (unlike all others) turns as its orientation tag says."""
    undone = {
        2: pixels[:, ::-1],
        3: pixels[::-1, ::-1],
        4: pixels[::-1],
        5: pixels.swapaxes(0, 1),
        6: np.rot90(pixels),
        7: pixels[::-1, ::-1].swapaxes(0, 1),
        8: np.rot90(pixels, -1),
    }
    return undone[orientation]


def _refuse_constant(pixels: NDArray[np.uint8] | NDArray[np.uint32]) -> None:
    first = pixels[0, 0]
    if (pixels[0] == first).all() and (pixels == first).all():  # the first row alone settles it for most
        channels = {int(value) for value in np.atleast_1d(first)}
        value = channels.pop() if len(channels) == 1 else tuple(int(value) for value in first)
        raise InputError(f"is blank: every pixel is {value}", hint="check how it was exported")


def _looks_like_12_bits(largest: int) -> InputError:
    message = f"is a 16-bit picture with no value above {largest}, as unwindowed 12-bit CT numbers are"
    return InputError(message + "; windowed 0 to 65535 is expected", hint=_WINDOW)


def _remark(pixels: NDArray[np.uint8], notes: list[str]) -> None:
    """Note what makes a doubtful slice."""
    grey = pixels
    if pixels.ndim == 3:
        red, grey, blue = (pixels[..., channel] for channel in range(3))
        spread = np.maximum(np.maximum(red, grey), blue) - np.minimum(np.minimum(red, grey), blue)
        share = float((spread > COLOUR_SPREAD).mean())
        if share > COLOUR_SHARE:
            notes.append(CodedWarning("coloured", f"coloured ({share:.1%} of the pixels); a CT slice is grey"))
    if np.count_nonzero(np.bincount(grey.ravel())) <= 2:
        notes.append(CodedWarning("two-levels", "only two grey levels, as a mask has"))


@contextmanager
def pillow_kept_quiet(notes: list[str]) -> Iterator[None]:
    """Collect what Pillow warns of meanwhile as notes, instead of printing it."""
    with _process_lock, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        handler = _set_libtiff_handler(None)
        try:
            yield
        finally:
            _set_libtiff_handler(handler)
    # Deprecations are for developers, and no matter of the picture.
    said = [w.message for w in caught if issubclass(w.category, UserWarning | RuntimeWarning)]
    notes += [CodedWarning("decoder", f"Pillow: {message}") for message in said]


def _find_libtiff_setter() -> Callable[[int | None], int | None]:
    """Return the function of Pillow's libtiff that sets who is told of errors, and returns who was.

    Without one told, libtiff does not print its lines beside the error that Pillow raises. Where the function is not to
    be had (libtiff linked into Pillow, as on Windows), they stay.
    """
    try:
        setter = ctypes.CDLL(_imaging.__file__).TIFFSetErrorHandler
    except (AttributeError, OSError):
        return lambda handler: handler
    setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return cast("Callable[[int | None], int | None]", setter)


_set_libtiff_handler = _find_libtiff_setter()
# For those of its errors that Pillow also logs: Python prints what no handler takes.
logging.getLogger("PIL").addHandler(logging.NullHandler())
