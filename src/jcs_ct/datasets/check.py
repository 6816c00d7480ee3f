"""Look for what is wrong with data sets: every file is read, one at a time; only hashes and fingerprints are kept.

Faults are what makes training fail or its scores untrue: files that are missing or cannot be read, masks that do not
fit, two labels for a slice, and whatever lies on both sides of a division. Warnings are what may be meant so.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.datasets.fingerprint import THRESHOLD, near_pairs, stack_prints
from jcs_ct.datasets.inspection import inspect_all
from jcs_ct.datasets.samples import Dataset, numbered, relative_name
from jcs_ct.io.files.walk import count, few

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from jcs_ct.core.errors import JcsError
    from jcs_ct.datasets.inspection import Inspected, Watch
    from jcs_ct.datasets.samples import Sample

MOST_PAIRS = 10_000
"""So many near duplicates are named; the others are counted."""

_MOVE = "keep all slices of a patient, and all copies of a slice, in one part; `jcs data split` does"


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


@dataclass(frozen=True)
class _Item:
    """A sample with what its messages need."""

    sample: Sample
    name: str
    parts: tuple[tuple[str, str], ...]
    """(division, part): ("split", "train"), ("fold", "fold 2"), ("folder", "/data/a")."""

    def place(self, division: str) -> str:
        part = next((value for family, value in self.parts if family == division), "no part")
        return f"{part} ({self.sample.origin})" if self.sample.origin else part


def check(
    datasets: Dataset | Sequence[Dataset],
    *,
    similarity: float | None = THRESHOLD,
    workers: int = 1,
    watch: Watch | None = None,
) -> CheckReport:
    """Check one data set, or several that must not overlap (each is a part of its own then).

    Args:
        datasets: Opened with `strict=False`, so that what is wrong with the lists is reported with the rest.
        similarity: From where on two pictures are near duplicates (see `fingerprint`); None: they are not looked for.
        workers: Processes that read.
        watch: Is given what is found file by file, and how many files there are; passes it on. For progress bars.

    Raises:
        UsageError: `similarity` is not in (0, 1], or `datasets` is empty.
    """
    sets = [datasets] if isinstance(datasets, Dataset) else list(datasets)
    if not sets:
        raise UsageError("there is no data set to check")
    if similarity is not None and not 0 < similarity <= 1:
        raise UsageError(f"the similarity is {similarity:g}; more than 0 and at most 1 is expected")
    work = _Check(sets)
    work.read(workers, watch)
    work.look_at_contents()
    work.look_at_groups()
    if similarity is not None:
        work.look_for_near_duplicates(similarity)
    return work.report()


class _Check:
    def __init__(self, sets: list[Dataset]) -> None:
        self._sets = sets
        self._items: list[_Item] = []
        self._findings: list[Finding] = []
        self._inspected: dict[Sample, Inspected] = {}
        self._by_content: defaultdict[bytes, list[_Item]] = defaultdict(list)
        self._duplicates: dict[str, Any] = {}
        self._notes = [note for dataset in sets for note in dataset.notes]
        for dataset in sets:
            for sample in dataset.samples:
                name = relative_name(sample.path, dataset.root) if len(sets) == 1 else str(sample.path)
                name = numbered(name, sample.index)
                parts = [("folder", str(dataset.root))] if len(sets) > 1 else []
                parts += [("split", sample.split)] if sample.split else []
                parts += [("fold", f"fold {sample.fold}")] if sample.fold else []
                self._items.append(_Item(sample, name, tuple(parts)))
            self._findings += [self._finding("list", problem) for problem in dataset.problems]

    def read(self, workers: int, watch: Watch | None) -> None:
        """Read every file once, and report what is wrong with it alone."""
        files = list(dict.fromkeys(item.sample.files for item in self._items))
        names = {item.sample.files: item.name for item in self._items}
        for key, found in zip(files, inspect_all(files, workers, watch), strict=True):
            self._inspected[key] = found
            self._findings += [self._finding(kind, problem) for kind, problem in found.faults]
            self._findings += [Finding("doubtful", names[key], note) for note in found.notes]
            if found.lesion == 0 and key.index is None:  # most volumes have slices without lesion
                hint = "if the slice has a lesion, the mask is wrong"
                self._findings.append(Finding("empty-mask", names[key], "has a mask without lesion", hint))
        self._look_at_feature_sizes()
        self._look_at_volumes()
        for item in self._items:
            # A file that cannot be read is still the same file in two lists.
            content = self._of(item).content or str(item.sample.key).encode(errors="surrogateescape")
            self._by_content[content].append(item)

    def _look_at_feature_sizes(self) -> None:
        """Find feature files that could not be put into one batch with the others."""
        for which in (0, 1):  # VGG's, Res2Net's; a file may hold one of them
            shapes = {
                sample.features: found.features[which]
                for sample, found in self._inspected.items()
                if sample.features is not None and found.features is not None and found.features[which] is not None
            }
            usual = Counter(shapes.values()).most_common(1)[0][0] if shapes else None
            for path, shape in shapes.items():
                if shape != usual:
                    text = f"holds features of {_shape(shape)}, most files hold {_shape(usual)}"
                    problem = InputError(text, path=path, hint="write all of them with --half, or none")
                    self._findings.append(self._finding("feature-size", problem))

    def _look_at_volumes(self) -> None:
        """Find volumes whose mask has no lesion in any slice."""
        lesions: defaultdict[str, int] = defaultdict(int)
        for item in self._items:
            lesion = self._of(item).lesion
            if item.sample.index is not None and lesion is not None:
                lesions[item.name.rpartition(", slice ")[0]] += lesion
        for name, pixels in lesions.items():
            if not pixels:
                self._add("empty-mask", name, "has a mask without lesion", "right for a patient without the disease")

    def look_at_contents(self) -> None:
        """Find slices that occur more than once: with two labels, in two parts, or as two files."""
        copies = 0
        for items in self._by_content.values():
            if len(items) < 2:
                continue
            first, names = items[0], list(dict.fromkeys(item.name for item in items))
            copies += len(names) - 1
            same = f"has the same pixels as {few(names[1:])}" if len(names) > 1 else ""
            also = f"{same}, and " if same else ""
            labels = {item.sample.label: item for item in items if item.sample.label is not None}
            if len(labels) > 1:
                said = " and ".join(f"{label} ({labels[label].sample.origin})" for label in sorted(labels))
                self._add("two-labels", first.name, f"{also}has the labels {said}", "keep the right one")
            divided = _divided(items)
            if divided:
                self._add("slice-overlap", first.name, f"{also}is in {' and in '.join(divided.values())}", _MOVE)
            elif same:
                groups = sorted({item.sample.group for item in items if item.sample.group})
                whose = f", in the groups {' and '.join(groups[:3])}" if len(groups) > 1 else ""
                self._add("exact-duplicate", first.name, same + whose, "keep one")
            else:
                where = ", ".join(item.sample.origin for item in items[:3])
                self._add("repeated", first.name, f"is listed {len(items)} times ({where})", "keep one")
        self._duplicates["exact_duplicates"] = copies

    def look_at_groups(self) -> None:
        """Find groups that a division cuts."""
        groups: defaultdict[str, list[_Item]] = defaultdict(list)
        for item in self._items:
            if item.sample.group is not None:
                groups[item.sample.group].append(item)
        for name, items in groups.items():
            for family in dict.fromkeys(family for item in items for family, _ in item.parts):
                parts = Counter(part for item in items for division, part in item.parts if division == family)
                if len(parts) > 1:
                    places = " and in ".join(f"{part} ({count(n, 'slice')})" for part, n in sorted(parts.items()))
                    self._add("group-overlap", f"group {name}", f"is in {places}", _MOVE)

    def look_for_near_duplicates(self, similarity: float) -> None:
        """Compare all slices of different pixels; report those that are of different or unknown groups."""
        contents = [items for items in self._by_content.values() if self._of(items[0]).print is not None]
        prints = stack_prints(self._of(items[0]).print for items in contents)
        found = within = 0
        for some in near_pairs(prints, similarity):
            for i, j, alike in zip(*(values.tolist() for values in some), strict=True):
                one, other = contents[i], contents[j]
                found += 1
                groups = [{item.sample.group for item in items} - {None} for items in (one, other)]
                if groups[0] & groups[1]:  # neighbours in a volume; where a division cuts them, the group is named
                    within += 1
                    continue
                if found - within > MOST_PAIRS:
                    continue
                divided = _divided([*one, *other]) if not (_divided(one) or _divided(other)) else {}
                text = f"is like {other[0].name} ({alike:.3f})"
                if divided:
                    text += f"; they are in {' and in '.join(divided.values())}"
                    self._add("near-overlap", one[0].name, text, f"{_MOVE} with --join-duplicates")
                else:
                    if all(groups):
                        text += f", of the group {min(groups[1], key=str)} instead of {min(groups[0], key=str)}"
                    self._add(
                        "near-duplicate", one[0].name, text, "look at both; `--join-duplicates` keeps them together"
                    )
        self._duplicates |= {
            "near_duplicates": found,
            "near_duplicates_within_a_group": within,
            "near_duplicates_across_groups": found - within,
            "similarity": similarity,
        }
        if found - within > MOST_PAIRS:
            self._notes.append(f"only the first {MOST_PAIRS:,} near duplicates across groups are named")
        if any(item.sample.image is None for item in self._items):
            self._notes.append("stage-1 features are compared exactly; near duplicates are looked for in pictures only")

    def report(self) -> CheckReport:
        """Return everything that was found."""
        order = list(KINDS)
        samples = [item.sample for item in self._items]
        counts: dict[str, Any] = {
            "samples": len(samples),
            "slices": len({sample.key for sample in samples}),
            "masks": len({sample.mask for sample in self._inspected if sample.mask is not None}),
            "groups": len({sample.group for sample in samples if sample.group}),
        }
        if volumes := len({sample.path for sample in samples if sample.index is not None}):
            counts["volumes"] = volumes
        for name in ("label", "source", "split", "fold"):
            values = Counter(getattr(sample, name) for sample in samples)
            del values[None]
            counts[f"{name}s"] = {str(value): values[value] for value in sorted(values)}
        return CheckReport(
            tuple({"root": str(d.root), "layout": d.layout, "task": d.task} for d in self._sets),
            counts,
            tuple(sorted(self._findings, key=lambda finding: order.index(finding.kind))),
            self._duplicates,
            tuple(self._notes),
        )

    def _of(self, item: _Item) -> Inspected:
        return self._inspected[item.sample.files]

    def _add(self, kind: str, path: str, message: str, hint: str) -> None:
        self._findings.append(Finding(kind, path, message, hint))

    def _finding(self, kind: str, problem: JcsError) -> Finding:
        path = problem.path or ""
        if len(self._sets) == 1:
            path = path.removeprefix(f"{self._sets[0].root}/")
        return Finding(kind, path, problem.message, problem.hint)


def _shape(shape: tuple[int, ...] | None) -> str:
    return "×".join(map(str, shape or ()))


def _divided(items: Iterable[_Item]) -> dict[str, str]:
    """Return part → where it is said, for the first division that puts the items into different parts; else {}."""
    parts: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for item in items:
        for division, part in item.parts:
            parts[division].setdefault(part, item.place(division))
    return next((places for places in parts.values() if len(places) > 1), {})


def _escaped(text: object) -> str:
    """Return text that cannot change the table it stands in; file names may hold anything."""
    line = InputError(str(text)).line()
    for character in "\\|`<*_[":
        line = line.replace(character, f"\\{character}")
    return line
