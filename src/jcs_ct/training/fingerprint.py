"""What a run was started on: every slice by its content, with its label, mask, part and group; settings; versions.

It lies in the folder of the run as `fingerprint.json`, its digest in `run.json` and in the checkpoint. A run that is
resumed is compared with it, and what differs is named. Slices are told by what their files hold, so that their order
and where they lie do not count; the order of the first start is kept, and with it what every step computes.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, TypeVar

from jcs_ct.core.errors import InputError, UsageError
from jcs_ct.core.version import __version__
from jcs_ct.core.whole_files import write_whole
from jcs_ct.datasets.samples import relative_name
from jcs_ct.datasets.slices import content_digest, mask_digest
from jcs_ct.io.files.walk import count, few

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jcs_ct.datasets.samples import Dataset, Sample

T = TypeVar("T")

FILE = "fingerprint.json"
SCHEMA = 1
TRAINING, VALIDATION = "training", "validation"
RESUMED = "resumed on changed data, as asked"
FINISHED = "finished before a change that was accepted, as asked"
_ROW = ("name", "content", "mask", "label", "part", "fold", "group", "source")
_AGAIN = "start a new run in another folder, or give --accept-changed-data with --resume: the weights' card will say so"


@dataclass(frozen=True)
class Entry:
    """One slice of a run.

    Attributes:
        name: What messages call it. It is not compared, and neither is the place among the others.
        content: SHA-256 of its file; of a volume, of all its files, with the number of the slice.
        mask: SHA-256 of its mask; "empty" where it is known to show no lesion; "" without.
        label: 1 = COVID-19, 0 = not, None: not known.
        part: "training" or "validation".
        fold: Number of its fold.
        group: Whom it is of.
        source: Where it comes from.
    """

    name: str
    content: str
    mask: str
    label: int | None
    part: str
    fold: int | None
    group: str | None
    source: str | None

    @property
    def facts(self) -> tuple[object, ...]:
        """What is compared, besides the content."""
        return self.part, self.fold, self.label, self.mask, self.group, self.source


@dataclass(frozen=True)
class Fingerprint:
    """What a run was started on.

    Attributes:
        entries: The slices, in the order that the steps count them in.
        config: The settings that decide what is computed.
        versions: Of the package and its libraries.
        accepted: What was changed and accepted since the start, a line each time.
        before: Digests that it had earlier, before something was accepted.
    """

    entries: tuple[Entry, ...]
    config: Mapping[str, Any]
    versions: Mapping[str, str]
    accepted: tuple[str, ...] = ()
    before: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of what is compared; neither names nor the order of slices change it."""
        slices = sorted(json.dumps([e.content, *e.facts]) for e in self.entries)
        text = json.dumps([slices, self.config, self.versions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def data_digest(self) -> str:
        """Return the SHA-256 of the contents of all slices and masks, each once."""
        files = sorted({value for e in self.entries for value in (e.content, e.mask) if value})
        return hashlib.sha256("".join(files).encode()).hexdigest()

    def to_json(self) -> str:
        """Return it as JSON, a line for each slice."""
        rows = [json.dumps([getattr(e, name) for name in _ROW], ensure_ascii=False) for e in self.entries]
        head = {"schema": SCHEMA, "digest": self.digest, "accepted": list(self.accepted), "before": list(self.before)}
        head |= {"config": dict(self.config), "versions": dict(self.versions), "columns": list(_ROW)}
        body = json.dumps(head, indent=1, ensure_ascii=False).removesuffix("\n}")
        return f'{body},\n "slices": [\n  ' + ",\n  ".join(rows) + "\n ]\n}\n"

    @classmethod
    def from_json(cls, text: str) -> Fingerprint:
        """Read what `to_json` wrote. Raises ValueError for anything else."""
        try:
            held = json.loads(text)
            rows = [dict(zip(held["columns"], row, strict=True)) for row in held["slices"]]
            read = cls(
                tuple(Entry(**row) for row in rows),
                held["config"],
                held["versions"],
                tuple(held["accepted"]),
                tuple(held["before"]),
            )
            if held["schema"] != SCHEMA or read.digest != held["digest"]:
                raise ValueError("its digest is that of other content")
        except (KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"no such layout: {error}") from error
        return read

    def write(self, folder: Path) -> None:
        """Write it into the folder of a run. Raises OutputError as `write_whole`."""
        write_whole(folder / FILE, self.to_json().encode(errors="backslashreplace"), overwrite=True)


def started_on(
    config: Any,
    leave_out: Sequence[str],
    training: Sequence[Sample],
    held: Sequence[Sample],
    datasets: Sequence[Dataset],
    root: Path,
    *,
    features: bool = False,
) -> Fingerprint:
    """Return what a run is started on: the slices it trains on, those it validates on, settings and versions.

    Of the settings (a dataclass with a `fold`) some are left out, which decide nothing. Messages name slices below
    `root`; `features`: the run reads stage-1 features. Raises InputError where a file cannot be read.
    """
    entries: tuple[Entry, ...] = ()
    for part, samples in ((TRAINING, training), (VALIDATION, held)):
        # A fold counts where the run is one of a fold.
        kept = samples if config.fold is not None else [replace(s, fold=None) for s in samples]
        entries += entries_of(kept, part, root, features=features)
    settings = {name: value for name, value in asdict(config).items() if name not in leave_out}
    settings = json.loads(json.dumps(settings))  # as it is read again
    own = {"jcs-ct": __version__, "python": ".".join(platform.python_version_tuple()[:2])}
    libraries = {name: version(name) for name in ("torch", "lightning", "monai", "numpy", "scipy", "pillow")}
    return Fingerprint(entries, settings | label_names(datasets), own | libraries)


def entries_of(samples: Sequence[Sample], part: str, root: Path, *, features: bool = False) -> tuple[Entry, ...]:
    """Return what a run remembers of the slices of one part, named below `root`; reads every file once.

    Raises InputError where one cannot be read.
    """
    contents: dict[Path, str] = {}  # every slice of a volume asks for the same
    masks = cache(mask_digest)
    found = []
    for sample in samples:
        path = sample.features if features and sample.features else sample.path
        if path not in contents:
            contents[path] = content_digest(sample, path)
        at = "" if sample.index is None else f"#{sample.index}"
        empty = "empty" if sample.empty else ""
        labels = "".join(f"={label}" for label in sample.lesions)  # those of the mask that are lesion
        found.append(
            Entry(
                relative_name(path, root) + at,
                contents[path] + at,
                empty if sample.mask is None else masks(sample.mask) + labels,
                sample.label,
                part,
                sample.fold,
                sample.group,
                sample.source,
            )
        )
    return tuple(found)


def read_fingerprint(folder: Path) -> Fingerprint:
    """Read that of a run. Raises InputError where it has none, or it is damaged."""
    path = folder / FILE
    try:
        return Fingerprint.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        message = f"has no {FILE}, so that nobody knows which slices the run was started on"
        raise InputError(message, path=folder, hint=_AGAIN) from error
    except (OSError, ValueError) as error:
        raise InputError(f"is not what a run has written: {error}", path=path, hint=_AGAIN) from error


def compare_with_start(folder: Path, now: Fingerprint, *, accept: bool, say: Callable[[str], None]) -> Fingerprint:
    """Compare what a run is to be resumed on with what it was started on; return what counts from now on.

    Slices stand in the order of the start, new ones behind them. Where something differs, or the run has no
    fingerprint, this raises InputError, or, with `accept`, notes and says it.
    """
    try:
        before = read_fingerprint(folder)
    except InputError as error:
        if not accept:
            raise
        line = f"resumed without a word on what it was started on ({error.message})"
        say(f"warning: {line}")
        return replace(now, accepted=(line,))
    now = replace(now, entries=in_order(now.entries, now.entries, before.entries))
    found = differences(before, now)
    if not found:
        return replace(now, accepted=before.accepted, before=before.before)
    if not accept:
        more = f"; and {len(found) - 6} more" if len(found) > 6 else ""
        text = f"was started on something else than is here now: {'; '.join(found[:6])}{more}"
        raise InputError(text, path=folder, hint=_AGAIN)
    line = f"{RESUMED}: {'; '.join(found)}"
    say(f"warning: {line}")
    earlier = (*before.before, before.digest)
    return replace(now, accepted=(*before.accepted, line), before=earlier)


def in_order(items: Sequence[T], entries: Sequence[Entry], before: Sequence[Entry]) -> tuple[T, ...]:
    """Return the items that belong to `entries` in the order in which `before` has their slices; new ones last.

    Of slices with equal content those with equal facts belong together.
    """
    exact: defaultdict[tuple[object, ...], list[int]] = defaultdict(list)
    alike: defaultdict[str, list[int]] = defaultdict(list)
    for i, entry in enumerate(before):
        exact[(entry.content, *entry.facts)].append(i)
        alike[entry.content].append(i)
    places = [(len(before), i) for i in range(len(entries))]
    taken: set[int] = set()
    for same in (True, False):
        for i, entry in enumerate(entries):
            if places[i][0] < len(before):
                continue
            candidates = exact[(entry.content, *entry.facts)] if same else alike[entry.content]
            free = next((j for j in candidates if j not in taken), None)
            if free is not None:
                taken.add(free)
                places[i] = (free, i)
    return tuple(items[i] for _, i in sorted(places))


def differences(before: Fingerprint, now: Fingerprint) -> list[str]:
    """Return what differs, a line for each kind, with counts and the first few names."""
    by_content: dict[str, tuple[list[Entry], list[Entry]]] = {}
    for side, fingerprint in enumerate((before, now)):
        for entry in fingerprint.entries:
            by_content.setdefault(entry.content, ([], []))[side].append(entry)
    lost: list[str] = []
    added: list[str] = []
    changed: defaultdict[str, list[str]] = defaultdict(list)
    for both in by_content.values():
        was, is_now = _unlike(*both)
        for one, other in zip(was, is_now, strict=False):
            for what in _changes(one, other):
                changed[what].append(other.name)
        lost += [e.name for e in was[len(is_now) :]]
        added += [e.name for e in is_now[len(was) :]]
    replaced = [name for name in added if name in set(lost)]
    lines = [f"{_slices(names)} {what}" for what, names in changed.items()]
    if replaced:
        lines.append(f"{_slices(replaced)} hold{'s' * (len(replaced) == 1)} other bytes")
    for names, what in ((lost, "gone"), (added, "new")):
        rest = [name for name in names if name not in set(replaced)]
        if rest:
            lines.append(f"{_slices(rest)} {'is' if len(rest) == 1 else 'are'} {what}")
    for kind, one_set, other_set in (("", before.config, now.config), ("version of ", before.versions, now.versions)):
        for name in sorted({*one_set, *other_set}):
            values = one_set.get(name), other_set.get(name)
            if values[0] != values[1]:
                lines.append(f"{kind}{name} was {_word(values[0])} and is {_word(values[1])}")
    return lines


def compare_checkpoint(held: str | None, settled: Fingerprint, path: Path) -> None:
    """Refuse a checkpoint of another run than the one that `settled` is of, by the digest in it. Raises UsageError."""
    if held is not None and held not in (settled.digest, *settled.before) and not settled.accepted:
        raise UsageError(
            f"is a checkpoint of another run than {FILE} beside it",
            path=path,
            hint="copy all files of a run together; or start a new run",
        )


def label_names(datasets: Sequence[Dataset]) -> dict[str, str]:
    """Return what data sets say that labels of masks mean: with another meaning masks are others."""
    said = sorted({d.label_names for d in datasets if d.label_names})
    return {"label names": "; ".join(said)} if said else {}


def _unlike(was: list[Entry], is_now: list[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return those of one content that have no counterpart with the same facts."""
    counts = Counter(e.facts for e in was) & Counter(e.facts for e in is_now)

    def rest(entries: list[Entry]) -> list[Entry]:
        left, kept = Counter(counts), []
        for entry in entries:
            if left[entry.facts] > 0:
                left[entry.facts] -= 1
            else:
                kept.append(entry)
        return kept

    return rest(was), rest(is_now)


def _changes(was: Entry, now: Entry) -> list[str]:
    """Return what is no longer the same of a slice."""
    found = []
    if was.part != now.part:
        found.append(f"went from {was.part} to {now.part}")
    elif was.fold != now.fold:
        folds = ("no fold" if fold is None else f"fold {fold}" for fold in (was.fold, now.fold))
        found.append(f"went from {' to '.join(folds)}")
    if was.label != now.label:
        found.append(f"had the label {_word(was.label)}, now {_word(now.label)}")
    if was.mask != now.mask:
        found.append("lost the mask" if not now.mask else "got a mask" if not was.mask else "got another mask")
    return found + [f"changed the {name}" for name in ("group", "source") if getattr(was, name) != getattr(now, name)]


def _word(value: object) -> str:
    return "nothing" if value is None else str(value)


def _slices(names: Sequence[str]) -> str:
    return f"{count(len(names), 'slice')} ({few(names)})"
