"""Many studies in one call: weights loaded once, a bad study stops no other, a killed run goes on where it was."""

from __future__ import annotations

import gc
import json
import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from jcs_ct.app.identity import identify, place_of, unchanged
from jcs_ct.app.locks import case_lock
from jcs_ct.app.next_series import case_after, examine_with_lungs
from jcs_ct.app.resume_index import FinishedCase, record_files, untouched_cases
from jcs_ct.core.errors import InputError, JcsError, OutputError, unforeseen
from jcs_ct.core.version import __version__
from jcs_ct.outputs.report.words import call_of
from jcs_ct.study.settings import rule_fit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from jcs_ct.study.case import Case
    from jcs_ct.study.rules import Rule
    from jcs_ct.study.settings import Networks, Settings


@dataclass(frozen=True)
class CaseOutcome:
    """How a study ended.

    Attributes:
        case: What was looked at.
        status: "done", "kept" (finished by an earlier run) or "failed".
        report: What `report.json` holds; None where it failed.
        error: Why it failed.
        note: Why an earlier result was made again, or "".
        details: The traceback of a problem that was not foreseen, else "".
    """

    case: Case | FinishedCase
    status: str
    report: dict[str, Any] | None
    error: JcsError | None = None
    note: str = ""
    details: str = ""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name

    @property
    def label(self) -> str:
        """What a message calls it."""
        return self.case.label


def diagnose_cases(
    cases: Sequence[Case],
    networks: Networks,
    settings: Settings,
    out: Path,
    *,
    patient_rule: Rule | None = None,
    overwrite: bool = False,
    resume: bool = False,
    keep_identity: bool = False,
    progress: Callable[[int, int], object] | None = None,
    place: Callable[[str], str] | None = None,
) -> Iterator[CaseOutcome]:
    """Diagnose every case and write its folder; yield how each ended.

    A case that another run is computing into the same folder is left for the end, and then taken as that run left it.

    Args:
        cases: With distinct names.
        networks: What runs.
        settings: How.
        out: Holds a folder for each case.
        patient_rule: The rule, where it is not the usual one of its name.
        overwrite: Replace folders that exist.
        resume: Keep folders that an earlier run has made from the same input with the same weights and settings.
        keep_identity: Whether UIDs stand in the report as they are.
        progress: Called with (slices done, slices in all) of the study at hand, in another thread.
        place: Puts into a text where the inputs came from, in place of where they lie for now; such results are told
            again by whoever fetched the inputs.
    """
    job = Job(networks, settings, out, patient_rule, overwrite, resume, keep_identity, progress, place)
    gc.freeze()  # what is loaded is no garbage
    waiting = []
    for case in cases:
        lock = case_lock(out, case.name)
        try:
            lock.acquire(blocking=False)
        except Timeout:
            waiting.append(case)
            continue
        try:
            yield job.run(case)
        finally:
            lock.release()
    job.resume = job.resume or not overwrite
    for case in waiting:
        with case_lock(out, case.name):  # waits for the other run
            yield job.run(case)


@dataclass
class Job:
    """What cases are diagnosed with; `diagnose_cases` says what the fields are."""

    networks: Networks
    settings: Settings
    out: Path
    patient_rule: Rule | None = None
    overwrite: bool = False
    resume: bool = False
    keep_identity: bool = False
    progress: Callable[[int, int], object] | None = None
    place: Callable[[str], str] | None = None
    looked: int = 0

    def run(self, case: Case) -> CaseOutcome:
        """Return how a case ended; whatever one study meets, the others must still finish."""
        try:
            return self._run(case)
        except JcsError as error:
            return CaseOutcome(case, "failed", None, error if self.place is None else moved(error, self.place))
        except Exception as error:  # noqa: BLE001  # see above
            return CaseOutcome(case, "failed", None, unforeseen(error, case.label), details=traceback.format_exc())

    def _run(self, case: Case) -> CaseOutcome:
        note, overwrite = "", self.overwrite
        if self.resume and not overwrite:
            kept, note = reusable_report(self.out / case.name, case, self.networks, self.settings)
            if kept is not None:
                record_files(self.out, case, kept)
                return CaseOutcome(case, "kept", kept)
            overwrite = bool(note)
        if self.looked == 1:  # one study alone does not wait for it
            freeze_what_is_loaded()
        self.looked += 1
        stamped = identify(case, keep_identity=self.keep_identity)  # before: what changes meanwhile shows
        looked_at, result = examine_with_lungs(case, self.networks, self.settings, self.patient_rule, self.progress)
        if looked_at is not case:
            stamped = identify(looked_at, keep_identity=self.keep_identity)
        if self.place is not None:
            stamped = replace(stamped, path=self.place(stamped.path), stamp="")
            result.report.update({name: _moved_in(value, self.place) for name, value in result.report.items()})
        result.report["source"] = stamped.to_dict()
        folder = result.save(self.out, overwrite=overwrite)
        del result  # or it would stay until the next study is looked at
        report = read_report(folder)
        record_files(self.out, case, report)
        return CaseOutcome(case, "done", report, note=note)


