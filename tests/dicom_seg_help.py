"""For the tests of SEG and SR: a small series in any orientation, a reader of SEG, the validators.

Nothing here uses the reader of the package or highdicom.
"""

from __future__ import annotations

import copy
import os
import shutil
import subprocess
import tempfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pydicom
import pytest

from dcmtk_help import installed
from jcs_ct.core.geometry import CTSeries, canonical_axes
from jcs_ct.io.dicom.write import write_ct_series
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Vector = tuple[float, float, float]
HEAD_FIRST: tuple[Vector, Vector, Vector] = ((0.0, 0.0, -1.0), (0.0, 1.0, 0.0), (1.0, 0.0, 0.0))
SPACING = (2.5, 0.75, 1.25)
SHAPE = (4, 21, 19)  # stored; 399 pixels are no multiple of 8
REPORT: dict[str, Any] = {
    "schema": "jcs-ct/report/1",
    "jcs_ct_version": "0",
    "disclaimer": "A research tool, not a medical device.",
    "case": "case",
    "input": {"kind": "dicom", "slices": SHAPE[0], "shape": [21, 19], "spacing_mm": list(SPACING), "facts": {}},
    "model": {
        "name": "jcs-lite",
        "architecture": "jcs-lite",
        "weights_sha256": "ab" * 32,
        "recipe": "lite",
        "covid_threshold": 0.5,
        "lesion_threshold": 0.5,
        "temperature": 1.0,
        "licence": "none",
        "notes": [],
    },
    "settings": {"rule": "calibrated", "segment": "always", "window_hu": [-1350, 150], "runtime": "torch"},
    "verdict": {
        "rule": "calibrated",
        "score": 0.93,
        "limit": 0.5,
        "positive": True,
        "probability": 0.91,
        "text": "COVID-19: 0.91 ≥ 0.5",
        "reliable": False,
        "reasons": ["the chest is cut off"],
    },
    "burden": {
        "lung_ml": 4000.0,
        "lesion_ml": 612.25,
        "share": 0.153,
        "left": {"lung_ml": 1900.0, "lesion_ml": 200.25, "share": 0.105},
        "right": {"lung_ml": 2100.0, "lesion_ml": 412.0, "share": 0.196},
        "lesions": 12,
        "largest_ml": 300.5,
        "first_slice": 2,
        "last_slice": 3,
        "mean_hu": -512.5,
        "ground_glass_share": 0.75,
        "consolidation_share": 0.25,
        "severity": {"score": 2, "name": "moderate", "source": "a paper"},
    },
    "slices": [
        {
            "index": i,
            "z_mm": 0.0,
            "name": "",
            "probability": i / 10,
            "positive": True,
            "lung_mm2": 100.0,
            "lesion_mm2": 10.0 * i,
            "lesion_share": i / 20,
            "flags": [],
        }
        for i in range(1, SHAPE[0] + 1)
    ],
    "most_affected": [3, 2],
    "warnings": ["partial chest"],
    "files": {},
    "seconds": 1.0,
}


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skip where a program is not installed. `test_orthanc.test_ci_has_the_programs` fails for that in CI."""
    missing = [name for name in programs if installed(name) is None and not sbin(name)]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}: see tools/system.sh")


def sbin(program: str) -> str | None:
    """Return a program where Debian keeps those of services."""
    return shutil.which(program, path="/usr/sbin:/usr/local/sbin")


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in {"true", "1"}


def lesion_at(lps: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether places (…, 3) in mm are in the lesion: a box that no turn or flip leaves where it is."""
    x, y, z = np.moveaxis(lps, -1, 0)
    return np.asarray((x > 2) & (x < 9) & (y > -7) & (y < 1) & (z < 0))


def lungs_at(lps: NDArray[np.float64]) -> NDArray[np.uint8]:
    """1 in the right lung, 2 in the left, 0 elsewhere; no lung in the slice nearest the head."""
    x, y, z = np.moveaxis(lps, -1, 0)
    inside = (abs(y) < 6) & (z < 3)
    return np.where(inside & (x < -1), 1, np.where(inside & (x > 1) & (x < 8), 2, 0)).astype(np.uint8)


