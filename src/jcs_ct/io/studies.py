"""From the INPUT arguments of a command to CT volumes: one series of each study, chosen by stated rules.

**How a series is chosen.** Of the series of a study, those count that can be read as a volume: CT, axial, one grid, no
localizer, no secondary capture, no projection, upright gantry, no missing slices (unless allowed), Hounsfield units.
Among them, in this order: one that shows lung; original before derived; more slices; thinner slices; the lower series
number; the lower UID. A NIfTI, MetaImage or NRRD file is a study of its own. A DICOM study of which no series can be
read is a problem, one line for the study; a series that was not chosen is listed with the reason.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any, Protocol

from jcs_ct.core.errors import InputError, printable
from jcs_ct.core.geometry import OtherSeries
from jcs_ct.core.warning import CodedWarning
from jcs_ct.io.dicom.checks import is_original, join_single_slices, not_joined, plane_of, unsuitable
from jcs_ct.io.dicom.series import case_name, open_next, open_series, place, without_strays
from jcs_ct.io.files.kinds import FOR_STUDIES, GRIDS, SLICES, Kind
from jcs_ct.io.files.names import safe_name, tell_apart
from jcs_ct.io.files.sources import Source, find_sources
from jcs_ct.io.files.walk import count, few
from jcs_ct.io.plausibility import NO_LUNG, sample_of, shows_lung

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.io.dicom.header import ImageHeader
    from jcs_ct.io.dicom.series import Opened

READERS = {
    Kind.NIFTI: "jcs_ct.io.nifti.volume:read_nifti",
    Kind.METAIMAGE: "jcs_ct.io.volumes.metaimage:read_metaimage",
    Kind.NRRD: "jcs_ct.io.volumes.nrrd:read_nrrd",
}
"""What reads a volume that is one file, by its kind; imported when one comes."""
_LISTS = "jcs inspect lists them"


class LacksSeriesError(InputError):
    """A study that does not hold the series that was asked for."""


class FinishedStudy(Protocol):
    """A study that need not be read again unless there are new files of it."""

    @property
    def files(self) -> frozenset[tuple[str, str | None]]:
        """Path in full, and member of an archive, of all its files."""

    def holds(self, study: str) -> bool:
        """Return whether a file may belong to it: by the UID of its study, or by its folder (or "archive!")."""


@dataclass(frozen=True)
class SeriesRow:
    """One series that was found, for a list. Nothing in it names the patient.

    Attributes:
        study: Number of its study in this call, from 1.
        name: As `CTSeries.name`.
        label: A file of it, or the folder it lies in.
        kind: "dicom", "nifti", "metaimage" or "nrrd".
        modality: "CT" …; "" where the header does not say.
        number: Series number, or None.
        orientation: "axial", "sagittal", "coronal", "oblique", "unknown".
        slices: Images or slices.
        size: (rows, columns), or None.
        spacing: mm between slices, rows, columns; None where unknown.
        chosen: Whether it is among `FoundSeries.series`.
        reason: Why not, else "".
        warnings: As `CTSeries.warnings`.
    """

    study: int
    name: str
    label: str
    kind: str
    modality: str
    number: int | None
    orientation: str
    slices: int
    size: tuple[int, int] | None
    spacing: tuple[float, float, float] | None
    chosen: bool = False
    reason: str = ""
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class FoundSeries:
    """What the inputs of a command come to.

    Attributes:
        series: The chosen volumes: DICOM studies, then volumes in one file, each in the order of the inputs.
        problems: What cannot be used: files, and studies without a usable series; one line each.
        notes: What a user should know, a line each.
        rows: Every series that was found, chosen or not.
        settled: Positions of the `settled` studies that were left out.
        pictures: Slices and feature files that lay there too (`jcs_ct.io.files.kinds.SLICES`).
    """

    series: tuple[CTSeries, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]
    rows: tuple[SeriesRow, ...]
    pictures: tuple[Source, ...] = ()
    settled: tuple[int, ...] = ()

    @property
    def others(self) -> tuple[SeriesRow, ...]:
        """The series that were not chosen, each with its reason."""
        return tuple(row for row in self.rows if not row.chosen)


def find_series(
    inputs: Sequence[str | Path],
    *,
    series: str | None = None,
    allow_gaps: bool = False,
    drop_odd: bool = False,
    settled: Sequence[FinishedStudy] = (),
) -> FoundSeries:
    """Return the CT volumes that `inputs` name: one a study, chosen as the module says.

    Headers are read here, and the pixels of three slices of each volume; all other pixels when a slice is asked for.

    Args:
        inputs: Files, folders, zip archives and lists.
        series: Take this series instead: its UID, number, description, or the name of its case. What cannot be read as
            a volume stays refused. A DICOM study without such a series is a problem.
        allow_gaps: Accept missing slices and uneven distances, with a warning that says where.
        drop_odd: Leave out the few images of a series that do not fit the others, with a warning.
        settled: Studies that are left out where all their files are there, and no others of them.
    """
    found = find_sources(inputs, FOR_STUDIES)
    by_file = {(str(s.path.resolve()), s.member): s for s in found.sources} if settled else {}
    out = {i: study for i, study in enumerate(settled) if study.files <= by_file.keys()}
    skipped = {id(by_file[file]) for study in out.values() for file in study.files}
    ways = {"allow_gaps": allow_gaps, "drop_odd": drop_odd}
    finder = _Finder(series, ways, list(found.problems), list(found.notes))
    sources = [source for source in found.sources if id(source) not in skipped]
    finder.add_dicom([source for source in sources if source.kind is Kind.DICOM], out, by_file)
    for source in sources:
        if source.kind in GRIDS:
            finder.add_volume(source)
    pictures = tuple(source for source in sources if source.kind in SLICES)
    return replace(finder.result(pictures, nothing_else=not out), settled=tuple(out))


def find_series_in(
    sources: Sequence[Source], *, series: str | None = None, allow_gaps: bool = False, drop_odd: bool = False
) -> FoundSeries:
    """Return the CT volumes that DICOM files make which are at hand already. Arguments as in `find_series`."""
    finder = _Finder(series, {"allow_gaps": allow_gaps, "drop_odd": drop_odd}, [], [])
    finder.add_dicom(sources)
    return finder.result(())


def _folder(source: Source) -> str:
    """Return what a study without a UID is known by, its folder or archive in full, as `Settled.holds` takes it."""
    path = source.path.resolve()
    return f"{path}!" if source.member is not None else str(path.parent)


def _numbers(groups: Iterable[Sequence[ImageHeader]]) -> str:
    """Return the numbers of series for a message."""
    numbers = sorted({group[0].number for group in groups if group[0].number is not None})
    return f"series numbers here: {few([str(number) for number in numbers]) or 'none'}"


def _on_disk(folder: Path, parts: Sequence[str]) -> Path | None:
    """Return a file that is named by folders and name, however the disk writes them; None where there is none."""
    for change in (str, str.lower, str.upper):
        path = folder.joinpath(*map(change, parts))
        if path.is_file():
            return path
    return None


class _Candidate:
    """A series of a study on its way to being chosen."""

    def __init__(self, row: SeriesRow, images: list[ImageHeader]) -> None:
        self.row, self.images = row, images
        self.opened: Opened | None = None
        self.problem: InputError | None = None

    @property
    def rank(self) -> tuple[bool, int, float, float, str]:
        """What is read first sorts first."""
        first = self.images[0]
        number = float("inf") if first.number is None else first.number
        return not is_original(self.images), -len(self.images), first.thickness or 0.0, number, first.series

    def explained_row(self, best: _Candidate | None, *, asked: bool) -> SeriesRow:
        """Return the row, with why it was not chosen."""
        if self is best and self.opened is not None:
            return _chosen_row(self.row, self.opened.series)
        if self.row.reason:
            return self.row
        if not asked:
            return replace(self.row, reason="another series was asked for")
        if self.problem is not None:
            return replace(self.row, reason=getattr(self.problem, "reason", self.problem.message))
        # Nobody looked at it so far, where it is not open.
        if self.opened is None and (reasons := unsuitable(without_strays(self.images)[0])):
            return replace(self.row, reason="; ".join(reasons))
        assert best is not None  # noqa: S101  # this one could be opened, or was not looked at after the best one
        return replace(self.row, reason=self._why_not(best))

    def _why_not(self, best: _Candidate) -> str:
        number = best.row.number
        chosen = f"series {number}" if number is not None else "the chosen one"
        if self.opened is not None and not self.opened.lungs and best.opened is not None and best.opened.lungs:
            return f"shows no lung, {chosen} does"
        mine, theirs = self.rank, best.rank
        if mine[0] != theirs[0]:
            return f"is derived, {chosen} is original"
        if mine[1] != theirs[1]:
            return f"has fewer slices than {chosen}"
        return f"is thicker than {chosen}" if mine[2] != theirs[2] else f"comes after {chosen}"


def _series_row(study: int, name: str, images: Sequence[ImageHeader], *, usable: bool) -> SeriesRow:
    """Return the row of a series, from the headers of its images (`usable`), or of its other objects."""
    first = images[0]
    planes = [plane_of(image) for image in images] if usable else ["unknown"]
    distance = first.distance or first.thickness
    spacing = (distance, first.spacing[0], first.spacing[1]) if distance and first.spacing is not None else None
    reason = ""
    if not usable and first.modality == "CT":
        reason = "does not say how large its images are (Rows, Columns)"
    elif not usable:
        reason = f"holds no CT images, only {_modality_of(first)}"
    return SeriesRow(
        study=study,
        name=name,
        label=first.source.label,
        kind="dicom",
        modality=_modality_of(first) if first.modality else "",
        number=first.number,
        orientation=max(set(planes), key=planes.count),
        slices=len(images) if usable else 0,
        size=(first.rows, first.columns) if usable else None,
        spacing=spacing,
        reason=reason,
    )


def _chosen_row(row: SeriesRow, series: CTSeries) -> SeriesRow:
    """Return the row of a series that was chosen: what was read counts, not what the headers promise."""
    shape = series.geometry.shape
    return replace(
        row,
        name=series.name,
        label=series.label,
        orientation="axial",
        slices=shape[0],
        size=(shape[1], shape[2]),
        spacing=series.geometry.spacing,
        chosen=True,
        reason="",
        warnings=series.warnings,
    )


def _modality_of(header: ImageHeader) -> str:
    """Return the modality for a message; what is no code is not repeated."""
    word = header.modality
    return word if word.isascii() and word.isalnum() and len(word) <= 16 else "an object without a modality"


def _modalities(headers: Iterable[ImageHeader]) -> str:
    return ", ".join(sorted({_modality_of(header) for header in headers}))


class _Finder:
    def __init__(self, wanted: str | None, ways: dict[str, bool], problems: list[InputError], notes: list[str]) -> None:
        self._wanted, self._ways = wanted, ways
        self._problems, self._notes = problems, notes
        self._series: list[CTSeries] = []
        self._rows: list[SeriesRow] = []
        self._studies = 0
        self._numbers: set[int] = set()
        self._divided: set[str] = set()  # UIDs of series that stand in several studies
        self._matched = False
        self._lacking = 0

    def result(self, pictures: tuple[Source, ...], *, nothing_else: bool = True) -> FoundSeries:
        """Return the whole; names in the rows are told apart. That there is no volume at all is a problem."""
        series = tuple(self._series)
        names = iter(tell_apart([(one.name, "") for one in series]))
        rows = tuple(replace(row, name=next(names)) if row.chosen else row for row in self._rows)
        if self._wanted is not None and rows and not (self._matched or self._lacking):
            self._problems.append(LacksSeriesError(f"no series is called {self._wanted}; {_numbers(())}", hint=_LISTS))
        if not series and not self._problems and not pictures and nothing_else:
            what = "; ".join(f"{row.label}: {row.reason}" for row in rows[:1])
            self._problems.append(InputError(f"no CT volume to work on{f' ({what})' if what else ''}"))
        return FoundSeries(
            series, tuple(self._problems), tuple(printable(note) for note in self._notes), rows, pictures
        )

    def add_volume(self, source: Source) -> None:
        """Add the volume in a NIfTI, MetaImage or NRRD file."""
        self._studies += 1
        row = SeriesRow(self._studies, "", source.label, source.kind.name.lower(), "", None, "unknown", 0, None, None)
        module, _, function = READERS[source.kind].partition(":")
        try:
            series: CTSeries = getattr(import_module(module), function)(source)
            if not shows_lung([series.read(index) for index in sample_of(len(series))]):
                series = replace(series, warnings=(*series.warnings, NO_LUNG))
        except InputError as problem:
            self._problems.append(problem)
            self._rows.append(replace(row, name=source.name.rpartition("/")[2], reason=problem.message))
        else:
            self._rows.append(_chosen_row(row, series))
            self._series.append(series)

    def add_dicom(
        self,
        sources: Sequence[Source],
        settled: dict[int, FinishedStudy] | None = None,
        by_file: Mapping[tuple[str, str | None], Source] | None = None,
    ) -> None:
        """Add what a number of DICOM files hold, study by study.

        Args:
            sources: The files.
            settled: Studies that are left out; those of which one of the files is are taken out of it, and read too.
            by_file: The files of those.
        """
        if not sources:
            return
        from jcs_ct.io.dicom.read import read_headers

        studies: dict[str, dict[str, list[ImageHeader]]] = {}
        directories = 0
        sources = list(sources)
        for source in sources:  # grows where a DICOMDIR names files
            try:
                headers = read_headers(source)
            except InputError as problem:
                self._problems.append(problem)
                continue
            if not headers:
                directories += not self._follow(source, sources)
            for header in headers:
                for i in [i for i, study in (settled or {}).items() if study.holds(header.study or _folder(source))]:
                    sources += [by_file[file] for file in settled.pop(i).files] if settled and by_file else []
                folder = f"{source.path}!" if source.member is not None else str(source.path.parent)
                study = studies.setdefault(header.study or folder, {})
                study.setdefault(header.series or folder, []).append(header)
        if directories:
            self._notes.append(f"{count(directories, 'file')} without an image skipped (DICOMDIR)")
        self._divided = {uid for uid, number in Counter(uid for study in studies.values() for uid in study).items()
                         if number > 1}  # fmt: skip
        for study in studies.values():
            self._studies += 1
            self._add_study(list(study.values()))

    def _follow(self, directory: Source, sources: list[Source]) -> bool:
        """Add the files that a DICOMDIR names and that are not among the sources; return whether there are any."""
        from jcs_ct.io.dicom.read import directory_files

        if not directory.plain:  # the other files of an archive are there already
            return False
        folder, names = directory.path.parent, directory_files(directory)
        known = {source.path.resolve() for source in sources if source.member is None}
        added, missing = [], []
        for parts in names:
            unsafe = any(part in {"", ".", ".."} or set(part) & set("/\\:\0") for part in parts)
            path = None if unsafe else _on_disk(folder, parts)
            if path is None:
                missing.append(printable("/".join(parts)))
            elif path.resolve() not in known:
                known.add(path.resolve())
                added.append(Source(safe_name("/".join(parts)), printable(str(path)), path, None, Kind.DICOM))
        sources += added
        if missing:
            text = f"{count(len(missing), 'file')} of {len(names)} that it names not found: {few(missing)}"
            self._notes.append(f"{directory.label}: {text}")
        if added:
            self._notes.append(f"{directory.label}: followed to {count(len(added), 'file')} that it names")
        return bool(added)

    def _add_study(self, groups: list[list[ImageHeader]]) -> None:
        candidates: list[_Candidate] = []
        for group in join_single_slices(groups):
            images = [header for header in group if header.is_image]
            objects = [header for header in group if not header.is_image]
            if images and objects:
                text = f"{count(len(objects), 'object')} in a series of images skipped ({_modalities(objects)})"
                self._notes.append(f"{objects[0].source.label}: {text}")
            row = _series_row(self._studies, case_name(group), images or group, usable=bool(images))
            candidates.append(_Candidate(row, images))
        usable = [c for c in candidates if c.images]
        asked = [c for c in usable if self._asked(c)]
        self._matched |= bool(asked)
        best: _Candidate | None = None
        for candidate in sorted(asked, key=lambda c: c.rank):
            try:
                candidate.opened = self._opened(candidate.images)
            except InputError as problem:
                candidate.problem = problem
                continue
            if best is None or candidate.opened.lungs:
                best = candidate
            if candidate.opened.lungs:
                break
        rows = {candidate: candidate.explained_row(best, asked=candidate in asked) for candidate in candidates}
        self._rows += rows.values()
        if best is not None and best.opened is not None:
            read = set(map(id, best.opened.series.sources))
            beside = {id(h.source): h.source for group in groups for h in group if id(h.source) not in read}
            others = sorted((c for c in candidates if c is not best), key=lambda c: (not c.images, c.images and c.rank))
            self._series.append(
                replace(
                    best.opened.series,
                    others=tuple(self._other(c, rows[c], asked=c in asked) for c in others),
                    beside=tuple(beside.values()),
                )
            )
            alone = not_joined([c.images for c in usable]) if len(best.opened.series) == 1 else ""
            told = [*best.opened.notes, *([alone] if alone else [])]
            self._notes += [f"{best.opened.series.label}: {note}" for note in told]
        elif asked:
            worst = max(asked, key=lambda c: len(c.images)).problem
            assert worst is not None  # noqa: S101  # each was opened or failed
            more = f"; nor can {len(asked) - 1} other series of this study be read" if len(asked) > 1 else ""
            study = groups[0][0].study
            self._problems.append(InputError(worst.message + more, path=worst.path, hint=worst.hint, study=study))
        elif usable:
            self._lacking += 1
            images = [header for candidate in usable for header in candidate.images]
            message = f"no series is called {self._wanted}; {_numbers(candidate.images for candidate in usable)}"
            about: Any = {"hint": _LISTS, "study": images[0].study}
            self._problems.append(LacksSeriesError(message, path=place(images), **about))
        else:  # measurements or masks of another study: nothing that could be read is missing
            objects = [header for group in groups for header in group]
            text = f"the study holds no CT images, only {_modalities(objects)}, and was skipped"
            self._notes.append(f"{place(objects)}: {text}")

    def _opened(self, images: Sequence[ImageHeader]) -> Opened:
        opened = open_series(images, **self._ways)
        if not self._divided & {image.series for image in images}:
            return opened
        text = "images of this series say that they belong to another study; each study is read by itself"
        warnings = (*opened.series.warnings, CodedWarning("mixed-studies", text))
        return replace(opened, series=replace(opened.series, warnings=warnings))

    def _other(self, candidate: _Candidate, row: SeriesRow, *, asked: bool) -> OtherSeries:
        usable = asked and candidate.problem is None
        opens = partial(open_next, tuple(candidate.images), **self._ways) if usable else None
        return OtherSeries(row.number, len(candidate.images), row.reason, opens)

    def _asked(self, candidate: _Candidate) -> bool:
        if self._wanted is None:
            return True
        first, wanted = candidate.images[0], self._wanted.strip()
        names = {first.series, first.description.casefold(), str(first.number), candidate.row.name}
        return wanted in names or wanted.casefold() in names
