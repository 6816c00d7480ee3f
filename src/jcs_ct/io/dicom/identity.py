"""Whose study it is: read only where a user asks for it (`--keep-identity`)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from jcs_ct.io.dicom.header import without_escapes
from jcs_ct.io.files.names import printable

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

    Raises:
        InputError: It cannot be read.
    """
    from pydicom import dcmread

    header = dcmread(io.BytesIO(source.read()), stop_before_pixels=True, specific_tags=list(FACTS), force=True)
    found = {
        name: printable(without_escapes(str(header.get(keyword, "") or ""))).strip() for keyword, name in FACTS.items()
    }
    return {name: text for name, text in found.items() if text}