def grid(affine: NDArray[np.float64], shape: Sequence[int]) -> NDArray[np.float64]:
    """Return (x, y, z) of every voxel: shape × 3."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"), -1).astype(float)
    return np.asarray(index @ affine[:3, :3].T + affine[:3, 3])


def stored_affine(direction: tuple[Vector, Vector, Vector], shape: Sequence[int] = SHAPE) -> NDArray[np.float64]:
    """Return index → LPS mm of a volume centred on the origin."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(direction).T * np.array(SPACING)
    affine[:3, 3] = -affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    return affine


def make_files(folder: Path, direction: tuple[Vector, Vector, Vector] = HEAD_FIRST) -> list[Path]:
    """Write a series with 500 HU in the lesion, −800 in the rest of the lungs, 0 elsewhere."""
    affine = stored_affine(direction)
    places = grid(affine, SHAPE)
    hu = np.where(lesion_at(places), 500, np.where(lungs_at(places) > 0, -800, 0)).astype(np.int16)
    origin = tuple(float(v) for v in affine[:3, 3])
    return write_ct_series(folder, hu, SPACING, (origin[0], origin[1], origin[2]), direction=direction)


def make_series(files: Sequence[Path]) -> CTSeries:
    """Return the files as a series, read from their headers with nothing but the standard's formula (C.7.6.2.1.1)."""
    headers = [(pydicom.dcmread(path, stop_before_pixels=True, force=True), path) for path in files]
    headers.sort(key=lambda item: -float(item[0].ImagePositionPatient[2]))
    first, last = headers[0][0], headers[-1][0]
    along_row, along_column = np.array(first.ImageOrientationPatient, float).reshape(2, 3)
    begin, end = (np.array(header.ImagePositionPatient, float) for header in (first, last))
    affine = np.eye(4)
    affine[:3, 0] = (end - begin) / (len(headers) - 1)
    affine[:3, 1] = along_column * float(first.PixelSpacing[0])
    affine[:3, 2] = along_row * float(first.PixelSpacing[1])
    affine[:3, 3] = begin
    shape = (len(headers), int(first.Rows), int(first.Columns))
    axes = canonical_axes(affine)
    geometry = axes.geometry(affine, shape)
    sources = tuple(Source(path.stem, str(path), path, None, Kind.DICOM) for _, path in headers)
    return CTSeries("case", str(files[0].parent), "dicom", geometry, axes, read=_no_pixels, sources=sources)


def _no_pixels(index: int) -> NDArray[np.int16]:
    raise AssertionError(f"nobody needs the pixels of slice {index}")


def masks(series: CTSeries) -> tuple[Callable[[int], NDArray[np.bool_]], Callable[[int], NDArray[np.uint8]]]:
    """Return lesion and lungs on the canonical axes, by their places in mm."""
    places = grid(series.geometry.affine, series.geometry.shape)
    lesion, lungs = lesion_at(places), lungs_at(places)
    return lambda i: lesion[i], lambda i: lungs[i]


def edit(path: Path, **values: Any) -> None:
    """Set attributes of a DICOM file, or delete them where the value is None; no check of anything."""
    dataset = pydicom.dcmread(path)
    for keyword, value in values.items():
        if value is None:
            del dataset[keyword]
        elif isinstance(value, bytes):  # raw, as a faulty writer would
            tag = pydicom.tag.Tag(pydicom.datadict.tag_for_keyword(keyword) or 0)
            vr = pydicom.datadict.dictionary_VR(tag)
            dataset[tag] = pydicom.dataelem.RawDataElement(tag, vr, len(value), value, 0, False, True)
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(path)


