"""A report and packed slices that tests of the page share: what was measured is made up, the shapes are real."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jsonschema import Draft202012Validator

from jcs_ct.outputs.report.content import DISCLAIMER
from jcs_ct.outputs.report.frames import EncodedFrame, encode_frame
from jcs_ct.outputs.report.schema import report_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

HOSTILE = "</script><img src=x onerror=alert(1)>'\"&"
"""A name that breaks out of HTML, of an attribute and of a script, where it is not escaped."""


def check(report: Mapping[str, Any]) -> None:
    """Fail where a report breaks the published schema, and say where and how."""
    found = sorted(Draft202012Validator(report_schema()).iter_errors(report), key=lambda e: list(e.absolute_path))
    if found:
        where = "/".join(str(step) for step in found[0].absolute_path) or "the report"
        raise AssertionError(f"{where}: {found[0].message}, and {len(found) - 1} more breaches of the schema")


def sample_report(slices: int = 12, kind: str = "dicom", case: str = "case-1") -> dict[str, Any]:
    """Return a valid report of a positive study; slices 4 to 8 have lesions, slice 6 the most, the last no lung."""
    volume = kind != "pictures"
    rows = []
    for index in range(1, slices + 1):
        lesion = max(0.0, 0.3 - 0.1 * abs(index - 6)) if index % 12 < 9 else 0.0
        looked = index < slices or slices == 1
        rows.append(
            {
                "index": index,
                "z_mm": 100.0 - 2.5 * index if volume else None,
                "name": "" if volume else f"picture-{index}",
                "probability": round(0.1 + 2 * lesion, 4) if looked else None,
                "positive": looked and 0.1 + 2 * lesion >= 0.5,
                "lung_mm2": 20000.0 if volume else None,
                "lesion_mm2": 20000 * lesion if volume else None,
                "lesion_share": lesion,
                "flags": ["bright for a lung window"] if index == 2 else [],
            }
        )
    most = sorted((r for r in rows if r["lesion_share"]), key=lambda r: -float(r["lesion_share"]))[:5]  # type: ignore[arg-type]
    side = {"lung_ml": 2000.0, "lesion_ml": 150.0, "share": 0.075}
    return {
        "schema": "jcs-ct/report/1",
        "jcs_ct_version": "0.0.0",
        "disclaimer": DISCLAIMER,
        "case": case,
        "input": {
            "kind": kind,
            "slices": slices,
            "shape": [96, 96],
            "spacing_mm": [2.5, 0.7, 0.7] if volume else None,
            "facts": {"Manufacturer": "PHANTOM"} if volume else {},
        },
        "model": {
            "name": "lite",
            "architecture": "jcs-lite",
            "weights_sha256": "0" * 64,
            "recipe": "field-512",
            "covid_threshold": 0.5,
            "lesion_threshold": 0.45,
            "temperature": 1.2,
            "licence": "research",
            "notes": ["made for a test"],
        },
        "settings": {
            "rule": "top-k",
            "segment": "always",
            "window_hu": [-1350.0, 150.0] if volume else None,
            "runtime": "torch",
        },
        "verdict": {
            "rule": "top-k",
            "score": 0.87,
            "limit": 0.5,
            "positive": True,
            "probability": 0.87,
            "text": "Signs of COVID-19 found.",
            "reliable": True,
            "reasons": [],
        },
        "burden": {
            "lung_ml": 4000.0,
            "lesion_ml": 300.0,
            "share": 0.075,
            "left": dict(side),
            "right": dict(side),
            "lesions": 3,
            "largest_ml": 120.5,
            "first_slice": 4,
            "last_slice": 8,
            "mean_hu": -480.0,
            "ground_glass_share": 0.8,
            "consolidation_share": 0.2,
            "severity": {"score": 1, "name": "CT-1", "source": "a source"},
        }
        if volume and most
        else None,
        "slices": rows,
        "most_affected": [r["index"] for r in most],
        "warnings": ["gaps: 2 slices are missing"],
        "files": {"table": "slices.csv"},
        "seconds": 12.5,
    }


def blocks(size: int = 96) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Return HU of a slice: −600 in the left half, 40 in the right."""
    hu = np.full((size, size), 40, np.int16)
    hu[:, : size // 2] = -600
    return hu


def sample_frames(slices: int = 12, kind: str = "dicom", size: int = 96) -> list[EncodedFrame]:
    """Return packed slices: `blocks`; slices 4 to 9 with lesions in the upper left and attention in the lower right.

    The upper edge of the lesions goes down by a row with each slice, so that slices differ.
    """
    frames = []
    for index in range(slices):
        lesion = np.zeros((size, size), bool)
        attention = np.zeros((size, size), np.float32)
        if 3 <= index % 12 <= 8:
            lesion[10 + index % 12 : size // 3, 10 : size // 3] = True
            attention[size * 2 // 3 : size - 8, size * 2 // 3 : size - 8] = 1
        hu = blocks(size)
        grey = None if kind != "pictures" else np.where(hu < 0, 100, 200).astype(np.uint8)
        frames.append(encode_frame(hu=None if grey is not None else hu, grey=grey, lesion=lesion, attention=attention))
    return frames
