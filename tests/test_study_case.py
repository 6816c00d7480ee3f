"""Cases know the files that they are read from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from jcs_ct.app.gather import gather
from jcs_ct.app.identity import with_stable_names
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.phantom import write_pngs
from study_help import small_phantom

if TYPE_CHECKING:
    from pathlib import Path


def test_volumes_and_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    study = small_phantom(slices=12, size=64)
    volume = write_ct_series(tmp_path / "ct", study.hu, study.spacing, study.origin)
    (series,) = gather([str(tmp_path / "ct")]).cases
    write_pngs(study, tmp_path / series.name)
    shutil.rmtree(tmp_path / series.name / "masks")
    cases = gather([str(tmp_path / "ct"), str(tmp_path / series.name)]).cases
    assert [case.name for case in cases] == [series.name, series.name]
    first, second = with_stable_names(cases, tmp_path / "out")
    assert first.name != second.name
    assert {source.path for source in first.sources} == set(volume)
    assert {source.path for source in second.sources} == set((tmp_path / series.name).iterdir())
