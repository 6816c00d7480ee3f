"""The CT of a study as one NIfTI file in HU, on the grid of its results: what the page's viewer shows.

`python -m jcs_ct.service.volume FACTS` is a process of its own, since it reads what strangers sent: it may be ended, or
fail, without the service. FACTS are JSON: `input` (folder), `target` (file), `gaps` (take volumes with gaps), `passed`
(series of the study that showed no lungs). Exit status 1, and a line on standard output, where it cannot.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np

from jcs_ct.core.errors import InputError, JcsError
from jcs_ct.service.files import STUDY

LEVEL = 1  # of gzip: it waits for somebody who looks at a screen


def write_ct(folder: Path, target: Path, *, gaps: bool, passed: int) -> None:
    """Write the volume that was looked at of what was sent into a folder, behind so many series that were passed over.

    `target` ends in `.nii.gz`; int16, HU in [−1024, 3071]. Raises InputError where there is no such volume, OutputError
    where it cannot be written.
    """
    from jcs_ct.app.gather import gather
    from jcs_ct.io.nifti.write import write_nifti_slices

    os.chdir(folder)  # so that errors do not tell where the service keeps things
    found = gather([STUDY], allow_gaps=gaps)
    case = found.cases[0] if found.cases else None
    if case is not None and passed:
        from jcs_ct.app.next_series import case_after

        case = case_after(case, passed)
    if case is None or case.series is None:
        raise found.problems[0] if found.problems else InputError("holds no volume", path=STUDY)
    write_nifti_slices(target, case.series.read, np.int16, case.series, overwrite=True, level=LEVEL)


def main() -> None:
    """Write one volume."""
    facts = json.loads(sys.argv[1])
    try:
        write_ct(Path(facts["input"]), Path(facts["target"]), gaps=facts["gaps"], passed=facts["passed"])
    except JcsError as error:
        print(error.message)  # noqa: T201  # whoever started it reads it
        sys.exit(1)


if __name__ == "__main__":
    main()