def freeze_what_is_loaded() -> None:
    """Keep Python from searching what is loaded by now, all libraries, for garbage: 0.2 s every other study."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def reusable_report(
    folder: Path, case: Case, networks: Networks, settings: Settings
) -> tuple[dict[str, Any] | None, str]:
    """Return the report of a case that an earlier run has finished, or None, and why it has to be made again.

    Args:
        folder: Of its results.
        case: The input as it is now.
        networks: What runs now.
        settings: How.

    Returns:
        The report where input, weights, rule, thresholds and version are the same. None and "" where there is none.

    Raises:
        OutputError: It is no report.
        InputError: The input cannot be read.
    """
    if not (folder / "report.json").exists():
        return None, ""
    report = read_report(folder)
    differ = changed_settings(report, networks, settings)
    recorded = report.get("source")
    then = None if recorded is None else case_after(case, recorded.get("passed", 0))
    if recorded is None or then is None or not unchanged(then, recorded):
        differ.insert(0, "input")
    if differ:
        return None, f"was made with another {', '.join(differ)}, so it is made again"
    return report, ""


def reusable_cases(out: Path, networks: Networks, settings: Settings) -> list[FinishedCase]:
    """Return the finished cases in `out` that the same networks and settings made, of files that were not touched."""

    def same(folder: Path) -> dict[str, Any] | None:
        report = read_report(folder)
        return None if changed_settings(report, networks, settings) else report

    return list(untouched_cases(out, same))


def changed_settings(report: dict[str, Any], networks: Networks, settings: Settings) -> list[str]:
    """Return in what a result differs from one that would be made now, its input aside."""
    before = {
        "weights": report["model"]["weights_sha256"],
        "segmenter": _weights(report.get("segmenter")),
        "patient rule": report["settings"]["rule"],
        "fit of the patient rule": report["settings"].get("rule_fit"),
        "language": report["settings"].get("language", "en"),
        "choice of files": settings.pdf and "pdf" in report.get("files", {}),
        "choice of lesions": report["settings"]["segment"],
        "threshold": report["model"]["covid_threshold"],
        "version": report["jcs_ct_version"],
    }
    return [what for what, now in made_with(networks, settings).items() if before[what] != now]


def made_with(networks: Networks, settings: Settings) -> dict[str, Any]:
    """Return what a result depends on, its input aside."""
    screen, segmenter = networks.screen, networks.separate_segmenter
    return {
        "weights": screen.card.weights_sha256,
        "segmenter": segmenter and segmenter.card.weights_sha256,
        "patient rule": settings.rule,
        "fit of the patient rule": rule_fit(screen.card),
        "language": settings.language,
        "choice of files": settings.pdf,
        "choice of lesions": settings.segment,
        "threshold": screen.covid_threshold,
        "version": __version__,
    }


def moved(error: JcsError, place: Callable[[str], str]) -> JcsError:
    """Return an error that names the place a user knows."""
    return type(error)(place(error.message), path=None if error.path is None else place(error.path), hint=error.hint)


def _moved_in(value: Any, place: Callable[[str], str]) -> Any:
    """Return a part of a report with every text of it changed by `place`."""
    if isinstance(value, str):
        changed = place(value)
        return value if changed == value else changed  # a warning keeps its code
    if isinstance(value, dict):
        return {name: _moved_in(one, place) for name, one in value.items()}
    return [_moved_in(one, place) for one in value] if isinstance(value, list) else value


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of a finished case. Raises OutputError where it holds something else."""
    path = folder / "report.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = report["model"]["weights_sha256"], report["settings"]["rule"], report["verdict"]["score"]
        _ = _weights(report.get("segmenter"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            "is not the report of a study", path=path, hint="remove the folder, or use --overwrite"
        ) from error
    return report


def _weights(segmenter: dict[str, str] | None) -> str | None:
    """Return the digest of a report's `segmenter`, which is null, or absent in older reports, where there was none."""
    return None if segmenter is None else segmenter["weights_sha256"]


def summary_row(ended: CaseOutcome) -> dict[str, Any]:
    """Return a study's line of the summary."""
    row: dict[str, Any] = {"case": ended.name, "status": ended.status}
    path = ended.case.path if isinstance(ended.case, FinishedCase) else place_of(ended.case)
    row |= {"path": path, "kind": ended.case.kind, "slices": len(ended.case)}
    if ended.report is not None:
        verdict, burden = ended.report["verdict"], ended.report["burden"] or {}
        row |= {name: verdict[name] for name in ("positive", "score", "limit", "rule", "reliable")}
        row["verdict"] = call_of(verdict)
        row |= {"slices": ended.report["input"]["slices"], "seconds": ended.report["seconds"]}
        row |= {"lesion_ml": burden.get("lesion_ml", ""), "lesion_share": burden.get("share", "")}
        source = ended.report.get("source") or {}
        row |= {name: source.get(name, "") for name in ("study", "series")}
        row["reasons"] = "; ".join(verdict["reasons"])
        row["severity"] = (burden.get("severity") or {}).get("name", "")
    if ended.error is not None:
        row["problem"] = ended.error.line()
    return row


def problem_row(problem: InputError) -> dict[str, Any]:
    """Return the line of the summary for an input that made no study."""
    return {"status": "failed", "problem": problem.line(), "path": str(problem.path or "")}
