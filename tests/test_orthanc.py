"""SEG and SR in a real archive: stored and read back over DICOM's network protocol and DICOMweb, bit for bit."""

from __future__ import annotations

import io
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

import orthanc_help
from dcmtk_help import dcmtk
from dcmtk_help import installed as find
from dicom_seg_help import REPORT, lesion_at, lungs_at, make_files, make_series, masks, needs, read_seg
from jcs_ct.outputs.dicom import write_seg, write_sr
from orthanc_help import Orthanc, multipart, running, split

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PROGRAMS = ("dciodvfy", "dcmdump", "dcm2xml", "dsrdump", "storescu")
installed = pytest.mark.skipif(
    orthanc_help.program() is None or not orthanc_help.PLUGIN.exists(),
    reason="needs orthanc and orthanc-dicomweb: see tools/system.sh",
)
PRONE = ((0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (-1.0, 0.0, 0.0))


def test_ci_has_the_programs() -> None:
    """Elsewhere the tests that need them are skipped; where every change is checked, that must not go unseen."""
    missing = [name for name in PROGRAMS if find(name) is None]
    if orthanc_help.program() is None or not orthanc_help.PLUGIN.exists():
        missing.append("orthanc with orthanc-dicomweb")
    if os.environ.get("CI", "").lower() in {"", "0", "false"}:
        pytest.skip(f"CI is not set; missing here: {', '.join(missing) or 'nothing'}")
    assert not missing, "tools/system.sh installs them"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Path]]:
    """The images of a prone, feet-first series, its SEG and its SR."""
    folder = tmp_path_factory.mktemp("study")
    files = make_files(folder / "ct", PRONE)
    series, seg, sr = make_series(files), folder / "seg.dcm", folder / "sr.dcm"
    write_seg(seg, series, *masks(series), model_name="jcs-lite", model_version="0")
    write_sr(sr, series, REPORT, seg)
    return {"ct": files, "seg": [seg], "sr": [sr], "all": [*files, seg, sr]}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Orthanc]:
    with running(tmp_path) as server:
        yield server


def check_seg(data: bytes, files: list[Path]) -> None:
    """The frames that came back are the masks, on the pixels that were written by place in mm."""
    found = read_seg(pydicom.dcmread(io.BytesIO(data)))
    for file in files:
        image = pydicom.dcmread(file)
        hu = image.pixel_array.astype(int) - 1024
        lesion, right, left = (found[name].get(image.SOPInstanceUID, np.zeros(hu.shape, bool)) for name in found)
        assert np.array_equal(lesion, hu == 500)
        assert np.array_equal((right | left) & ~lesion, hu == -800)
    assert [len(frames) for frames in found.values()] == [2, 3, 3]


def uid_of(path: Path) -> str:
    return str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)


def parsed(data: bytes) -> Any:
    return pydicom.dcmread(io.BytesIO(data))


@installed
@needs("storescu")
def test_over_the_network_protocol(server: Orthanc, study: dict[str, list[Path]]) -> None:
    address = ["-aet", "STORESCU", "-aec", server.title, "127.0.0.1", str(server.dicom_port)]
    files = [str(path) for path in study["all"]]
    done = subprocess.run([dcmtk("storescu"), "-R", *address, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(server.get("/patients").json()) == 1  # all in one study of one patient, in three series
    assert len(server.get("/studies").json()) == 1
    modalities = [server.get(f"/series/{s}").json()["MainDicomTags"]["Modality"] for s in server.get("/series").json()]
    assert sorted(modalities) == ["CT", "SEG", "SR"]
    for path, kind in ((study["seg"][0], "seg"), (study["sr"][0], "sr")):
        (instance,) = server.post("/tools/lookup", uid_of(path).encode(), "text/plain").json()
        data = server.get(f"/instances/{instance['ID']}/file").content
        assert parsed(data) == pydicom.dcmread(path)
        if kind == "seg":
            check_seg(data, study["ct"])


@installed
def test_over_dicomweb(server: Orthanc, study: dict[str, list[Path]]) -> None:
    body, content_type = multipart([path.read_bytes() for path in study["all"]], "application/dicom")
    answer = server.post("/dicom-web/studies", body, content_type).json()
    assert len(answer["00081199"]["Value"]) == len(study["all"])
    assert not answer.get("00081198", {}).get("Value")  # nothing failed

    seg, sr = (pydicom.dcmread(study[name][0]) for name in ("seg", "sr"))
    for dataset, modality in ((seg, "SEG"), (sr, "SR")):
        where = f"/dicom-web/studies/{dataset.StudyInstanceUID}"
        (entry,) = server.get(f"{where}/series", params={"Modality": modality}).json()
        assert entry["0020000E"]["Value"] == [dataset.SeriesInstanceUID]
        where += f"/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
        (data,) = split(server.get(where, headers={"Accept": 'multipart/related; type="application/dicom"'}))
        assert parsed(data) == dataset
        (metadata,) = server.get(f"{where}/metadata").json()
        metadata.pop("7FE00010", None)  # pixels are referred to there, and fetched above
        read = pydicom.Dataset.from_json(json.dumps(metadata))
        assert read.SOPInstanceUID == dataset.SOPInstanceUID
        if modality == "SEG":
            check_seg(data, study["ct"])
            assert read.NumberOfFrames == dataset.NumberOfFrames == 8
            assert [item.SegmentLabel for item in read.SegmentSequence] == [
                item.SegmentLabel for item in dataset.SegmentSequence
            ]
        else:
            assert len(read.ContentSequence) == len(dataset.ContentSequence)


def test_the_masks_of_this_module_differ() -> None:
    """Guard of the tests above: lesion, right and left are three different things."""
    places = np.stack(np.meshgrid([-5.0, 4.0], [-4.0, 3.0], [-2.0], indexing="ij"), -1)
    assert lesion_at(places).sum() == 1
    assert sorted(np.unique(lungs_at(places))) == [1, 2]
