"""The files of one study: a folder that appears whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.outputs import images
from jcs_ct.outputs.diagnosis import diagnosed_slice
from jcs_ct.outputs.report.html import write_html
from jcs_ct.outputs.report.table import write_slices
from jcs_ct.study.flow import Behind, brief_turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from jcs_ct.outputs.dicom.headers import SourceHeaders
    from jcs_ct.study.result import CaseResult, PackedMaps

PART = ".part"  # ending of a folder that is being written; its name begins with a dot
MOST_OVERLAYS = 5  # of a volume; pictures have one each
WAITING = MOST_OVERLAYS + 3  # pictures and volumes


def save_case(result: CaseResult, out: Path, *, overwrite: bool = False) -> Path:
    """Write `out/NAME/`, see `CaseResult.save`. `report.json` names the other files.

    Raises:
        OutputError: The folder exists and `overwrite` is false, or cannot be written.
    """
    folder = out / result.name
    if folder.exists() and not overwrite:
        raise OutputError("exists already", path=folder, hint="use --overwrite, --resume, or another output folder")
    staging = out / f".{result.name}.{os.getpid()}{PART}"
    try:
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir(parents=True)
        _write(result, staging)
        if folder.exists():
            old = out / f".{result.name}.{os.getpid()}.old{PART}"
            folder.rename(old)
            staging.rename(folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            staging.rename(folder)
    except OSError as error:
        raise OutputError(
            f"cannot be written: {error.strerror or error}", path=folder, hint="check the disk and the folder"
        ) from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return folder


def remove_debris(out: Path) -> int:
    """Remove what a killed run left half-written in `out`; return how many folders that were."""
    debris = [p for p in out.glob(f".*{PART}") if p.is_dir()] if out.is_dir() else []
    for folder in debris:
        shutil.rmtree(folder, ignore_errors=True)
    return len(debris)


def _write(result: CaseResult, folder: Path) -> None:
    files: dict[str, str] = {"slices": "slices.csv"}
    report = dict(result.report)
    warnings = list(report["warnings"])
    write_slices(folder / "slices.csv", report)

    @cache  # an error is not kept, so that SEG and SR each say what they lack
    def headers() -> SourceHeaders:
        from jcs_ct.outputs.dicom.headers import read_headers

        assert result.case.series is not None  # noqa: S101  # of this kind
        return read_headers(result.case.series)

    with brief_turns(), Behind(WAITING, 2) as behind:  # pictures and volumes are packed beside the rest
        if result.case.series is None:
            files |= _write_pictures(result, folder)
        else:
            files |= _write_volume(result, folder, behind)
        if result.case.kind == "dicom" and result.report["burden"] is not None:
            _write_seg(result, folder, files, warnings, headers)
        if result.frames:
            files["html"] = "report.html"
        report |= {"files": files, "warnings": warnings}
        if result.case.kind == "dicom":
            _write_sr(result, folder, report, files, warnings, headers)
        report["warnings"] = list(dict.fromkeys(warnings))
        if result.frames:
            write_html(folder / "report.html", report, result.frames)
        text = json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        # Names that are no text stand as JSON itself spells them.
    (folder / "report.json").write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_sr(
    result: CaseResult,
    folder: Path,
    report: dict[str, Any],
    files: dict[str, str],
    warnings: list[str],
    headers: Callable[[], SourceHeaders],
) -> None:
    from jcs_ct.outputs.dicom.sr import write_sr

    assert result.case.series is not None  # noqa: S101  # of this kind
    try:
        seg = folder / files["dicom_seg"] if "dicom_seg" in files else None
        warnings += write_sr(folder / "sr.dcm", result.case.series, report, seg, source=headers())
        files["dicom_sr"] = "sr.dcm"
    except InputError as error:  # the measurements stand in report.json; headers that cannot be referred to cost the SR
        warnings.append(f"no DICOM SR: {error.message}")


def _write_seg(
    result: CaseResult,
    folder: Path,
    files: dict[str, str],
    warnings: list[str],
    headers: Callable[[], SourceHeaders],
) -> None:
    from jcs_ct.outputs.dicom.seg import write_seg

    series, lungs, card = result.case.series, result.lungs, result.report["segmenter"] or result.report["model"]
    assert series is not None  # noqa: S101  # of this kind
    try:
        warnings += write_seg(
            folder / "seg.dcm",
            series,
            lambda i: result.lesions.levels(i).astype(bool),
            None if lungs is None else lungs.levels,
            model_name=card["name"][:64],
            model_version=card["weights_sha256"][:12],
            source=headers(),
        )
        files["dicom_seg"] = "seg.dcm"
    except InputError as error:  # the masks stand in the NIfTI files
        warnings.append(f"no DICOM SEG: {error.message}")


def _write_volume(result: CaseResult, folder: Path, behind: Behind) -> dict[str, str]:
    from jcs_ct.io.nifti.write import write_nifti_slices

    series = result.case.series
    assert series is not None  # noqa: S101  # of this kind
    volumes: dict[str, tuple[PackedMaps, float]] = {"attention": (result.attention, 1 / 255)}
    if result.report["burden"] is not None:
        volumes["lesions"] = result.lesions, 1.0
    if result.lungs is not None:
        volumes["lungs"] = result.lungs, 1.0
    files = {name: f"{name}.nii.gz" for name in volumes}

    def write(name: str) -> None:
        maps, slope = volumes[name]
        write_nifti_slices(folder / files[name], maps.levels, np.uint8, series, slope=slope)

    pictures = {n: f"overlays/slice-{n:04d}.png" for n in result.report["most_affected"][:MOST_OVERLAYS]}
    for n, name in pictures.items():
        behind.do(_overlay, result, n - 1, folder / name)
    for name in volumes:
        behind.do(write, name)
    return files | {f"overlay_{n}": name for n, name in pictures.items()}


def _write_pictures(result: CaseResult, folder: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    for i, source in enumerate(result.case.pictures):
        if result.slices[i].probability is None:
            continue
        stem = source.name.rpartition("/")[2]
        mask = result.lesions.levels(i)
        images.save_map(folder / "masks" / f"{stem}.png", mask.astype(np.float32))
        attention = result.attention.levels(i).astype(np.float32) / np.float32(255)
        images.save_map(folder / "attention" / f"{stem}.png", attention)
        _overlay(result, i, folder / "overlays" / f"{stem}.png")
    files |= {"masks": "masks/", "attention": "attention/", "overlays": "overlays/"}
    return files


def _overlay(result: CaseResult, i: int, path: Path) -> None:
    found = result.slices[i]
    item = result.case.slice(i)
    card, p = result.report["model"], found.probability or 0.0
    side = "at or above" if found.positive else "below"
    where = item.image.name if result.case.series is None else f"slice {i + 1} of {len(result.slices)}"
    picture = diagnosed_slice(
        item.image.pixels,
        result.lesions.levels(i).astype(bool),
        result.attention.levels(i).astype(np.float32) / np.float32(255),
        title=where,
        caption=[f"COVID-19 p = {p:.3f} ({side} {card['covid_threshold']:.2f}) · {card['name']}", *found.flags],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(picture)
