"""The files of one study: a folder that appears whole or not at all. What was diagnosed is not read again for them.

SEG and SR refer to the DICOM files, whose headers they repeat: those are read, without their pixels.
"""

from __future__ import annotations

import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core import unfinished
from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.io.nifti.write import write_nifti_slices
from jcs_ct.outputs import images
from jcs_ct.outputs.case_pictures import MOST_OVERLAYS, CasePictures
from jcs_ct.outputs.report.html import write_html
from jcs_ct.outputs.spreadsheet import write_slices
from jcs_ct.study.flow import short_switch_interval

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from numpy.typing import NDArray

    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.outputs.dicom.headers import SourceHeaders
    from jcs_ct.study.packed import PackedMap
    from jcs_ct.study.result import SliceResult, StudyResult

PART = ".part"  # ending of a folder that is being written; its name begins with a dot
OLD = f".old{PART}"  # of the one that it replaces


def save_case(
    study: StudyResult, pictures: CasePictures, report: dict[str, Any], out: Path, *, overwrite: bool = False
) -> Path:
    """Write the files of a case into `out/NAME/`, and return it. `report.json` names the others.

    `pictures` have listened to its scan.

    Raises:
        OutputError: The folder exists and `overwrite` is false, or cannot be written.
    """
    folder = out / study.case.name
    if folder.exists() and not overwrite:
        raise OutputError("exists already", path=folder, hint="use --overwrite, --resume, or another output folder")
    with whole_folder(folder) as staging:
        _Writer(study, pictures, report, staging).write()
    return folder


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `folder`, in place of one that is there, when the block ends without an error.

    Raises:
        OutputError: The disk refuses something, in the block too. What was there is there still.
    """
    staging, old = (folder.with_name(f".{folder.name}.{os.getpid()}{end}") for end in (PART, OLD))
    try:
        shutil.rmtree(staging, ignore_errors=True)
        unfinished.register(staging)
        staging.mkdir(parents=True)
        yield staging
        if folder.exists():
            folder.rename(old)
            staging.rename(folder)
            unfinished.register(old)
            shutil.rmtree(old, ignore_errors=True)
            unfinished.unregister(old)
        else:
            staging.rename(folder)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}", path=folder, hint="check the disk and the folder"
        ) from error
    finally:
        if old.exists() and not folder.exists():  # stopped between the two renames
            old.rename(folder)
        shutil.rmtree(staging, ignore_errors=True)
        unfinished.unregister(staging)


class _Writer:
    """Writes the files of a case into an empty folder, and notes them in its report."""

    def __init__(self, study: StudyResult, pictures: CasePictures, report: dict[str, Any], folder: Path) -> None:
        self.study, self.pictures, self.folder = study, pictures, folder
        self.files: dict[str, str] = {"slices": "slices.csv"}
        self.warnings: list[str] = list(report["warnings"])
        self.report = report | {"files": self.files, "warnings": self.warnings}

    def write(self) -> None:
        """Write everything; pictures and volumes are packed beside the rest."""
        series, dicom = self.study.case.series, self.study.case.kind == "dicom"
        write_slices(self.folder / "slices.csv", self.report)
        with short_switch_interval(), ThreadPoolExecutor(2) as pool:
            packing = self._pack_pictures(pool) if series is None else self._pack_volume(series, pool)
            if series is not None and dicom and self.study.burden is not None:
                self._write_seg(series)
            if self.pictures.frames:
                self.files["html"] = "report.html"
                if self.study.settings.pdf:
                    self.files["pdf"] = "report.pdf"
            if series is not None and dicom:
                self._write_sr(series)
            self.report["warnings"] = list(dict.fromkeys(self.warnings))
            if self.pictures.frames:
                write_html(self.folder / "report.html", self.report, self.pictures.frames)
                if self.study.settings.pdf:
                    from jcs_ct.outputs.report.pdf import write_pdf

                    boxes = write_pdf(self.folder / "report.pdf", self.report, self.pictures.frames)
                    if boxes:
                        text = f"report.pdf: this machine has no font for {boxes[:20]}; boxes stand for these letters"
                        self.report["warnings"].append(text)
            text = json.dumps(self.report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
            # Names that are no text stand as JSON itself spells them.
            (self.folder / "report.json").write_text(text, encoding="utf-8", errors="backslashreplace")
            for job in packing:
                job.result()

    @cached_property
    def _headers(self) -> SourceHeaders:
        """The headers that SEG and SR repeat. Raises InputError, each time, where they cannot be referred to."""
        from jcs_ct.outputs.dicom.headers import read_headers

        assert self.study.case.series is not None  # noqa: S101  # DICOM is a volume
        return read_headers(self.study.case.series)

    def _write_seg(self, series: CTSeries) -> None:
        from jcs_ct.outputs.dicom.seg import write_seg

        slices, network = self.study.slices, self.study.segmenter or self.study.screen
        try:
            self.warnings += write_seg(
                self.folder / "seg.dcm",
                series,
                lambda i: slices[i].lesions.levels().astype(bool),
                lambda i: _levels(slices[i].lungs),
                model_name=network.card.name[:64],
                model_version=network.card.weights_sha256[:12],
                source=self._headers,
            )
            self.files["dicom_seg"] = "seg.dcm"
        except InputError as error:  # the masks stand in the NIfTI files
            self.warnings.append(f"no DICOM SEG: {error.message}")

    def _write_sr(self, series: CTSeries) -> None:
        from jcs_ct.outputs.dicom.sr import write_sr

        seg = self.folder / self.files["dicom_seg"] if "dicom_seg" in self.files else None
        try:
            self.warnings += write_sr(self.folder / "sr.dcm", series, self.report, seg, source=self._headers)
            self.files["dicom_sr"] = "sr.dcm"
        except InputError as error:  # the measurements stand in report.json
            self.warnings.append(f"no DICOM SR: {error.message}")

    def _pack_volume(self, series: CTSeries, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Begin to write volumes on the input's grid, and overlays of the slices with the most lesion."""
        slices = self.study.slices
        volumes: dict[str, tuple[Callable[[int], NDArray[np.uint8]], float]] = {
            "attention": (lambda i: slices[i].attention.levels(), 1 / 255)
        }
        if self.study.burden is not None:
            volumes["lesions"] = (lambda i: slices[i].lesions.levels()), 1.0
        volumes["lungs"] = (lambda i: _levels(slices[i].lungs)), 1.0
        drawn = {f"overlay_{n}": f"overlays/slice-{n:04d}.png" for n in self.study.most_affected()[:MOST_OVERLAYS]}
        self.files |= {name: f"{name}.nii.gz" for name in volumes} | drawn

        def pack(name: str) -> None:
            levels, slope = volumes[name]
            write_nifti_slices(self.folder / f"{name}.nii.gz", levels, np.uint8, series, slope=slope)

        overlays = [pool.submit(self._write_overlay, int(n.removeprefix("overlay_")), f) for n, f in drawn.items()]
        return [*overlays, *(pool.submit(pack, name) for name in volumes)]

    def _pack_pictures(self, pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Begin to write the mask, the attention and the overlay of each picture that was looked at."""
        self.files |= {"masks": "masks/", "attention": "attention/", "overlays": "overlays/"}
        return [pool.submit(self._write_picture, one) for one in self.study.scored]

    def _write_picture(self, one: SliceResult) -> None:
        images.save_map(self.folder / "masks" / f"{one.name}.png", one.lesions.levels().astype(np.float32))
        attention = one.attention.levels().astype(np.float32) / np.float32(255)
        images.save_map(self.folder / "attention" / f"{one.name}.png", attention)
        self._write_overlay(one.index, f"overlays/{one.name}.png")

    def _write_overlay(self, index: int, name: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.pictures.overlay(self.study, index))


def _levels(lungs: PackedMap | None) -> NDArray[np.uint8]:
    assert lungs is not None  # noqa: S101  # of a volume they are known
    return lungs.levels()
