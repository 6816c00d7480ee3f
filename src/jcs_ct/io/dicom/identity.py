"""Whose study it is: read only where a user asks for it (`--keep-identity`)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from jcs_ct.core.errors import printable
from jcs_ct.io.dicom.header import without_escapes

if TYPE_CHECKING:
    from jcs_ct.io.files.sources import Source

FACTS = {
    "PatientName": "patient name",
    "PatientID": "patient ID",
    "PatientBirthDate": "birth date",
    "PatientSex": "sex",
    "AccessionNumber": "accession number",
    "StudyDate": "study date",
}


def identity_of(source: Source) -> dict[str, str]:
    """Return what the header of a DICOM file says of its patient, by the names of `FACTS`; empty values are left out.

    Raises InputError where it cannot be read.
    """
    from pydicom import dcmread

    from jcs_ct.io.dicom.read import quiet

    data = io.BytesIO(source.read())
    with quiet():
        header = dcmread(data, stop_before_pixels=True, specific_tags=list(FACTS), force=True)
        values = {name: str(header.get(keyword, "") or "") for keyword, name in FACTS.items()}
    found = {name: printable(without_escapes(text)).strip() for name, text in values.items()}
    return {name: text for name, text in found.items() if text}
