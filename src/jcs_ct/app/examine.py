"""One study, from its case to a result that can be saved: the scan, with what listens to it, and the report of it."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.trained_on import TrainingWatch
from jcs_ct.core.errors import UsageError
from jcs_ct.outputs.case_folder import save_case
from jcs_ct.outputs.case_pictures import CasePictures
from jcs_ct.outputs.report.content import build_report
from jcs_ct.study import scan

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray
    from pandas import DataFrame

    from jcs_ct.study.case import Case
    from jcs_ct.study.result import SliceResult, StudyResult
    from jcs_ct.study.rules import Rule, Verdict
    from jcs_ct.study.settings import Networks, Settings
    from jcs_ct.study.slices import CaseSlice


@dataclass(frozen=True)
class CaseResult:
    """The result of one study, with everything that its files are made of.

    >>> from PIL import Image
    >>> from jcs_ct import diagnose
    >>> from jcs_ct.phantom import lung_window, make_phantom
    >>> picture = Image.fromarray(lung_window(make_phantom(slices=3, size=64).hu[1]))
    >>> result = diagnose(picture)  # one slice says little about a patient: not reliable
    >>> [row["index"] for row in result.table()], result.to_dict()["verdict"]["reliable"]
    ([1], False)
    >>> result.lesion.shape, str(result.lesion.dtype)
    ((1, 64, 64), 'uint8')

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

    @property
    def attention(self) -> NDArray[np.uint8]:
        """The attention: uint8, 255 is 1, slice × row × column, as `lesion`."""
        return self.study.attention

    def to_dict(self) -> dict[str, Any]:
        """Return what `report.json` holds, as JSON values of the caller's own: changing them changes no report."""
        return deepcopy(self.report)

    def table(self) -> list[dict[str, Any]]:
        """Return a dictionary for each slice, head first, with what `slices.csv` holds of it."""
        return [one.to_dict() for one in self.slices]

    def frame(self) -> DataFrame:
        """Return `table` as a pandas data frame, indexed by the number of the slice.

        Raises:
            UsageError: pandas is not installed.
        """
        try:
            from pandas import DataFrame as Frame
        except ModuleNotFoundError as error:
            raise UsageError(
                "a data frame needs pandas, which is not installed", hint="pip install pandas; or use table()"
            ) from error
        return Frame(self.table()).set_index("index")

    def save(self, out: str | Path, *, overwrite: bool = False) -> Path:
        """Write all files into the folder `out/NAME`, which appears whole or not at all; return it.

        Raises:
            OutputError: It exists, or cannot be written.
        """
        with self.study.clock("write"):
            return save_case(self.study, self.pictures, self.report, Path(out), overwrite=overwrite)


def examine_case(
    case: Case,
    networks: Networks,
    settings: Settings,
    patient_rule: Rule | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> CaseResult:
    """Look at one study. Arguments and errors as of `jcs_ct.study.scan.scan_study`.

    `progress` is called with (slices done, slices in all) after each slice, in another thread.
    """
    pictures, training = CasePictures(len(case), frames=settings.frames), TrainingWatch(networks, len(case))

    def watched(result: SliceResult, item: CaseSlice | None) -> None:
        pictures(result, item)
        if item is not None and result.probability is not None:
            training.look(item.image.pixels)
        if progress is not None:
            progress(result.index, len(case))

    study = scan.scan_study(case, networks, settings, patient_rule, watched)
    study = replace(study, warnings=(*study.warnings, *training.warnings()))
    pictures.keep_what_is_drawn(study)
    return CaseResult(study, build_report(study), pictures)
