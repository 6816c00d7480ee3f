"""The bits of stored values: read where they lie, and refused with the true reason where the header is wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from dicom_help import edit, pixels, read_only, refused, setting, volume, write_body
from jcs_ct.core.errors import InputError
from jcs_ct.io.dicom.stored_bits import Bits, check_sign, values_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

BONE = 2300  # what 12 bits with a sign take for less than nothing


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return write_body(tmp_path / "series", shape=(6, 32, 48), spacing=(26.0, 7.5, 6.5))


def stored(change: Callable[[NDArray[Any]], NDArray[Any]], **values: Any) -> Callable[[Any, int], None]:
    """A change for `edit`: other stored values, and these elements."""

    def apply(dataset: Any, index: int) -> None:
        data = change(pixels(dataset).astype(np.int64))
        setting(**values)(dataset, index)
        dataset.PixelData = (
            (data & (1 << dataset.BitsAllocated) - 1).astype(f"<u{dataset.BitsAllocated // 8}").tobytes()
        )

    return apply


def overlay(bit: int, *, said: bool = True) -> Callable[[Any, int], None]:
    """Lines in a bit of the pixels, as scanners burnt them in before 2004."""

    def apply(dataset: Any, _index: int) -> None:
        data = pixels(dataset)
        data[4, 3:40] |= 1 << bit
        data[5:20, 3] |= 1 << bit
        dataset.PixelData = data.tobytes()
        if said:
            for element, representation, value in ((0x0100, "US", 16), (0x0102, "US", bit), (0x0040, "CS", "G")):
                dataset.add_new((0x6000, element), representation, value)

    return apply


SAME: dict[str, Callable[[Any, int], None]] = {
    "values higher up": stored(lambda v: v << 4, HighBit=15),
    "no word of HighBit": setting(HighBit=None),
    "32 bits": stored(lambda v: v, BitsAllocated=32, BitsStored=32, HighBit=31),
    "12 of 32 bits": stored(lambda v: v, BitsAllocated=32),
    "a sign that is carried on": stored(lambda v: v - 1024, PixelRepresentation=1, RescaleIntercept="0"),
    "a sign that is not": stored(lambda v: (v - 1024) & 0xFFF, PixelRepresentation=1, RescaleIntercept="0"),
    "an overlay above": overlay(12),
    "an overlay on top": overlay(15),
    "lines that nobody speaks of": overlay(12, said=False),
    "a block that nobody speaks of": stored(lambda v: v | np.pad(np.full((12, 24), 1 << 14), ((5, 15), (4, 20)))),
    "slope and intercept downwards": stored(lambda v: 4095 - v, RescaleSlope="-1", RescaleIntercept="3071"),
    "a few bytes behind": lambda dataset, _: setattr(dataset, "PixelData", dataset.PixelData + bytes(2)),
}


@pytest.mark.parametrize("case", SAME)
def test_they_are_read_from_where_they_lie(case: str, files: list[Path]) -> None:
    expected = volume(read_only(files[0].parent))
    edit(files, SAME[case])
    assert np.array_equal(volume(read_only(files[0].parent)), expected)


REFUSED: dict[str, tuple[Callable[[Any, int], None], str]] = {
    "too few bits said": (setting(BitsStored=10, HighBit=9), "has values of more bits than its header says (Bits"),
    "HighBit too high": (setting(HighBit=15), "says that its values end at bit 15 (BitsStored 12"),
    "HighBit too low": (setting(HighBit=10), "says that its 12 bits end at bit 10 (HighBit)"),
    "no sign said, 16 bits": (
        stored(lambda v: v - 1024, RescaleIntercept="0", BitsStored=16, HighBit=15),
        "has values with a sign, and its header says otherwise (PixelRepresentation 0)",
    ),
    "no sign said, 12 bits": (
        stored(lambda v: (v - 1024) & 0xFFF, RescaleIntercept="0"),
        "has values with a sign, and its header says otherwise (PixelRepresentation 0)",
    ),
    "an overlay in the value": (overlay(11), "says that bit 11 of its pixels is an overlay, and a value"),
    "rows left out": (setting(Rows=20), "holds 3,072 bytes of pixels, its header says 1,920 (Rows, Columns"),
    "no BitsAllocated": (setting(BitsAllocated=None), "'Bits Allocated'"),
    "no PixelRepresentation": (setting(PixelRepresentation=None), "'Pixel Representation'"),
    "no PhotometricInterpretation": (setting(PhotometricInterpretation=None), "lacks PhotometricInterpretation in 6"),
    "no Rows": (setting(Rows=None), "does not say how large its images are (Rows, Columns)"),
    "a slope of 0": (setting(RescaleSlope="0"), "has a RescaleSlope of 0, which makes all values one"),
    "a slope of 10": (setting(RescaleSlope="10"), "(RescaleSlope 10, RescaleIntercept -1024)"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_header_that_is_wrong_of_them_is_named(case: str, files: list[Path]) -> None:
    change, text = REFUSED[case]
    edit(files, change)
    assert text in refused(files[0].parent)


def words(top: float) -> NDArray[np.uint16]:
    """From air over tissue to bone and back, 32 × 48, neighbours near each other, with air above and below."""
    columns = np.concatenate([np.linspace(24, 1064, 12), np.linspace(1064, top, 12)])
    row = np.concatenate([columns, columns[::-1]]).astype(np.uint16)
    found = np.repeat(row[None], 32, axis=0)
    found[:3] = found[-3:] = 24
    return found


def test_bone_that_a_sign_turns_into_air_is_refused() -> None:
    said = Bits(16, 12, 11, signed=True)
    assert np.array_equal(values_of(words(2000), said, "a"), words(2000))
    with pytest.raises(InputError, match=r"a: has values without a sign, .* \(PixelRepresentation 1\)"):
        values_of(words(BONE), said, "a")


def test_padding_below_everything_is_no_bone() -> None:
    found = words(2000)
    found[:3, :4] = 2048  # -2048 in 12 bits, a sign that is not carried on
    values = values_of(found, Bits(16, 12, 11, signed=True), "a")
    assert values[0, 0] == -2048
    assert np.array_equal(values[3:], words(2000)[3:])


def test_few_values_of_more_bits_are_seen_where_they_join_their_neighbours() -> None:
    """Bone alone needs the twelfth bit; a letter in that bit is torn from its neighbours, and left out."""
    with pytest.raises(InputError, match="more bits than its header says"):
        values_of(words(2100), Bits(16, 11, 10, signed=False), "a")
    found = words(2000)
    found[10, 5] |= 1 << 11
    assert np.array_equal(values_of(found, Bits(16, 11, 10, signed=False), "a"), words(2000))


def test_metal_and_padding_are_no_sign_that_was_lost() -> None:
    metal = words(2000)
    metal[5:7, 1:3] = 4095  # an electrode on the skin
    check_sign(metal, 12, False, None, "a")
    air = (words(2000).astype(np.int32) - 1024).astype(np.uint16)  # -1000 without its sign
    air[:3, :4] = 63536
    with pytest.raises(InputError, match="has values with a sign"):
        check_sign(air, 16, False, None, "a")
    padding = words(2000)
    padding[:9, :20] = 63536
    check_sign(padding, 16, False, (63536, 63536), "a")
