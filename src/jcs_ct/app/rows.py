"""The lines of `summary.csv`: of a study, however it ended, and of an input that made none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from jcs_ct.app.identity import hashed_uid, place_of, started_in
from jcs_ct.app.resume_index import FinishedCase
from jcs_ct.outputs.report.words import call_of

if TYPE_CHECKING:
    from jcs_ct.app.batch import CaseOutcome
    from jcs_ct.core.errors import InputError


def summary_row(ended: CaseOutcome, *, keep_identity: bool = False) -> dict[str, Any]:
    """Return a study's line of the summary.

    Args:
        ended: How it ended.
        keep_identity: Whether the UIDs of one that failed stand there as they are.
    """
    case = ended.case
    row: dict[str, Any] = {"case": ended.name, "status": ended.status, "kind": case.kind, "slices": len(case)}
    if isinstance(case, FinishedCase):
        row |= {"path": case.path, "started_in": case.started_in}
    else:
        row |= _placed(place_of(case))
        if case.series is not None:
            uids = {"study": case.series.study_uid, "series": case.series.series_uid}
            row |= uids if keep_identity else {name: hashed_uid(uid) for name, uid in uids.items()}
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


def problem_row(problem: InputError, *, keep_identity: bool = False) -> dict[str, Any]:
    """Return the line of the summary for an input, or a study in it, that made no case.

    Args:
        problem: Why.
        keep_identity: Whether the UID of the study stands there as it is.
    """
    row: dict[str, Any] = {"status": "failed", "problem": problem.line()}
    row |= _placed(str(problem.path)) if problem.path else {"path": "", "started_in": ""}
    if problem.study:
        row |= {"kind": "dicom", "study": problem.study if keep_identity else hashed_uid(problem.study)}
    return row


def _placed(path: str) -> dict[str, str]:
    return {"path": path, "started_in": started_in(path)}
