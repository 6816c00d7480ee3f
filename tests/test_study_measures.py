"""What is measured of a whole volume before a network sees it: that each check is asked, and its answer kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest

from dicom_help import edit
from jcs_ct.core.warning import code_of
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.io.studies import find_series
from jcs_ct.study.flow import Clock
from jcs_ct.study.measures import measure_volume
from study_help import small_phantom

if TYPE_CHECKING:
    from pathlib import Path

NIBABEL: Any = nibabel


def codes(path: Path) -> list[str]:
    (series,) = find_series([path]).series
    return [code_of(one) for one in measure_volume(series, Clock()).warnings]


@pytest.mark.parametrize(("exchanged", "expected"), [(False, []), (True, ["head-feet"])])
def test_head_and_feet_exchanged_by_the_header(exchanged: bool, expected: list[str], tmp_path: Path) -> None:
    study = small_phantom()
    down, rows, columns = study.spacing
    affine = np.diag([-columns, -rows, down if exchanged else -down, 1.0])
    image = NIBABEL.Nifti1Image(study.hu.transpose(2, 1, 0), affine)
    image.to_filename(tmp_path / "a.nii")
    assert codes(tmp_path / "a.nii") == expected
    files = write_ct_series(tmp_path / "dicom", study.hu, study.spacing, (-150.0, -150.0, 200.0), key="a")
    if exchanged:

        def below(dataset: Any, _index: int) -> None:
            x, y, z = dataset.ImagePositionPatient
            dataset.ImagePositionPatient = [x, y, -z]

        edit(files, below)
    assert codes(tmp_path / "dicom") == expected


def test_noise_does_not_hide_a_drift(tmp_path: Path) -> None:
    """Fat and muscle are told apart in slices at the reduced size; at the full one, noise of 60 HU makes them one."""
    study = small_phantom()
    body = study.hu.repeat(2, axis=1).repeat(2, axis=2)
    hu = body + np.linspace(-30, 30, len(body))[:, None, None] + np.random.default_rng(0).normal(0, 60, body.shape)
    hu[body < -900] = -1024  # cut off, so that it shows no drift
    down, rows, columns = study.spacing
    image = NIBABEL.Nifti1Image(
        hu.clip(-1024, 3071).astype(np.int16).transpose(2, 1, 0), np.diag([-columns / 2, -rows / 2, -down, 1.0])
    )
    image.to_filename(tmp_path / "a.nii")
    assert codes(tmp_path / "a.nii") == ["drift"]
