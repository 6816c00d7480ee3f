"""How `jcs diagnose` ends: a line for each of several studies, whatever became of it, and what to open."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jcs_ct.outputs.report.words import call_of

if TYPE_CHECKING:
    from pathlib import Path

    from jcs_ct.app.batch import CaseOutcome
    from jcs_ct.core.errors import JcsError

_HEAD = ("case", "verdict", "score (interval)", "reliable", "lesions", "grade", "report")


class Closing:
    """Collects what the last lines say.

    Args:
        out: Folder of the results.
    """

    def __init__(self, out: Path) -> None:
        self._out = out
        self._rows: list[tuple[str, ...]] = []
        self._pages: list[Path] = []

    def problem(self, problem: JcsError) -> None:
        """Add an input that made no study."""
        self._rows.append(("–", "failed", "", "", "", "", problem.path or ""))

    def study(self, ended: CaseOutcome) -> None:
        """Add a study."""
        if ended.report is None:
            self._rows.append((ended.name, "failed", "", "", "", "", ended.case.label))
            return
        verdict, burden = ended.report["verdict"], ended.report["burden"] or {}
        interval = "" if verdict.get("interval") is None else " ({:.2f} to {:.2f})".format(*verdict["interval"])
        page = self._out / ended.name / ended.report["files"].get("html", "report.json")
        self._pages.append(page)
        self._rows.append(
            (
                ended.name,
                call_of(verdict),
                f"{verdict['score']:.2f}{interval}",
                "yes" if verdict["reliable"] else "NO",
                "" if burden.get("lesion_ml") is None else f"{burden['lesion_ml']:.1f} ml",
                (burden.get("severity") or {}).get("name", ""),
                str(page),
            )
        )

    def table(self) -> str:
        """Return the table of several studies; "" where there is only one, whose line was said."""
        if len(self._rows) < 2:
            return ""
        rows = [_HEAD, *self._rows]
        widths = [max(len(row[i]) for row in rows) for i in range(len(_HEAD))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        return "\n".join(["", *(line.rstrip() for line in lines)])

    def last(self) -> str:
        """Return what to open now; "" where nothing was made."""
        if len(self._rows) == len(self._pages) == 1:
            return f"Open {self._pages[0]}"
        if not self._pages:
            return ""
        return f"Open a report of the table above; all numbers are in {self._out / 'summary.csv'}"
