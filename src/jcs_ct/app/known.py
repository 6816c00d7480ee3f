"""Studies that an earlier run has finished and whose files were not touched since: told by the files alone.

Thousands of headers take minutes to read. So the files of each case are written down when it is finished, in
`OUT/.inputs`, with a stamp of their sizes and times; where all of them are among the inputs and the stamp is the same,
`--resume` takes the case as it is. New files that belong to its study make it be read again (`io.studies`).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.app.identity import hashed, place_of, share_key, sources_of
from jcs_ct.core.errors import OutputError
from jcs_ct.core.whole_files import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from jcs_ct.study.case import Case

FOLDER = ".inputs"
File = tuple[str, "str | None"]
"""Path in full, without links, and member of an archive."""


@dataclass(frozen=True)
class KnownCase:
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
    files: frozenset[File] = field(repr=False)
    key: str = ""

    def __len__(self) -> int:
        return int(self.report["input"]["slices"])

    def holds(self, study: str) -> bool:
        """Return whether a new file may belong to its study, by a UID, or by a folder (or "archive!") without one."""
        if study in {self.report["source"]["study"], ""} or hashed(study) == self.report["source"]["study"]:
            return True
        return study in {str(Path(path).parent) if member is None else f"{path}!" for path, member in self.files}


def note_files(out: Path, case: Case, report: dict[str, Any]) -> None:
    """Write down the files of a finished case. Without it the case is only read again, so a full disk is no problem."""
    if case.series is None or not report["source"]["stamp"]:
        return  # folders of pictures are told as fast from what is gathered
    files = sorted({(str(s.path.resolve()), s.member) for s in (*sources_of(case), *case.series.beside)}, key=str)
    try:
        stamp = _stamp(files)
        content = {"label": case.label, "path": place_of(case), "key": share_key(case)}
        content |= {"source": report["source"]["stamp"]}
        text = json.dumps(content | {"stamp": stamp, "files": files}, ensure_ascii=False)
        write_whole(out / FOLDER / f"{case.name}.json", text.encode("utf-8", "surrogateescape"), overwrite=True)
    except (OSError, OutputError, UnicodeError):
        return


def known_cases(out: Path, same: Callable[[Path], dict[str, Any] | None]) -> Iterator[KnownCase]:
    """Yield the finished cases in `out` whose files are as they were.

    Args:
        out: The folder of results.
        same: Folder of a case → its report, where the same networks and settings made it; else None.
    """
    for path in sorted((out / FOLDER).glob("*.json")):
        try:
            noted = json.loads(path.read_bytes())
            files = [(name, member) for name, member in noted["files"]]
            if _stamp(files) != noted["stamp"]:
                continue
            report = same(out / path.stem)
            if report is None or report["source"]["stamp"] != noted["source"]:
                continue
            kind, key = report["source"]["kind"], noted["key"]
            known = KnownCase(path.stem, noted["label"], kind, noted["path"], report, frozenset(files), key)
        except (OSError, ValueError, KeyError, TypeError, OutputError):  # it is read again, which says what is wrong
            continue
        yield known


def _stamp(files: Iterable[File]) -> str:
    """Return a digest of names, sizes and times of files. Raises OSError where one is not there."""
    lines = []
    seen: dict[str, str] = {}  # an archive holds many
    for path, member in files:
        if path not in seen:
            status = Path(path).stat()
            seen[path] = f"{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
        lines.append(f"{path}|{member}|{seen[path]}")
    return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()
