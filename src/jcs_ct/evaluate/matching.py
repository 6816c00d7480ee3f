"""Which prediction belongs to which slice: equal stems, told apart by the folders in front of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jcs_ct.core.errors import InputError
from jcs_ct.io.files.names import safe_name, split_extension

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Parts = tuple[str, ...]


@dataclass(frozen=True)
class Matched:
    """What `match` found.

    Attributes:
        pairs: Slice → prediction, in the order of the slices.
        problems: Slices without a prediction, or with several, one line each.
        extra: Predictions that no slice asked for.
    """

    pairs: dict[str, str]
    problems: tuple[InputError, ...]
    extra: tuple[str, ...]


def match(slices: Mapping[str, str], predictions: Sequence[str], what: str, where: str) -> Matched:
    """Match "/"-separated paths; extensions do not count, and names may have been made safe as `jcs segment` does.

    Where two slices have one stem, the last folder must agree as well; of several predictions the one with most equal
    folders is taken. `slices` has for each slice the path that its prediction is called by; `what` messages call a
    prediction, and `where` they were looked for.
    """
    by_stem: defaultdict[str, list[tuple[Parts, str]]] = defaultdict(list)
    for path in predictions:
        parts = _parts(path)
        by_stem[parts[-1]].append((parts, path))
    named = [(key, _parts(path)) for key, path in slices.items()]
    shared = {stem for stem, number in Counter(parts[-1] for _, parts in named).items() if number > 1}
    pairs: dict[str, str] = {}
    problems: list[InputError] = []
    for key, parts in named:
        need = 2 if parts[-1] in shared else 1
        scored = [(agreeing(parts, other), prediction) for other, prediction in by_stem.get(parts[-1], ())]
        best = max((score for score, _ in scored), default=0)
        found = [prediction for score, prediction in scored if score == best >= need]
        if len(found) == 1:
            pairs[key] = found[0]
        elif found:
            names = ", ".join(found[:3])
            problems.append(InputError(f"has {len(found)} {what}s in {where}: {names}", path=key, hint="keep one"))
        else:
            problems.append(InputError(f"has no {what} in {where}", path=key, hint="add it, or leave the slice out"))
    used = set(pairs.values())
    return Matched(pairs, tuple(problems), tuple(p for p in predictions if p not in used))


def agreeing(one: Sequence[str], other: Sequence[str]) -> int:
    """Return how many parts of two paths agree, from the end."""
    pairs = zip(reversed(one), reversed(other), strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def _parts(path: str) -> Parts:
    """Return the folders and the stem, as they would be written. "archive.zip!a/b.png" is read as a/b in a folder."""
    stem, _ = split_extension(path.replace("\\", "/").replace("!", "/"))
    stem = stem.removesuffix(".npy")
    return tuple(safe_name(part) for part in stem.split("/") if part not in {"", "."})
