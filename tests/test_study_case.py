"""Cases have names of their own, and know the files that they are read from."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from jcs_ct.app.gather import gather
from jcs_ct.io.dicom.scan import write_ct_series
from jcs_ct.phantom import write_pngs
from jcs_ct.study.case import Case, tell_cases_apart
from study_help import small_phantom

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("names", [("a", "a", "a-2"), ("a", "a", "a_2"), ("a_2", "A", "a"), ("\u00fc", "u\u0308", "x")])
def test_no_name_is_given_twice(names: tuple[str, ...]) -> None:
    told = tell_cases_apart([Case(name, f"case {i}", "pictures") for i, name in enumerate(names)])
    assert [case.label for case in told] == ["case 0", "case 1", "case 2"]
    assert len({case.name.casefold() for case in told}) == 3
    assert sum(case.name in names for case in told) >= 2  # no more are changed than must be


def test_volumes_and_pictures_of_one_name_are_told_apart(tmp_path: Path) -> None:
    study = small_phantom(slices=12, size=64)
    volume = write_ct_series(tmp_path / "ct", study.hu, study.spacing, study.origin)
    (series,) = gather([str(tmp_path / "ct")]).cases
    write_pngs(study, tmp_path / series.name)
    shutil.rmtree(tmp_path / series.name / "masks")
    first, second = gather([str(tmp_path / "ct"), str(tmp_path / series.name)]).cases
    assert (first.name, second.name) == (series.name, f"{series.name}_2")
    assert {source.path for source in first.sources} == set(volume)
    assert {source.path for source in second.sources} == set((tmp_path / series.name).iterdir())
