"""From the INPUT arguments to cases: volumes first, then pictures, each folder of them one study."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.io.sources import find_sources
from jcs_ct.io.studies import find_series
from jcs_ct.study.case import of_pictures, of_series, tell_cases_apart

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jcs_ct.errors import InputError
    from jcs_ct.study.case import Case


@dataclass(frozen=True)
class Gathered:
    """What the inputs come to.

    Attributes:
        cases: With distinct names.
        problems: What cannot be used, one line each.
        notes: What a user should know, a line each.
    """

    cases: tuple[Case, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]


def gather(inputs: Sequence[str], *, series: str | None = None, allow_gaps: bool = False) -> Gathered:
    """Return the cases of INPUT arguments.

    Args:
        inputs: Files, folders, archives, lists.
        series: UID, number or description of the series to take.
        allow_gaps: Take volumes with missing slices, with a warning.
    """
    found = find_series(inputs, series=series, allow_gaps=allow_gaps)
    cases = [of_series(one) for one in found.series]
    problems, notes = list(found.problems), list(found.notes)
    for item in inputs:
        pictures = find_sources([item])
        notes += pictures.notes
        usable = [s for s in pictures.sources if s.kind.name in {"PNG", "JPEG", "TIFF", "BMP"}]
        cases += of_pictures(usable, Path(item), apart=Path(item).is_file() and len(usable) == 1)
    return Gathered(tuple(tell_cases_apart(cases)), tuple(problems), tuple(dict.fromkeys(notes)))
