"""Volumes as data: a CT volume with a 3-D mask becomes a sample for each of its slices.

| what | how it is read |
| --- | --- |
| `images/NAME.nii.gz`, `masks/NAME.nii.gz` | the folders of pictures, with volumes or folders of DICOM series in them |
| `imagesTr/NAME_0000.nii.gz`, `labelsTr/NAME.nii.gz`, `dataset.json` | a raw folder of nnU-Net |
| a manifest `file,mask,group` | `file` a volume or the folder of a DICOM series, `mask` a volume |

Labels above 0 are lesion, unless it is said which. A volume is a group of its own where no patient is named. A slice
without lesion is known to be empty, and is no positive even if its study is: "COVID-19" is said of studies.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.samples import Reading, Sample
from jcs_ct.datasets.slices import open_labels, open_volume, size_text, wanted_labels
from jcs_ct.io.files.kinds import decode_text
from jcs_ct.io.files.names import natural_key, volume_stem
from jcs_ct.io.files.opening import read_file
from jcs_ct.io.files.walk import count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

NNUNET = "dataset.json"
_MAX_JSON = 2**22


def expand(reading: Reading, lesions: Sequence[int] = ()) -> Reading:
    """Return a sample for each slice of every volume; other samples stay as they are.

    `lesions` are the labels that are lesion; empty: all above 0.
    """
    samples: list[Sample] = []
    problems, notes = list(reading.problems), list(reading.notes)
    volumes = unsaid = 0
    for sample in reading.samples:
        image = sample.image
        if sample.index is not None:
            samples.append(replace(sample, lesions=tuple(lesions)))
            continue
        if image is None or not (volume_stem(image.name) or image.is_dir()):  # a DICOM series is a folder
            samples.append(sample)
            continue
        try:
            slices = list(_slices_of(replace(sample, lesions=tuple(lesions))))
        except InputError as problem:  # without the frames that it came through, which hold a volume
            problems.append(InputError(problem.message, path=problem.path, hint=problem.hint))
            continue
        volumes += 1
        unsaid += sample.label == 1 and sample.mask is None
        samples += slices
    if volumes:
        notes.append(f"{count(volumes, 'volume')} of {len(samples):,} slices")
    if unsaid:
        notes.append(
            f"{unsaid:,} positive volumes have no mask: which of their slices show the disease is not known, and their "
            "slices have no label"
        )
    return replace(reading, samples=tuple(samples), notes=tuple(notes), problems=tuple(problems))


def _slices_of(sample: Sample) -> Iterator[Sample]:
    path = sample.path
    series = open_volume(str(path))
    group = sample.group or volume_stem(path.name) or path.name
    if sample.mask is None:
        label = sample.label if sample.label == 0 else None
        for index in range(len(series)):
            yield replace(sample, group=group, index=index, label=label)
        return
    masks = open_labels(str(sample.mask))
    if masks.shape != series.geometry.shape:
        raise InputError(
            f"is {size_text(masks.shape)}, its volume {path.name} is {size_text(series.geometry.shape)}",
            path=sample.mask,
            hint="a mask has the grid of its volume",
        )
    for index, plane in enumerate(masks):
        empty = not wanted_labels(plane, sample.lesions).any()
        label = None if sample.label is None else int(sample.label and not empty)
        yield replace(sample, group=group, index=index, empty=empty, label=label)


def read_nnunet(root: Path) -> Reading:
    """Read a raw folder of nnU-Net: `dataset.json`, `imagesTr/CASE_0000*` and `labelsTr/CASE*`.

    Raises InputError where `dataset.json` cannot be read, names several channels, or no file ending.
    """
    path = root / NNUNET
    try:
        content = json.loads(decode_text(read_file(path, _MAX_JSON)))
    except (ValueError, RecursionError) as error:
        raise InputError(f"is not JSON: {error}", path=path, hint="write it as nnU-Net does") from error
    if not isinstance(content, dict):
        raise InputError("is not a JSON object", path=path, hint="write it as nnU-Net does")
    channels: Any = content.get("channel_names", content.get("modality", {"0": "CT"}))
    if not isinstance(channels, dict) or len(channels) != 1:
        raise InputError(f"names {len(channels)} channels, one is expected: CT", path=path, hint="keep the CT alone")
    ending = content.get("file_ending", ".nii.gz")
    if not isinstance(ending, str) or volume_stem(f"x{ending}") != "x":
        message = f"names the file ending {ending!r}; volumes are expected"
        raise InputError(message, path=path, hint="for example .nii.gz")
    samples: list[Sample] = []
    problems: list[InputError] = []
    for image in sorted((root / "imagesTr").glob(f"*_0000{ending}"), key=lambda path: natural_key(path.name)):
        case = image.name.removesuffix(f"_0000{ending}")
        mask = root / "labelsTr" / f"{case}{ending}"
        if mask.is_file():
            samples.append(Sample(image, mask, group=case))
        else:
            problems.append(InputError(f"has no {mask.name} in labelsTr/", path=image, hint="add it"))
    labels = content.get("labels")
    note = f"labels of {NNUNET}: {labels}" if labels else f"{NNUNET} names no labels"
    return Reading(tuple(samples), (note,), tuple(problems), json.dumps(labels, sort_keys=True) if labels else "")


def lesion_labels(text: str) -> tuple[int, ...]:
    """Return the labels that "1,3" names. Raises UsageError for anything else."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and int(part) > 0 for part in parts):
        raise UsageError(f"the labels are {text!r}; numbers above 0 are expected", hint="for example --labels 1,3")
    return tuple(sorted({int(part) for part in parts}))
