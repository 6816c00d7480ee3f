"""Frames are made and pixels are kept while slices pass by; afterwards no slice is read again."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from jcs_ct.app.examine import examine_case
from jcs_ct.app.gather import gather
from jcs_ct.inference import apply
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.outputs.sheet import Sheet
from jcs_ct.phantom import write_pngs
from jcs_ct.study.case import PictureCase, VolumeCase
from jcs_ct.study.settings import Networks, Settings
from study_help import BandNetwork, mark, mark_all, mark_screened, marked_volume, small_phantom

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

BAND: Any = BandNetwork()
ENGLISH = ["CT slice", "lesions", "attention for COVID-19", "research tool, not a medical device"]
WORDS = {  # the font of the pictures has no Japanese letters
    "en": ENGLISH,
    "de": ["CT-Schicht", "Läsionen", "Aufmerksamkeit für COVID-19", "Forschungswerkzeug, kein Medizinprodukt"],
    "ja": ENGLISH,
}


@pytest.fixture
def marking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    monkeypatch.setattr(apply, "screen_slice", mark_screened)
    monkeypatch.setattr(apply, "segment", lambda image, network: mark(image, network).lesion)


@pytest.mark.usefixtures("marking")
@pytest.mark.parametrize("segment", ["always", "positive", "never"])
def test_no_slice_is_decoded_more_than_twice(segment: Any, tmp_path: Path) -> None:
    study = small_phantom()
    write_ct_series(tmp_path / "ct", marked_volume(study)[0], study.spacing, study.origin)
    (case,) = gather([str(tmp_path / "ct")]).cases
    assert isinstance(case, VolumeCase)
    decoded: Counter[int] = Counter()
    original = case.series.read

    def counting(index: int) -> NDArray[np.int16]:
        decoded.update([index])
        return original(index)

    case = VolumeCase.of(replace(case.series, read=counting))
    result = examine_case(case, Networks(BAND, BAND), Settings(rule="release-count", segment=segment))
    folder = result.save(tmp_path / "out")
    assert set(decoded) == set(range(len(case)))
    assert set(decoded.values()) == {2}
    assert len(result.pictures.frames) == len(case)
    overlays = sorted((folder / "overlays").glob("*.png"))
    assert [int(path.stem[-4:]) for path in overlays] == sorted(result.report["most_affected"])


@pytest.mark.usefixtures("marking")
def test_pictures_are_not_needed_once_they_were_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = write_pngs(small_phantom(slices=12, size=64), tmp_path / "study")
    files[3].write_bytes(b"\x89PNG\r\n\x1a\n broken")
    shutil.rmtree(tmp_path / "study" / "masks")
    (case,) = gather([str(tmp_path / "study")]).cases
    assert isinstance(case, PictureCase)
    result = examine_case(case, Networks(BAND, BAND), Settings())
    for file in files:
        file.unlink()
    folder = result.save(tmp_path / "out")
    assert len(list((folder / "overlays").iterdir())) == len(case) - 1
    assert len(result.pictures.frames) == len(case)
    with Image.open(BytesIO(result.pictures.overlay(result.study, 1))) as picture:
        assert picture.size[0] > 3 * 64
    with pytest.raises(KeyError):
        result.pictures.overlay(result.study, 4)
    drawn: list[str] = []
    line = Sheet.line

    def noted(self: Sheet, text: str, **how: Any) -> None:
        drawn.append(text)
        line(self, text, **how)

    monkeypatch.setattr(Sheet, "line", noted)
    for language in ("en", "de", "ja"):
        study = replace(result.study, settings=replace(result.study.settings, language=language))
        drawn.clear()
        result.pictures.overlay(study, 1)
        assert drawn[1:4] == WORDS[language][:3]
        assert WORDS[language][3] in " ".join(drawn)
        assert not any(character in text for text in drawn for character in "?，、")
