"""Which result of `jcs diagnose` belongs to which row of a table of labels: by name, path, digest of the input.

A row names a folder of results, or what was diagnosed, with or without its extension. Where several results have the
name, the folders in front of it decide, and then the digest that `report.json` holds: that of the file the row names,
where it is at hand, or the one in the row's column `digest`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jcs_ct.core.digests import digest_of_all
from jcs_ct.core.errors import InputError
from jcs_ct.datasets.manifest import LABELS, read_rows
from jcs_ct.evaluate.matching import agreeing
from jcs_ct.io.files.names import is_litter, natural_key, safe_name, split_extension, volume_stem
from jcs_ct.io.files.opening import read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SHORTEST = 8  # hexadecimal digits of a digest that a table may give
_HINT = "use the name of its folder of results, or add a column digest (source.digest of report.json)"


class Labelled(NamedTuple):
    """What a table says of a study.

    Attributes:
        label: 1 = COVID-19, 0 = not.
        group: The patient; "" where it is not named.
        digest: The first digits of the digest of its input, at least `SHORTEST`; "" where none is given.
        beside: The folder of the table, which paths may be relative to.
    """

    label: int
    group: str
    digest: str
    beside: Path


def read_labels(path: Path) -> dict[str, Labelled]:
    """Return what a table `study,label[,group][,digest]` says of each study.

    Raises InputError where it cannot be read, a label or a digest is none, or a study stands there twice.
    """
    found: dict[str, Labelled] = {}
    for place, row in read_rows(path, ("study", "label", "group", "digest")):
        name, label = row["study"], LABELS.get(row.get("label", "").casefold())
        digest = row.get("digest", "").casefold()
        if label is None:
            raise InputError(
                f"has the label {row.get('label', '')!r}; 1 (COVID-19) or 0 is expected",
                path=place,
                hint="correct the row",
            )
        if digest and (len(digest) < SHORTEST or set(digest) - set("0123456789abcdef")):
            raise InputError(
                f"has the digest {digest!r}; {SHORTEST} hexadecimal digits or more are expected",
                path=place,
                hint="take source.digest of report.json",
            )
        if name in found:
            raise InputError(f"names the study {name!r} again", path=place, hint="keep one row")
        found[name] = Labelled(label, row.get("group", ""), digest, path.parent)
    return found


def match_results(
    labels: Mapping[str, Labelled], reports: Mapping[str, Mapping[str, Any]], where: Path
) -> tuple[dict[str, str], list[InputError]]:
    """Return the result of each row that has one, and what is wrong with the other rows.

    `reports` has the report of each folder of results; `where` messages call the folder of all.
    """
    by_name: dict[str, set[str]] = {}
    for case, content in reports.items():
        last = Path(_path_of(content)).name
        for name in {case, last, split_extension(last)[0], volume_stem(last) or ""} - {""}:
            by_name.setdefault(name, set()).add(case)
    pairs: dict[str, str] = {}
    problems: list[InputError] = []
    taken: dict[str, str] = {}
    found: dict[str, tuple[set[str], list[str]]] = {}
    for name, row in labels.items():
        stem = safe_name(split_extension(Path(name).name)[0])
        named = by_name.get(name) or by_name.get(Path(name).name) or by_name.get(stem) or set()
        found[name] = named, _told_apart(name, row, named, reports)
    alone = {cases[0] for _, cases in found.values() if len(cases) == 1}
    for name, row in labels.items():
        named, cases = found[name]
        if len(cases) > 1 and name in reports and set(cases) - alone == {name}:
            cases = [name]  # the table names folders of results, and this is one: the others have rows of their own
        if len(cases) != 1:
            problems.append(InputError(_why(named, cases, row, where), path=name, hint=_HINT))
        elif (case := cases[0]) in taken:
            message = f"has the result {case}, which is that of {taken[case]} already"
            problems.append(InputError(message, path=name, hint="keep one row of a study"))
        else:
            taken[case] = name
            pairs[name] = case
    return pairs, problems


def copies(digests: Iterable[str]) -> int:
    """Return how many studies have the bytes of one before them."""
    known = [digest for digest in digests if digest]
    return len(known) - len(set(known))


def _told_apart(name: str, row: Labelled, named: set[str], reports: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return those of the results with a name that the row can mean."""
    cases = sorted(named)
    if row.digest:
        return [case for case in cases or sorted(reports) if _digest_of(reports[case]).startswith(row.digest)]
    if name in reports or "/" not in name.replace("\\", "/"):
        return cases
    agreeing = {case: _agreeing(name, _path_of(reports[case])) for case in cases}
    most = max(agreeing.values(), default=0)
    by_path = [case for case in cases if agreeing[case] == most and most > 1]
    if len(by_path) == 1:
        return by_path
    for path in (Path(name), row.beside / name):
        if path.exists():
            return [case for case in cases if _digest_of(reports[case]) == input_digest(path, reports[case])]
    return by_path


def _why(named: set[str], cases: list[str], row: Labelled, where: Path) -> str:
    if not named and not cases:
        return f"has no result in {where}"
    if not cases:
        what = f"its digest {row.digest[:SHORTEST]}…" if row.digest else "its path and its bytes"
        few = ", ".join(sorted(named)[:3])
        return f"has no result in {where}: {few} {'has' if len(named) == 1 else 'have'} the name, and not {what}"
    return f"has {len(cases)} results: {', '.join(cases[:3])} in {where}"


def _agreeing(one: str, other: str) -> int:
    """Return how many parts of two paths agree, from the end; all of them where the shorter one is used up."""
    a, b = ([part for part in text.replace("\\", "/").split("/") if part not in {"", "."}] for text in (one, other))
    count = agreeing(a, b)
    return count + (count == min(len(a), len(b)))


def input_digest(path: Path, content: Mapping[str, Any]) -> str:
    """Return the digest that a report, which says of what kind the input was, would hold of a file or a folder's files.

    Raises InputError where one cannot be read.
    """
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    files = [p for p in files if p == path or not is_litter(p.relative_to(path).as_posix())]
    files.sort(key=lambda p: natural_key(p.as_posix()))
    digests = [hashlib.sha256(read_file(p)).digest() for p in files]
    return digest_of_all(digests, in_order=content.get("source", {}).get("kind") == "pictures")


def _path_of(content: Mapping[str, Any]) -> str:
    return str(content.get("source", {}).get("path", ""))


def _digest_of(content: Mapping[str, Any]) -> str:
    return str(content.get("source", {}).get("digest", ""))
