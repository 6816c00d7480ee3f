"""`jcs_ct.diagnose`: one study in, its result out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.app.gather import gather
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.inference import open_network
from jcs_ct.models import RESULTS
from jcs_ct.study.examine import examine
from jcs_ct.study.settings import Networks, Settings

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from jcs_ct.study.result import CaseResult


def diagnose(
    study: str | Path,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    rule: str = "top-k",
    segment: Literal["always", "positive", "never"] | None = None,
    series: str | None = None,
    allow_gaps: bool = False,
    device: str = "auto",
) -> CaseResult:
    """Diagnose one study. A research tool, no medical device.

    Args:
        study: A DICOM or NIfTI file, a folder or a zip archive of one study, or pictures of lung-windowed slices.
        model: Name or file of the weights; by default the shipped `jcs-lite`. Two: a classifier (or `jcs-lite`) and a
            segmenter.
        rule: From slices to the patient's verdict, see `jcs_ct.study.rules`.
        segment: Lesions of every study (default with `jcs-lite`), of positive ones (default otherwise), or of none.
        series: The series to take, where there are several: its UID, number or description.
        allow_gaps: Take a volume with missing slices, with a warning.
        device: "auto", "cpu", "cuda" or "mps".

    Returns:
        The result; `result.save(out)` writes its files.

    Raises:
        InputError: It cannot be read, shows no lungs, or holds several studies.
        UsageError: Arguments that do not fit together.
        WeightsError: See `jcs_ct.weights.load`.
    """
    found = gather([str(study)], series=series, allow_gaps=allow_gaps)
    if not found.cases:
        raise found.problems[0] if found.problems else InputError("holds no study", path=study)
    if len(found.cases) > 1:
        names = ", ".join(case.name for case in found.cases[:5])
        raise InputError(
            f"holds {len(found.cases)} studies ({names}), one is expected",
            path=study,
            hint="give one of them; the command `jcs diagnose` takes many",
        )
    models: list[str | Path | None] = [model] if model is None or isinstance(model, (str, Path)) else list(model)
    if not models:
        raise UsageError("no model was named", hint="leave `model` out for jcs-lite")
    networks = Networks.of([open_network(m, device, RESULTS) for m in models])
    chosen = segment or networks.usual_segment
    return examine(found.cases[0], networks, Settings(rule, chosen))
