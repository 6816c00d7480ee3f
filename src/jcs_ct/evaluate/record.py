"""What scores are of: slices by their content, predictions, settings. So that unlike ones are not compared.

`scores.json` holds it as "fingerprint". Slices are told by what their files hold, with mask or label and patient;
their names serve messages, and order and place do not count.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from jcs_ct.core.errors import InputError
from jcs_ct.core.version import __version__
from jcs_ct.datasets.slices import content_digest, mask_digest
from jcs_ct.io.files.walk import count, few

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.evaluate.inputs import Case

LENGTH = 16  # hexadecimal digits that are kept of a digest


@dataclass(frozen=True)
class ScoreRecord:
    """What scores are of.

    Attributes:
        task: "segment", "classify", "explain" or "study".
        predictions: What the model is called, or where its maps lay.
        made_by: Digest of the weights, or of the maps, probabilities or verdicts that were scored, with their slices.
        settings: What decides the scores besides.
        slices: What a slice is called → digest of picture, mask or label, and patient.
        jcs_ct: Version of this package.
    """

    task: str
    predictions: str
    made_by: str
    settings: Mapping[str, Any]
    slices: Mapping[str, str]
    jcs_ct: str = __version__

    @property
    def data(self) -> str:
        """Digest of all slices."""
        return hashlib.sha256("".join(sorted(self.slices.values())).encode()).hexdigest()[:LENGTH]

    def facts(self) -> dict[str, Any]:
        """Return what `scores.json` holds of it."""
        return {"data": self.data, **asdict(self)}


def record_of(
    task: str,
    predictions: str,
    made_by: str | Mapping[str, Path | float],
    settings: Mapping[str, Any],
    cases: Sequence[Case],
) -> ScoreRecord:
    """Return the record of the scores of `cases`. Raises InputError where a file cannot be read.

    The other arguments are as in `ScoreRecord`, but `made_by`: the digest of the weights; or the map or the probability
    that was scored, by the name of its slice.
    """
    # As JSON gives it back, so that what was read is compared with what is written.
    plain: dict[str, Any] = json.loads(json.dumps(dict(settings)))
    contents: dict[Path, str] = {}  # of a volume every slice asks
    masks = cache(mask_digest)
    slices = {}
    for case in cases:
        path = case.sample.path
        # Probabilities can be scored where the slices themselves are not at hand: these go by their names.
        if path not in contents and path.exists():
            contents[path] = content_digest(case.sample)
        slices[case.name] = _digest(case, contents.get(path, case.key), masks)
    if not isinstance(made_by, str):  # each with its slice: maps that changed places are others
        told = {name: repr(m) if isinstance(m, float) else masks(m) for name, m in made_by.items()}
        lines = sorted(f"{slices[name]} {digest}" for name, digest in told.items())
        made_by = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    return ScoreRecord(task, predictions, made_by[:LENGTH], plain, slices)


def _digest(case: Case, content: str, mask_digest: Callable[[Path], str]) -> str:
    sample = case.sample
    mask = "" if sample.mask is None else mask_digest(sample.mask)
    # A slice without a group is its own, wherever it lies.
    facts = [content, mask, sample.label, sample.group]
    facts += [] if sample.index is None else [sample.index, *sample.lesions]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:LENGTH]


def read_scores(path: Path) -> tuple[dict[str, Any], ScoreRecord]:
    """Read the scores in a folder, or in a `scores.json`, and what they are of.

    Raises InputError where there are none, or they do not say what they are of.
    """
    file = path / "scores.json" if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        held = dict(content["fingerprint"])
        data = held.pop("data")
        record = ScoreRecord(**held)
        if record.data != data:
            raise InputError(
                "says that its scores are of other slices than it lists", path=file, hint="score them again"
            )
        return content, record
    except OSError as error:
        hint = "give a folder that `jcs evaluate` has written"
        raise InputError(f"cannot be read: {error.strerror}", path=file, hint=hint) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError("does not say what its scores are of", path=file, hint="score the slices again") from error


def differences(one: ScoreRecord, other: ScoreRecord) -> list[str]:
    """Return why scores cannot be compared: other slices, other settings; a line each, the first few named."""
    if one.task != other.task:
        return [f"one is of `evaluate {one.task}`, the other of `evaluate {other.task}`"]
    lines = []
    if one.data != other.data:
        here, there = dict(one.slices), dict(other.slices)
        lost, new = set(here.values()) - set(there.values()), set(there.values()) - set(here.values())
        first, second = ([n for n, d in s.items() if d in kind] for s, kind in ((here, lost), (there, new)))
        changed = [name for name in first if name in set(second)]
        for names, one_is, many_are in (
            (changed, "has another picture, mask, label or patient", "have other pictures, masks, labels or patients"),
            ([n for n in first if n not in changed], "is in the first only", "are in the first only"),
            ([n for n in second if n not in changed], "is in the second only", "are in the second only"),
        ):
            if names:
                told = one_is if len(names) == 1 else many_are
                lines.append(f"{count(len(names), 'slice')} ({few(names)}) {told}")
        if not lines:
            lines.append(f"slices are counted {len(here)} and {len(there)} times")
    for name in sorted({*one.settings, *other.settings}):
        values = one.settings.get(name), other.settings.get(name)
        if values[0] != values[1]:
            words = ("nothing" if value is None else str(value) for value in values)
            lines.append(f"{name} is {' and '.join(words)}")
    if one.jcs_ct != other.jcs_ct:
        lines.append(f"version of jcs-ct is {one.jcs_ct} and {other.jcs_ct}")
    return lines


def changes(path: Path, now: ScoreRecord) -> str:
    """Return what the scores that lie at `path` are of that new ones are not; "" where there is nothing to say."""
    try:
        _, before = read_scores(path)
    except InputError:  # none, or such as an earlier version wrote
        return ""
    lines = differences(before, now)
    if before.made_by != now.made_by and (before.data == now.data or before.predictions != now.predictions):
        lines.insert(0, f"they are of {before.predictions}, not of {now.predictions}")
        if before.predictions == now.predictions:
            lines[0] = f"{now.predictions} is another one now, under the same name"
    return f"the scores that were there cannot be compared with these: {'; '.join(lines)}" if lines else ""
