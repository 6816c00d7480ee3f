"""Are results of the service those of `jcs diagnose`? Byte for byte, but for times, the case's name and new UIDs."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import pydicom

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

MADE_ANEW = {"UI", "DA", "TM", "DT"}
"""UIDs and times in DICOM objects."""


def different(folder: Path, studies: Sequence[tuple[bytes, Path]], threads: int) -> list[str]:
    """Diagnose studies with the command, two at a time; return a line for each that has other files.

    Args:
        folder: Gets what the command makes.
        studies: What was sent, and the folder that holds `study/` with the service's results.
        threads: Of each worker: the last digit of a sum depends on how many share it.
    """
    places = []
    for number, (data, _) in enumerate(studies):
        place = folder / str(number)
        place.mkdir(parents=True)
        (place / "study").write_bytes(data)
        places.append(place.resolve())
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        statuses = list(pool.map(partial(diagnosed, threads=threads), places))
    found = []
    for place, status, (_, results) in zip(places, statuses, studies, strict=True):
        if status != 0:
            found.append(f"{place.name}: `jcs diagnose` ended with {status}")
        found += [f"{place.name}: {line}" for line in differences(results / "study", case_in(place / "out"))]
    return found


def diagnosed(place: Path, threads: int) -> object:
    """Run `jcs diagnose study -o out` in a folder; return its exit status."""
    from jcs_ct.cli import main

    os.chdir(place)
    try:
        main(["diagnose", "study", "-o", "out", "--quiet", "--threads", str(threads)])
    except SystemExit as ended:
        return ended.code
    return 0


def case_in(out: Path) -> Path:
    """Return the one case of a folder of results; of DICOM its name is made of a digest of the series."""
    return next((path.parent for path in out.glob("*/report.json")), out / "none")


def differences(ours: Path, theirs: Path) -> list[str]:
    """Return what two folders of results differ in, a line each."""
    names = {str(p.relative_to(ours)) for p in ours.rglob("*") if p.is_file()}
    others = {str(p.relative_to(theirs)) for p in theirs.rglob("*") if p.is_file()}
    found = [f"only in one: {name}" for name in sorted(names ^ others)]
    called = theirs.name
    return found + [n for n in sorted(names & others) if _told(ours / n, ours.name) != _told(theirs / n, called)]


def _told(path: Path, case: str) -> Any:
    """Return what a file tells, without times and the name of its case."""
    if path.name == "report.json":
        report = json.loads(path.read_text(encoding="utf-8"))
        report["source"].pop("stamp")
        report["source"].pop("started_in")
        report.pop("seconds")
        assert report.pop("case") == case
        return report
    if path.suffix == ".html":
        return re.sub(rb"\b[\d.]+\xc2\xa0s\b", b"", path.read_bytes()).replace(case.encode(), b"study")
    if path.suffix == ".dcm":
        return _elements(pydicom.dcmread(path))
    return path.read_bytes()


def _elements(data: pydicom.Dataset) -> dict[str, Any]:
    return {
        str(element.tag): [_elements(item) for item in element.value] if element.VR == "SQ" else element.value
        for element in data
        if element.VR not in MADE_ANEW
    }
