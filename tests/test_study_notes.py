"""What was noticed when pictures were read stands in the report of their study, in the words of the slice commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from jcs_ct.app.batch import diagnose_cases
from jcs_ct.app.gather import gather
from jcs_ct.core.warning import CodedWarning, code_of
from jcs_ct.inference import apply
from jcs_ct.phantom import lung_window
from jcs_ct.study.notes import note_warnings
from jcs_ct.study.packed import PackedMap
from jcs_ct.study.result import SliceResult
from jcs_ct.study.settings import Networks, Settings
from study_help import BandNetwork, mark, mark_all, mark_screened, small_phantom

if TYPE_CHECKING:
    from pathlib import Path

BAND: Any = BandNetwork()


@pytest.mark.parametrize("segment", ["always", "positive"], ids=["one pass", "screened before"])
def test_alpha_depth_and_orientation_are_told_once_each(
    segment: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    monkeypatch.setattr(apply, "screen_slice", mark_screened)
    monkeypatch.setattr(apply, "segment", lambda image, network: mark(image, network).lesion)
    (tmp_path / "in").mkdir()
    for i, grey in enumerate(lung_window(small_phantom().hu[4:16])):
        picture = Image.fromarray(grey.astype(np.uint16) * 257)
        options: dict[str, Any] = {}
        if i in {2, 3}:
            picture = Image.fromarray(grey)
            picture.putalpha(Image.fromarray(np.where(np.arange(128)[:, None] < 3, 0, 255 + 0 * grey).astype(np.uint8)))
        if i == 5:
            options["exif"] = Image.Exif()
            options["exif"][274] = 3
        picture.save(tmp_path / "in" / f"{i:02d}.png", **options)
    networks, settings = Networks(BAND, BAND), Settings(segment=segment, frames=False)
    (ended,) = diagnose_cases(gather([str(tmp_path / "in")]).cases, networks, settings, tmp_path / "out")
    assert ended.report is not None
    found = {one["code"]: one["text"] for one in ended.report["cautions"]}
    assert found["alpha"] == "2 slices, the first 3: partly transparent; laid over black"
    depth = "16-bit grey, taken as lung-windowed 0–65535 and rounded to 8 bits"
    assert found["16-bit"] == f"10 slices, the first 1: {depth}"
    exif = "EXIF orientation 3 is ignored; maps are on the stored grid"
    assert found["exif-orientation"] == f"slice 6: {exif}"
    assert ended.report["verdict"]["reliable"]


def test_a_note_is_one_warning_however_many_slices_have_it() -> None:
    nothing = PackedMap((0, 0))
    notes: tuple[list[str], ...] = (
        [CodedWarning("coloured", "coloured (1.0% of the pixels); a CT slice is grey")],
        [CodedWarning("coloured", "coloured (2.5% of the pixels); a CT slice is grey"), "a plain note", "a plain note"],
    )
    slices = [
        SliceResult(i, "", None, 0.5, True, None, None, None, (), nothing, nothing, notes=tuple(found))
        for i, found in enumerate(notes, 1)
    ]
    whole, plain = note_warnings(slices)
    assert (whole, code_of(whole)) == ("all 2 slices: coloured (1.0% of the pixels); a CT slice is grey", "coloured")
    assert (plain, code_of(plain)) == ("slice 2: a plain note", "note")
