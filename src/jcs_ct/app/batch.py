"""Many studies in one call: weights loaded once, a bad study stops no other, a killed run goes on where it was."""

from __future__ import annotations

import csv
import gc
import io
import json
import traceback
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError, JcsError, OutputError, unforeseen
from jcs_ct.core.whole_files import write_whole
from jcs_ct.study.examine import examine
from jcs_ct.study.report import segmenter_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from jcs_ct.study.case import Case
    from jcs_ct.study.rules import Rule
    from jcs_ct.study.settings import Networks, Settings

COLUMNS = (
    "case", "status", "positive", "score", "limit", "rule", "reliable", "slices", "lesion_ml", "lesion_share",
    "severity", "seconds", "problem",
)  # fmt: skip


@dataclass(frozen=True)
class Ended:
    """How a study ended.

    Attributes:
        name: Of the case.
        label: What a message calls it.
        status: "done", "kept" (finished by an earlier run) or "failed".
        report: What its `report.json` holds; None if it failed.
        error: Why it failed.
        details: The traceback of a problem that was not foreseen, else "".
    """

    name: str
    label: str
    status: str
    report: dict[str, Any] | None
    error: JcsError | None = None
    details: str = ""


def diagnose_cases(
    cases: Sequence[Case],
    networks: Networks,
    settings: Settings,
    out: Path,
    *,
    patient_rule: Rule | None = None,
    overwrite: bool = False,
    resume: bool = False,
) -> Iterator[Ended]:
    """Diagnose every case and write its folder; yield how each ended.

    Args:
        cases: With distinct names.
        networks: What runs.
        settings: How.
        out: Holds a folder for each case.
        patient_rule: The rule, where it is not the usual one of its name.
        overwrite: Replace folders that exist.
        resume: Keep folders that an earlier run with the same weights and settings has finished.
    """
    looked = 0
    gc.freeze()  # what is loaded is no garbage
    for case in cases:
        try:
            kept = finished(out / case.name, networks, settings) if resume and not overwrite else None
            if kept is not None:
                yield Ended(case.name, case.label, "kept", kept)
                continue
            if looked == 1:  # one study alone does not wait for it
                settle()
            looked += 1
            result = examine(case, networks, settings, patient_rule)
            folder = result.save(out, overwrite=overwrite)
            del result  # or it would stay until the next study is looked at
            yield Ended(case.name, case.label, "done", read_report(folder))
        except JcsError as error:
            yield Ended(case.name, case.label, "failed", None, error)
        except Exception as error:  # noqa: BLE001  # whatever one study meets, the others must still finish
            yield Ended(case.name, case.label, "failed", None, unforeseen(error, case.label), traceback.format_exc())


def settle() -> None:
    """Keep Python from searching what is loaded by now, all libraries, for garbage: 0.2 s every other study."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def finished(folder: Path, networks: Networks, settings: Settings) -> dict[str, Any] | None:
    """Return the report of a case that an earlier run has finished, or None where there is none.

    Raises:
        OutputError: It was made with other weights or settings, or is no report.
    """
    if not (folder / "report.json").exists():
        return None
    report = read_report(folder)
    same = (
        report["model"]["weights_sha256"] == networks.screen.card.weights_sha256
        and _weights(report.get("segmenter")) == _weights(segmenter_of(networks))
        and report["settings"]["rule"] == settings.rule
        and report["settings"]["segment"] == settings.segment
    )
    if not same:
        raise OutputError(
            "was made with other weights or settings", path=folder, hint="use --overwrite, or another output folder"
        )
    return report


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of a finished case. Raises OutputError where it holds something else."""
    path = folder / "report.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = report["model"]["weights_sha256"], report["settings"]["rule"], report["verdict"]["score"]
        _ = _weights(report.get("segmenter"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError("is no report of a study", path=path, hint="remove the folder, or use --overwrite") from error
    return report


def _weights(segmenter: dict[str, str] | None) -> str | None:
    """Return the digest of a report's `segmenter`, which is null, or absent in older reports, where there was none."""
    return None if segmenter is None else segmenter["weights_sha256"]


def summary_row(ended: Ended) -> dict[str, Any]:
    """Return a study's line of the summary."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "") | {"case": ended.name, "status": ended.status}
    if ended.report is not None:
        verdict, burden = ended.report["verdict"], ended.report["burden"] or {}
        row |= {name: verdict[name] for name in ("positive", "score", "limit", "rule", "reliable")}
        row |= {"slices": ended.report["input"]["slices"], "seconds": ended.report["seconds"]}
        row |= {"lesion_ml": burden.get("lesion_ml", ""), "lesion_share": burden.get("share", "")}
        row["severity"] = (burden.get("severity") or {}).get("name", "")
    if ended.error is not None:
        row["problem"] = ended.error.line()
    return row


def write_summary(path: Path, rows: Sequence[dict[str, Any]], problems: Sequence[InputError]) -> None:
    """Write `summary.csv`: a line for each study, and one for each input that gave none."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in rows)
    for problem in problems:
        writer.writerow(dict.fromkeys(COLUMNS, "") | {"status": "failed", "problem": problem.line()})
    write_whole(path, text.getvalue().encode(), overwrite=True)
