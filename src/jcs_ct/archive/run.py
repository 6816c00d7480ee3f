"""Units of an archive, one after the other: fetched while the one before is diagnosed, results put, then recorded.

A unit's record, `OUT/.units/NAME.json`, is written when all its results are there, and says what they were made from
and with; so `--resume` asks the store for one small file a unit. Of a result in a store, `report.json` is written last,
and only where none is: whoever finds one finds a whole result, and of two runs that make the same one is refused.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.batch import CaseOutcome, diagnose_cases, moved
from jcs_ct.app.compared import made_with
from jcs_ct.app.gather import gather
from jcs_ct.app.identity import digest_key, place_of
from jcs_ct.app.summary import (
    Row,
    Summary,
    as_read_back,
    last_states,
    old_names,
    problem_row,
    rows_of,
    summary_row,
    table,
)
from jcs_ct.core import unfinished
from jcs_ct.core.errors import InputError, JcsError, OutputError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from jcs_ct.archive.places import Place
    from jcs_ct.archive.units import Unit
    from jcs_ct.study.case import Case
    from jcs_ct.study.settings import Networks, Settings

RECORDS = ".units"
LAST = "report.json"


@dataclass(frozen=True)
class UnitEnded:
    """How a unit ended.

    Attributes:
        unit: Which.
        ended: Its cases; none where an earlier run has finished it, or it could not be fetched.
        problems: What in it cannot be used, a line each.
        notes: What a user should know, a line each.
        rows: Its lines of the summary.
        kept: It is as an earlier run left it.
    """

    unit: Unit
    ended: tuple[CaseOutcome, ...]
    problems: tuple[JcsError, ...]
    notes: tuple[str, ...]
    rows: tuple[dict[str, Any], ...]
    kept: bool = False


@dataclass(frozen=True)
class Archive:
    """What units are diagnosed with, and where results go.

    Attributes:
        networks, settings: As of `jcs_ct.app.batch.Job`.
        out: The folder of results.
        gather: Options of `jcs_ct.app.gather.gather`.
        overwrite, resume: As of `Job`.
    """

    networks: Networks
    settings: Settings
    out: Place
    gather: dict[str, Any]
    overwrite: bool = False
    resume: bool = False

    def run(self, units: Sequence[Unit]) -> Iterator[UnitEnded]:
        """Diagnose units; one that fails stops no other.

        Raises:
            OutputError: A unit has results already, and neither `overwrite` nor `resume` is true; or a record cannot be
                written.
        """
        made = made_with(self.networks, self.settings) | {"reading": self.gather}
        records = read_records(self.out, [unit.name for unit in units])
        if records and not (self.overwrite or self.resume):
            first = next(unit for unit in units if unit.name in records)
            message = f"{first.place.url} has results there already, and {len(records) - 1} more units"
            raise OutputError(message, path=self.out.url, hint="use --resume, --overwrite, or another place")
        todo = []
        for unit in units:
            record = records.get(unit.name, {})
            same = record.get("listing") == unit.listing and record.get("made_with") == made
            if self.resume and same and all(row["status"] != "failed" for row in record["rows"]):
                yield UnitEnded(unit, (), (), (), tuple(row | {"status": "kept"} for row in record["rows"]), kept=True)
            else:
                todo.append(unit)
        with ThreadPoolExecutor(1, "fetch") as pool:
            coming = [pool.submit(_fetched, todo[0])] if todo else []
            for following in [*todo[1:], None]:
                if not coming:
                    break
                here = coming.pop().result()
                if following is not None:
                    coming.append(pool.submit(_fetched, following))
                with here:
                    ended = self._diagnose(here)
                record = {"unit": here.unit.place.url, "listing": here.unit.listing, "made_with": made}
                text = json.dumps(record | {"rows": ended.rows}, ensure_ascii=False)
                (self.out / RECORDS / f"{here.unit.name}.json").write(text.encode("utf-8", "backslashreplace"))
                yield ended

    def _diagnose(self, here: _Fetched) -> UnitEnded:
        unit = here.unit
        if here.problem is not None:
            row = problem_row(here.problem)
            return UnitEnded(unit, (), (here.problem,), (), (row | {"path": unit.place.url, "started_in": ""},))
        found = gather([str(here.path)], **self.gather)
        cases = [self._named(case, here.place) for case in found.cases]
        problems = [moved(problem, here.place) for problem in found.problems]
        known_as: Any = {"keep_identity": bool(self.gather.get("keep_identity"))}
        rows = [problem_row(problem, **known_as) for problem in problems if isinstance(problem, InputError)]
        ended = list(self._cases(cases, here))
        for one in ended:
            row = summary_row(one, **known_as)
            rows.append(row | {"path": here.place(row["path"]), "started_in": ""})
        notes = tuple(here.place(note) for note in found.notes)
        return UnitEnded(unit, tuple(ended), tuple(problems), notes, tuple(rows))

    def _named(self, case: Case, place: Callable[[str], str]) -> Case:
        """Return a case with a name that no other unit's has, and with the URL that it came from in messages."""
        where = f"{place(place_of(case))}|{case.kind}|{case.name}"
        return replace(case, name=f"{case.name}-{digest_key(where)}", label=place(case.label))

    def _cases(self, cases: Sequence[Case], here: _Fetched) -> Iterator[CaseOutcome]:
        out = Path(self.out.path) if self.out.local else here.folder / "out"
        for ended in diagnose_cases(
            cases,
            self.networks,
            self.settings,
            out,
            overwrite=self.overwrite or self.resume,  # a unit without a record may have results: it was not finished
            reading=self.gather,
            place=here.place,
        ):
            if ended.error is not None or self.out.local:
                yield ended
                continue
            try:
                self._put(out / ended.name)
            except JcsError as problem:
                yield CaseOutcome(ended.case, "failed", None, problem)
            else:
                yield ended
            shutil.rmtree(out / ended.name)

    def _put(self, folder: Path) -> None:
        """Put the result of a case into the store, `report.json` last. Raises OutputError."""
        target = self.out / folder.name
        if self.overwrite or self.resume:
            (target / LAST).remove()  # from here on there is no result
            target.remove(recursive=True)
        files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / LAST)
        target.put(files, [path.relative_to(folder).as_posix() for path in files])
        if not (target / LAST).create((folder / LAST).read_bytes()):
            raise OutputError("exists already", path=target.url, hint="use --resume, --overwrite, or another place")


