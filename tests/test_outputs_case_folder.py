"""The folder of a study: whole or not there, whatever fails while it is written, and made in little memory."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING, Any

import nibabel
import numpy as np
import pytest
from pydicom import dcmread

from dicom_seg_help import HEAD_FIRST, make_series
from jcs_ct.app.examine import examine_case
from jcs_ct.app.gather import gather
from jcs_ct.core.errors import OutputError
from jcs_ct.inference import apply
from jcs_ct.io import pictures
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.io.nifti import write as nifti_write
from jcs_ct.outputs.dicom import headers, seg, sr
from jcs_ct.outputs.report import html
from jcs_ct.study.settings import Networks, Settings
from study_help import BandNetwork, mark_all, marked_volume, small_phantom

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from jcs_ct.app.examine import CaseResult

BAND: Any = BandNetwork()


@pytest.fixture
def result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CaseResult:
    monkeypatch.setattr(apply, "diagnose_slices", mark_all)
    study = small_phantom()
    for path in write_ct_series(tmp_path / "ct", marked_volume(study)[0], study.spacing, study.origin):
        header = dcmread(path)
        header.PatientName = "ANONYMOUS-7"  # highdicom warns of names without "^", and quotes them
        header.save_as(path)
    return examine_case(gather([str(tmp_path / "ct")]).cases[0], Networks(BAND, BAND), Settings())


def test_headers_are_read_once_for_seg_and_sr(
    result: CaseResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, original = [], headers.read_headers

    def counted(series: Any) -> Any:
        read.append(original(series))
        return read[-1]

    for module in (headers, seg, sr):
        monkeypatch.setattr(module, "read_headers", counted)
    folder = result.save(tmp_path / "out")
    assert len(read) == 1
    assert str(read[0].objects[0].PatientName) == ""
    for name in ("seg.dcm", "sr.dcm"):
        assert dcmread(folder / name).PatientName == "ANONYMOUS-7"


@pytest.mark.parametrize(
    ("module", "name"),
    [(nifti_write, "_stored"), (seg, "_joined"), (html, "_viewer"), (pictures, "encode_png")],
    ids=["nifti", "seg", "html", "overlay"],
)
def test_a_full_disk_leaves_no_folder(
    module: Any, name: str, result: CaseResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = getattr(module, name)

    def full(*arguments: Any, **options: Any) -> Any:
        found = original(*arguments, **options)
        if isinstance(found, bytes):
            raise OSError(28, "No space left on device")
        return broken(found)

    def broken(pieces: Iterator[Any]) -> Iterator[Any]:
        yield next(pieces)  # what was written so far must not stay either
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, name, full)
    with pytest.raises(OutputError, match="cannot be written: No space left on device"):
        result.save(tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
    monkeypatch.undo()
    assert (result.save(tmp_path / "out") / "report.json").exists()


def test_volumes_hold_what_the_result_holds(result: CaseResult, tmp_path: Path) -> None:
    folder = result.save(tmp_path / "out")
    library: Any = nibabel
    lungs = np.stack([one.lungs.levels() for one in result.slices if one.lungs is not None])
    for name, maps in (("lesions", result.lesion), ("lungs", lungs), ("attention", result.study.attention)):
        stored = np.asarray(library.load(folder / f"{name}.nii.gz").dataobj.get_unscaled())
        assert np.array_equal(stored.transpose(2, 1, 0), maps), name


def test_frames_of_seg_are_not_in_memory_together(tmp_path: Path) -> None:
    shape = (60, 512, 512)
    files = write_ct_series(tmp_path / "ct", np.zeros(shape, np.int16), (1, 1, 1), (0, 0, 0), direction=HEAD_FIRST)
    series = make_series(files)
    full, path = np.ones(shape[1:], np.uint8), tmp_path / "seg.dcm"

    def write() -> None:
        seg.write_seg(
            path, series, lambda _: full.view(bool), lambda i: full + i % 2, model_name="x", model_version="1",
            overwrite=True,
        )  # fmt: skip

    write()  # highdicom reads its tables when it is first used
    tracemalloc.start()
    try:
        write()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert dcmread(path, stop_before_pixels=True).NumberOfFrames == 120
    assert peak < 6e6, f"{peak / 1e6:.1f} MB"  # the frames have 3.9, and 512 × 512 HU while they are turned 2.6
