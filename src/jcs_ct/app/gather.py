"""From the INPUT arguments to cases: volumes first, then pictures, each folder of them one study."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.io.files.names import label, safe_name
from jcs_ct.io.studies import find_series
from jcs_ct.study.case import Case, VolumeCase, picture_cases

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from jcs_ct.app.resume_index import FinishedCase
    from jcs_ct.core.errors import InputError
    from jcs_ct.core.geometry import CTSeries


@dataclass(frozen=True)
class Gathered:
    """What the inputs come to.

    Attributes:
        cases: Volumes first; names may be alike (`jcs_ct.app.identity.with_stable_names`).
        problems: What cannot be used, one line each.
        notes: What a user should know, a line each.
        kept: The finished cases that were not read again.
    """

    cases: tuple[Case, ...]
    problems: tuple[InputError, ...]
    notes: tuple[str, ...]
    kept: tuple[FinishedCase, ...] = ()

    def read_now(self) -> frozenset[str]:
        """Return the files that cases are made of, in full, as a problem with one of them would name it."""
        sources = [source for case in self.cases for source in case.sources]
        known = [(path, member) for case in self.kept for path, member in case.files]
        read = {label(source.path.absolute(), source.member) for source in sources}
        return frozenset(read | {label(Path(path), member) for path, member in known})


def gather(
    inputs: Sequence[str],
    *,
    series: str | None = None,
    allow_gaps: bool = False,
    drop_odd: bool = False,
    keep_identity: bool = False,
    known: Sequence[FinishedCase] = (),
) -> Gathered:
    """Return the cases of INPUT arguments.

    Args:
        inputs: Files, folders, archives, lists.
        series: UID, number or description of the series to take.
        allow_gaps: Accept volumes with missing slices and warn.
        drop_odd: Leave out the few images of a series that do not fit the others, with a warning.
        keep_identity: Name DICOM cases after the patient's ID, and put the patient into the facts of the report.
        known: Finished cases, which are not read again where all their files are there and no others of their study.
    """
    found = find_series(inputs, series=series, allow_gaps=allow_gaps, drop_odd=drop_odd, settled=known)
    volumes = [_identified(one) if keep_identity and one.kind == "dicom" else one for one in found.series]
    cases: list[Case] = [*map(VolumeCase.of, volumes), *picture_cases(found.pictures, inputs)]
    return Gathered(tuple(cases), found.problems, found.notes, tuple(known[i] for i in found.settled))


def _identified(series: CTSeries) -> CTSeries:
    from jcs_ct.io.dicom.read import identity_of

    known = identity_of(series.sources[0])
    name = safe_name(known["patient ID"].replace("/", "_")) if "patient ID" in known else series.name
    others = tuple(
        replace(o, open=None if o.open is None else partial(_open_identified, o.open)) for o in series.others
    )
    return replace(series, name=name, facts={**known, **series.facts}, others=others)


def _open_identified(opens: Callable[[], CTSeries]) -> CTSeries:
    return _identified(opens())
