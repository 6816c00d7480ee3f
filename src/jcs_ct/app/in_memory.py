"""From what a Python program holds to a case: paths, arrays, and the images of other libraries.

A library's types are told by their names, so that none is loaded for it. What is refused is never repeated: the text
of a DICOM data set names the patient.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.gather import Gathered, gather
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.io.files.sources import Source
from jcs_ct.io.studies import LacksSeriesError, find_series_in
from jcs_ct.study.case import Case, VolumeCase, picture_cases

if TYPE_CHECKING:
    from collections.abc import Sequence

TAKEN = (
    "a path or a list of paths; a NumPy array of Hounsfield units with spacing= or affine=; an image of nibabel or "
    "SimpleITK; a pydicom data set or a list of them; a PIL image or a list of them"
)


def case_of_object(
    study: Any,
    *,
    series: str | None = None,
    allow_gaps: bool = False,
    drop_odd: bool = False,
    spacing: Any = None,
    affine: Any = None,
) -> Case:
    """Return the one case that something is: one of `TAKEN`.

    `series`, `allow_gaps` and `drop_odd` are those of `jcs_ct.io.studies.find_series`, for paths and data sets;
    `spacing` and `affine` those of `jcs_ct.io.volumes.in_memory.series_of_array`.

    Raises:
        UsageError: It is nothing of the kind, or arguments do not fit it.
        InputError: It cannot be read, or holds no study, or several.
    """
    kind, items = _kind_of(study)
    if series is not None and not isinstance(series, str):
        raise UsageError("series is not a text", hint="give its UID, its number or its description as a string")
    if kind != "array" and (spacing is not None or affine is not None):
        raise UsageError("spacing and affine belong to arrays; other studies say their own", hint="leave them out")
    if kind not in {"path", "data set"} and series is not None:
        raise UsageError("series chooses among those of files or data sets; this is one volume", hint="leave it out")
    if kind == "path":
        items, study = _paths(items), None if isinstance(study, (list, tuple)) else study
    if kind in {"path", "data set"}:
        found = _gathered(kind, items, series=series, allow_gaps=allow_gaps, drop_odd=drop_odd)
        named = {str(Path(item)) for item in items} if kind == "path" else set()
        for problem in found.problems:
            if problem.path in named and not isinstance(problem, LacksSeriesError):
                raise problem  # what was named is not left out in silence
        return _only(found, items[0] if kind == "path" and study is not None else None)
    if kind == "picture":
        return _of_pictures(items)
    from jcs_ct.io.volumes import in_memory

    if kind == "array":
        return VolumeCase.of(in_memory.series_of_array(study, spacing, affine))
    if kind == "nibabel":
        return VolumeCase.of(in_memory.series_of_nibabel(study))
    return VolumeCase.of(in_memory.series_of_simpleitk(study, sys.modules["SimpleITK"].GetArrayViewFromImage))


def _kind_of(study: Any) -> tuple[str, Sequence[Any]]:
    """Return what something is, and its items; of what is one item, itself."""
    one = _kind_of_item(study)
    if one is not None:
        return one, [study]
    if isinstance(study, (list, tuple)):
        if not study:
            raise UsageError("the list of what to diagnose is empty", hint=f"give {TAKEN}")
        kinds = {_kind_of_item(item) for item in study}
        kind = kinds.pop() if len(kinds) == 1 else None
        if kind in {"path", "data set", "picture"}:
            return str(kind), study
        raise UsageError(f"a list of what cannot be diagnosed together was given; expected is {TAKEN}")
    raise UsageError(f"this input cannot be diagnosed; expected is {TAKEN}")


_TYPES = {  # (package, name of a class it or a base of it has) → kind
    ("pydicom", "Dataset"): "data set",
    ("numpy", "ndarray"): "array",
    ("nibabel", "SpatialImage"): "nibabel",
    ("SimpleITK", "Image"): "SimpleITK",
    ("PIL", "Image"): "picture",
}


def _kind_of_item(item: Any) -> str | None:
    if isinstance(item, (str, os.PathLike)):
        return "path"
    for base in type(item).__mro__:
        kind = _TYPES.get((base.__module__.partition(".")[0], base.__name__))
        if kind is not None:
            return kind
    return None


def _gathered(kind: str, items: Sequence[Any], **ways: Any) -> Gathered:
    if kind == "path":
        return gather(list(items), **ways)
    from jcs_ct.io.dicom.write import sources_of

    found = find_series_in(sources_of(items), **ways)
    return Gathered(tuple(map(VolumeCase.of, found.series)), found.problems, found.notes)


def _paths(items: Sequence[Any]) -> list[str]:
    """Return paths as text. Raises UsageError where an object that says that it is one is none."""
    paths = []
    for item in items:
        with suppress(Exception):  # what it raises may say anything
            paths.append(os.fsdecode(item))
    if len(paths) < len(items):
        raise UsageError(f"this path cannot be used; expected is {TAKEN}")
    return paths


def _only(found: Gathered, path: str | None) -> Case:
    """Return the one case that was found in what was given; `path` is it, where it is one path."""
    if not found.cases:
        raise found.problems[0] if found.problems else InputError("holds no study", path=path)
    if len(found.cases) > 1:
        names = ", ".join(case.name for case in found.cases[:5])
        raise InputError(
            f"holds {len(found.cases)} studies ({names}), one is expected",
            path=path,
            hint="give one of them; the command `jcs diagnose` takes many",
        )
    return found.cases[0]


def _of_pictures(pictures: Sequence[Any]) -> Case:
    from jcs_ct.io.pictures import encode_picture

    sources = []
    width = len(str(len(pictures)))
    for number, picture in enumerate(pictures, 1):
        label = f"picture {number}"
        data, kind = encode_picture(picture, label)
        name = f"picture-{number:0{width}d}"
        sources.append(Source(name, label, Path("pictures"), name, kind, data=data))
    (case,) = picture_cases(sources, [])
    return case
