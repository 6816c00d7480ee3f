"""Which bytes a result belongs to: digests of inputs, names of cases that depend on nothing else, a key for UIDs."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.whole_files import write_whole
from jcs_ct.weights.store import home

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jcs_ct.io.files.sources import Source
    from jcs_ct.study.case import Case

KEY_FILE = "identity.key"
"""In JCS_HOME: the key that UIDs are hashed with, so that hashes agree on one machine and tell nothing elsewhere."""


@dataclass(frozen=True)
class InputIdentity:
    """What tells one input from another.

    Attributes:
        path: As it was given, or found below what was given.
        kind: "dicom", "nifti" or "pictures".
        files: Number of files.
        digest: SHA-256 over the digests of all files' bytes, in an order that does not depend on their names.
        stamp: SHA-256 over names, sizes and times of change: while it is the same, the bytes are not read again.
        passed: How many series of the study were read before it and showed no lungs; their files count too.
        study, series: UIDs, hashed with this machine's key unless the identity is kept; "" where there are none.
    """

    path: str
    kind: str
    files: int
    digest: str
    stamp: str
    study: str = ""
    series: str = ""
    passed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the `source` object of report.json."""
        return dict(vars(self))


def place_of(case: Case) -> str:
    """Return where a case lies: its file, or the folder (or archive) that its files share."""
    if case.kind == "pictures":
        return case.label
    first = case.series.passed[0] if case.series is not None and case.series.passed else None
    sources = case.sources if first is None else first.sources  # what is read in the end does not move the case
    if len(sources) == 1:
        return str(sources[0].label)
    paths = {str(source.path) for source in sources}
    return paths.pop() if len(paths) == 1 else os.path.commonpath([str(source.path.parent) for source in sources])


def sources_of(case: Case) -> tuple[Source, ...]:
    """Return every file that a result depends on: also those of series that showed no lungs."""
    passed = () if case.series is None else case.series.passed
    return (*case.sources, *(source for series in passed for source in series.sources))


def stamp_of(sources: Iterable[Source]) -> str:
    """Return a digest of names, sizes and times of change; "" where a file cannot be looked at."""
    try:
        return stamp_of_files((str(source.path.resolve()), source.member) for source in sources)
    except OSError:
        return ""


def stamp_of_files(files: Iterable[tuple[str, str | None]]) -> str:
    """Return the same of files and members of archives, in any order. Raises OSError where one is not there."""
    lines = []
    seen: dict[str, str] = {}  # an archive holds many
    for path, member in set(files):
        if path not in seen:
            status = Path(path).stat()
            seen[path] = f"{status.st_size}|{status.st_mtime_ns}|{status.st_ino}"
        lines.append(f"{path}|{member}|{seen[path]}")
    return hashlib.sha256("\n".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def digest_of(case: Case) -> str:
    """Return a digest of the bytes of all files: in the order of the pictures, in any order for a volume.

    Raises:
        InputError: A file cannot be read.
    """
    files = {(str(source.path), source.member): source for source in sources_of(case)}
    digests = [hashlib.sha256(source.read()).digest() for source in files.values()]
    return hashlib.sha256(b"".join(digests if case.kind == "pictures" else sorted(digests))).hexdigest()


def identify(case: Case, *, keep_identity: bool = False) -> InputIdentity:
    """Return the identity of a case. Raises InputError where a file cannot be read."""
    stamp = stamp_of(sources_of(case))  # before the bytes: a change in between shows
    study, series = ("", "") if case.series is None else (case.series.study_uid, case.series.series_uid)
    if not keep_identity:
        study, series = hashed_uid(study), hashed_uid(series)
    files = len({(source.path, source.member) for source in sources_of(case)})
    passed = 0 if case.series is None else len(case.series.passed)
    return InputIdentity(place_of(case), case.kind, files, digest_of(case), stamp, study, series, passed)


def unchanged(case: Case, recorded: dict[str, Any]) -> bool:
    """Return whether a case is the input that a report was made from.

    Sizes and times decide only where the number of files and every name are the same; else all bytes are compared.
    """
    stamp = stamp_of(sources_of(case))
    if stamp and stamp == recorded.get("stamp"):
        return True
    return digest_of(case) == recorded.get("digest")


def hashed_uid(uid: str) -> str:
    """Return a UID hashed with this machine's key: 16 hexadecimal digits; "" for ""."""
    return hmac.new(_key(), uid.encode(), hashlib.sha256).hexdigest()[:16] if uid else ""


def _key() -> bytes:
    path = home() / KEY_FILE
    try:
        return path.read_bytes()
    except OSError:
        key = secrets.token_bytes(32)
        try:
            write_whole(path, key)
            path.chmod(0o600)
            return path.read_bytes()
        except Exception:  # noqa: BLE001  # a home that cannot be written: the hash is good for this run
            return key


def digest_key(text: str) -> str:
    """Return 8 hexadecimal digits of the SHA-256 of a text: what tells shares apart, and names of one kind."""
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:8]


def share_key(case: Case) -> str:
    """Return what decides to which share of the work a case belongs: all series of a study have the same."""
    study = "" if case.series is None else case.series.study_uid
    return digest_key(study or _place_key(case))


def _place_key(case: Case) -> str:
    return f"{full_path(place_of(case))}|{case.kind}|{case.name}"


def longer_name(case: Case) -> str:
    """Return the name of a case with a digest of its place, which no other case has."""
    return f"{case.name}-{digest_key(_place_key(case))}"


def with_stable_names(cases: Sequence[Case], out: Path, *, alone: bool = False) -> list[Case]:
    """Return the cases with names that depend on nothing but themselves and what lies in `out` already.

    A case keeps its plain name where no other input has it, here or in `out`; else a digest of its place is added.

    Args:
        cases: As they were gathered.
        out: The folder of results.
        alone: Others may write cases into `out` that are not known here: a plain name is only taken where a result of
            the same input has it.
    """
    plain: dict[str, int] = {}
    for case in cases:
        plain[case.name.casefold()] = plain.get(case.name.casefold(), 0) + 1
    result: list[Case] = []
    taken: set[str] = set()
    for case in cases:
        longer = longer_name(case)
        owner = owner_of(out / case.name)
        mine = full_path(place_of(case))
        if (out / longer).exists():
            name = longer
        elif owner == mine or (owner is None and not alone and plain[case.name.casefold()] == 1):
            name = case.name
        else:
            name = longer
        number = 2
        while name.casefold() in taken:  # one input that was given twice
            name, number = f"{longer}_{number}", number + 1
        taken.add(name.casefold())
        result.append(replace(case, name=name))
    return result


def full_path(place: str) -> str:
    """Return a place in full; links are not followed, and "archive.zip!member" stays as it is behind the archive."""
    return str(Path.cwd() / place)


def owner_of(folder: Path) -> str | None:
    """Return the place of the input whose results lie in a folder; None where none do, "" for those without a word."""
    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        return full_path(json.loads(path.read_text(encoding="utf-8"))["source"]["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
