"""`jcs_ct.diagnose` and `jcs_ct.Diagnoser`: one study in, its result out."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.forked import in_fit_thread, note_use, refuse_after_fork
from jcs_ct.app.in_memory import case_of_object
from jcs_ct.app.next_series import examine_with_lungs
from jcs_ct.core.errors import UsageError
from jcs_ct.inference import open_network
from jcs_ct.models import RESULTS
from jcs_ct.outputs.report.language import LANGUAGES
from jcs_ct.study.settings import Networks, Settings, rule_for

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    import numpy as np
    from numpy.typing import NDArray

    from jcs_ct.app.examine import CaseResult
    from jcs_ct.study.case import Case


class Diagnoser:
    """Diagnoses studies, one after the other, with weights that are loaded once. A research tool, not a medical device.

    Several threads may call it; it looks at one study at a time. It can be pickled, and loads its weights anew then.

    >>> from PIL import Image
    >>> from jcs_ct.phantom import lung_window, make_phantom
    >>> diagnoser = Diagnoser(device="cpu", runtime="torch")
    >>> result = diagnoser([Image.fromarray(lung_window(hu)) for hu in make_phantom(slices=2, size=64).hu])
    >>> result.lesion.shape
    (2, 64, 64)
    >>> result.to_dict()["verdict"]["reliable"]  # two slices say little about a patient
    False

    Args:
        model: Name or file of the weights; by default the shipped `jcs-lite`. Two: a classifier (or `jcs-lite`) and a
            segmenter.
        device: "auto", "cpu", "cuda" or "mps".
        runtime: What runs the network, see `jcs classify --help`.
        rule: From slices to the patient's verdict, see `jcs_ct.study.settings`.
        segment: Lesions of every study (default with `jcs-lite`), of positive ones (default otherwise), or of none.
        language: Of report.html, as `save` writes it: "en", "de", "fr", "es", "zh" or "ja".

    Raises:
        UsageError: Arguments that do not fit together; or the process was forked from one that had used jcs-ct.
        WeightsError: See `jcs_ct.weights.load`.
    """

    def __init__(
        self,
        model: str | Path | Sequence[str | Path] | None = None,
        *,
        device: str = "auto",
        runtime: str = "auto",
        rule: str = "whole-study",
        segment: Literal["always", "positive", "never"] | None = None,
        language: str = "en",
    ) -> None:
        one = model is None or isinstance(model, (str, Path))
        models: list[Any] = [model] if one else list(model) if isinstance(model, (list, tuple)) else [b""]
        if not models:
            raise UsageError("no model was named", hint="leave `model` out for jcs-lite")
        if not all(item is None or isinstance(item, (str, Path)) for item in models):
            message = "model is no name or file of weights, and no list of them"
            raise UsageError(message, hint="leave it out for jcs-lite")
        if segment not in (None, "always", "positive", "never"):
            raise UsageError("segment is none of always, positive, never", hint="leave it out for the usual one")
        if language not in list(LANGUAGES):
            raise UsageError(f"the report has no language {language!r}", hint=f"known: {', '.join(LANGUAGES)}")
        rule_for(rule, None)
        refuse_after_fork()
        note_use()
        self._arguments = (tuple(models) if len(models) > 1 else models[0], device, runtime, rule, segment, language)
        self._lock, self._telling = threading.Lock(), 0
        self._networks = in_fit_thread(lambda: Networks.of([open_network(m, device, RESULTS, runtime) for m in models]))
        self._settings = Settings(rule, segment or self._networks.usual_segment, language=language)

    def __call__(
        self,
        study: Any,
        *,
        series: str | None = None,
        allow_gaps: bool = False,
        drop_odd: bool = False,
        spacing: Sequence[float] | None = None,
        affine: NDArray[np.float64] | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> CaseResult:
        """Diagnose one study. Arguments and errors as in `diagnose`.

        Args:
            study: See `diagnose`.
            series: See there.
            allow_gaps: See there.
            drop_odd: See there.
            spacing: See there.
            affine: See there.
            progress: Called with (slices done, slices in all) after each slice, in another thread. What it raises ends
                the study.
        """
        refuse_after_fork()
        ways: Any = {"series": series, "allow_gaps": allow_gaps, "drop_odd": drop_odd}
        return self._examine(case_of_object(study, **ways, spacing=spacing, affine=affine), progress)

    def __reduce__(self) -> tuple[Any, ...]:
        """Keep the arguments: networks hold memory and threads of this process."""
        return _diagnoser, self._arguments

    def _examine(self, case: Case, progress: Callable[[int, int], object] | None = None) -> CaseResult:
        if self._telling == threading.get_ident():  # else it would wait for itself
            message = "was called from the progress of a study that it is still at work on"
            raise UsageError(message, path="the Diagnoser", hint="call it when it has returned, or make a second one")

        def tell(done: int, slices: int) -> object:
            assert progress is not None  # noqa: S101  # it is not called without
            self._telling = threading.get_ident()
            try:
                return progress(done, slices)
            finally:
                self._telling = 0

        def work() -> CaseResult:
            self._networks.expect(len(case))  # the runtime that `jcs diagnose` would take
            told = None if progress is None else tell
            return examine_with_lungs(case, self._networks, self._settings, progress=told)[1]

        with self._lock:
            return in_fit_thread(work)


def _diagnoser(model: Any, device: str, runtime: str, rule: str, segment: Any, language: str) -> Diagnoser:
    return Diagnoser(model, device=device, runtime=runtime, rule=rule, segment=segment, language=language)


def diagnose(
    study: Any,
    *,
    model: str | Path | Sequence[str | Path] | None = None,
    rule: str = "whole-study",
    segment: Literal["always", "positive", "never"] | None = None,
    series: str | None = None,
    allow_gaps: bool = False,
    drop_odd: bool = False,
    spacing: Sequence[float] | None = None,
    affine: NDArray[np.float64] | None = None,
    device: str = "auto",
    language: str = "en",
) -> CaseResult:
    """Diagnose one study. A research tool, not a medical device. For many, `Diagnoser` loads the weights once.

    >>> import numpy as np
    >>> diagnose(np.zeros((2, 64, 64)))  # without spacing= or affine=
    Traceback (most recent call last):
    ...
    jcs_ct.core.errors.UsageError: an array says nothing of its voxels: spacing or affine is expected, neither was given

    Args:
        study: A file of DICOM, NIfTI, MetaImage or NRRD, a folder or an archive of one study, or pictures of
            lung-windowed slices: a path, or a list of paths. Or what a program holds: a NumPy array of Hounsfield
            units; an image of nibabel or SimpleITK; pydicom's data sets of a series; PIL images of slices, head first.
        model: Name or file of the weights; by default the shipped `jcs-lite`. Two: a classifier (or `jcs-lite`) and a
            segmenter.
        rule: From slices to the patient's verdict, see `jcs_ct.study.settings`.
        segment: Lesions of every study (default with `jcs-lite`), of positive ones (default otherwise), or of none.
        series: The series to take, where there are several: its UID, number or description.
        allow_gaps: Take a volume with missing slices, with a warning.
        drop_odd: Leave out the few images of a series that do not fit the others, with a warning.
        spacing: Of an array with the axes (slice, row, column) from head to feet, front to back, and the patient's
            right to the left: mm between slices, rows, columns.
        affine: Of an array with any axes, in place of `spacing`: 4×4, from indices to mm towards the patient's right,
            front and head, as nibabel has it.
        device: "auto", "cpu", "cuda" or "mps".
        language: Of report.html, as `save` writes it: "en", "de", "fr", "es", "zh" or "ja".

    Returns:
        The result; `result.save(out)` writes its files. It can be pickled and copied; the files that it was read from
        are read again for some of those that `save` writes.

    Raises:
        InputError: It cannot be read, shows no lungs, or holds several studies.
        UsageError: Arguments that do not fit together, or a study of another type; or the process was forked from one
            that had used jcs-ct.
        WeightsError: See `jcs_ct.weights.load`.
    """
    refuse_after_fork()
    ways: Any = {"series": series, "allow_gaps": allow_gaps, "drop_odd": drop_odd}
    case = case_of_object(study, **ways, spacing=spacing, affine=affine)
    return Diagnoser(model, device=device, rule=rule, segment=segment, language=language)._examine(case)
