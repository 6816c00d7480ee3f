"""Many studies in one call: weights loaded once, a bad study stops no other, a killed run goes on where it was."""

from __future__ import annotations

import gc
import json
import traceback
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from filelock import Timeout

from jcs_ct.app.compared import changed_input, changed_settings
from jcs_ct.app.identity import digest_of, full_path, identify, longer_name, owner_of, place_of
from jcs_ct.app.locks import case_lock
from jcs_ct.app.next_series import case_after, examine_with_lungs
from jcs_ct.app.resume_index import FinishedCase, files_now, record_files, untouched_cases
from jcs_ct.core.errors import InputError, JcsError, OutputError, unforeseen

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.study.case import Case
    from jcs_ct.study.settings import Networks, Settings

AGAIN = ", so it is made again"


@dataclass(frozen=True)
class CaseOutcome:
    """How a study ended.

    Attributes:
        case: What was looked at.
        status: "done", "kept" (finished by an earlier run) or "failed".
        report: What `report.json` holds; None where it failed.
        error: Why it failed.
        note: Why an earlier result was made again, or "".
        details: The traceback of a problem that was not foreseen, else "".
    """

    case: Case | FinishedCase
    status: str
    report: dict[str, Any] | None
    error: JcsError | None = None
    note: str = ""
    details: str = ""

    @property
    def name(self) -> str:
        """Name of the case."""
        return self.case.name


def diagnose_cases(
    cases: Sequence[Case], networks: Networks, settings: Settings, out: Path, **options: Any
) -> Iterator[CaseOutcome]:
    """Diagnose cases with distinct names, and write their folders into `out`; yield how each ended. Options: of `Job`.

    Other runs may write into the same folder at the same time. A case that one of them is computing is left for the
    end, and then taken as that run left it; a folder that one of them gave to another input is not touched.
    """
    job = Job(networks, settings, out, there_before=there_before(cases, out), **options)
    gc.freeze()  # what is loaded is no garbage
    waiting = []
    for case in cases:
        with job.held(case, wait=False) as mine:
            if mine is None:
                waiting.append(case)
            else:
                yield job.run(mine)
    for case in waiting:
        with job.held(case) as mine:
            assert mine is not None  # noqa: S101  # it was waited for
            yield job.run(mine)


def there_before(cases: Iterable[Case], out: Path) -> frozenset[str]:
    """Return the names of those cases that have a folder already."""
    return frozenset(case.name for case in cases if (out / case.name).exists())


