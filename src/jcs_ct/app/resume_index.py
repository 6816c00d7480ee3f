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

from jcs_ct.app.identity import hashed_uid, place_of, share_key, sources_of, stamp_of_files
from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from jcs_ct.study.case import Case

FOLDER = ".inputs"
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
    """

    name: str
    label: str
    kind: str
    path: str
    report: dict[str, Any] = field(repr=False)
    files: frozenset[InputFile] = field(repr=False)
    key: str = ""

    def __len__(self) -> int:
        return int(self.report["input"]["slices"])

    def holds(self, study: str) -> bool:
        """Return whether a new file may belong to its study, by a UID, or by a folder (or "archive!") without one."""
        if study in {self.report["source"]["study"], ""} or hashed_uid(study) == self.report["source"]["study"]:
            return True
        return study in {str(Path(path).parent) if member is None else f"{path}!" for path, member in self.files}


def record_files(out: Path, case: Case, report: dict[str, Any]) -> None:
    """Write down the files of a finished case. Without it the case is only read again, so a full disk is no problem."""
    if case.series is None or not report["source"]["stamp"]:
        return  # folders of pictures are told as fast from what is gathered
    files = sorted({(str(s.path.resolve()), s.member) for s in (*sources_of(case), *case.series.beside)}, key=str)
    try:
        stamp = stamp_of_files(files)
        content = {"label": case.label, "path": place_of(case), "key": share_key(case)}
        content |= {"source": report["source"]["stamp"]}
        text = json.dumps(content | {"stamp": stamp, "files": files}, ensure_ascii=False)
        write_whole(out / FOLDER / f"{case.name}.json", text.encode("utf-8", "surrogateescape"), overwrite=True)
    except (OSError, OutputError, UnicodeError):
        return


def untouched_cases(out: Path, same: Callable[[Path], dict[str, Any] | None]) -> Iterator[FinishedCase]:
    """Yield the finished cases in `out` whose files are as they were.

    Args:
        out: The folder of results.
        same: Folder of a case → its report, where the same networks and settings made it; else None.
    """
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            noted = json.loads(path.read_bytes())
            files = [(name, member) for name, member in noted["files"]]
            if stamp_of_files(files) != noted["stamp"]:
                continue
            report = same(out / path.stem)
            if report is None or report["source"]["stamp"] != noted["source"]:
                continue
            kind, key = report["source"]["kind"], noted["key"]
            known = FinishedCase(path.stem, noted["label"], kind, noted["path"], report, frozenset(files), key)
        except (OSError, ValueError, KeyError, TypeError, OutputError):  # it is read again, which says what is wrong
            continue
        yield known