@dataclass(frozen=True)
class _Fetched:
    """A unit on this machine's disk, at `path`, or why not; leaving its `with` block removes it.

    Results are made in the temporary `folder` too.
    """

    unit: Unit
    folder: Path
    path: Path
    problem: InputError | None = None

    def place(self, text: str) -> str:
        """Return a text with the URL in place of where it lies for now."""
        return text.replace(str(self.path), self.unit.place.url)

    def __enter__(self) -> _Fetched:
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        unfinished.unregister(self.folder)


def _fetched(unit: Unit) -> _Fetched:
    folder = Path(tempfile.mkdtemp(prefix="jcs-unit-")).resolve()
    unfinished.register(folder)
    (folder / "in").mkdir()
    try:
        return _Fetched(unit, folder, unit.fetch(folder / "in"))
    except InputError as problem:
        return _Fetched(unit, folder, folder, problem)
    except OSError as error:
        text = f"cannot be fetched: {error.strerror or error}"
        return _Fetched(unit, folder, folder, InputError(text, path=unit.place.url, hint="check TMPDIR"))


def read_records(out: Place, names: Sequence[str] | None = None) -> dict[str, dict[str, Any]]:
    """Return the records of units, those of `names` or all; damaged ones count as none. Raises InputError."""
    folder = out / RECORDS
    if not folder.exists():
        return {}
    there = folder.entries()[1]
    if names is not None:
        wanted = {f"{name}.json" for name in names}
        there = [name for name in there if name in wanted]
    records = {}
    for name, content in folder.read_all(there).items():
        try:
            record = json.loads(content)
            _ = record["unit"], record["listing"], record["made_with"], [row["status"] for row in record["rows"]]
        except (ValueError, KeyError, TypeError):
            continue
        records[name.removesuffix(".json")] = record
    return records


def write_summary(
    out: Place,
    records: Mapping[str, dict[str, Any]],
    now: Mapping[str, Sequence[Mapping[str, Any]]],
    say: Callable[[str], object],
) -> list[Row]:
    """Write `OUT/summary.csv` of what it held, all records, and how the units of this run ended; return all lines.

    `now`: the lines of the units that this run looked at, by their names, and of inputs that made none under "". Raises
    OutputError where it cannot be written.
    """
    before = [row for name in sorted(records.keys() - now.keys()) for row in records[name]["rows"]]
    ended = [row for name in sorted(now) for row in now[name]]
    if out.local:
        summary = Summary(Path(out.path), say)
        summary.add(*ended)
        return summary.put_in_order(before=before)
    there = out / "summary.csv"
    content = there.read() or b""
    known = rows_of(content)
    if content and known is None:
        aside = next(place for place in (out / f"{name}.csv" for name in old_names()) if not place.exists())
        aside.write(content)
        say(f"{there.url}: has other columns than this version writes; it is {aside.url} now, and a new one begun")
    rows = last_states([*map(as_read_back, before), *(known or []), *map(as_read_back, ended)])
    there.write(table(rows))
    return rows
