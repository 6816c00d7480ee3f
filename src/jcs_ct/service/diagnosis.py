"""One study of the service through `jcs diagnose`: the same door, the same files."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError, OutputError
from jcs_ct.service.files import STUDY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from jcs_ct.service.settings import DiagnosisSettings

VERDICT = ("call", "positive", "score", "limit", "rule", "text", "reliable", "reasons")


class StudyRunner:
    """Loads the weights once and looks at one study after the other. Raises WeightsError or UsageError."""

    def __init__(self, how: DiagnosisSettings) -> None:
        from jcs_ct.inference import open_network
        from jcs_ct.models import RESULTS
        from jcs_ct.study.settings import Networks, Settings

        self._how = how
        models: tuple[str | None, ...] = how.models or (None,)
        self._networks = Networks.of([open_network(m, how.device, RESULTS, how.runtime) for m in models])
        segment: Any = how.segment or self._networks.usual_segment
        self._settings = Settings(how.rule, segment, language=how.language)

    def __call__(self, folder: Path, out: Path, progress: Callable[[int, int], object] | None = None) -> dict[str, Any]:
        """Diagnose the study that was sent into `folder`, into `out/study/`; return what the record keeps of it.

        `progress` is called with (slices done, slices in all), in another thread. Raises JcsError as `jcs diagnose`
        would; paths are relative to `folder`.
        """
        from jcs_ct.app.batch import diagnose_cases
        from jcs_ct.app.gather import gather

        out = out.resolve()
        with _inside(folder):  # so that neither results nor errors tell where the service keeps things
            reading: Any = {"series": None, "allow_gaps": self._how.allow_gaps, "drop_odd": False}
            found = gather([STUDY], **reading)
            if not found.cases:
                raise found.problems[0] if found.problems else InputError("no study to work on", path=STUDY)
            if len(found.cases) > 1:
                kinds = ", ".join(sorted({case.kind for case in found.cases}))
                raise InputError(
                    f"holds {len(found.cases)} studies or series that could be read ({kinds}), one is expected",
                    path=STUDY,
                    hint="send each of them alone",
                )
            case = replace(found.cases[0], name=STUDY)
            self._networks.expect(len(case))  # the runtime that `jcs diagnose` would take for this study
            reading["keep_identity"] = self._how.keep_identity
            given: Any = {"overwrite": True, "reading": reading, "progress": progress}
            given["place"] = str  # changes no text, and has the report keep silent about where files lie
            (ended,) = diagnose_cases([case], self._networks, self._settings, out, **given)
        if ended.error is not None:
            raise ended.error
        report = ended.report
        if report is None:
            raise OutputError("was looked at without a result", path=STUDY)
        notes = [*found.notes, *(problem.line() for problem in found.problems), *report["warnings"]]
        burden = report["burden"] or {}
        return {
            "kind": report["input"]["kind"],
            "slices": report["input"]["slices"],
            "verdict": {name: report["verdict"][name] for name in VERDICT},
            "lesion_ml": burden.get("lesion_ml"),
            "severity": (burden.get("severity") or {}).get("name"),
            "notes": list(dict.fromkeys(notes)),
            "seconds": report["seconds"],
        }


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:
    """Work inside a folder. A worker has one study at a time, and nothing else that depends on where it is."""
    before = os.getcwd()  # noqa: PTH109  # what chdir goes back to
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
