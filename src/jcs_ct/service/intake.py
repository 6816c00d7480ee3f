"""From what was received to a study of the record: the one way in for uploads, an Orthanc's studies and a node's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.service.database import RecordError

if TYPE_CHECKING:
    from jcs_ct.service.files import Folders
    from jcs_ct.service.record import Record, Study


def enter(
    folders: Folders, record: Record, upload: str, digest: str, settings: str, files: int, size: int
) -> tuple[Study, bool]:
    """Make what was received a study of the record, or find that it is known; then its files go.

    It lies in `folders.incoming` under the name `upload`; the arguments behind that are those of `Record.submit`, as is
    what is returned: the study, and whether what was received is its input now.
    """
    folders.accept(upload)
    try:
        study, taken = record.submit(digest, settings, upload, files, size)
    except RecordError:  # whether it was entered is not known: `tidy` removes an input that no row names
        raise
    except BaseException:
        folders.remove_input(upload)
        raise
    if not taken:
        folders.remove_input(upload)
    return study, taken
