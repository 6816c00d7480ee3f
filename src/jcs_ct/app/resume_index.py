"""Studies that an earlier run has finished and whose files were not touched since: told by the files alone.

Thousands of headers take minutes to read. So the files of each case are written down when it is finished, in
`OUT/.inputs`, with a stamp of their sizes and times; where all of them are among the inputs and the stamp is the same,
`--resume` takes the case as it is. New files that belong to its study make it be read again (`io.studies`).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.identity import hashed_uid, place_of, share_key, sources_of, stamp_of_files, started_in
from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from jcs_ct.study.case import Case

FOLDER = ".inputs"
HOME = "home"
"""What is hashed to tell whether UIDs were hashed with the key that is used now."""
InputFile = tuple[str, "str | None"]
"""Path in full, without links, and member of an archive."""


@dataclass(frozen=True)
class FinishedCase:
    """A finished case that need not be read.

    Attributes:
        name, label, kind: As of `jcs_ct.study.case.Case`.
        path: Where its input lies, as `jcs_ct.app.identity.place_of` says.
        report: What `report.json` holds.
        files: All files of its study.
        key: Decides to which share of the work it belongs, see `jcs_ct.app.identity.share_key`.
        started_in: The folder that a relative `path` starts from.
    """

    name: str
    label: str
    kind: str
    path: str
    report: dict[str, Any] = field(repr=False)
    files: frozenset[InputFile] = field(repr=False)
    key: str = ""
    started_in: str = ""

    def __len__(self) -> int:
        return int(self.report["input"]["slices"])

    def holds(self, study: str) -> bool:
        """Return whether a new file may belong to its study, by a UID, or by a folder (or "archive!") without one."""
        if study in {self.report["source"]["study"], ""} or hashed_uid(study) == self.report["source"]["study"]:
            return True
        return study in {str(Path(path).parent) if member is None else f"{path}!" for path, member in self.files}


@dataclass(frozen=True)
class NotedFiles:
    """All files of a study, and what their sizes and times were.

    Attributes:
        files: Also those of series that are not read.
        stamp: See `jcs_ct.app.identity.stamp_of_files`; "" where one cannot be looked at.
    """

    files: tuple[InputFile, ...]
    stamp: str


def files_now(case: Case) -> NotedFiles:
    """Return the files of a case as they are now; of pictures, in their order."""
    beside = () if case.series is None else case.series.beside
    files = [(str(s.path.resolve()), s.member) for s in (*sources_of(case), *beside)]
    try:
        return NotedFiles(tuple(files), stamp_of_files(files, in_order=case.kind == "pictures"))
    except OSError:
        return NotedFiles(tuple(files), "")


def record_files(out: Path, case: Case, report: dict[str, Any], before: NotedFiles, reading: Mapping[str, Any]) -> None:
    """Write down the files of a finished case. Without it the case is only read again, so a full disk is no problem.

    `before`: its files before they were read; what has changed since is not noted. `reading`: the options of that.
    """
    if case.series is None or not report["source"]["stamp"] or not before.stamp or files_now(case) != before:
        return  # folders of pictures are told as fast from what is gathered
    place = place_of(case)
    content: dict[str, Any] = {
        "label": case.label,
        "path": place,
        "started_in": started_in(place),
        "key": share_key(case),
    }
    content |= {"source": report["source"]["stamp"], "reading": dict(reading), "home": hashed_uid(HOME)}
    files = sorted(set(before.files), key=str)
    try:
        text = json.dumps(content | {"stamp": before.stamp, "files": files}, ensure_ascii=False)
        write_whole(out / FOLDER / f"{case.name}.json", text.encode("utf-8", "surrogateescape"), overwrite=True)
    except (OSError, OutputError, UnicodeError):
        return


def untouched_cases(
    out: Path, same: Callable[[Path], dict[str, Any] | None], reading: Mapping[str, Any] | None = None
) -> Iterator[FinishedCase]:
    """Yield the finished cases in `out` whose files are as they were, and that were read with the same options as now.

    `same`: folder of a case → its report, where the same networks and settings made it; else None. No `reading`:
    whatever the options were.
    """
    home = hashed_uid(HOME)
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            noted = json.loads(path.read_bytes())
            files = [(name, member) for name, member in noted["files"]]
            if noted["home"] != home or (reading is not None and noted["reading"] != dict(reading)):
                continue  # with another key, new files of a study would not be known as its
            if stamp_of_files(files) != noted["stamp"]:
                continue
            report = same(out / path.stem)
            if report is None or report["source"]["stamp"] != noted["source"]:
                continue
            told = report, frozenset(files), noted["key"], noted["started_in"]
            known = FinishedCase(path.stem, noted["label"], report["source"]["kind"], noted["path"], *told)
        except (OSError, ValueError, KeyError, TypeError, OutputError):  # it is read again, which says what is wrong
            continue
        yield known