@dataclass
class Job:
    """What cases are diagnosed with.

    Attributes:
        out: Holds a folder for each case.
        overwrite: Replace folders that exist.
        resume: Keep folders that an earlier run has made from the same input with the same weights and settings.
        reading: The options with which the cases were read (`jcs_ct.app.gather.gather`). With `keep_identity`, UIDs
            stand in the report as they are.
        progress: Called with (slices done, slices in all) of the study at hand, in another thread.
        place: Puts into a text where the inputs came from, in place of where they lie for now; such results are told
            again by whoever fetched the inputs.
        there_before: Names of cases that had a folder when the run began.
    """

    networks: Networks
    settings: Settings
    out: Path
    overwrite: bool = False
    resume: bool = False
    reading: Mapping[str, Any] = field(default_factory=dict)
    progress: Callable[[int, int], object] | None = None
    place: Callable[[str], str] | None = None
    there_before: frozenset[str] = frozenset()
    looked: int = 0

    @contextmanager
    def held(self, case: Case, *, wait: bool = True) -> Iterator[Case | None]:
        """Hold the lock of a case, so that no other run computes it, and yield it; without `wait`, None where one does.

        Names are chosen before locks are held. Where another run has given the name to another input meanwhile, the
        case gets its longer name, which no other input has.
        """
        for name in (case.name, longer_name(case)):
            lock = case_lock(self.out, name)
            try:
                lock.acquire(blocking=wait)
            except Timeout:
                yield None
                return
            try:
                if name != case.name or self._may_have(case):
                    yield replace(case, name=name)
                    return
            finally:
                lock.release()

    def _may_have(self, case: Case) -> bool:
        owner, mine = owner_of(self.out / case.name), full_path(place_of(case))
        if owner == "" and case.name in self.there_before:  # it does not say, and who chose the name knew
            return True
        return owner in {None, mine if self.place is None else self.place(mine)}

    def run(self, case: Case) -> CaseOutcome:
        """Return how a case ended; whatever one study meets, the others must still finish."""
        try:
            return self._run(case)
        except JcsError as error:
            return CaseOutcome(case, "failed", None, error if self.place is None else moved(error, self.place))
        except Exception as error:  # noqa: BLE001  # see above
            return CaseOutcome(case, "failed", None, unforeseen(error, case.label), details=traceback.format_exc())

    def _run(self, case: Case) -> CaseOutcome:
        note, overwrite, files = "", self.overwrite, files_now(case)
        if not overwrite and (self.resume or case.name not in self.there_before):
            kept, note = self._reusable(case)
            if kept is not None:
                record_files(self.out, case, kept, files, self.reading)
                return CaseOutcome(case, "kept", kept)
            if note and not self.resume:
                message = f"was written by another run in the meantime, and {note.removesuffix(AGAIN)}"
                raise OutputError(message, path=self.out / case.name, hint="use --resume, or another output folder")
            overwrite = bool(note)
        if self.looked == 1:  # one study alone does not wait for it
            freeze_what_is_loaded()
        self.looked += 1
        stamped = identify(case, self.reading)  # before: what changes meanwhile shows
        looked_at, result = examine_with_lungs(case, self.networks, self.settings, self.progress)
        if files_now(case) != files and (looked_at is not case or digest_of(case) != stamped.digest):
            raise InputError("was changed while it was read", path=case.label, hint="run it again")
        if looked_at is not case:
            stamped = identify(looked_at, self.reading)
        if self.place is not None:
            stamped = replace(stamped, path=self.place(stamped.path), started_in="", stamp="")
            result.report.update({name: _moved_in(value, self.place) for name, value in result.report.items()})
        result.report["source"] = stamped.to_dict()
        folder = result.save(self.out, overwrite=overwrite)
        del result  # or it would stay until the next study is looked at
        report = read_report(folder)
        record_files(self.out, case, report, files, self.reading)
        return CaseOutcome(case, "done", report, note=note)

    def _reusable(self, case: Case) -> tuple[dict[str, Any] | None, str]:
        """Return the report of a case that an earlier run has finished, or None, and why it has to be made again.

        It is kept where the input, how it is read, and all of `jcs_ct.app.compared` are the same as now. None and ""
        where there is none. Raises OutputError where it is no report, InputError where the input cannot be read.
        """
        folder = self.out / case.name
        if not (folder / "report.json").exists():
            return None, ""
        report = read_report(folder)
        recorded = report.get("source")
        then = None if recorded is None else case_after(case, recorded.get("passed", 0))
        differ = [*changed_input(recorded, then, self.reading), *changed_settings(report, self.networks, self.settings)]
        return (None, f"was made with another {', '.join(differ)}{AGAIN}") if differ else (report, "")


def freeze_what_is_loaded() -> None:
    """Keep Python from searching what is loaded by now, all libraries, for garbage: 0.2 s every other study."""
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def reusable_cases(out: Path, networks: Networks, settings: Settings, reading: Mapping[str, Any]) -> list[FinishedCase]:
    """Return the finished cases in `out` that the same networks, settings and options made of files as they are now."""

    def same(folder: Path) -> dict[str, Any] | None:
        report = read_report(folder)
        return None if changed_settings(report, networks, settings) else report

    return list(untouched_cases(out, same, reading))


def moved(error: JcsError, place: Callable[[str], str]) -> JcsError:
    """Return an error that names the place a user knows."""
    path = None if error.path is None else place(error.path)
    more: Any = {"study": error.study} if isinstance(error, InputError) else {}
    return type(error)(place(error.message), path=path, hint=error.hint, **more)


def _moved_in(value: Any, place: Callable[[str], str]) -> Any:
    """Return a part of a report with every text of it changed by `place`."""
    if isinstance(value, str):
        changed = place(value)
        return value if changed == value else changed  # a warning keeps its code
    if isinstance(value, dict):
        return {name: _moved_in(one, place) for name, one in value.items()}
    return [_moved_in(one, place) for one in value] if isinstance(value, list) else value


def read_report(folder: Path) -> dict[str, Any]:
    """Read the report of a finished case. Raises OutputError where it holds something else."""
    path = folder / "report.json"
    try:
        report: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = report["model"]["weights_sha256"], report["settings"]["rule"], report["verdict"]["score"]
        _ = report.get("segmenter") is None or report["segmenter"]["weights_sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(
            "is not the report of a study", path=path, hint="remove the folder, or use --overwrite"
        ) from error
    return report
