"""Where a series shows no lungs, the next one of its study is read: a head and a chest may share a study."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from jcs_ct.app.examine import CaseResult, examine_case
from jcs_ct.core.errors import InputError, NoLungsError
from jcs_ct.core.geometry import CTSeries, OtherSeries
from jcs_ct.core.warning import CodedWarning
from jcs_ct.study.case import Case, VolumeCase

if TYPE_CHECKING:
    from collections.abc import Callable

    from jcs_ct.study.settings import Networks, Settings

NO_LUNGS = "no lungs were found in it"


def examine_with_lungs(
    case: Case,
    networks: Networks,
    settings: Settings,
    progress: Callable[[int, int], object] | None = None,
) -> tuple[Case, CaseResult]:
    """Look at a study: at the first of its series in which lungs are found. Return it as a case, and its result.

    Raises InputError as `jcs_ct.study.scan.scan_study`; of the first series where none shows lungs.
    """
    first: NoLungsError | None = None
    now = case
    while True:
        try:
            return now, examine_case(now, networks, settings, progress=progress)
        except NoLungsError as error:
            first = first or error
            following = next_case(now)
            if following is None:
                assert now.series is not None  # noqa: S101  # pictures have no lungs to find
                tried = len(now.series.passed)
                if not tried:
                    raise
                more = f"; nor were they in {tried} other series of this study"
                raise NoLungsError(first.message + more, path=first.path, hint=first.hint) from error
            now = following


def next_case(case: Case) -> Case | None:
    """Return a case with the next series of its study, under the same name; None where none is left."""
    series = case.series
    if series is None:
        return None
    for place, other in enumerate(series.others):
        if other.open is None:
            continue
        try:
            opened = other.open()
        except InputError as problem:
            refused = replace(other, reason=getattr(problem, "reason", problem.message), open=None)
            series = replace(series, others=(*series.others[:place], refused, *series.others[place + 1 :]))
            continue
        return replace(VolumeCase.of(_in_place_of(series, opened, place)), name=case.name, label=case.label)
    return None


def case_after(case: Case, passed: int) -> Case | None:
    """Return a case with the series that is read where so many before it show no lungs; None where there is none."""
    now: Case | None = case
    for _ in range(passed):
        now = None if now is None else next_case(now)
    return now


def _in_place_of(series: CTSeries, opened: CTSeries, place: int) -> CTSeries:
    number = "the first series" if series.number is None else f"series {series.number}"
    chosen = "the next one" if opened.number is None else f"series {opened.number}"
    text = f"{chosen} of this study was read, for in {number} no lungs were found"
    dropped = OtherSeries(series.number, len(series), NO_LUNGS)
    return replace(
        opened,
        name=series.name,
        others=(*(other for i, other in enumerate(series.others) if i != place), dropped),
        passed=(*series.passed, series),
        warnings=(CodedWarning("series-passed-over", text), *opened.warnings),
    )
