"""Which bytes a result belongs to: digests of inputs, names of cases that depend on nothing else, a key for UIDs."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jcs_ct.core.digests import digest_of_all
from jcs_ct.core.warning import code_of
from jcs_ct.core.whole_files import write_whole
from jcs_ct.weights.store import home

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

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
        started_in: The folder that a relative path starts from; "" of any other path.
        as_read: See `as_read`.
        reading: The options that decided how it was read (`jcs_ct.app.gather.gather`).
    """

    path: str
    kind: str
    files: int
    digest: str
    stamp: str
    study: str = ""
    series: str = ""
    passed: int = 0
    started_in: str = ""
    as_read: str = ""
    reading: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the `source` object of report.json."""
        return dict(vars(self))


def place_of(case: Case) -> str:
    """Return where a case lies: its file, that of its header, or the folder (or archive) that its files share."""
    if case.kind == "pictures":
        return case.label
    if case.kind == "nifti":  # several volumes, each with a file of values, may lie in one folder
        return str(case.sources[0].label)
    first = case.series.passed[0] if case.series is not None and case.series.passed else None
    sources = case.sources if first is None else first.sources  # what is read in the end does not move the case
    if len(sources) == 1:
        return str(sources[0].label)
    paths = {str(source.path) for source in sources}
    if len(paths) == 1:
        return paths.pop()
    folders = {source.path.parent for source in sources}
    if len({folder.is_absolute() for folder in folders}) > 1:
        folders = {folder.absolute() for folder in folders}
    return os.path.commonpath(folders) or "."


def sources_of(case: Case) -> tuple[Source, ...]:
    """Return every file that a result depends on: also those of series that showed no lungs."""
    passed = () if case.series is None else case.series.passed
    return (*case.sources, *(source for series in passed for source in series.sources))


def stamp_of(case: Case) -> str:
    """Return a digest of names, sizes and times of change of all files; "" where a file cannot be looked at."""
    files = [(str(source.path.resolve()), source.member) for source in sources_of(case)]
    try:
        return stamp_of_files(files, in_order=case.kind == "pictures")
    except OSError:
        return ""


def stamp_of_files(files: Iterable[tuple[str, str | None]], *, in_order: bool = False) -> str:
    """Return the same of files (path in full) and members of archives. Raises OSError where one is not there.

    The time of the last change of a file's entry (ctime) counts too: copying with times (`cp -p`) cannot set it. With
    `in_order` another order is another stamp.
    """
    lines = []
    seen: dict[str, str] = {}  # an archive holds many
    for path, member in dict.fromkeys(files):
        if path not in seen:
            status = Path(path).stat()
            seen[path] = f"{status.st_size}|{status.st_mtime_ns}|{status.st_ctime_ns}|{status.st_ino}"
        lines.append(f"{path}|{member}|{seen[path]}")
    lines = lines if in_order else sorted(lines)
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def as_read(case: Case) -> str:
    """Return a digest of a volume's grid and of what was said of it when it was read; "" of pictures."""
    if case.series is None:
        return ""
    grid = case.series.geometry
    said = [[code_of(text), str(text)] for text in case.series.warnings]
    facts = [list(grid.shape), [round(float(number), 6) for number in grid.affine.ravel()], said]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def digest_of(case: Case) -> str:
    """Return a digest of all files' bytes: of pictures in their order, of a volume in any. Raises InputError."""
    files = {(str(source.path), source.member): source for source in sources_of(case)}
    digests = [hashlib.sha256(source.read()).digest() for source in files.values()]
    return digest_of_all(digests, in_order=case.kind == "pictures")


def identify(case: Case, reading: Mapping[str, Any] | None = None) -> InputIdentity:
    """Return the identity of a case, read with some options. Raises InputError where a file cannot be read."""
    reading = dict(reading or {})
    stamp = stamp_of(case)  # before the bytes: a change in between shows
    study, series = ("", "") if case.series is None else (case.series.study_uid, case.series.series_uid)
    if not reading.get("keep_identity"):
        study, series = hashed_uid(study), hashed_uid(series)
    files = len({(source.path, source.member) for source in sources_of(case)})
    passed = 0 if case.series is None else len(case.series.passed)
    place = place_of(case)
    told: Any = {"started_in": started_in(place), "as_read": as_read(case), "reading": reading}
    return InputIdentity(place, case.kind, files, digest_of(case), stamp, study, series, passed, **told)


def unchanged(case: Case, recorded: Mapping[str, Any]) -> bool:
    """Return whether a case is the input that a report was made from.

    Sizes and times decide only where the number of files and every name are the same; else all bytes are compared.
    """
    stamp = stamp_of(case)
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
    plain = Counter(case.name.casefold() for case in cases)
    result: list[Case] = []
    taken: set[str] = set()
    for case in cases:
        longer, owner = longer_name(case), owner_of(out / case.name)
        free = owner is None and not alone and plain[case.name.casefold()] == 1
        own = owner == full_path(place_of(case))
        name = case.name if (own or free) and not (out / longer).exists() else longer
        number = 2
        while name.casefold() in taken:  # one input that was given twice
            name, number = f"{longer}_{number}", number + 1
        taken.add(name.casefold())
        result.append(replace(case, name=name))
    return result


def full_path(place: str, folder: str = "") -> str:
    """Return a place in full; links are not followed, and "archive.zip!member" stays as it is behind the archive.

    Args:
        place: As it was given; a URL is in full already.
        folder: What a relative place starts from; "" for the folder that this process works in.
    """
    return place if "://" in place else str((Path(folder) if folder else Path.cwd()) / place)


def started_in(place: str) -> str:
    """Return the folder that a relative place starts from: the one that this process works in; "" of any other."""
    return "" if "://" in place or Path(place).is_absolute() else str(Path.cwd())


def recorded_place(source: Mapping[str, Any]) -> str:
    """Return the place that a report's `source` names in full; "" where it does not say what a relative one is of."""
    place, folder = str(source["path"]), source.get("started_in") or ""
    return full_path(place, folder) if folder or not started_in(place) else ""


def owner_of(folder: Path) -> str | None:
    """Return the place of the input whose results lie in a folder; None where none do, "" for those without a word."""
    path = folder / "report.json"
    if not path.exists():
        return None
    try:
        return recorded_place(json.loads(path.read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return ""
