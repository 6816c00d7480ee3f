"""Shares of the work: K of N machines take the K-th share each, without a word to one another.

A study belongs to a share by a digest of what it is, so that the shares are disjoint and stay the same when studies are
added, inputs come in another order, or a run goes on. By study (the usual way) every machine reads all headers and the
shares are right however the files lie. By entry no machine reads headers of another's share, and each entry of the
inputs must hold whole studies: see `entries`.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jcs_ct.app.identity import digest_key, full_path, share_key
from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.io.files.kinds import ARCHIVES, FOR_STUDIES, GRIDS, Kind
from jcs_ct.io.files.names import is_litter, natural_key
from jcs_ct.io.files.opening import peek
from jcs_ct.io.files.sources import LIST_EXTENSIONS, list_lines
from jcs_ct.io.files.walk import is_result

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from jcs_ct.app.gather import Gathered
    from jcs_ct.study.case import Case

_SHARE = re.compile(r"([0-9]{1,6})/([0-9]{1,6})")


@dataclass(frozen=True)
class Share:
    """One of several disjoint shares: the number (from 1) of so many."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Share:
        """Return the share that "3/40" means. Raises UsageError."""
        found = _SHARE.fullmatch(text.strip())
        number, of = (int(found[1]), int(found[2])) if found else (0, 0)
        if not 1 <= number <= of:
            raise UsageError(f"{text!r} is not a share of the work; expected is K/N with 1 ≤ K ≤ N", hint="as in 3/40")
        return cls(number, of)

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def has(self, key: str) -> bool:
        """Return whether what has this key (`jcs_ct.app.identity.digest_key`) belongs to the share."""
        return int(key, 16) % self.of == self.number - 1

    def of_found(self, found: Gathered) -> Gathered:
        """Leave out what other shares do; what is left comes longest first, so that the last study is a short one."""
        cases = longest_first(case for case in found.cases if self.has(share_key(case)))
        return replace(
            found,
            cases=tuple(cases),
            problems=tuple(one for one in found.problems if self.has(digest_key(full_path(one.path or one.message)))),
            kept=tuple(case for case in found.kept if self.has(case.key)),
        )

    def of_entries(self, inputs: Sequence[str]) -> list[str]:
        """Return the entries of the inputs (`entries`) that belong to the share. Raises as that does."""
        return [entry for entry in entries(inputs) if self.has(digest_key(full_path(entry)))]


def longest_first(cases: Iterable[Case]) -> list[Case]:
    """Return cases in an order in which the last is a short one."""
    return sorted(cases, key=lambda case: (-len(case), case.name))


def entries(inputs: Sequence[str]) -> list[str]:
    """Return what inputs consist of, without reading a header: the units of shares by entry.

    A file or an archive is one entry, and so is each line of a list. A folder is its sub-folders, archives and volumes,
    an entry each; but where slices lie in it, it is one study's, and one entry.

    Raises:
        InputError: An input does not exist or cannot be read.
    """
    result: list[str] = []
    for item in inputs:
        path = Path(item)
        if path.is_dir():
            result += _folder_entries(path)
        elif path.suffix.lower() in LIST_EXTENSIONS and peek(path)[0] is Kind.TEXT:
            result += [str(path.parent / line) for line in list_lines(path)]
        else:
            peek(path)  # that it is there
            result.append(str(path))
    return list(dict.fromkeys(result))


def _folder_entries(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as listing:
            found = sorted((e for e in listing if not is_litter(e.name)), key=lambda e: natural_key(e.name))
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=folder, hint="check its permissions") from error
    chosen = []
    for entry in found:
        path = folder / entry.name
        if entry.is_dir():
            if not is_result(path, set(os.listdir(path))):  # noqa: PTH208  # names are all that is needed
                chosen.append(str(path))
            continue
        kind = peek(path)[0]
        if kind in ARCHIVES or kind in GRIDS:
            chosen.append(str(path))
        elif kind in FOR_STUDIES.kinds or kind is Kind.DICOM_GZIP:
            return [str(folder)]
        elif FOR_STUDIES.promised(entry.name):  # and does not hold it, which is for its share to say
            chosen.append(str(path))
    return chosen
