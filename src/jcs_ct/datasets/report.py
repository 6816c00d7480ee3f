"""What a check found, and how it is shown: as data, as plain text, as Markdown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.walk import count

if TYPE_CHECKING:
    from collections.abc import Iterator

KINDS = {
    "list": "wrong in the lists",
    "missing": "missing files",
    "unreadable": "unreadable files",
    "size-mismatch": "masks of another size than their slice",
    "feature-size": "stage-1 features of another size than most",
    "mask-values": "masks with other values than 0 and 255, or 0 and 1, or with lesion everywhere",
    "two-labels": "slices with two labels",
    "slice-overlap": "slices in more than one part of a division",
    "group-overlap": "groups in more than one part of a division",
    "near-overlap": "near duplicates in different parts of a division",
    "empty-mask": "empty masks",
    "repeated": "slices listed more than once",
    "exact-duplicate": "files with equal pixels",
    "near-duplicate": "near duplicates of different or unknown groups",
    "doubtful": "pictures that are doubtful slices",
}
"""Kind of finding → what its heading says. A kind is always a fault, or always a warning."""

WARNINGS = frozenset({"empty-mask", "repeated", "exact-duplicate", "near-duplicate", "doubtful"})
"""What may be meant so. Everything else is a fault."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found: its kind (of `KINDS`), the file, group or line it is about, what to do about it."""

    kind: str
    path: str
    message: str
    hint: str | None = None

    @property
    def fault(self) -> bool:
        """Whether it has to be put right."""
        return self.kind not in WARNINGS

    def error(self) -> InputError:
        """Return it as the error that it is on the command line."""
        return InputError(self.message, path=self.path, hint=self.hint)


@dataclass(frozen=True)
class CheckReport:
    """All that a check found.

    Attributes:
        datasets: Root, layout and task of each data set.
        counts: How many slices, files, groups …; how many of each label, source, split and fold.
        findings: Everything that was found, in the order of `KINDS`.
        duplicates: The threshold, and numbers of exact and near duplicates, those within one group among them.
        notes: What a user should know.
    """

    datasets: tuple[dict[str, Any], ...]
    counts: dict[str, Any]
    findings: tuple[Finding, ...]
    duplicates: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def faults(self) -> tuple[Finding, ...]:
        """What has to be put right."""
        return tuple(finding for finding in self.findings if finding.fault)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What may be meant so."""
        return tuple(finding for finding in self.findings if not finding.fault)

    @property
    def ok(self) -> bool:
        """Whether there is no fault."""
        return not self.faults

    def of(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    def as_dict(self) -> dict[str, Any]:
        """Return it as values that JSON can hold."""
        return {
            "ok": self.ok,
            "datasets": list(self.datasets),
            "counts": self.counts,
            "duplicates": self.duplicates,
            "findings": [asdict(finding) | {"fault": finding.fault} for finding in self.findings],
            "notes": list(self.notes),
        }

    def as_text(self, limit: int | None = 20) -> str:
        """Return it as plain text, at most `limit` findings of a kind."""
        lines = [f"{dataset['root']}: {dataset['layout']}" for dataset in self.datasets]
        lines += [f"  {name}: {text}" for name, text in self._figures()]
        lines += [f"  note: {note}" for note in self.notes]
        for title, findings in self._sections():
            lines += ["", title]
            lines += [f"  {finding.error().line()}" for finding in findings[:limit]]
            if limit is not None and len(findings) > limit:
                lines.append(f"  … and {len(findings) - limit:,} more")
        return "\n".join([*lines, "", self._verdict()])

    def as_markdown(self, limit: int | None = 200) -> str:
        """Return it as Markdown, at most `limit` findings of a kind."""
        lines = ["# Check of the data", "", self._verdict(), "", "| | |", "| --- | --- |"]
        lines += [f"| {dataset['layout']} | {_escaped(dataset['root'])} |" for dataset in self.datasets]
        lines += [f"| {name} | {_escaped(text)} |" for name, text in self._figures()]
        lines += ["", *(f"- {_escaped(note)}" for note in self.notes)]
        for title, findings in self._sections():
            lines += ["", f"## {title}", "", "| what | found |", "| --- | --- |"]
            lines += [f"| {_escaped(f.path)} | {_escaped(f.message)} |" for f in findings[:limit]]
            if limit is not None and len(findings) > limit:
                lines.append(f"| … | and {len(findings) - limit:,} more, in report.json |")
        return "\n".join(lines) + "\n"

    def _sections(self) -> Iterator[tuple[str, tuple[Finding, ...]]]:
        for kind, title in KINDS.items():
            findings = self.of(kind)
            if findings:
                yield f"{'warning' if kind in WARNINGS else 'FAULT'}: {title} ({len(findings):,})", findings

    def _figures(self) -> Iterator[tuple[str, str]]:
        for name, value in {**self.counts, **self.duplicates}.items():
            if isinstance(value, dict):
                if value:
                    yield name.replace("_", " "), ", ".join(f"{key} {number:,}" for key, number in value.items())
            elif value is not None:
                yield name.replace("_", " "), f"{value:,}"

    def _verdict(self) -> str:
        faults, warnings = len(self.faults), len(self.warnings)
        return f"{count(faults, 'fault') if faults else 'no fault'}, {count(warnings, 'warning')}"


def _escaped(text: object) -> str:
    """Return text that cannot change the table it stands in; file names may hold anything."""
    line = InputError(str(text)).line()
    for character in "\\|`<*_[":
        line = line.replace(character, f"\\{character}")
    return line
