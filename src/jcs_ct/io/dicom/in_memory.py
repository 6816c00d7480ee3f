"""DICOM data sets that a program holds in memory, as files that were never written."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError
from jcs_ct.io.dicom.read import quiet
from jcs_ct.io.files.kinds import Kind
from jcs_ct.io.files.sources import Source

if TYPE_CHECKING:
    from collections.abc import Sequence


def sources_of(datasets: Sequence[Any]) -> list[Source]:
    """Return pydicom's data sets as sources: what they hold now, as pydicom would write it.

    Raises InputError where one cannot be written. Nothing of it is repeated.
    """
    sources = []
    for number, dataset in enumerate(datasets, 1):
        label = f"data set {number}" if len(datasets) > 1 else "the data set"
        try:
            with quiet():
                data = _encoded(dataset)
        except Exception:  # noqa: BLE001  # pydicom raises many kinds, and quotes values
            message = "cannot be written as a DICOM file"
            raise InputError(message, path=label, hint="does pydicom save it? Read it again") from None
        sources.append(Source(f"data-set-{number}", label, Path("data sets"), label, Kind.DICOM, data=data))
    return sources


def _encoded(dataset: Any) -> bytes:
    """Return the file, without changing the data set."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.filewriter import dcmwrite
    from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    known = getattr(dataset, "file_meta", None) or FileMetaDataset()
    made, meta = Dataset(), FileMetaDataset()
    for element in known:
        meta.add(element)
    syntax = UID(str(meta.get("TransferSyntaxUID", "") or ""))
    implicit, little = dataset.original_encoding
    if not syntax:
        big = implicit is not None and not little  # None: it was never in a file
        syntax = ImplicitVRLittleEndian if implicit else ExplicitVRBigEndian if big else ExplicitVRLittleEndian
        meta.TransferSyntaxUID = syntax
    for tag in dataset.keys():  # noqa: SIM118  # a data set is iterated by element, which would convert each
        if tag.group > 2:
            made[tag] = dataset.get_item(tag)
    made.file_meta, made.preamble = meta, b"\0" * 128
    made.set_original_encoding(implicit, little, dataset.original_character_set)
    file = io.BytesIO()
    private = (
        {"implicit_vr": syntax.is_implicit_VR, "little_endian": syntax.is_little_endian} if syntax.is_private else {}
    )
    dcmwrite(file, made, enforce_file_format=False, **private)
    return file.getvalue()
