"""One study, from its case to a result that can be saved: the scan, with what listens to it, and the report of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.outputs.case_folder import save_case
from jcs_ct.outputs.case_pictures import CasePictures
from jcs_ct.outputs.report.content import build_report
from jcs_ct.study import scan

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.study.case import Case
    from jcs_ct.study.result import SliceResult, StudyResult
    from jcs_ct.study.rules import Rule, Verdict
    from jcs_ct.study.settings import Networks, Settings


@dataclass(frozen=True)
class CaseResult:
    """The result of one study, with everything that its files are made of.

    Attributes:
        study: What was found.
        report: What `report.json` holds, but for the names of other files.
        pictures: Of its slices.
    """

    study: StudyResult
    report: dict[str, Any] = field(repr=False)
    pictures: CasePictures = field(repr=False)

    @property
    def name(self) -> str:
        """Name of the case, and of its folder."""
        return self.study.case.name

    @property
    def verdict(self) -> Verdict:
        """The patient's verdict."""
        return self.study.verdict

    @property
    def slices(self) -> tuple[SliceResult, ...]:
        """A result for each slice."""
        return self.study.slices

    @property
    def lesion(self) -> NDArray[np.uint8]:
        """The lesion mask: uint8 0 or 1, slice × row × column (head to feet, front to back, right to left)."""
        return self.study.lesion

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write all files into the folder `out/NAME`, which appears whole or not at all; return it.

        Raises:
            OutputError: It exists, or cannot be written.
        """
        with self.study.clock("write"):
            return save_case(self.study, self.pictures, self.report, Path(out), overwrite=overwrite)


def examine_case(case: Case, networks: Networks, settings: Settings, patient_rule: Rule | None = None) -> CaseResult:
    """Look at one study. Arguments and errors as of `jcs_ct.study.scan.scan_study`."""
    pictures = CasePictures(len(case), frames=settings.frames)
    study = scan.scan_study(case, networks, settings, patient_rule, pictures)
    pictures.keep_what_is_drawn(study)
    return CaseResult(study, build_report(study), pictures)