def make_enhanced(files: Sequence[Path], target: Path) -> tuple[Path, list[str]]:
    """Write the images as one enhanced CT without pixels; return it and the former UIDs in the order of its frames."""
    images = [pydicom.dcmread(file) for file in (*files[1::2], *files[::2])]
    former = [str(image.SOPInstanceUID) for image in images]
    whole = copy.deepcopy(images[0])
    whole.SOPClassUID = whole.file_meta.MediaStorageSOPClassUID = pydicom.uid.EnhancedCTImageStorage
    whole.SOPInstanceUID = whole.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.UID("1.2.3.4")
    whole.NumberOfFrames = len(images)
    sequences = {
        "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
        "PlaneOrientationSequence": ("ImageOrientationPatient",),
        "PlanePositionSequence": ("ImagePositionPatient",),
    }
    groups = []
    for image in images:
        group = pydicom.Dataset()
        for name, keywords in sequences.items():
            item = pydicom.Dataset()
            for keyword in keywords:
                item[keyword] = image[keyword]
            setattr(group, name, [item])
        groups.append(group)
    shared = pydicom.Dataset()
    for name in ("PixelMeasuresSequence", "PlaneOrientationSequence"):
        setattr(shared, name, groups[0][name].value)
    for group in groups[1:]:  # the first repeats what is shared, which is legal too
        del group.PixelMeasuresSequence, group.PlaneOrientationSequence
    whole.SharedFunctionalGroupsSequence, whole.PerFrameFunctionalGroupsSequence = [shared], groups
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness", "PixelData"):
        del whole[keyword]
    whole.save_as(target)
    return target, former


def read_seg(data: Any) -> dict[str, dict[str, NDArray[np.bool_]]]:
    """Return segment label → source image → rows × columns, of a path or a data set.

    A source image is its SOP instance, and "/" and the number of the frame where it is one of many.
    """
    seg = data if isinstance(data, pydicom.Dataset) else pydicom.dcmread(data)
    assert seg.SegmentationType == "BINARY"
    assert (seg.BitsAllocated, seg.BitsStored, seg.HighBit, seg.SamplesPerPixel) == (1, 1, 0, 1)
    count = int(seg.NumberOfFrames)
    assert len(seg.PerFrameFunctionalGroupsSequence) == count
    pixels = count * seg.Rows * seg.Columns
    assert len(seg.PixelData) == ((pixels + 7) // 8 + 1) // 2 * 2
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[:pixels].astype(bool).reshape(count, seg.Rows, seg.Columns)
    labels = {int(item.SegmentNumber): item.SegmentLabel for item in seg.SegmentSequence}
    found: dict[str, dict[str, NDArray[np.bool_]]] = {label: {} for label in labels.values()}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        holder = group if "SegmentIdentificationSequence" in group else seg.SharedFunctionalGroupsSequence[0]
        label = labels[int(holder.SegmentIdentificationSequence[0].ReferencedSegmentNumber)]
        reference = group.DerivationImageSequence[0].SourceImageSequence[0]
        image = str(reference.ReferencedSOPInstanceUID)
        if "ReferencedFrameNumber" in reference:
            image += f"/{reference.ReferencedFrameNumber}"
        assert image not in found[label]
        found[label][image] = frame
    return found


def validation_errors(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds in a file; what is deflated, which Debian's cannot read, DCMTK inflates."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.dcm"
        subprocess.run(["dcmconv", "+te", str(path), str(plain)], check=True)
        done = subprocess.run(
            ["dciodvfy", "-new", str(plain)], capture_output=True, text=True, check=False, errors="replace"
        )
    lines = (done.stdout + done.stderr).splitlines()
    assert any(line in {"Segmentation", "ComprehensiveSR"} for line in lines), lines  # it knew what it looked at
    return [line for line in lines if "error" in line.lower()]


def inflated(path: Path) -> bytes:
    """Return the bytes of a file, its data set inflated where it is deflated."""
    data = path.read_bytes()
    meta = pydicom.filereader.read_file_meta_info(path)
    start = 132 + 12 + meta.FileMetaInformationGroupLength  # preamble, prefix, and the group length itself
    deflated = meta.TransferSyntaxUID == pydicom.uid.DeflatedExplicitVRLittleEndian
    return data[:start] + zlib.decompress(data[start:], -zlib.MAX_WBITS) if deflated else data
