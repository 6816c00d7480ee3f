"""The series of a study as candidates for being the one that is read: how they rank, and why one was not chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.core.errors import InputError
    from jcs_ct.core.geometry import CTSeries
    from jcs_ct.io.dicom.header import ImageHeader
    from jcs_ct.io.dicom.series import Opened


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


class Candidate:
    """A series of a study on its way to being chosen."""

    def __init__(self, row: SeriesRow, images: list[ImageHeader]) -> None:
        self.row, self.images = row, images
        self.opened: Opened | None = None
        self.problem: InputError | None = None

    @property
    def rank(self) -> tuple[bool, int, float, float, str]:
        """What is read first sorts first."""
        from jcs_ct.io.dicom.checks import is_original

        first = self.images[0]
        number = float("inf") if first.number is None else first.number
        return not is_original(self.images), -len(self.images), first.thickness or 0.0, number, first.series

    def explained_row(self, best: Candidate | None, *, asked: bool) -> SeriesRow:
        """Return the row, with why it was not chosen."""
        if self is best and self.opened is not None:
            return chosen_row(self.row, self.opened.series)
        if self.row.reason:
            return self.row
        if not asked:
            return replace(self.row, reason="another series was asked for")
        if self.problem is not None:
            return replace(self.row, reason=getattr(self.problem, "reason", self.problem.message))
        if self.opened is None:  # nobody looked at it so far
            from jcs_ct.io.dicom.checks import unsuitable
            from jcs_ct.io.dicom.series import without_strays

            if reasons := unsuitable(without_strays(self.images)[0]):
                return replace(self.row, reason="; ".join(reasons))
        assert best is not None  # noqa: S101  # this one could be opened, or was not looked at after the best one
        return replace(self.row, reason=self._why_not(best))

    def _why_not(self, best: Candidate) -> str:
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


def series_row(study: int, name: str, images: Sequence[ImageHeader], *, usable: bool) -> SeriesRow:
    """Return the row of a series, from its headers.

    Args:
        study: Number of its study.
        name: Of its case.
        images: Its images, or its other objects where it has no images.
        usable: Whether they are images.
    """
    from jcs_ct.io.dicom.checks import plane_of

    first = images[0]
    planes = [plane_of(image) for image in images] if usable else ["unknown"]
    distance = first.distance or first.thickness
    spacing = (distance, *first.spacing[:2]) if distance and first.spacing is not None else None
    return SeriesRow(
        study=study,
        name=name,
        label=first.source.label,
        kind="dicom",
        modality=modality_of(first) if first.modality else "",
        number=first.number,
        orientation=max(set(planes), key=planes.count),
        slices=len(images) if usable else 0,
        size=(first.rows, first.columns) if usable else None,
        spacing=None if spacing is None else (spacing[0], spacing[1], spacing[2]),
        reason="" if usable else _no_image(first),
    )


def _no_image(header: ImageHeader) -> str:
    if header.modality == "CT":
        return "does not say how large its images are (Rows, Columns)"
    return f"holds no CT images, only {modality_of(header)}"


def chosen_row(row: SeriesRow, series: CTSeries) -> SeriesRow:
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


def modality_of(header: ImageHeader) -> str:
    """Return the modality for a message; what is no code is not repeated."""
    word = header.modality
    return word if word.isascii() and word.isalnum() and len(word) <= 16 else "an object without a modality"
